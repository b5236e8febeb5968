//! The files that pages load, as they lie beside this one: they are part of the binary, and nothing is built for them.
//!
//! The address of a file names the version of all of them, `/assets/job.js?v=…`: a browser keeps what it has and never asks for
//! it again, and a page and its files are of one version, also after an upgrade.

use crate::http::accept::takes_gzip;
use crate::http::body::{Answer, full};
use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use http::Response;
use http::header::{
    CACHE_CONTROL, CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderValue, VARY, X_CONTENT_TYPE_OPTIONS,
};
use sha2::{Digest, Sha256};
use std::io::Write;
use std::sync::LazyLock;

/// A file, and what it is.
struct Asset {
    name: &'static str,
    kind: &'static str,
    text: &'static str,
}

const SCRIPT: &str = "text/javascript; charset=utf-8";
const STYLE: &str = "text/css; charset=utf-8";

macro_rules! asset {
    ($name:literal, $kind:expr) => {
        asset!($name, $kind, $name)
    };
    ($name:literal, $kind:expr, $($file:literal),+) => {
        Asset { name: $name, kind: $kind, text: concat!($(include_str!(concat!("assets/", $file))),+) }
    };
}

/// A page waits for its style before it shows anything, and so has all of it in one file.
const ASSETS: &[Asset] = &[
    asset!("icon.svg", "image/svg+xml"),
    asset!("problem.css", STYLE, "style.css"),
    asset!("job.css", STYLE, "style.css", "job.css"),
    asset!("dashboard.css", STYLE, "style.css", "dashboard.css"),
    asset!("job.js", SCRIPT),
    asset!("output.js", SCRIPT),
    asset!("history.js", SCRIPT),
    asset!("dashboard.js", SCRIPT),
    asset!("charts.js", SCRIPT),
    asset!("counts.js", SCRIPT),
    asset!("list.js", SCRIPT),
    asset!("rows.js", SCRIPT),
    asset!("start.js", SCRIPT),
    asset!("dom.js", SCRIPT),
    asset!("time.js", SCRIPT),
    asset!("stream.js", SCRIPT),
    asset!("actions.js", SCRIPT),
    asset!("api.js", SCRIPT),
    asset!("copy.js", SCRIPT),
    asset!("reading.js", SCRIPT),
];

/// A hash of all files.
static VERSION: LazyLock<String> = LazyLock::new(|| {
    let hash = ASSETS
        .iter()
        .fold(Sha256::new(), |hash, asset| hash.chain_update(asset.name).chain_update(asset.text));
    hash.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect()
});

/// What is sent of a file.
struct Sent {
    plain: Bytes,
    gzip: Bytes,
}

/// What is sent of each file, in their order.
static SENT: LazyLock<Vec<Sent>> = LazyLock::new(|| {
    let sent = |asset: &Asset| {
        // What a script imports lies beside it, in the same version.
        let text = asset.text.replace(".js\"\n", &format!(".js?v={}\"\n", *VERSION));
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        encoder
            .write_all(text.as_bytes())
            .and_then(|()| encoder.finish())
            .map(|gzip| Sent { plain: text.into(), gzip: gzip.into() })
    };
    ASSETS.iter().map(|asset| sent(asset).expect("memory takes all that is written")).collect()
});

/// The address of a file.
pub fn address(name: &str) -> String {
    format!("/assets/{name}?v={}", *VERSION)
}

/// The file of this name, for an address with this query.
pub fn answer(name: &str, query: Option<&str>, headers: &HeaderMap) -> Option<Answer> {
    let place = ASSETS.iter().position(|asset| asset.name == name)?;
    let Sent { plain, gzip } = &SENT[place];
    let is_compressed = takes_gzip(headers);
    let mut answer = Response::new(full(if is_compressed { gzip } else { plain }.clone()));
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(ASSETS[place].kind));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(VARY, HeaderValue::from_static("accept-encoding"));
    if is_compressed {
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    // A page of another version, or a person, has what there is now, and may not keep it.
    let is_of_this_version = query.and_then(|query| query.strip_prefix("v=")) == Some(&VERSION);
    let kept = if is_of_this_version { "public, max-age=31536000, immutable" } else { "no-cache" };
    headers.insert(CACHE_CONTROL, HeaderValue::from_static(kept));
    Some(answer)
}

/// The number that a script has under this name, for tests that hold it beside the server's.
#[cfg(test)]
pub fn constant(file: &str, name: &str) -> usize {
    let text = ASSETS.iter().find(|asset| asset.name == file).expect("a file of the pages").text;
    let line =
        text.lines().find_map(|line| line.strip_prefix("const ")?.strip_prefix(name)?.strip_prefix(" = "));
    line.and_then(|number| number.parse().ok()).unwrap_or_else(|| panic!("{file} has no number {name}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::read::GzDecoder;
    use http::header::ACCEPT_ENCODING;
    use http_body_util::BodyExt;
    use std::io::Read;

    async fn body(answer: Answer) -> Vec<u8> {
        answer.into_body().collect().await.unwrap().to_bytes().to_vec()
    }

    #[tokio::test]
    async fn a_file_is_smaller_for_who_can_open_it() {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("br, gzip;q=0.5"));

        let plain = answer("job.css", None, &HeaderMap::new()).unwrap();
        let small = answer("job.css", None, &headers).unwrap();

        assert_eq!(
            (plain.headers().get(CONTENT_ENCODING), &small.headers()[CONTENT_ENCODING]),
            (None, &HeaderValue::from_static("gzip"))
        );
        let (plain, small) = (body(plain).await, body(small).await);
        let mut opened = Vec::new();
        GzDecoder::new(&*small).read_to_end(&mut opened).unwrap();
        assert!(opened == plain && small.len() * 2 < plain.len(), "{} of {} bytes", small.len(), plain.len());
    }

    #[tokio::test]
    async fn only_a_file_of_this_version_is_kept() {
        let kept = |query: Option<&str>| {
            answer("job.js", query, &HeaderMap::new()).unwrap().headers()[CACHE_CONTROL].clone()
        };
        let known = format!("v={}", *VERSION);

        assert!(kept(Some(&known)).to_str().unwrap().ends_with("immutable"));
        for other in [None, Some(""), Some("v="), Some("v=0"), Some(&known[2..])] {
            assert_eq!(kept(other), "no-cache", "{other:?}");
        }
        assert!(address("job.js").ends_with(&known));
    }

    #[tokio::test]
    async fn all_that_a_script_imports_is_of_its_version() {
        for asset in ASSETS.iter().filter(|asset| asset.kind == SCRIPT) {
            let text =
                String::from_utf8(body(answer(asset.name, None, &HeaderMap::new()).unwrap()).await).unwrap();

            let imports = text.lines().filter(|line| line.starts_with("import ")).count();
            assert_eq!(text.matches(&format!(".js?v={}\"\n", *VERSION)).count(), imports, "{}", asset.name);
        }
    }

    #[test]
    fn every_file_that_lies_there_is_part_of_one_that_is_served() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/src/http/pages/assets");
        for file in std::fs::read_dir(folder).unwrap() {
            let text = std::fs::read_to_string(file.unwrap().path()).unwrap();
            assert!(ASSETS.iter().any(|asset| asset.text.contains(&text)), "{text:.100} is in none");
        }
        assert!(
            answer("job", None, &HeaderMap::new()).is_none() && answer("", None, &HeaderMap::new()).is_none()
        );
    }
}
