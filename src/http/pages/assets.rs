//! The files that pages load, as they lie beside this one: they are part of the binary, and nothing is built for them.

use crate::http::body::{Answer, full};
use http::header::{
    CACHE_CONTROL, CONTENT_TYPE, ETAG, HeaderMap, HeaderValue, IF_NONE_MATCH, X_CONTENT_TYPE_OPTIONS,
};
use http::{Response, StatusCode};
use sha2::{Digest, Sha256};
use std::sync::LazyLock;

/// A file, and what it is.
struct Asset {
    name: &'static str,
    text: &'static str,
    kind: &'static str,
}

const SCRIPT: &str = "text/javascript; charset=utf-8";
const STYLE: &str = "text/css; charset=utf-8";

macro_rules! asset {
    ($name:literal, $kind:expr) => {
        Asset { name: $name, text: include_str!(concat!("assets/", $name)), kind: $kind }
    };
}

const ASSETS: &[Asset] = &[
    asset!("icon.svg", "image/svg+xml"),
    asset!("style.css", STYLE),
    asset!("problem.css", STYLE),
    asset!("job.css", STYLE),
    asset!("dashboard.css", STYLE),
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
];

/// A hash of each file, in their order: a browser that has it need not load it again, and one that has an older one does.
static TAGS: LazyLock<Vec<HeaderValue>> = LazyLock::new(|| {
    let tag = |asset: &Asset| {
        let hash = Sha256::digest(asset.text);
        let hex: String = hash.iter().take(16).map(|byte| format!("{byte:02x}")).collect();
        HeaderValue::try_from(format!("\"{hex}\"")).expect("hex is plain text")
    };
    ASSETS.iter().map(tag).collect()
});

/// The file of this name, or that the reader has it.
pub fn answer(name: &str, headers: &HeaderMap) -> Option<Answer> {
    let place = ASSETS.iter().position(|asset| asset.name == name)?;
    let (asset, tag) = (&ASSETS[place], &TAGS[place]);
    let is_known = headers.get_all(IF_NONE_MATCH).iter().any(|known| {
        known
            .to_str()
            .is_ok_and(|known| known.split(',').any(|known| known.trim().as_bytes() == tag.as_bytes()))
    });
    let mut answer = Response::new(full(if is_known { "" } else { asset.text }));
    if is_known {
        *answer.status_mut() = StatusCode::NOT_MODIFIED;
    }
    let headers = answer.headers_mut();
    headers.insert(ETAG, tag.clone());
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(asset.kind));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    // Asked for each time, and answered in a few bytes: a page and its files are of one version, also after an upgrade.
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    Some(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_sent_once() {
        let first = answer("style.css", &HeaderMap::new()).unwrap();
        let mut headers = HeaderMap::new();
        headers.insert(IF_NONE_MATCH, first.headers()[ETAG].clone());

        let again = answer("style.css", &headers).unwrap();
        let other = answer("job.css", &headers).unwrap();

        assert_eq!(
            (first.status(), again.status(), other.status()),
            (StatusCode::OK, StatusCode::NOT_MODIFIED, StatusCode::OK)
        );
        assert!(answer("style", &headers).is_none() && answer("", &headers).is_none());
    }

    #[test]
    fn every_file_that_lies_there_is_served() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/src/http/pages/assets");
        for file in std::fs::read_dir(folder).unwrap() {
            let name = file.unwrap().file_name().into_string().unwrap();
            assert!(answer(&name, &HeaderMap::new()).is_some(), "{name} is in no list");
        }
    }
}
