//! The trace that a call belongs to (W3C Trace Context, Recommendation of 2021-11-23, sections 3.2 and 3.3).
//!
//! What is not as that says is left out, as it asks; no call fails because of it.

use crate::job::Trace;
use http::HeaderMap;

/// Characters of `tracestate` that are handed on; the least that everybody must.
const STATE_CHARACTERS_MAX: usize = 512;
/// Characters of the version 00 of `traceparent`.
const PARENT_CHARACTERS: usize = 55;
/// Characters of a later version that are handed on.
const PARENT_CHARACTERS_MAX: usize = 256;

/// The trace that the headers of a request name.
pub fn trace(headers: &HeaderMap) -> Option<Trace> {
    let mut parents = headers.get_all("traceparent").iter();
    let parent = parents.next()?.to_str().ok()?.trim();
    if parents.next().is_some() || !is_parent(parent) {
        return None;
    }
    let states: Option<Vec<&str>> =
        headers.get_all("tracestate").iter().map(|value| value.to_str().ok()).collect();
    let state = states.unwrap_or_default().join(",");
    let state = if state.len() > STATE_CHARACTERS_MAX { String::new() } else { state };
    Some(Trace { parent: parent.to_owned(), state })
}

/// `version-trace-parent-flags`, in lower-case hexadecimal digits, and neither trace nor parent is all zeros.
fn is_parent(text: &str) -> bool {
    let mut parts = text.split('-');
    let mut part = |digits: usize| {
        parts.next().filter(|part| {
            part.len() == digits && part.bytes().all(|c| matches!(c, b'0'..=b'9' | b'a'..=b'f'))
        })
    };
    let is_something = |part: &str| part.bytes().any(|digit| digit != b'0');
    let (version, trace, parent, flags) = (part(2), part(32), part(16), part(2));
    let fits = match version {
        Some("00") => text.len() == PARENT_CHARACTERS,
        Some("ff") | None => false,
        Some(_) => text.len() <= PARENT_CHARACTERS_MAX,
    };
    fits && trace.is_some_and(is_something) && parent.is_some_and(is_something) && flags.is_some()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[rstest]
    #[case(PARENT, true)]
    #[case("01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more", true)]
    #[case("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more", false)]
    #[case("ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", false)]
    #[case("00-00000000000000000000000000000000-b7ad6b7169203331-01", false)]
    #[case("00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01", false)]
    #[case("00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01", false)]
    #[case("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331", false)]
    #[case("", false)]
    fn only_what_is_well_formed_is_handed_on(#[case] parent: &str, #[case] passes: bool) {
        let mut headers = HeaderMap::new();
        headers.insert("traceparent", parent.parse().unwrap());

        assert_eq!(trace(&headers).is_some(), passes);
    }

    #[test]
    fn the_state_goes_with_it_unless_it_is_too_long() {
        let mut headers = HeaderMap::new();
        headers.insert("traceparent", PARENT.parse().unwrap());
        headers.append("tracestate", "a=1".parse().unwrap());
        headers.append("tracestate", "b=2".parse().unwrap());

        assert_eq!(trace(&headers), Some(Trace { parent: PARENT.into(), state: "a=1,b=2".into() }));
        headers.append("tracestate", "x".repeat(600).parse().unwrap());
        assert_eq!(trace(&headers).unwrap().state, "");
    }
}
