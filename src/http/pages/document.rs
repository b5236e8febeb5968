//! What every page has: its frame, and the headers by which a browser runs and loads nothing but our own files.

use super::assets;
use crate::http::body::{Answer, full};
use crate::http::problem::Problem;
use crate::job::Timestamp;
use crate::wire::reply;
use http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderName, HeaderValue, REFERRER_POLICY,
    X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use http::{Response, StatusCode};
use maud::{DOCTYPE, Markup, html};

/// Whatever gets into a page, it runs no script but ours and loads nothing from elsewhere; and since no script may make markup
/// of a text (trusted types), ours cannot be tricked into it.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
    form-action 'self'; frame-ancestors 'none'; base-uri 'none'; require-trusted-types-for 'script'; trusted-types 'none'";

/// Every page has these.
const HEADERS: [(HeaderName, &str); 6] = [
    (CONTENT_TYPE, "text/html; charset=utf-8"),
    (CONTENT_SECURITY_POLICY, POLICY),
    (X_FRAME_OPTIONS, "DENY"),
    (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    // With `no-referrer` a browser would say of a form that it comes from nowhere (`Origin: null`), which `edge` refuses.
    (REFERRER_POLICY, "same-origin"),
    (CACHE_CONTROL, "no-store"),
];

/// A page.
#[derive(Debug)]
pub struct Document<'a> {
    /// What a tab is called.
    pub title: &'a str,
    /// Which page it is, for its script and its style; a script of this name is loaded.
    pub name: &'static str,
    /// The ticket of the job that it is about.
    pub job: Option<&'a str>,
    /// After how many seconds it loads itself anew where no script keeps it up to date.
    pub refresh: Option<u32>,
    /// What time it is for the jobs, where their times are on it.
    pub now: Option<Timestamp>,
    /// What is in it.
    pub main: Markup,
}

impl Document<'_> {
    /// The answer.
    pub fn answer(self, status: StatusCode) -> Answer {
        let page = html! {
            (DOCTYPE)
            html lang="en" {
                head {
                    meta charset="utf-8";
                    meta name="viewport" content="width=device-width, initial-scale=1";
                    meta name="color-scheme" content="light dark";
                    title { (self.title) }
                    link rel="icon" href=(assets::address("icon.svg"));
                    link rel="stylesheet" href=(assets::address(&format!("{}.css", self.name)));
                    @if self.name != PROBLEM {
                        script type="module" src=(assets::address(&format!("{}.js", self.name))) {}
                    }
                    @if let Some(seconds) = self.refresh {
                        noscript { meta http-equiv="refresh" content=(seconds); }
                    }
                }
                body data-page=(self.name) data-job=[self.job] data-now=[self.now.map(reply::timestamp)] {
                    a.skip href="#main" { "Skip to the content" }
                    header {
                        a.home href="/" { "longhaul" }
                        // Filled by the script, which alone knows.
                        span #connection role="status" {}
                    }
                    main #main { (self.main) }
                }
            }
        };
        let mut answer = Response::new(full(page.into_string()));
        *answer.status_mut() = status;
        for (name, value) in HEADERS {
            answer.headers_mut().insert(name, HeaderValue::from_static(value));
        }
        answer
    }
}

/// The name of pages about problems, which have no script.
const PROBLEM: &str = "problem";

/// A page about what went wrong.
pub fn problem(problem: &Problem) -> Answer {
    let title = problem.status.canonical_reason().unwrap_or("Error");
    let main = html! {
        h1 { (title) }
        p { (problem.detail()) " (" code { (problem.reason()) } ")" }
        p { a href="/" { "All jobs" } }
    };
    Document { title, name: PROBLEM, job: None, refresh: None, now: None, main }.answer(problem.status)
}
