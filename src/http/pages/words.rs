//! How pages say what a job is: its states, times and reasons. The scripts say it in the same words (`assets/time.js`).

use crate::job::{State, Timestamp};
use crate::wire::reply;
use maud::{Markup, html};
use std::time::Duration;

/// What a state is called.
pub fn label(state: State) -> &'static str {
    match state {
        State::Scheduled => "Scheduled",
        State::Pending => "Pending",
        State::Running => "Running",
        State::Retrying => "Retrying",
        State::Cancelling => "Cancelling",
        State::Succeeded => "Succeeded",
        State::Failed => "Failed",
        State::Cancelled => "Cancelled",
        State::Expired => "Expired",
    }
}

/// A point of time. A script puts in its place how long ago that was.
pub fn moment(time: Timestamp) -> Markup {
    let exact = reply::timestamp(time).to_string();
    html! { time datetime=(exact) { (exact) } }
}

/// How long ago a point of time was, or how soon it will be, in one unit; exactly when, to who points at it.
pub fn ago(time: Timestamp, now: Timestamp) -> Markup {
    let seconds = now.since(time).max(time.since(now)).as_secs();
    let (amount, unit) = match seconds {
        0..60 => (seconds, "s"),
        60..3_600 => (seconds / 60, "min"),
        3_600..86_400 => (seconds / 3_600, "h"),
        _ => (seconds / 86_400, "d"),
    };
    let exact = reply::timestamp(time).to_string();
    html! {
        time datetime=(exact) title=(exact) {
            @if amount == 0 { "now" }
            @else if time <= now { (amount) " " (unit) " ago" }
            @else { "in " (amount) " " (unit) }
        }
    }
}

/// A reason in plain words: CANCEL_REQUESTED is "cancel requested".
pub fn named(reason: &str) -> String {
    reason.to_lowercase().replace('_', " ")
}

/// What is said of one, or of any other number.
pub fn either<'a>(count: u64, one: &'a str, more: &'a str) -> &'a str {
    if count == 1 { one } else { more }
}

/// How long something took, in the two largest units.
pub fn lasted(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0 => format!("{} ms", time.as_millis()),
        1..60 => format!("{} s", (time.as_secs_f64() * 10.0).floor() / 10.0),
        60..3_600 => format!("{} min {} s", seconds / 60, seconds % 60),
        3_600..86_400 => format!("{} h {} min", seconds / 3_600, seconds % 3_600 / 60),
        _ => format!("{} d {} h", seconds / 86_400, seconds % 86_400 / 3_600),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    /// What is said of what, here and by the scripts: `tests/browser/words.test.mjs` has the same.
    fn sayings(of: &str) -> Vec<(Value, String)> {
        let all: Value = serde_json::from_str(include_str!("../../../tests/browser/words.json")).unwrap();
        let said = |saying: &Value| (saying[0].clone(), saying[1].as_str().unwrap().to_owned());
        all[of].as_array().unwrap().iter().map(said).collect()
    }

    #[test]
    fn an_age_is_said_in_one_unit_before_and_behind() {
        let now = Timestamp::from_micros(1_767_225_600_000_000);

        for (milliseconds, words) in sayings("ago") {
            let time = Timestamp::from_micros(now.as_micros() + milliseconds.as_i64().unwrap() * 1_000);
            let text = ago(time, now).into_string();
            assert!(text.ends_with(&format!(">{words}</time>")), "{text}");
        }
    }

    #[test]
    fn a_time_is_said_in_two_units_at_most() {
        for (milliseconds, words) in sayings("lasted") {
            assert_eq!(lasted(Duration::from_millis(milliseconds.as_u64().unwrap())), words);
        }
    }

    #[test]
    fn one_is_said_as_one() {
        for (count, words) in sayings("either") {
            let count = count.as_u64().unwrap();
            assert_eq!(format!("{count} {}", either(count, "job was", "jobs were")), words);
        }
    }

    #[test]
    fn a_reason_is_said_in_plain_words() {
        for (reason, words) in sayings("named") {
            assert_eq!(named(reason.as_str().unwrap()), words);
        }
    }

    #[test]
    fn a_state_is_called_by_its_name_as_the_scripts_do() {
        for state in State::ALL {
            let name = state.to_string();
            assert_eq!(label(state), format!("{}{}", &name[..1], name[1..].to_lowercase()));
        }
    }
}
