//! What the forms of pages send: the token by which it is known that a page of this very process has sent it, and the request
//! by which it is known that it was sent twice.
//!
//! A browser sends the form of any page anywhere. It says where that page is from, and `edge` refuses foreign ones; the token
//! holds also where a browser, or something between, does not say so: no foreign page can read it.

use crate::http::body::{FORM, read};
use crate::http::json::pairs;
use crate::http::problem::Problem;
use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use maud::{Markup, html};
use std::fmt;
use std::sync::Arc;

/// The field that has the token.
const TOKEN: &str = "token";
/// The field that has the id of the request that the form makes.
const REQUEST: &str = "request";

/// Known to the pages of one process alone.
#[derive(Clone)]
pub struct Token(Arc<str>);

/// Says nothing of it.
impl fmt::Debug for Token {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Token")
    }
}

impl Token {
    /// Of these random bits.
    pub fn new(random: [u64; 2]) -> Self {
        Self(format!("{:016x}{:016x}", random[0], random[1]).into())
    }

    /// What the forms of one page send with all else, with these random bits.
    pub fn blank(&self, random: [u64; 2]) -> Blank {
        Blank { token: self.clone(), request: format!("{:016x}{:016x}", random[0], random[1]) }
    }
}

/// What the forms of one page send with all else.
#[derive(Clone, Debug)]
pub struct Blank {
    token: Token,
    request: String,
}

impl Blank {
    /// The fields of a form that does something.
    pub fn fields(&self) -> Markup {
        // A browser that remembers what was in a form must not send a request of another page.
        html! {
            input type="hidden" name=(TOKEN) value=(*self.token.0) autocomplete="off";
            input type="hidden" name=(REQUEST) value=(self.request) autocomplete="off";
        }
    }
}

/// The fields of a form that was sent.
#[derive(Debug)]
pub struct Form(Vec<(String, String)>);

impl Form {
    /// Reads a form, which has the token, the request, and these fields at most, each once.
    pub async fn read(
        headers: &HeaderMap,
        body: impl http_body::Body<Data = Bytes>,
        token: &Token,
        fields: &[&str],
    ) -> Result<Self, Problem> {
        let body = read(headers, body, FORM).await?;
        let text = std::str::from_utf8(&body).map_err(|_| bad("the form is not UTF-8".to_owned()))?;
        let mut form = Self(Vec::new());
        for pair in pairs(text) {
            let (name, value) = pair?;
            if ![TOKEN, REQUEST].contains(&name.as_str()) && !fields.contains(&name.as_str()) {
                return Err(bad(format!("{name}: the form has no such field")));
            }
            if form.0.iter().any(|(known, _)| *known == name) {
                return Err(bad(format!("{name}: the field is there twice")));
            }
            form.0.push((name, value));
        }
        if form.get(TOKEN) != &*token.0 {
            let detail = "this page is older than the server's process: load it anew and try again";
            return Err(Problem::new(StatusCode::FORBIDDEN, "FORM_TOKEN_INVALID", detail));
        }
        Ok(form)
    }

    /// The id of the request that the form makes: one that is sent twice does nothing the second time.
    pub fn request(&self) -> String {
        self.get(REQUEST).to_owned()
    }

    /// What a field has; nothing where it is not there.
    pub fn get(&self, name: &str) -> &str {
        self.0.iter().find(|(known, _)| known == name).map_or("", |(_, value)| value)
    }
}

fn bad(detail: String) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, "INVALID_REQUEST", detail)
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::header::{CONTENT_TYPE, HeaderValue};
    use http_body_util::Full;

    async fn read(body: &'static str, content_type: &'static str) -> Result<Form, Problem> {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        Form::read(
            &headers,
            Full::new(Bytes::from_static(body.as_bytes())),
            &Token::new([1, 2]),
            &["kind", "input"],
        )
        .await
    }

    const SENT: &str = "application/x-www-form-urlencoded";

    #[tokio::test]
    async fn a_form_has_the_token_and_known_fields() {
        let form =
            read("token=00000000000000010000000000000002&input=%7B%7D+%C3%BC&kind=", SENT).await.unwrap();

        assert_eq!((form.get("input"), form.get("kind"), form.get("other")), ("{} ü", "", ""));
    }

    #[tokio::test]
    async fn whoever_does_not_know_the_token_changes_nothing() {
        for body in ["", "token=&kind=x", "token=1&kind=x", "kind=x&token=0000000000000001"] {
            let problem = read(body, SENT).await.unwrap_err();
            assert_eq!(
                (problem.status, problem.reason()),
                (StatusCode::FORBIDDEN, "FORM_TOKEN_INVALID"),
                "{body}"
            );
        }
    }

    #[tokio::test]
    async fn what_is_no_form_of_ours_is_told_apart() {
        let token = "token=00000000000000010000000000000002";
        for (body, word) in [("&colour=red", "colour"), ("&kind=a&kind=b", "kind"), ("&input=%ff", "UTF-8")] {
            let body: &'static str = Box::leak(format!("{token}{body}").into_boxed_str());
            let problem = read(body, SENT).await.unwrap_err();
            assert!(
                problem.status == StatusCode::BAD_REQUEST && problem.detail().contains(word),
                "{problem:?}"
            );
        }
        let other = read(token, "application/json").await.unwrap_err();
        assert_eq!(other.status, StatusCode::UNSUPPORTED_MEDIA_TYPE);
    }
}
