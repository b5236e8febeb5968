//! What who asks accepts: whether it is a browser, and what it can open (RFC 9110, sections 12.5.1 and 12.5.3).

use headers_accept::Accept;
use http::HeaderMap;
use http::header::{ACCEPT, ACCEPT_ENCODING};
use mediatype::MediaType;
use mediatype::names::{APPLICATION, HTML, JSON, TEXT};

const PAGE: MediaType<'static> = MediaType::new(TEXT, HTML);
/// What is liked equally is answered with the first.
const FORMS: [MediaType<'static>; 2] = [MediaType::new(APPLICATION, JSON), PAGE];

/// Whether a page is liked better than JSON. Who says nothing that is understood is a program.
pub fn prefers_page(headers: &HeaderMap) -> bool {
    let lines: Result<Vec<&str>, _> = headers.get_all(ACCEPT).iter().map(|line| line.to_str()).collect();
    let accept = lines.ok().and_then(|lines| lines.join(", ").parse::<Accept>().ok());
    accept.and_then(|accept| accept.negotiate(&FORMS).cloned()) == Some(PAGE)
}

/// Whether what is sent may be compressed with gzip.
pub fn takes_gzip(headers: &HeaderMap) -> bool {
    let codings = headers.get_all(ACCEPT_ENCODING).iter().filter_map(|line| line.to_str().ok());
    codings.flat_map(|line| line.split(',')).any(|coding| {
        let (name, weight) = coding.split_once(';').unwrap_or((coding, ""));
        let weight = weight.trim().trim_start_matches(['q', 'Q']).trim_start().trim_start_matches('=');
        name.trim().eq_ignore_ascii_case("gzip") && weight.trim().parse() != Ok(0.0)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;
    use rstest::rstest;

    #[rstest]
    #[case(&[], false)]
    #[case(&["*/*"], false)]
    #[case(&["application/json"], false)]
    #[case(&["text/html"], true)]
    #[case(&["text/*"], true)]
    #[case(&["TEXT/HTML"], true)]
    #[case(&["text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"], true)]
    #[case(&["text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8"], true)]
    #[case(&["text/html;q=0.5, application/json"], false)]
    #[case(&["text/html;q=0.5, application/json;q=0.4"], true)]
    #[case(&["text/html;q=0, */*"], false)]
    #[case(&["application/json;q=0, */*"], true)]
    #[case(&["application/json, text/html"], false)]
    #[case(&["application/json;q=0.2", "text/html;q=0.7"], true)]
    #[case(&["image/png"], false)]
    #[case(&["text/html;q=x, ;;"], false)]
    fn a_page_is_for_who_likes_it_better(#[case] accept: &[&'static str], #[case] page: bool) {
        let mut headers = HeaderMap::new();
        for line in accept {
            headers.append(ACCEPT, HeaderValue::from_static(line));
        }

        assert_eq!(prefers_page(&headers), page, "{accept:?}");
    }

    #[rstest]
    #[case(&[], false)]
    #[case(&["gzip, deflate, br, zstd"], true)]
    #[case(&["br", "GZIP"], true)]
    #[case(&["gzip;q=0.5"], true)]
    #[case(&["br, gzip ; Q=0"], false)]
    #[case(&["gzip;q=0.000, br"], false)]
    #[case(&["identity"], false)]
    #[case(&["gzippy"], false)]
    fn what_is_compressed_is_for_who_can_open_it(#[case] accept: &[&'static str], #[case] gzip: bool) {
        let mut headers = HeaderMap::new();
        for line in accept {
            headers.append(ACCEPT_ENCODING, HeaderValue::from_static(line));
        }

        assert_eq!(takes_gzip(&headers), gzip, "{accept:?}");
    }
}
