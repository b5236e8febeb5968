//! From which pages a request may come.
//!
//! A page can send a `POST` to any server that its visitor reaches. The browser says where the page is from, in headers that
//! no page can set; a client that is no browser says nothing, and passes.

use super::target::is_plain;
use http::header::{HeaderName, HeaderValue, ORIGIN};
use http::uri::Authority;
use http::{Method, Request};
use std::net::Ipv6Addr;
use std::str::FromStr;

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Where a page is from: what it has in common with all pages that it may read without asking.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    scheme: String,
    host: String,
    port: Option<u16>,
}

/// Why a text is no origin.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NoOrigin(&'static str);

impl Origin {
    fn new(scheme: &str, authority: &Authority) -> Self {
        let scheme = scheme.to_ascii_lowercase();
        let port = authority.port_u16().or(match scheme.as_str() {
            "http" => Some(80),
            "https" => Some(443),
            _ => None,
        });
        // One address has many spellings.
        let host = authority.host();
        let address = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        let host = match address.map(str::parse::<Ipv6Addr>) {
            Some(Ok(address)) => format!("[{address}]"),
            _ => host.to_ascii_lowercase(),
        };
        Self { scheme, host, port }
    }
}

impl FromStr for Origin {
    type Err = NoOrigin;

    fn from_str(text: &str) -> Result<Self, NoOrigin> {
        if text.contains('*') {
            return Err(NoOrigin(
                "a `*` would let any page that a user visits start, read and cancel jobs; name each origin",
            ));
        }
        if text.eq_ignore_ascii_case("null") {
            return Err(NoOrigin(
                "`null` is what every sandboxed page and file calls itself, so it names none",
            ));
        }
        let form = "an origin is scheme://host or scheme://host:port, without a path";
        let (scheme, rest) = text.split_once("://").ok_or(NoOrigin(form))?;
        let is_scheme = scheme.starts_with(|c: char| c.is_ascii_alphabetic())
            && scheme.chars().all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c));
        let authority = Authority::from_str(rest).map_err(|_| NoOrigin(form))?;
        match is_scheme && is_plain(&authority) {
            true => Ok(Self::new(scheme, &authority)),
            false => Err(NoOrigin(form)),
        }
    }
}

/// Who has made a request.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// A page of this server, or no page at all.
    Own,
    /// A page of an allowed origin, called so.
    Allowed(HeaderValue),
    /// A page of any other origin.
    Foreign,
}

/// The origins of pages that may call this server, beside its own.
pub(super) struct Origins(Vec<Origin>);

impl Origins {
    pub(super) fn new(allowed: Vec<Origin>) -> Self {
        Self(allowed)
    }

    /// Whether an answer may depend on where its request has come from.
    pub(super) fn vary(&self) -> bool {
        !self.0.is_empty()
    }

    /// Who has made a request to this host.
    pub(super) fn source<R>(&self, request: &Request<R>, host: &Authority) -> Source {
        let headers = request.headers();
        let site = headers.get(SEC_FETCH_SITE).map(HeaderValue::as_bytes);
        let mut named = headers.get_all(ORIGIN).iter();
        let name = match (named.next(), named.next()) {
            (Some(name), None) => name,
            (Some(_), Some(_)) => return Source::Foreign,
            // `none` is the user, by the address bar or a bookmark.
            (None, _) => match site {
                None | Some(b"none" | b"same-origin") => return Source::Own,
                Some(_) => return Source::Foreign,
            },
        };
        let Some(origin) = name.to_str().ok().and_then(|name| name.parse().ok()) else {
            return Source::Foreign;
        };
        // Without TLS a request over HTTP/1.1 is of `http`; over HTTP/2 it says itself what a proxy has taken it by.
        let own = || Origin::new(request.uri().scheme_str().unwrap_or("http"), host);
        if self.0.contains(&origin) {
            Source::Allowed(name.clone())
        } else if site != Some(b"cross-site") && origin == own() {
            Source::Own
        } else {
            Source::Foreign
        }
    }
}

/// Whether a method is one that changes nothing.
pub(super) fn is_safe(method: &Method) -> bool {
    [Method::GET, Method::HEAD, Method::OPTIONS].contains(method)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(host: &'static str, headers: &[(&str, &str)]) -> Source {
        let allowed = ["https://app.example", "http://[::1]:5173", "http://dev.example:80"];
        let origins = Origins::new(allowed.map(|origin| origin.parse().unwrap()).into());
        let mut request = Request::builder().uri("/").header("host", host);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        origins.source(&request.body(()).unwrap(), &Authority::from_static(host))
    }

    #[test]
    fn a_page_is_known_by_its_origin_however_it_is_spelled() {
        for (host, origin) in [
            ("localhost:3000", "http://localhost:3000"),
            ("LocalHost:3000", "http://localhost:3000"),
            ("localhost", "http://localhost:80"),
            ("localhost:80", "http://localhost"),
            ("[::1]:3000", "http://[0:0:0:0:0:0:0:1]:3000"),
        ] {
            assert_eq!(source(host, &[("origin", origin)]), Source::Own, "{origin}");
        }
        for origin in
            ["https://app.example", "https://APP.example:443", "http://[0::1]:5173", "http://dev.example"]
        {
            let named = Source::Allowed(HeaderValue::from_static(origin));
            assert_eq!(source("localhost:3000", &[("origin", origin)]), named, "{origin}");
        }
    }

    #[test]
    fn every_other_page_is_foreign() {
        for origin in [
            "null",
            "",
            "*",
            "localhost:3000",
            "https://localhost:3000",
            "http://localhost:3001",
            "http://localhost",
            "http://localhost.evil.example:3000",
            "http://evil.example",
            "http://app.example",
            "https://app.example.evil.example",
            "https://app.example/",
            "https://app.example@evil.example",
            "https://evil.example@app.example",
        ] {
            assert_eq!(source("localhost:3000", &[("origin", origin)]), Source::Foreign, "{origin}");
        }
        let own = "http://localhost:3000";
        let twice = [("origin", own), ("origin", "http://evil.example")];
        assert_eq!(source("localhost:3000", &twice), Source::Foreign);
    }

    #[test]
    fn where_there_is_no_origin_the_site_tells() {
        for (site, expected) in [
            ("none", Source::Own),
            ("same-origin", Source::Own),
            ("same-site", Source::Foreign),
            ("cross-site", Source::Foreign),
            ("anything", Source::Foreign),
        ] {
            assert_eq!(source("localhost:3000", &[("sec-fetch-site", site)]), expected, "{site}");
        }
        assert_eq!(source("localhost:3000", &[]), Source::Own);
        let crossed = [("origin", "http://localhost:3000"), ("sec-fetch-site", "cross-site")];
        assert_eq!(source("localhost:3000", &crossed), Source::Foreign);
        let allowed = [("origin", "https://app.example"), ("sec-fetch-site", "cross-site")];
        assert!(matches!(source("localhost:3000", &allowed), Source::Allowed(_)));
    }

    #[test]
    fn what_is_no_origin_is_told_apart() {
        for (text, word) in [
            ("*", "any page"),
            ("https://*.example", "any page"),
            ("null", "sandboxed"),
            ("app.example", "scheme://host"),
            ("https://app.example/", "path"),
            ("https://app.example/page", "path"),
            ("https://app.example:99999", "scheme://host"),
            ("https://", "scheme://host"),
            ("://app.example", "scheme://host"),
            ("https://user@app.example", "scheme://host"),
        ] {
            let error = text.parse::<Origin>().unwrap_err().to_string();
            assert!(error.contains(word), "{text}: {error}");
        }
    }
}
