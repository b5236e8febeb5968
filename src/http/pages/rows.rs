//! The jobs of a list, one line each. The script makes the same lines of the same parts (`assets/rows.js`).

use super::words::{ago, label, lasted, named};
use crate::job::{Failure, Job, Snapshot, State, Timestamp};
use crate::wire::reply;
use maud::{Markup, html};
use std::collections::BTreeSet;

/// How much of a failure is said here; the job's own page has all of it.
const MESSAGE_CHARACTERS_MAX: usize = 200;

/// The line of a job as of now, and how many bytes it has; these kinds are served.
pub fn row(snapshot: &Snapshot, served: &BTreeSet<String>, now: Timestamp) -> (Markup, usize) {
    let job = &snapshot.job;
    let id = job.id.to_string();
    let fraction = reply::shown_progress(job, &snapshot.live.progress).and_then(|progress| progress.fraction);
    let is_unknown = fraction.is_none() && matches!(job.state, State::Running | State::Cancelling);
    let value = fraction.unwrap_or(0.0);
    let bar = format!("Progress of {} {}", job.kind, short(&id));
    let row = html! {
        li data-job=(id) data-state=(job.state) {
            a.name href={ "/jobs/" (id) } { span.kind { (job.kind) } " " code { (short(&id)) } }
            span.state data-state=(job.state) { (label(job.state)) }
            progress max="1" value=[(!is_unknown).then_some(value)] aria-label=(bar) {}
            span.percent { @if let Some(fraction) = fraction { (format!("{} %", (fraction * 100.0).floor())) } }
            span.note { (note(snapshot, served, now)) }
            span.age { (ago(job.create_time, now)) }
        }
    };
    let bytes = row.0.len();
    (row, bytes)
}

/// The part of a ticket that tells it apart from those of the same moment.
fn short(id: &str) -> &str {
    id.rsplit('-').next().unwrap_or(id)
}

/// What is to be known of where it is.
fn note(snapshot: &Snapshot, served: &BTreeSet<String>, now: Timestamp) -> Markup {
    let job = &snapshot.job;
    match job.state {
        State::Pending if !served.contains(&job.kind) => {
            html! { span.unserved { "no worker serves " (job.kind) } }
        }
        State::Pending => html! { "waits for a worker" },
        State::Scheduled | State::Retrying => html! {
            @if let Some(failure) = &job.failure { (told(failure)) ", " }
            @if let Some(time) = job.next_attempt_time { "next attempt " (ago(time, now)) }
        },
        State::Running | State::Cancelling => html! {
            (snapshot.live.progress.stage)
            @if job.attempt > 1 {
                @if !snapshot.live.progress.stage.is_empty() { " · " }
                "attempt " (job.attempt)
            }
        },
        State::Succeeded | State::Cancelled => took(job),
        State::Failed | State::Expired => html! {
            @if let Some(failure) = &job.failure { (told(failure)) }
        },
    }
}

fn took(job: &Job) -> Markup {
    html! {
        @if let Some(end) = job.end_time { "after " (lasted(end.since(job.create_time))) }
    }
}

fn told(failure: &Failure) -> String {
    let mut told = named(&failure.reason);
    if !failure.message.is_empty() {
        told.push_str(": ");
        told.extend(failure.message.chars().take(MESSAGE_CHARACTERS_MAX));
    }
    told
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::fake::{at, snapshot};

    fn text(snapshot: &Snapshot, served: &[&str]) -> String {
        let served = served.iter().map(|kind| (*kind).to_owned()).collect();
        row(snapshot, &served, at(20.0)).0.into_string()
    }

    #[test]
    fn the_script_says_as_much_of_a_failure() {
        assert_eq!(
            crate::http::pages::assets::constant("rows.js", "MESSAGE_CHARACTERS_MAX"),
            MESSAGE_CHARACTERS_MAX
        );
    }

    #[test]
    fn one_that_waits_says_for_what() {
        let snapshot = snapshot();

        let (unserved, served) = (text(&snapshot, &["chat"]), text(&snapshot, &["simulate"]));

        assert!(unserved.contains("no worker serves simulate"), "{unserved}");
        assert!(served.contains("waits for a worker") && !served.contains("unserved"), "{served}");
    }

    #[test]
    fn only_a_bar_of_which_nobody_can_tell_has_no_value() {
        let mut snapshot = snapshot();
        let waiting = text(&snapshot, &[]);
        (snapshot.job.state, snapshot.job.attempt) = (State::Running, 1);
        let unknown = text(&snapshot, &[]);
        snapshot.live.progress.fraction = Some(0.257);

        let known = text(&snapshot, &[]);

        assert!(waiting.contains("value=\"0\""), "{waiting}");
        assert!(!unknown.contains("value="), "{unknown}");
        assert!(known.contains("value=\"0.257\"") && known.contains("25 %"), "{known}");
    }

    #[test]
    fn nothing_that_a_job_says_becomes_markup() {
        const HOSTILE: &str = "<img src=x onerror=alert(1)>\"'&";
        let mut snapshot = snapshot();
        (snapshot.job.state, snapshot.job.attempt) = (State::Running, 2);
        snapshot.live.progress.stage = HOSTILE.to_owned();
        let running = text(&snapshot, &[]);
        snapshot.job.state = State::Failed;
        snapshot.job.end_time = Some(at(12.0));
        snapshot.job.failure = Some(Failure::new(HOSTILE, HOSTILE.repeat(40)));

        let failed = text(&snapshot, &[]);

        assert!(!running.contains("<img") && running.contains("&lt;img src=x onerror"), "{running}");
        assert!(!failed.contains("<img") && failed.len() < 2_000, "{failed}");
    }
}
