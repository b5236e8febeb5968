//! Where a request says that it goes, and where its body ends: one thing each, or it is refused.
//!
//! hyper reads what has two meanings in one way, and a proxy before it may read it in another. What hyper itself refuses
//! or makes safe (a length beside chunks ends the connection) is in `tests/smuggling.rs`, not here.

use http::header::{HOST, TRANSFER_ENCODING};
use http::uri::Authority;
use http::{HeaderMap, Method, Request, Version};
use std::borrow::Cow;

/// Returns the one host and port that a request is for, or what is ambiguous about it.
pub(super) fn target<R>(request: &Request<R>) -> Result<Cow<'_, Authority>, &'static str> {
    let is_http1 = request.version() < Version::HTTP_2;
    if is_http1 && !has_plain_framing(request.headers()) {
        return Err("the only Transfer-Encoding that is understood here is chunked, named once");
    }
    if request.method() == Method::CONNECT {
        return Err("this server is no proxy, so it has no CONNECT");
    }
    let uri = request.uri();
    if uri.scheme_str().is_some_and(|scheme| scheme != "http" && scheme != "https") {
        return Err("the target of a request begins with http or https, or it is a path");
    }
    let is_whole_server = uri.path() == "*" && request.method() == Method::OPTIONS;
    if !uri.path().starts_with('/') && !is_whole_server {
        return Err("the target of a request is a path, or a URL with one");
    }
    let authority = match (uri.authority(), host(request.headers())?) {
        (Some(named), Some(host)) if *named != host => {
            return Err("the target of a request and its header Host name different hosts");
        }
        (Some(_), None) | (None, None) if is_http1 => return Err("a request needs a header Host"),
        (None, None) => return Err("a request needs an :authority"),
        (Some(named), _) => Cow::Borrowed(named),
        (None, Some(host)) => Cow::Owned(host),
    };
    match is_plain(&authority) {
        true => Ok(authority),
        false => Err("the host of a request is a name or an address, and perhaps a port"),
    }
}

/// Whether an authority is a host and perhaps a port, and nothing that hides the host, like `localhost@evil.example`.
pub(super) fn is_plain(authority: &Authority) -> bool {
    let port = authority.as_str().strip_prefix(authority.host());
    let is_port = |port: &str| port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse::<u16>().is_ok();
    !authority.host().is_empty()
        && port.is_some_and(|rest| rest.is_empty() || rest.strip_prefix(':').is_some_and(is_port))
}

fn host(headers: &HeaderMap) -> Result<Option<Authority>, &'static str> {
    let mut hosts = headers.get_all(HOST).iter();
    match (hosts.next(), hosts.next()) {
        (None, _) => Ok(None),
        (Some(host), None) => match Authority::try_from(host.as_bytes()) {
            Ok(host) => Ok(Some(host)),
            Err(_) => Err("the header Host is not a host"),
        },
        (Some(_), Some(_)) => Err("a request has one header Host, and this one has several"),
    }
}

fn has_plain_framing(headers: &HeaderMap) -> bool {
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    match (codings.next(), codings.next()) {
        (None, _) => true,
        (Some(coding), None) => coding.as_bytes().eq_ignore_ascii_case(b"chunked"),
        (Some(_), Some(_)) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Case = (Version, &'static str, &'static [(&'static str, &'static str)]);

    fn request(version: Version, uri: &str, headers: &[(&str, &str)]) -> Request<()> {
        let mut request = Request::builder().version(version).uri(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap()
    }

    #[test]
    fn a_request_is_for_the_one_host_that_it_names() {
        let cases: [Case; 6] = [
            (Version::HTTP_11, "/", &[("host", "localhost:3000")]),
            (Version::HTTP_11, "http://localhost:3000/", &[("host", "LOCALHOST:3000")]),
            (Version::HTTP_11, "/", &[("host", "localhost:3000"), ("transfer-encoding", "Chunked")]),
            (Version::HTTP_2, "http://localhost:3000/", &[]),
            (Version::HTTP_2, "http://localhost:3000/", &[("host", "localhost:3000")]),
            (Version::HTTP_2, "/", &[("host", "localhost:3000")]),
        ];
        for (version, uri, headers) in cases {
            let request = request(version, uri, headers);
            assert_eq!(target(&request).unwrap().as_str(), "localhost:3000", "{request:?}");
        }
    }

    #[test]
    fn what_can_be_read_in_two_ways_is_refused() {
        let cases: [Case; 16] = [
            (Version::HTTP_11, "/", &[]),
            (Version::HTTP_10, "/", &[]),
            (Version::HTTP_2, "/", &[]),
            (Version::HTTP_11, "http://localhost/", &[]),
            (Version::HTTP_11, "localhost:3000", &[("host", "localhost:3000")]),
            (Version::HTTP_11, "*", &[("host", "localhost")]),
            (Version::HTTP_11, "/", &[("host", "localhost"), ("host", "localhost")]),
            (Version::HTTP_11, "http://localhost/", &[("host", "evil.example")]),
            (Version::HTTP_2, "http://localhost/", &[("host", "evil.example")]),
            (Version::HTTP_11, "/", &[("host", "")]),
            (Version::HTTP_11, "/", &[("host", "evil.example@localhost")]),
            (Version::HTTP_11, "/", &[("host", "localhost:+80")]),
            (Version::HTTP_11, "/", &[("host", "localhost/evil.example")]),
            (Version::HTTP_11, "ftp://localhost/", &[("host", "localhost")]),
            (Version::HTTP_11, "/", &[("host", "localhost"), ("transfer-encoding", "gzip, chunked")]),
            (
                Version::HTTP_11,
                "/",
                &[("host", "localhost"), ("transfer-encoding", "chunked"), ("transfer-encoding", "chunked")],
            ),
        ];
        for (version, uri, headers) in cases {
            let request = request(version, uri, headers);
            assert!(target(&request).is_err(), "{request:?}");
        }
    }
}
