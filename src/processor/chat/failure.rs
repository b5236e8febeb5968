//! What went wrong with a provider, and what follows: the job fails for good, is tried again, or waits until the provider can.

use super::provider::Provider;
use crate::job::{Failure, Timestamp};
use reqwest::StatusCode;
use reqwest::header::{HeaderMap, RETRY_AFTER};
use serde_json::{Value, json};
use std::time::{Duration, UNIX_EPOCH};

/// Bytes of a provider's words that a failure repeats: what is longer is a page for people, not a message.
const WORDS_BYTES_MAX: usize = 1 << 10;
/// The longest wait that a provider may ask for; what is longer than that would seem lost.
pub const DELAY_MAX: Duration = Duration::from_secs(3600);
/// The shortest: at once would be what it has just refused.
const DELAY_MIN: Duration = Duration::from_millis(100);
/// The first wait where the provider does not say; each refusal in a row doubles it.
const BACKOFF_FIRST: Duration = Duration::from_secs(1);
/// The longest of those.
const BACKOFF_MAX: Duration = Duration::from_secs(60);

/// What went wrong.
#[derive(Debug)]
pub enum Trouble {
    /// With this question, or with the provider by accident.
    Failed(Failure),
    /// With the account: whatever else is asked will not be answered either.
    Barred(Failure),
    /// The provider wants no requests for now; where it says how long, for so long.
    Busy(Failure, Option<Duration>),
}

impl From<Failure> for Trouble {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

/// A failure that says which provider it was.
pub fn of(provider: &Provider, reason: &'static str, what: &str) -> Failure {
    let kind = &provider.kind;
    let details = json!({"provider": kind}).to_string();
    Failure { details: Some(details.into()), ..Failure::new(reason, format!("{kind}: {what}")) }
}

/// What an answer with a status other than 200 comes to.
pub fn of_status(
    provider: &Provider,
    status: StatusCode,
    headers: &HeaderMap,
    body: &[u8],
    now: Timestamp,
) -> Trouble {
    let error = serde_json::from_slice::<Value>(body).ok();
    let words = error.as_ref().map_or_else(|| String::from_utf8_lossy(body).trim().to_owned(), words);
    let code = error.as_ref().and_then(code).unwrap_or_default();
    classified(provider, status.as_u16(), &code, &words, delay(headers, now))
}

/// What an error comes to that is told inside an answer.
pub fn of_error(provider: &Provider, error: &Value) -> Trouble {
    let text = code(error).unwrap_or_default();
    let status = [error.get("code"), error.get("status")].into_iter().flatten().find_map(|value| {
        value.as_u64().or_else(|| value.as_str()?.parse().ok()).filter(|status| (400..600).contains(status))
    });
    let status = status.unwrap_or(match text.as_str() {
        "rate_limit_exceeded" | "rate_limit_error" | "insufficient_quota" => 429,
        "overloaded_error" | "unavailable_error" => 503,
        "invalid_request_error" | "context_length_exceeded" | "exceed_context_size_error" => 400,
        "authentication_error" | "invalid_api_key" => 401,
        "permission_error" => 403,
        "not_found_error" | "model_not_found" => 404,
        _ => 500,
    });
    classified(provider, status as u16, &text, &words(error), None)
}

fn classified(provider: &Provider, status: u16, code: &str, words: &str, delay: Option<Duration>) -> Trouble {
    let words = provider.quoted(words, WORDS_BYTES_MAX);
    let code = provider.quoted(code, WORDS_BYTES_MAX);
    let (reason, permanent) = match status {
        _ if matches!(code.as_str(), "insufficient_quota" | "billing_hard_limit_reached") => {
            ("PROVIDER_QUOTA", true)
        }
        429 => ("PROVIDER_BUSY", false),
        503 | 529 => ("PROVIDER_UNAVAILABLE", false),
        408 | 409 | 425 | 500.. => ("PROVIDER_ERROR", false),
        _ => ("PROVIDER_REFUSED", true),
    };
    let delay = delay.map(|delay| delay.clamp(DELAY_MIN, DELAY_MAX));
    let told = match words.is_empty() {
        true => format!("{}: status {status}", provider.kind),
        false => format!("{}: status {status}: {words}", provider.kind),
    };
    let mut details = json!({"provider": provider.kind, "status": status, "message": words});
    if !code.is_empty() {
        details["code"] = json!(code);
    }
    if let Some(delay) = delay {
        details["retry_delay_seconds"] = json!(delay.as_secs_f64());
    }
    let failure =
        Failure { details: Some(details.to_string().into()), permanent, ..Failure::new(reason, told) };
    match (reason, status) {
        ("PROVIDER_BUSY" | "PROVIDER_UNAVAILABLE", _) => Trouble::Busy(failure, delay),
        // A 403 may be about this question alone.
        ("PROVIDER_QUOTA", _) | (_, 401 | 402) => Trouble::Barred(failure),
        _ => Trouble::Failed(failure),
    }
}

/// What an error says for people, wherever it has it.
fn words(error: &Value) -> String {
    let inner = error.get("error").unwrap_or(error);
    let text = [inner.get("message"), error.get("message"), error.get("detail"), Some(inner)];
    let text = text.into_iter().flatten().find_map(|value| value.as_str().map(str::to_owned));
    text.unwrap_or_else(|| inner.to_string())
}

/// What an error says for programs.
fn code(error: &Value) -> Option<String> {
    let inner = error.get("error").unwrap_or(error);
    let texts = [inner.get("code"), inner.get("type")].into_iter().flatten();
    texts.filter_map(Value::as_str).find(|text| text.parse::<u16>().is_err()).map(str::to_owned)
}

/// How long a provider asks to be left alone: `retry-after-ms`, or `Retry-After` in seconds or as a date.
fn delay(headers: &HeaderMap, now: Timestamp) -> Option<Duration> {
    let text = |name: &str| headers.get(name)?.to_str().ok().map(str::trim);
    let number = |text: &str| text.parse::<f64>().ok().filter(|number| number.is_finite() && *number >= 0.0);
    let span = |number: f64| Duration::from_secs_f64(number.min(DELAY_MAX.as_secs_f64()));
    if let Some(millis) = text("retry-after-ms").and_then(number) {
        return Some(span(millis / 1e3));
    }
    let after = text(RETRY_AFTER.as_str())?;
    if let Some(seconds) = number(after) {
        return Some(span(seconds));
    }
    let date = httpdate::parse_http_date(after).ok()?.duration_since(UNIX_EPOCH).ok()?;
    let date = Timestamp::default().after(date);
    Some(date.since(now))
}

/// How long to leave a provider alone that has refused so many requests in a row and does not say how long it wants: from a
/// half of the growing wait to all of it, so that nobody comes back in step.
pub fn backoff(refusals: u32, chance: u64) -> Duration {
    let grown = BACKOFF_FIRST
        .saturating_mul(2u32.saturating_pow(refusals.saturating_sub(1).min(16)))
        .min(BACKOFF_MAX);
    grown.mul_f64(0.5 + 0.5 * (chance as f64 / u64::MAX as f64))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    const NOW: Timestamp = Timestamp::from_micros(784_111_777_000_000);

    #[rstest]
    #[case("retry-after-ms", "1500", Some(1.5))]
    #[case("retry-after", "7", Some(7.0))]
    #[case("retry-after", "0.25", Some(0.25))]
    #[case("retry-after", "Sun, 06 Nov 1994 08:50:07 GMT", Some(30.0))]
    #[case("retry-after", "Sun, 06 Nov 1994 08:40:07 GMT", Some(0.0))]
    #[case("retry-after", "99999999999", Some(3600.0))]
    #[case("retry-after", "soon", None)]
    #[case("retry-after", "-1", None)]
    #[case("retry-after", "NaN", None)]
    fn a_delay_is_read_in_each_of_its_spellings(
        #[case] name: &'static str,
        #[case] value: &'static str,
        #[case] seconds: Option<f64>,
    ) {
        let mut headers = HeaderMap::new();
        headers.insert(name, value.parse().unwrap());

        assert_eq!(delay(&headers, NOW).map(|delay| delay.as_secs_f64()), seconds);
    }

    #[test]
    fn milliseconds_come_before_seconds() {
        let mut headers = HeaderMap::new();
        headers.insert("retry-after", "9".parse().unwrap());
        headers.insert("retry-after-ms", "250".parse().unwrap());

        assert_eq!(delay(&headers, NOW), Some(Duration::from_millis(250)));
    }

    #[test]
    fn a_wait_without_a_wish_doubles_up_to_its_bound() {
        let waits = [1, 2, 3, 10, 4_000_000].map(|refusals| backoff(refusals, u64::MAX).as_secs());

        assert_eq!(waits, [1, 2, 4, 60, 60]);
        assert_eq!(backoff(1, 0), Duration::from_millis(500));
    }
}
