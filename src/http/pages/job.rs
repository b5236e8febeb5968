//! The page of a job, as it is when it is asked for. Its script goes on from there, and finds everything by its id.

use super::document::Document;
use super::forms::Blank;
use super::past::{Past, Tail, shown_text};
use super::words::{label, lasted, moment, named};
use crate::http::body::Answer;
use crate::job::{Body, Event, Failure, Job, LogLevel, Snapshot, State, StateChange, Timestamp};
use crate::wire::reply;
use http::StatusCode;
use maud::{Markup, html};
use std::collections::BTreeMap;

/// How much of an input or a result is shown.
const SHOWN_BYTES_MAX: usize = 64 << 10;
/// Of a job that has done more than this, only what is shown here goes on being shown: its past could be long to send.
const FOLLOWED_EVENTS_MAX: u64 = 5_000;
const FOLLOWED_BYTES_MAX: u64 = 4 << 20;
/// How often a page without a script loads itself anew: seldom enough to read it, and to confirm something.
const REFRESH_SECONDS: u32 = 30;

/// The page of a job; whether somebody serves its kind is for one that waits.
pub fn page(snapshot: &Snapshot, past: &Past, blank: &Blank, is_served: bool, now: Timestamp) -> Answer {
    let job = &snapshot.job;
    let id = job.id.to_string();
    let main = html! {
        h1 { (job.kind) " " code { (id) } }
        (standing(snapshot, is_served))
        (actions(job, &id, blank))
        div.columns {
            div {
                section #failure hidden[job.failure.is_none()] {
                    h2 { "Why it failed" }
                    p { @if let Some(failure) = &job.failure { (told(failure)) } }
                }
                section #returned hidden[snapshot.result.is_none()] {
                    (titled("Result", "result"))
                    (payload("result", snapshot.result.as_deref()))
                }
                (outputs(&past.outputs))
                section {
                    h2 { "Log" }
                    div #log tabindex="0" role="region" aria-label="Log" { (log(&past.events)) }
                }
            }
            div {
                section {
                    h2 { "History" }
                    p #earlier hidden[past.first <= 1] {
                        "Earlier events are not shown; " a href={ "/v1/jobs/" (id) "/events" } { "the API has them" } "."
                    }
                    ol #timeline tabindex="0" data-after=(followed_after(job, past)) { (timeline(job, &past.events)) }
                }
                section { h2 { "Facts" } dl #facts { (facts(snapshot)) } }
                section {
                    (titled("Input", "input"))
                    (payload("input", snapshot.input.as_deref()))
                }
            }
        }
    };
    let refresh = (!job.state.is_final()).then_some(REFRESH_SECONDS);
    let title = format!("{} {}", label(job.state), job.kind);
    Document { title: &title, name: "job", job: Some(&id), refresh, now: Some(now), main }
        .answer(StatusCode::OK)
}

/// The event after which a script begins to read: before all of them, where that is not much.
fn followed_after(job: &Job, past: &Past) -> u64 {
    match job.sequence() <= FOLLOWED_EVENTS_MAX && job.emitted.history_bytes <= FOLLOWED_BYTES_MAX {
        true => 0,
        false => past.first.saturating_sub(1),
    }
}

/// Where it stands.
fn standing(snapshot: &Snapshot, is_served: bool) -> Markup {
    let job = &snapshot.job;
    let progress = reply::shown_progress(job, &snapshot.live.progress);
    let fraction = progress.and_then(|progress| progress.fraction);
    // Without a value it says that nobody can tell.
    let bar = fraction.or((job.state.is_final() || job.attempt == 0).then_some(0.0));
    let stage = match job.emitted.stage.as_str() {
        "" => &snapshot.live.progress.stage,
        stage => stage,
    };
    html! {
        section #now aria-label="Now" {
            p.line {
                strong #state.state data-state=(job.state) { (label(job.state)) }
                span #stage { (stage) }
                span #percent {
                    @if let Some(fraction) = fraction { (format!("{} %", (fraction * 100.0).floor())) }
                }
                span #eta {}
            }
            progress #progress data-state=(job.state) max="1" value=[bar] aria-label="Progress" {}
            p #queue data-served[is_served] {
                @if job.state == State::Pending && !is_served {
                    "No worker serves the kind " (job.kind) " just now."
                } @else if let Some(position) = snapshot.queue_position {
                    "Number " (position) " of those that wait for a worker."
                }
            }
        }
    }
}

/// What can be done about it. What cannot be undone asks once more.
fn actions(job: &Job, id: &str, blank: &Blank) -> Markup {
    let form = |action: &str, words: &str| {
        html! {
            form method="post" action={ "/jobs/" (id) "/" (action) } data-action=(action) {
                (blank.fields())
                button { (words) }
            }
        }
    };
    let is_final = job.state.is_final();
    html! {
        div #actions {
            details.confirm data-for="cancel" hidden[is_final || job.state == State::Cancelling] {
                summary { "Cancel" }
                div { p { "It stops, and cannot go on." } (form("cancel", "Cancel this job")) }
            }
            // In the place of what could be cancelled a moment ago is nothing that happens at a click.
            details.confirm data-for="delete" hidden[!is_final] {
                summary { "Delete" }
                div { p { "Its result, output and history are gone for good." } (form("delete", "Delete this job")) }
            }
            div data-for="retry" hidden[!is_final] { (form("retry", "Start again")) }
            p #done role="status" {}
        }
    }
}

/// The head of a part that can be copied.
fn titled(title: &str, id: &str) -> Markup {
    html! {
        div.titled {
            h2 { (title) }
            // Only a script can copy, and shows it.
            button.copy type="button" data-copy=(id) hidden { "Copy" }
        }
    }
}

/// A JSON text, or its beginning. The first line end behind the tag is no part of what is shown.
fn payload(id: &str, text: Option<&[u8]>) -> Markup {
    let text = text.unwrap_or_default();
    let shown = &text[..text.len().min(SHOWN_BYTES_MAX)];
    html! {
        (cut("first", shown.len() as u64, text.len() as u64))
        pre id=(id) tabindex="0" { "\n" (String::from_utf8_lossy(shown)) }
    }
}

/// Says so where only a part is shown.
fn cut(which: &str, shown: u64, of: u64) -> Markup {
    html! {
        @if shown < of { p.cut { "The " (which) " " (shown) " of " (of) " bytes:" } }
    }
}

fn outputs(outputs: &[Tail]) -> Markup {
    let main = outputs.iter().find(|output| output.channel.is_empty());
    let text = |output: &Tail, id: Option<&str>, name: &str| {
        html! {
            (cut("last", output.bytes, output.of))
            pre.output id=[id] tabindex="0" role="region" aria-label=(name) { "\n" (output.text) }
        }
    };
    html! {
        section {
            (titled("Output", "output"))
            ul #void {}
            (text(main.unwrap_or(&Tail::default()), Some("output"), "Output"))
        }
        div #channels {
            @for output in outputs.iter().filter(|output| !output.channel.is_empty()) {
                section data-channel=(output.channel) {
                    h2 { "Output: " (output.channel) }
                    (text(output, None, &output.channel))
                }
            }
        }
    }
}

/// The lines of its log, by attempt.
fn log(events: &[Event]) -> Markup {
    let lines: Vec<_> = events
        .iter()
        .filter_map(|event| match &event.body {
            Body::Logged(line) => Some((event, line)),
            Body::StateChanged(_)
            | Body::StageEntered { .. }
            | Body::OutputAppended { .. }
            | Body::OutputReset { .. } => None,
        })
        .collect();
    html! {
        @for attempt in lines.chunk_by(|(one, _), (other, _)| one.attempt == other.attempt) {
            section data-attempt=(attempt[0].0.attempt) {
                h3 { "Attempt " (attempt[0].0.attempt) }
                ol {
                    @for (event, line) in attempt {
                        li data-sequence=(event.sequence) data-level=(level(line.level)) {
                            (moment(event.time)) " " span.level { (level(line.level)) } " " span.message { (shown_text(&line.message)) }
                        }
                    }
                }
            }
        }
    }
}

fn level(level: LogLevel) -> &'static str {
    match level {
        LogLevel::Debug => "DEBUG",
        LogLevel::Info => "INFO",
        LogLevel::Warn => "WARN",
        LogLevel::Error => "ERROR",
    }
}

/// Its states and stages, each with the time that it lasted.
fn timeline(job: &Job, events: &[Event]) -> Markup {
    let steps: Vec<_> = events
        .iter()
        .filter_map(|event| match &event.body {
            Body::StateChanged(change) => Some((event, step(change), "stateChange", Some(change.state))),
            Body::StageEntered { name } => Some((event, html! { (shown_text(name)) }, "stage", None)),
            Body::Logged(_) | Body::OutputAppended { .. } | Body::OutputReset { .. } => None,
        })
        .collect();
    // A state lasts until the next one, and a stage until the next of either.
    let end = |index: usize, is_state: bool| {
        let mut later = steps[index + 1..].iter().filter(|(.., state)| !is_state || state.is_some());
        later.next().map(|(event, ..)| event.time).or(job.end_time)
    };
    html! {
        @for (index, (event, what, kind, state)) in steps.iter().enumerate() {
            li data-sequence=(event.sequence) data-attempt=(event.attempt) data-event=(kind) data-state=[*state] {
                (moment(event.time)) " "
                span.what {
                    (what)
                    @if let Some(end) = end(index, state.is_some()).filter(|_| state.is_none_or(|state| !state.is_final())) {
                        " " span.lasted { (lasted(end.since(event.time))) }
                    }
                }
            }
        }
    }
}

fn step(change: &StateChange) -> Markup {
    html! {
        strong { (label(change.state)) }
        @if let Some(failure) = &change.failure {
            " " span.reason { (told(failure)) }
        } @else if !change.reason.is_empty() {
            " " span.reason { (named(&change.reason)) }
        }
        @if !change.message.is_empty() { " " span.said { "“" (shown_text(&change.message)) "”" } }
        @if let Some(worker) = &change.worker { " " span.worker { "by " (worker) } }
    }
}

fn told(failure: &Failure) -> Markup {
    html! {
        code { (failure.reason) }
        @if !failure.message.is_empty() { " " (shown_text(&failure.message)) }
        @if failure.permanent { " (for good)" }
    }
}

fn facts(snapshot: &Snapshot) -> Markup {
    let job = &snapshot.job;
    html! {
        dt { "Attempt" } dd #attempt { (job.attempt) " of at most " (job.options.retry.maximum_attempts) }
        dt { "Created" } dd #created { (moment(job.create_time)) }
        dt { "Started" } dd #started { @if let Some(time) = job.start_time { (moment(time)) } }
        dt { "Ended" } dd #ended { @if let Some(time) = job.end_time { (moment(time)) } }
        dt { "Waited" } dd #waited { (lasted(job.queue_duration)) }
        dt { "Ran" } dd #ran { (lasted(job.run_duration)) }
        dt { "Worker" } dd #worker {
            @if let Some(lease) = &job.lease { (lease.worker) }
        }
        dt { "Metrics" } dd #metrics {
            @for (name, value) in snapshot.live.metrics.iter().collect::<BTreeMap<_, _>>() { span.pair { (name) " " (value) } }
        }
        dt { "Labels" } dd #labels {
            @for (name, value) in snapshot.labels.iter().collect::<BTreeMap<_, _>>() { span.pair { (name) "=" (value) } }
        }
        dt { "Priority" } dd #priority { (job.options.priority) }
        @if let Some(concurrency) = &job.options.concurrency {
            dt { "Shares a place with" } dd { (concurrency.key) ", at most " (concurrency.limit) }
        }
        @if let Some(other) = snapshot.retry_of {
            dt { "Repeats" } dd { a href={ "/jobs/" (other) } { (other) } }
        }
        @if let Some(request) = &snapshot.request_id {
            dt { "Request" } dd { (request) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::Token;
    use crate::http::fake::{at, snapshot};
    use crate::job::{Channel, LogLine};
    use http_body_util::BodyExt;

    const HOSTILE: &str = "<script>alert(1)</script>\"'&<b onload=x>";

    async fn text(snapshot: &Snapshot, past: &Past) -> String {
        let answer = page(snapshot, past, &Token::new([1, 2]).blank([3, 4]), true, at(12.0));
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        String::from_utf8(body.to_vec()).unwrap()
    }

    fn event(sequence: u64, body: Body) -> Event {
        Event { sequence, attempt: 1, time: at(sequence as f64), body }
    }

    #[tokio::test]
    async fn nothing_that_a_job_says_becomes_part_of_the_page() {
        let mut snapshot = snapshot();
        snapshot.job.state = State::Failed;
        snapshot.job.emitted.stage = HOSTILE.to_owned();
        snapshot.job.emitted.channels = vec![Channel { name: HOSTILE.to_owned(), bytes: 1 }];
        snapshot.job.failure = Some(Failure::new("BAD", HOSTILE));
        snapshot.result = Some(format!("\"{HOSTILE}\"").into());
        snapshot.input = snapshot.result.clone();
        snapshot.labels.insert(HOSTILE.to_owned(), HOSTILE.to_owned());
        let logged = Body::Logged(LogLine { level: LogLevel::Warn, message: HOSTILE.to_owned() });
        let staged = Body::StageEntered { name: HOSTILE.to_owned() };
        let tail = Tail { channel: HOSTILE.to_owned(), text: HOSTILE.to_owned(), bytes: 1, of: 1 };
        let past = Past { outputs: vec![tail], events: vec![event(1, logged), event(2, staged)], first: 1 };

        let page = text(&snapshot, &past).await;

        // Twice in attributes: the name of the channel.
        assert_eq!(page.matches("&lt;script&gt;alert(1)&lt;/script&gt;").count(), 12, "{page}");
        assert_eq!(page.matches("<script").count(), 1, "{page}");
        assert!(!page.contains("<b "), "{page}");
    }

    #[tokio::test]
    async fn only_the_page_of_a_job_that_goes_on_loads_itself_anew() {
        for state in State::ALL {
            let mut snapshot = snapshot();
            snapshot.job.state = state;

            let page = text(&snapshot, &Past::default()).await;

            assert_eq!(
                page.contains("<noscript><meta http-equiv=\"refresh\""),
                !state.is_final(),
                "{state}: {page}"
            );
        }
    }

    #[tokio::test]
    async fn a_bar_without_a_fraction_is_indeterminate() {
        let bar = async |snapshot: &Snapshot| {
            let page = text(snapshot, &Past::default()).await;
            let from = page.find("<progress").unwrap();
            page[from..].split('>').next().unwrap().to_owned()
        };
        let mut snapshot = snapshot();
        (snapshot.job.state, snapshot.job.attempt) = (State::Running, 1);
        let unknown = bar(&snapshot).await;
        snapshot.live.progress.fraction = Some(0.25);

        let known = bar(&snapshot).await;

        assert!(!unknown.contains("value"), "{unknown}");
        assert!(known.contains("value=\"0.25\""), "{known}");
    }

    #[tokio::test]
    async fn what_is_cut_is_said_to_be_cut() {
        let mut snapshot = snapshot();
        snapshot.result = Some(vec![b'7'; SHOWN_BYTES_MAX + 1].into());
        let tail = |bytes, of| Tail { text: "end".to_owned(), bytes, of, ..Default::default() };

        let page = text(&snapshot, &Past { outputs: vec![tail(3, 1000)], ..Default::default() }).await;

        assert!(page.contains("The last 3 of 1000 bytes"), "{page}");
        assert!(page.contains("The first 65536 of 65537 bytes"));
        let whole = Past { outputs: vec![tail(3, 3)], ..Default::default() };
        assert!(!text(&snapshot, &whole).await.contains("The last"));
    }

    #[tokio::test]
    async fn each_step_says_how_long_it_lasted() {
        let mut snapshot = snapshot();
        snapshot.job.state = State::Succeeded;
        snapshot.job.end_time = Some(at(9.0));
        let change = |previous, state| {
            Body::StateChanged(Box::new(StateChange {
                previous,
                state,
                reason: "ACCEPTED".into(),
                failure: None,
                worker: None,
                result: None,
                next_attempt_time: None,
                message: String::new(),
                metrics: Default::default(),
            }))
        };
        let events = vec![
            event(1, change(None, State::Pending)),
            event(2, change(Some(State::Pending), State::Running)),
            event(5, Body::StageEntered { name: "Counting".to_owned() }),
            event(9, change(Some(State::Running), State::Succeeded)),
        ];

        let page = text(&snapshot, &Past { events, ..Default::default() }).await;

        let lasted: Vec<&str> =
            page.split("class=\"lasted\">").skip(1).map(|rest| rest.split('<').next().unwrap()).collect();
        assert_eq!(lasted, ["1 s", "7 s", "4 s"]);
    }
}
