//! What a span is called by others (W3C Trace Context), and the ids that longhaul gives its own.
//!
//! Two of them can be told from what is stored alone, so that a restart forgets nothing: whether the span that a job was started
//! under was recorded by longhaul, and which span an attempt is.

use crate::job::{JobId, Keeper, Trace};
use opentelemetry::trace::{SpanId, TraceFlags, TraceId};
use sha2::{Digest, Sha256};
use std::fmt;

/// Flags that are handed on: sampled, and that the trace's id is chance. Of others nobody knows what they mean.
const FLAGS: u8 = 0b11;
/// Bytes of a recorded call's span id that are chance; the others follow from them.
const CHANCE_BYTES: usize = 5;

/// What longhaul knows its own spans by. Who does not have it cannot name a span that passes for one.
#[derive(Clone)]
pub struct Key([u8; 32]);

impl Key {
    /// The key of the server with this store: the same after a restart, and nobody else's, since a keeper is chance and is told
    /// to nobody.
    pub fn of(keeper: Keeper) -> Self {
        Self(digest(&[b"spans that are recorded", &keeper.0.to_be_bytes()]))
    }
}

impl fmt::Debug for Key {
    /// Leaves it out.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Key")
    }
}

/// A span of a trace, as a `traceparent` names it, with the `tracestate` beside it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Context {
    /// The trace.
    pub trace: TraceId,
    /// The span.
    pub span: SpanId,
    /// What was decided about the trace.
    pub flags: TraceFlags,
    /// As it came.
    pub state: String,
}

impl Context {
    /// What a trace names, which `wire` has checked; none where it is no `traceparent` all the same.
    pub fn of(trace: &Trace) -> Option<Self> {
        let mut parts = trace.parent.split('-').skip(1);
        let (id, span, flags) = (parts.next()?, parts.next()?, parts.next()?);
        Some(Self {
            trace: TraceId::from_hex(id).ok()?,
            span: SpanId::from_hex(span).ok()?,
            flags: TraceFlags::new(u8::from_str_radix(flags, 16).ok()? & FLAGS),
            state: trace.state.clone(),
        })
    }

    /// A trace that begins here. It has no span yet.
    pub fn root(high: u64, low: u64) -> Self {
        let id = u128::from(high) << 64 | u128::from(low.max(1));
        let trace = TraceId::from_bytes(id.to_be_bytes());
        Self { trace, span: SpanId::INVALID, flags: TraceFlags::SAMPLED, state: String::new() }
    }

    /// Whether whoever began the trace wants it recorded.
    pub fn is_sampled(&self) -> bool {
        self.flags.is_sampled()
    }

    /// The same span, of which nobody wants a record.
    pub fn unsampled(&self) -> Self {
        Self { flags: self.flags.with_sampled(false), ..self.clone() }
    }

    /// As it is stored, and told to others.
    pub fn told(&self) -> Trace {
        let parent = format!("00-{}-{}-{:02x}", self.trace, self.span, self.flags.to_u8());
        Trace { parent, state: self.state.clone() }
    }

    /// Another span of the same trace.
    pub fn with(&self, span: SpanId) -> Self {
        Self { span, ..self.clone() }
    }

    /// A span of the same trace with an id by chance.
    pub fn by_chance(&self, chance: u64) -> Self {
        self.with(SpanId::from_bytes(chance.max(1).to_be_bytes()))
    }

    /// The span of a call that is recorded, to start jobs under. Its id shows that it is one, to [`is_recorded`](Self::is_recorded).
    pub fn started(&self, chance: u64, key: &Key) -> Self {
        let [.., a, b, c, d, e] = chance.max(1).to_be_bytes();
        self.with(self.recognizable([a, b, c, d, e], key))
    }

    /// Whether this is the span of a call that longhaul has recorded. Then its jobs are recorded as well, all of their attempts,
    /// and otherwise none: a stranger's span looks like one once in 2²⁴ times.
    pub fn is_recorded(&self, key: &Key) -> bool {
        let [a, b, c, d, e, ..] = self.span.to_bytes();
        self.is_sampled() && self.span == self.recognizable([a, b, c, d, e], key)
    }

    fn recognizable(&self, chance: [u8; CHANCE_BYTES], key: &Key) -> SpanId {
        let mut bytes = [0; 8];
        let (front, check) = bytes.split_at_mut(CHANCE_BYTES);
        front.copy_from_slice(&chance);
        let digest = digest(&[&key.0, &self.trace.to_bytes(), &chance]);
        check.copy_from_slice(&digest[..check.len()]);
        SpanId::from_bytes(bytes)
    }
}

/// The span of the attempt under a job's lease of this number. It is named when the lease is given and recorded when the attempt
/// has ended, maybe by another process.
pub fn attempt(job: JobId, epoch: u32) -> SpanId {
    let [a, b, c, d, e, f, g, h, ..] = digest(&[b"attempt", job.as_bytes(), &epoch.to_be_bytes()]);
    SpanId::from_bytes(u64::from_be_bytes([a, b, c, d, e, f, g, h]).max(1).to_be_bytes())
}

fn digest(parts: &[&[u8]]) -> [u8; 32] {
    parts.iter().fold(Sha256::new(), |digest, part| digest.chain_update(part)).finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::Timestamp;
    use proptest::prelude::*;

    fn key() -> Key {
        Key::of(Keeper(7))
    }

    proptest! {
        #[test]
        fn a_recorded_call_is_recognized_from_what_is_stored(high: u64, low: u64, chance: u64) {
            let started = Context::root(high, low).started(chance, &key());

            let stored = Context::of(&started.told()).unwrap();
            prop_assert_eq!(&stored, &started);
            prop_assert!(stored.is_recorded(&Key::of(Keeper(7))));
            prop_assert_ne!(stored.span, SpanId::INVALID);
        }

        #[test]
        fn the_span_of_an_attempt_is_the_same_each_time_and_another_for_each_lease(
            micros in 0i64..(1 << 50), chance: u64, epoch in 1..u32::MAX,
        ) {
            let job = JobId::new(Timestamp::from_micros(micros), 0, chance);

            let span = attempt(job, epoch);

            prop_assert_eq!(span, attempt(JobId::from_bytes(*job.as_bytes()), epoch));
            prop_assert_ne!(span, SpanId::INVALID);
            prop_assert_ne!(span, attempt(job, epoch + 1));
        }
    }

    #[test]
    fn the_spans_of_others_are_not_recognized_nor_is_that_of_an_attempt() {
        let started = Context::root(1, 2).started(3, &key());
        let forged = Context::root(1, 2).started(3, &Key::of(Keeper(8)));

        let others =
            [started.by_chance(4), started.with(attempt(JobId::default(), 1)), Context::root(1, 3), forged];
        let other_trace = Context::root(1, 3).with(started.span);

        assert!(started.is_recorded(&key()));
        assert!(others.iter().chain([&other_trace]).all(|other| !other.is_recorded(&key())));
    }

    #[test]
    fn what_is_not_sampled_is_not_recorded_and_unknown_flags_are_dropped() {
        let trace = |flags: &str| Trace {
            parent: format!("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-{flags}"),
            state: "a=1".into(),
        };

        assert!(!Context::of(&trace("00")).unwrap().is_sampled());
        assert_eq!(Context::of(&trace("fb")).unwrap().told(), trace("03"));
        assert!(!Context::of(&trace("00")).unwrap().started(7, &key()).is_recorded(&key()));
        assert_eq!(Context::of(&Trace { parent: "00-x".into(), state: String::new() }), None);
    }
}
