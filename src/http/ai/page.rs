//! A job as a plain page, which loads itself anew each second until the job has ended. No script, and nothing from elsewhere.

use super::output::Tail;
use super::shown::{fraction, stage, told};
use crate::http::body::{Answer, full};
use crate::http::problem::Problem;
use crate::job::Snapshot;
use crate::wire::reply;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderMap, HeaderValue, REFERRER_POLICY,
    X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use http::{Response, StatusCode};
use maud::{DOCTYPE, Markup, PreEscaped, html};
use sha2::{Digest, Sha256};
use std::sync::LazyLock;

/// How much of a result is shown.
const RESULT_BYTES_MAX: usize = 64 << 10;

const STYLE: &str = "\
:root { color-scheme: light dark; font: 1rem/1.5 system-ui, sans-serif }
body { max-width: 50rem; margin: 2rem auto; padding: 0 1rem }
h1 { font-size: 1.25rem; overflow-wrap: anywhere }
progress { width: 100% }
dt { opacity: 0.7 }
dd { margin: 0 0 0.5rem; overflow-wrap: anywhere }
pre { white-space: pre-wrap; overflow-wrap: anywhere; border: 1px solid; padding: 0.5rem }";

/// No page of ours may load, send or be framed, whatever gets into it.
static POLICY: LazyLock<HeaderValue> = LazyLock::new(|| {
    let hash = STANDARD.encode(Sha256::digest(STYLE));
    let policy = format!(
        "default-src 'none'; style-src 'sha256-{hash}'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
    );
    HeaderValue::try_from(policy).expect("base64 is plain text")
});

/// The page of a job.
pub fn job(snapshot: &Snapshot, output: &Tail) -> Answer {
    let job = &snapshot.job;
    let body = html! {
        h1 { (job.kind) " " (job.id) }
        @match fraction(snapshot) {
            Some(fraction) => progress max="1" value=(fraction) {},
            None if job.state.is_final() => progress max="1" value="0" {},
            None => progress {},
        }
        dl {
            dt { "State" } dd { (job.state) }
            dt { "Stage" } dd { (if stage(snapshot).is_empty() { "none yet" } else { stage(snapshot) }) }
            dt { "Attempt" } dd { (job.attempt) }
            dt { "Created" } dd { (reply::timestamp(job.create_time)) }
            @if let Some(end) = job.end_time {
                dt { "Ended" } dd { (reply::timestamp(end)) }
            }
            @if let Some(failure) = &job.failure {
                dt { "Error" } dd { (told(failure)) }
            }
        }
        @if let Some(result) = &snapshot.result {
            h2 { "Result" }
            @let shown = &result[..result.len().min(RESULT_BYTES_MAX)];
            (cut("first", shown.len() as u64, result.len() as u64))
            pre { (String::from_utf8_lossy(shown)) }
        }
        @if output.of > 0 {
            h2 { "Output" }
            (cut("last", output.bytes, output.of))
            // The first line end behind the tag is no part of the text.
            pre { "\n" (output.text) }
        }
        @for channel in job.emitted.channels.iter().filter(|channel| !channel.name.is_empty()) {
            p { "Also " (channel.bytes) " bytes of output in the channel " (channel.name) ", not shown here." }
        }
    };
    answer(StatusCode::OK, &format!("{} {}", job.state, job.kind), !job.state.is_final(), body)
}

/// A page about what went wrong.
pub fn problem(problem: &Problem) -> Answer {
    let title = problem.status.canonical_reason().unwrap_or("Error");
    let body = html! {
        h1 { (title) }
        p { (problem.detail()) " (" (problem.reason()) ")" }
    };
    answer(problem.status, title, false, body)
}

/// Says so where only a part is shown.
fn cut(which: &str, shown: u64, of: u64) -> Markup {
    html! {
        @if shown < of { p { "The " (which) " " (shown) " of " (of) " bytes:" } }
    }
}

fn answer(status: StatusCode, title: &str, goes_on: bool, body: Markup) -> Answer {
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                @if goes_on { meta http-equiv="refresh" content="1"; }
                title { (title) }
                style { (PreEscaped(STYLE)) }
            }
            body { (body) }
        }
    };
    let mut answer = Response::new(full(page.into_string()));
    *answer.status_mut() = status;
    protect(answer.headers_mut());
    answer
}

fn protect(headers: &mut HeaderMap) {
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    headers.insert(CONTENT_SECURITY_POLICY, POLICY.clone());
    headers.insert(X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::ai::fake::snapshot;
    use crate::job::{Channel, Failure, State};
    use http_body_util::BodyExt;

    const HOSTILE: &str = "<script>alert(1)</script>\"'&<b onload=x>";

    async fn text(answer: Answer) -> String {
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        String::from_utf8(body.to_vec()).unwrap()
    }

    fn said(text: &str) -> Tail {
        Tail { text: text.to_owned(), bytes: text.len() as u64, of: text.len() as u64 }
    }

    #[tokio::test]
    async fn nothing_that_a_job_says_becomes_part_of_the_page() {
        let mut snapshot = snapshot();
        snapshot.job.state = State::Failed;
        snapshot.job.emitted.stage = HOSTILE.to_owned();
        snapshot.job.emitted.channels = vec![Channel { name: HOSTILE.to_owned(), bytes: 1 }];
        snapshot.job.failure = Some(Failure::new("BAD", HOSTILE));
        snapshot.result = Some(format!("\"{HOSTILE}\"").into());

        let page = text(job(&snapshot, &said(HOSTILE))).await;

        assert_eq!(page.matches("&lt;script&gt;alert(1)&lt;/script&gt;").count(), 5, "{page}");
        assert!(!page.contains("<script") && !page.contains("<b "), "{page}");
    }

    #[tokio::test]
    async fn only_the_page_of_a_job_that_goes_on_loads_itself_anew() {
        for state in State::ALL {
            let mut snapshot = snapshot();
            snapshot.job.state = state;

            let page = text(job(&snapshot, &Tail::default())).await;

            assert_eq!(page.contains("http-equiv=\"refresh\""), !state.is_final(), "{state}: {page}");
        }
    }

    #[tokio::test]
    async fn a_bar_without_a_fraction_is_indeterminate() {
        let mut snapshot = snapshot();
        (snapshot.job.state, snapshot.job.attempt) = (State::Running, 1);
        let unknown = text(job(&snapshot, &Tail::default())).await;
        snapshot.live.progress.fraction = Some(0.25);

        let known = text(job(&snapshot, &Tail::default())).await;

        assert!(unknown.contains("<progress></progress>"), "{unknown}");
        assert!(known.contains("<progress max=\"1\" value=\"0.25\"></progress>"), "{known}");
    }

    #[tokio::test]
    async fn what_is_cut_is_said_to_be_cut() {
        let mut snapshot = snapshot();
        snapshot.result = Some(vec![b'7'; RESULT_BYTES_MAX + 1].into());

        let page = text(job(&snapshot, &Tail { text: "end".to_owned(), bytes: 3, of: 1000 })).await;

        assert!(page.contains("The last 3 of 1000 bytes"), "{page}");
        assert!(page.contains("The first 65536 of 65537 bytes"));
        assert!(!text(job(&snapshot, &said("all"))).await.contains("The last"));
    }

    #[test]
    fn its_style_is_the_only_thing_that_a_browser_may_use() {
        let answer = job(&snapshot(), &Tail::default());

        let policy = answer.headers()[CONTENT_SECURITY_POLICY].to_str().unwrap();
        let hash = STANDARD.encode(Sha256::digest(STYLE));
        assert!(policy.starts_with(&format!("default-src 'none'; style-src 'sha256-{hash}';")), "{policy}");
        assert_eq!(answer.headers()[X_FRAME_OPTIONS], "DENY");
    }
}
