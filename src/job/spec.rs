//! A validated wish: what a client may ask for. Whoever holds a [`Spec`] need not check it again.
//!
//! The input is opaque here; that it is a JSON object is checked where it is decoded anyway, at the edge.

use super::Snapshot;
use super::id::JobId;
use super::limits::*;
use super::retry::RetryPolicy;
use super::time::Timestamp;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::Duration;

/// The tenant of a server without tokens.
pub const DEFAULT_TENANT: &str = "default";

/// How a job is to be run, with every default filled in.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Options {
    /// Higher runs sooner among jobs of one kind, from -100 to 100.
    pub priority: i8,
    /// Not before this time.
    pub schedule_time: Option<Timestamp>,
    /// How failed attempts are repeated.
    pub retry: RetryPolicy,
    /// The longest wait for a first worker.
    pub schedule_to_start_timeout: Option<Duration>,
    /// The longest single attempt.
    pub start_to_close_timeout: Option<Duration>,
    /// The longest life, retries included.
    pub schedule_to_close_timeout: Option<Duration>,
    /// The longest silence of an attempt.
    pub progress_timeout: Option<Duration>,
    /// With how many others it may run at once.
    pub concurrency: Option<Concurrency>,
    /// How long the job is kept after its end.
    pub retention: Duration,
}

/// A place that jobs of one key share.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Concurrency {
    /// Names the place, within its tenant.
    pub key: String,
    /// How many jobs of the key may be ready to run or running for this one to be made ready as well.
    pub limit: u32,
}

/// The client's name for a request, which makes it idempotent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestKey {
    /// The name, unique to its tenant.
    pub id: String,
    /// A hash of the request as it was sent, to tell a repeat from a reuse.
    pub fingerprint: [u8; 32],
}

/// The trace that a job belongs to, and its place in it (W3C Trace Context); handed on, and looked into by `traces` alone.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trace {
    /// The header `traceparent`.
    pub parent: String,
    /// The header `tracestate`; may be empty.
    pub state: String,
}

/// What a job is to be. Made by [`Wish::into_spec`] alone.
#[derive(Clone, Debug, PartialEq)]
pub struct Spec {
    /// The kind of work.
    pub kind: String,
    /// Whose job it is.
    pub tenant: String,
    /// JSON text, given to the worker byte for byte.
    pub input: Bytes,
    /// How to run it.
    pub options: Options,
    /// The client's own tags.
    pub labels: BTreeMap<String, String>,
    /// The client's name for the request.
    pub request: Option<RequestKey>,
    /// The job that this one repeats.
    pub retry_of: Option<JobId>,
    /// The trace that it belongs to.
    pub trace: Option<Trace>,
}

impl Spec {
    /// A job like one that has been, whose snapshot is whole.
    pub fn again(snapshot: &Snapshot, request: Option<RequestKey>, trace: Option<Trace>) -> Self {
        let Snapshot { job, labels, input, .. } = snapshot;
        Self {
            kind: job.kind.clone(),
            tenant: job.tenant.clone(),
            input: input.clone().unwrap_or_default(),
            options: job.options.clone(),
            labels: labels.clone(),
            request,
            retry_of: Some(job.id),
            trace,
        }
    }
}

/// What a client asked for, before it is checked. Absent means: the default.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Wish {
    /// As [`Spec::kind`].
    pub kind: String,
    /// As [`Spec::input`].
    pub input: Bytes,
    /// As [`Options::priority`].
    pub priority: i32,
    /// As [`Options::schedule_time`].
    pub schedule_time: Option<Timestamp>,
    /// As [`RetryPolicy::maximum_attempts`]; 0 is the default.
    pub maximum_attempts: i32,
    /// As [`RetryPolicy::initial_interval`].
    pub initial_interval: Option<Duration>,
    /// As [`RetryPolicy::backoff_coefficient`]; 0 is the default.
    pub backoff_coefficient: f64,
    /// As [`RetryPolicy::maximum_interval`].
    pub maximum_interval: Option<Duration>,
    /// As [`Options::schedule_to_start_timeout`].
    pub schedule_to_start_timeout: Option<Duration>,
    /// As [`Options::start_to_close_timeout`].
    pub start_to_close_timeout: Option<Duration>,
    /// As [`Options::schedule_to_close_timeout`].
    pub schedule_to_close_timeout: Option<Duration>,
    /// As [`Options::progress_timeout`].
    pub progress_timeout: Option<Duration>,
    /// As [`Concurrency::key`]; empty is none.
    pub concurrency_key: String,
    /// As [`Concurrency::limit`]; 0 is the default, 1.
    pub concurrency_limit: i32,
    /// As [`Options::retention`].
    pub retention: Option<Duration>,
    /// As [`Spec::labels`].
    pub labels: BTreeMap<String, String>,
    /// As [`RequestKey::id`]; empty is none.
    pub request_id: String,
    /// As [`RequestKey::fingerprint`].
    pub fingerprint: [u8; 32],
    /// As [`Spec::trace`].
    pub trace: Option<Trace>,
}

/// What a server puts in place of what a wish leaves open, and the bounds that are its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// The largest input, in bytes.
    pub input_bytes_max: usize,
    /// How long a job is kept after its end.
    pub retention: Duration,
    /// How long an attempt of this kind may be silent, where its handler names a time.
    pub progress_timeout: Option<Duration>,
}

impl Default for Terms {
    fn default() -> Self {
        Self {
            input_bytes_max: INPUT_BYTES_MAX,
            retention: Duration::from_secs(7 * 24 * 3600),
            progress_timeout: None,
        }
    }
}

/// One thing that is wrong with a request: where and what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The field's path in the request.
    pub field: String,
    /// What is wrong, naming the limit.
    pub description: String,
}

impl Violation {
    /// A violation of `field`.
    pub fn new(field: impl Into<String>, description: impl Into<String>) -> Self {
        Self { field: field.into(), description: description.into() }
    }
}

impl Wish {
    /// Checks everything and fills in the defaults of `terms`; tells all that is wrong at once.
    pub fn into_spec(self, tenant: &str, terms: &Terms) -> Result<Spec, Vec<Violation>> {
        let mut check = Check(Vec::new());
        check.kind(&self.kind);
        check.bytes("input", self.input.len(), terms.input_bytes_max);
        check.labels(&self.labels);
        check.request_id(&self.request_id);
        check.that((-100..=100).contains(&self.priority), "options.priority", || {
            format!("priority is {}; it must be from -100 to 100", self.priority)
        });
        check.characters("options.concurrency_key", &self.concurrency_key, 0, CONCURRENCY_KEY_CHARACTERS_MAX);
        check.range("options.concurrency_limit", self.concurrency_limit, CONCURRENCY_LIMIT_MAX);
        let retry = self.retry_policy(&mut check);
        for (field, duration) in [
            ("options.schedule_to_start_timeout", self.schedule_to_start_timeout),
            ("options.start_to_close_timeout", self.start_to_close_timeout),
            ("options.schedule_to_close_timeout", self.schedule_to_close_timeout),
            ("options.progress_timeout", self.progress_timeout),
        ] {
            check.duration(field, duration, Duration::from_micros(1));
        }
        check.duration("options.retention", self.retention, Duration::ZERO);

        if !check.0.is_empty() {
            return Err(check.0);
        }
        let options = Options {
            priority: self.priority as i8,
            schedule_time: self.schedule_time,
            retry,
            schedule_to_start_timeout: self.schedule_to_start_timeout,
            start_to_close_timeout: self.start_to_close_timeout,
            schedule_to_close_timeout: self.schedule_to_close_timeout,
            progress_timeout: self.progress_timeout.or(terms.progress_timeout),
            concurrency: (!self.concurrency_key.is_empty()).then(|| Concurrency {
                key: self.concurrency_key,
                limit: self.concurrency_limit.max(1) as u32,
            }),
            retention: self.retention.unwrap_or(terms.retention),
        };
        Ok(Spec {
            kind: self.kind,
            tenant: tenant.to_owned(),
            input: self.input,
            options,
            labels: self.labels,
            request: (!self.request_id.is_empty())
                .then_some(RequestKey { id: self.request_id, fingerprint: self.fingerprint }),
            retry_of: None,
            trace: self.trace,
        })
    }

    fn retry_policy(&self, check: &mut Check) -> RetryPolicy {
        let defaults = RetryPolicy::default();
        check.range("options.retry_policy.maximum_attempts", self.maximum_attempts, ATTEMPTS_MAX);
        check.duration("options.retry_policy.initial_interval", self.initial_interval, Duration::ZERO);
        check.duration("options.retry_policy.maximum_interval", self.maximum_interval, Duration::ZERO);
        let coefficient = self.backoff_coefficient;
        check.that(
            coefficient == 0.0 || (1.0..=BACKOFF_COEFFICIENT_MAX).contains(&coefficient),
            "options.retry_policy.backoff_coefficient",
            || {
                format!(
                    "backoff_coefficient is {coefficient}; it must be from 1 to {BACKOFF_COEFFICIENT_MAX}"
                )
            },
        );
        RetryPolicy {
            maximum_attempts: match self.maximum_attempts {
                0 => defaults.maximum_attempts,
                attempts => attempts.max(1) as u32,
            },
            initial_interval: self.initial_interval.unwrap_or(defaults.initial_interval),
            backoff_coefficient: if coefficient == 0.0 { defaults.backoff_coefficient } else { coefficient },
            maximum_interval: self.maximum_interval.unwrap_or(defaults.maximum_interval),
        }
    }
}

/// Makes sure that a text can be a kind.
pub fn check_kind(kind: &str) -> Result<(), Vec<Violation>> {
    let mut check = Check(Vec::new());
    check.kind(kind);
    if check.0.is_empty() { Ok(()) } else { Err(check.0) }
}

/// Makes sure that a text can be a request id.
pub fn check_request_id(id: &str) -> Result<(), Vec<Violation>> {
    let mut check = Check(Vec::new());
    check.request_id(id);
    if check.0.is_empty() { Ok(()) } else { Err(check.0) }
}

/// Makes sure that these can be the labels of a job.
pub fn check_labels(labels: &BTreeMap<String, String>) -> Result<(), Vec<Violation>> {
    let mut check = Check(Vec::new());
    check.labels(labels);
    if check.0.is_empty() { Ok(()) } else { Err(check.0) }
}

/// Collects what is wrong.
struct Check(Vec<Violation>);

impl Check {
    fn that(&mut self, holds: bool, field: impl Into<String>, description: impl FnOnce() -> String) {
        if !holds {
            self.0.push(Violation::new(field, description()));
        }
    }

    fn kind(&mut self, kind: &str) {
        let allowed = |c: char| matches!(c, 'a'..='z' | '0'..='9' | '.' | '_' | '-');
        self.that(!kind.is_empty(), "kind", || "kind is required".to_owned());
        self.characters("kind", kind, 0, KIND_CHARACTERS_MAX);
        if let Some(other) = kind.chars().find(|c| !allowed(*c)) {
            self.0.push(Violation::new(
                "kind",
                format!("kind has {other:?}; only a-z, 0-9, '.', '_' and '-' may stand in it"),
            ));
        }
    }

    fn request_id(&mut self, id: &str) {
        self.characters("request_id", id, 0, REQUEST_ID_CHARACTERS_MAX);
        self.that(id.bytes().all(|byte| (0x20..0x7f).contains(&byte)), "request_id", || {
            "request_id has a character that is not printable ASCII".to_owned()
        });
    }

    fn labels(&mut self, labels: &BTreeMap<String, String>) {
        let count = labels.len();
        self.that(count <= LABELS_MAX, "labels", || {
            format!("there are {count} labels; the limit is {LABELS_MAX}")
        });
        for (key, value) in labels.iter().take(LABELS_MAX) {
            let shown: String = key.chars().take(LABEL_KEY_CHARACTERS_MAX).collect();
            let field = format!("labels[{shown:?}]");
            self.characters(&field, key, 1, LABEL_KEY_CHARACTERS_MAX);
            self.characters(&field, value, 0, LABEL_VALUE_CHARACTERS_MAX);
        }
    }

    fn characters(&mut self, field: &str, text: &str, least: usize, most: usize) {
        let count = text.chars().count();
        self.that((least..=most).contains(&count), field, || match count < least {
            true => format!("it has {count} characters; at least {least} are needed"),
            false => format!("it has {count} characters; the limit is {most}"),
        });
    }

    fn bytes(&mut self, field: &str, length: usize, most: usize) {
        self.that(length <= most, field, || format!("{field} is {length} bytes; the limit is {most}"));
    }

    fn range(&mut self, field: &str, value: i32, most: u32) {
        self.that(value >= 0 && value as u32 <= most, field, || {
            format!("it is {value}; it must be from 0 (the default) to {most}")
        });
    }

    fn duration(&mut self, field: &str, duration: Option<Duration>, least: Duration) {
        let Some(duration) = duration else { return };
        self.that(duration >= least, field, || "it is zero; leave it out for no limit".to_owned());
        self.that(duration.as_secs() <= DURATION_SECONDS_MAX, field, || {
            format!("it is {} s; the limit is {DURATION_SECONDS_MAX} s", duration.as_secs())
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn wish() -> Wish {
        Wish { kind: "simulate".into(), input: "{}".into(), ..Default::default() }
    }

    fn violations(wish: Wish) -> Vec<String> {
        match wish.into_spec(DEFAULT_TENANT, &Terms::default()) {
            Ok(_) => Vec::new(),
            Err(violations) => violations.into_iter().map(|violation| violation.field).collect(),
        }
    }

    #[test]
    fn an_empty_wish_gets_the_documented_defaults() {
        let spec = wish().into_spec(DEFAULT_TENANT, &Terms::default()).unwrap();

        assert_eq!(spec.options.retry.maximum_attempts, 3);
        assert_eq!(spec.options.retry.maximum_interval, Duration::from_secs(300));
        assert_eq!(spec.options.retention, Duration::from_secs(604_800));
        assert_eq!(spec.options.concurrency, None);
        assert_eq!(spec.request, None);
    }

    #[rstest]
    #[case::no_kind(|w: &mut Wish| w.kind.clear(), "kind")]
    #[case::long_kind(|w: &mut Wish| w.kind = "k".repeat(65), "kind")]
    #[case::odd_kind(|w: &mut Wish| w.kind = "Simulate".into(), "kind")]
    #[case::large_input(|w: &mut Wish| w.input = vec![b' '; (1 << 20) + 1].into(), "input")]
    #[case::high_priority(|w: &mut Wish| w.priority = 101, "options.priority")]
    #[case::low_priority(|w: &mut Wish| w.priority = -101, "options.priority")]
    #[case::attempts(|w: &mut Wish| w.maximum_attempts = -1, "options.retry_policy.maximum_attempts")]
    #[case::many_attempts(|w: &mut Wish| w.maximum_attempts = 1001, "options.retry_policy.maximum_attempts")]
    #[case::coefficient(|w: &mut Wish| w.backoff_coefficient = 0.5, "options.retry_policy.backoff_coefficient")]
    #[case::odd_coefficient(|w: &mut Wish| w.backoff_coefficient = f64::NAN, "options.retry_policy.backoff_coefficient")]
    #[case::initial(|w: &mut Wish| w.initial_interval = Some(Duration::MAX), "options.retry_policy.initial_interval")]
    #[case::maximum(|w: &mut Wish| w.maximum_interval = Some(Duration::MAX), "options.retry_policy.maximum_interval")]
    #[case::no_wait(|w: &mut Wish| w.schedule_to_start_timeout = Some(Duration::ZERO), "options.schedule_to_start_timeout")]
    #[case::no_attempt(|w: &mut Wish| w.start_to_close_timeout = Some(Duration::ZERO), "options.start_to_close_timeout")]
    #[case::no_life(|w: &mut Wish| w.schedule_to_close_timeout = Some(Duration::ZERO), "options.schedule_to_close_timeout")]
    #[case::no_silence(|w: &mut Wish| w.progress_timeout = Some(Duration::ZERO), "options.progress_timeout")]
    #[case::long_key(|w: &mut Wish| w.concurrency_key = "k".repeat(129), "options.concurrency_key")]
    #[case::limit(|w: &mut Wish| w.concurrency_limit = -1, "options.concurrency_limit")]
    #[case::retention(|w: &mut Wish| w.retention = Some(Duration::MAX), "options.retention")]
    #[case::label_key(|w: &mut Wish| { w.labels.insert(String::new(), "x".into()); }, "labels[\"\"]")]
    #[case::label_value(|w: &mut Wish| { w.labels.insert("a".into(), "x".repeat(256)); }, "labels[\"a\"]")]
    #[case::labels(|w: &mut Wish| w.labels = (0..33).map(|n| (n.to_string(), String::new())).collect(), "labels")]
    #[case::long_request(|w: &mut Wish| w.request_id = "r".repeat(129), "request_id")]
    #[case::odd_request(|w: &mut Wish| w.request_id = "a\nb".into(), "request_id")]
    fn what_is_wrong_is_named_by_its_path(#[case] spoil: fn(&mut Wish), #[case] field: &str) {
        let mut wish = wish();
        spoil(&mut wish);

        assert_eq!(violations(wish), [field]);
    }

    #[test]
    fn all_that_is_wrong_is_told_at_once() {
        let wish = Wish { priority: 1000, request_id: "\u{e9}".into(), ..Default::default() };

        assert_eq!(violations(wish), ["kind", "request_id", "options.priority"]);
    }
}
