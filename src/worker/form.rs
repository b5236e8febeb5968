//! The form of what a handler returns, the same wherever its jobs come from: what a server elsewhere would refuse is cut
//! into shape, or is a failure that says so.

use crate::job::limits::*;
use crate::job::{Failure, reason};
use bytes::Bytes;
use serde_json::Value;

/// The failure that a result comes to that cannot be recorded; no other attempt would help.
pub fn check_result(result: &[u8]) -> Result<(), Failure> {
    if result.len() > RESULT_BYTES_MAX {
        let text = format!("the result is {} bytes; the limit is {RESULT_BYTES_MAX}", result.len());
        return Err(Failure::new("RESULT_TOO_LARGE", text).permanent());
    }
    let invalid = |why: String| Failure::new(reason::INVALID_RESULT, why).permanent();
    let value: Value = serde_json::from_slice(result)
        .map_err(|error| invalid(format!("the result is not JSON that can be read: {error}")))?;
    match levels(&value) > INPUT_DEPTH_MAX {
        true => Err(invalid(format!("the result is more than {INPUT_DEPTH_MAX} levels deep"))),
        false => Ok(()),
    }
}

/// A failure as it can be recorded: it matters more that one is than all that it said.
pub fn failure(failure: Failure) -> Failure {
    let Failure { reason, mut message, permanent, details } = failure;
    message.truncate(message.floor_char_boundary(FAILURE_MESSAGE_BYTES_MAX));
    let is_allowed = |c: char| matches!(c, 'A'..='Z' | '0'..='9' | '_');
    let reason = match reason.is_empty() {
        true => reason::HANDLER_ERROR.into(),
        false if reason.len() <= NAME_CHARACTERS_MAX && reason.chars().all(is_allowed) => reason,
        false => {
            let upper = reason.chars().map(|c| c.to_ascii_uppercase());
            let allowed = upper.map(|c| if is_allowed(c) { c } else { '_' });
            allowed.take(NAME_CHARACTERS_MAX).collect::<String>().into()
        }
    };
    Failure { reason, message, permanent, details: details.filter(are_details) }
}

/// Why a job is given back, as it can be recorded.
pub fn message(mut message: String) -> String {
    if let Some((end, _)) = message.char_indices().nth(MESSAGE_CHARACTERS_MAX) {
        message.truncate(end);
    }
    message
}

fn are_details(text: &Bytes) -> bool {
    let is_short = text.len() <= FAILURE_DETAILS_BYTES_MAX;
    let value = serde_json::from_slice::<Value>(text).ok().filter(Value::is_object);
    is_short && value.is_some_and(|value| levels(&value) <= INPUT_DEPTH_MAX)
}

/// How deep a value is; serde reads none that is too deep for this.
fn levels(value: &Value) -> usize {
    match value {
        Value::Array(values) => 1 + values.iter().map(levels).max().unwrap_or(0),
        Value::Object(fields) => 1 + fields.values().map(levels).max().unwrap_or(0),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("", "HANDLER_ERROR")]
    #[case("NO_LUCK_2", "NO_LUCK_2")]
    #[case("no luck: ä", "NO_LUCK___")]
    #[case(&"x".repeat(70), &"X".repeat(NAME_CHARACTERS_MAX))]
    fn a_reason_is_in_upper_snake_case(#[case] given: &str, #[case] recorded: &str) {
        assert_eq!(failure(Failure::new(given.to_owned(), "")).reason, recorded);
    }

    #[test]
    fn a_message_is_cut_at_a_character() {
        let long = Failure::new("X", "ä".repeat(FAILURE_MESSAGE_BYTES_MAX)).permanent();

        let cut = failure(long);

        assert_eq!((cut.message.len(), cut.permanent), (FAILURE_MESSAGE_BYTES_MAX, true));
    }

    #[rstest]
    #[case(r#"{"status": 429}"#.to_owned(), true)]
    #[case("[1]".to_owned(), false)]
    #[case("{".to_owned(), false)]
    #[case(format!("{{\"text\":\"{}\"}}", "x".repeat(FAILURE_DETAILS_BYTES_MAX)), false)]
    #[case("{\"a\":".repeat(INPUT_DEPTH_MAX + 1) + "1" + &"}".repeat(INPUT_DEPTH_MAX + 1), false)]
    fn details_are_a_short_object_or_none(#[case] details: String, #[case] stay: bool) {
        let given = Failure { details: Some(details.into()), ..Failure::new("X", "") };

        assert_eq!(failure(given).details.is_some(), stay);
    }

    #[rstest]
    #[case("null".to_owned(), None)]
    #[case("{".to_owned(), Some("INVALID_RESULT"))]
    #[case("1e999".to_owned(), Some("INVALID_RESULT"))]
    #[case("[".repeat(INPUT_DEPTH_MAX + 1) + &"]".repeat(INPUT_DEPTH_MAX + 1), Some("INVALID_RESULT"))]
    #[case(" ".repeat(RESULT_BYTES_MAX + 1), Some("RESULT_TOO_LARGE"))]
    fn a_result_is_json_or_a_failure_for_good(#[case] result: String, #[case] refused: Option<&str>) {
        let failed = check_result(result.as_bytes()).err();

        assert_eq!(failed.as_ref().map(|failure| failure.reason.as_ref()), refused);
        assert!(failed.is_none_or(|failure| failure.permanent));
    }
}
