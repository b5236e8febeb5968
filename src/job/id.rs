//! The ticket: a version 7 UUID whose order is the order of creation.

use super::time::Timestamp;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;
use uuid::Uuid;

/// How many jobs of one millisecond a store can tell apart.
pub const IDS_PER_MILLISECOND: u32 = 1 << COUNTER_BITS;

const COUNTER_BITS: u32 = 20;
/// Bits 12 to 19 of the counter's low end lie behind the variant, the rest of that half is chance.
const LOW_COUNTER_BITS: u32 = 8;
const CHANCE_BITS: u32 = 62 - LOW_COUNTER_BITS;

/// A job's id, given once by the store that accepted it.
///
/// A UUID of version 7 (RFC 9562, section 5.7) with a counter of 20 bits, method 1 of its section 6.2, so that ids of one
/// store grow in the order of acceptance.
///
/// The default is the nil UUID, which no store gives.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct JobId(Uuid);

impl JobId {
    /// The id of the `counter`-th job of the millisecond of `time`, filled up with `chance`.
    pub fn new(time: Timestamp, counter: u32, chance: u64) -> Self {
        debug_assert!(counter < IDS_PER_MILLISECOND);
        let millis = (time.as_micros() / 1000) as u64;
        let (high, low) = (u64::from(counter >> LOW_COUNTER_BITS), u64::from(counter) & 0xff);
        let first = (millis << 16) | (7 << 12) | high;
        let second = (0b10 << 62) | (low << CHANCE_BITS) | (chance >> (64 - CHANCE_BITS));
        Self(Uuid::from_u64_pair(first, second))
    }

    /// A number that orders ids as they were given and is unique in their store: milliseconds, then counter.
    ///
    /// It is not the id: of two ids with the same number at most one was ever given.
    pub fn ordinal(self) -> i64 {
        let (first, second) = self.0.as_u64_pair();
        let counter = ((first & 0xfff) << LOW_COUNTER_BITS) | ((second >> CHANCE_BITS) & 0xff);
        (((first >> 16) << COUNTER_BITS | counter) & i64::MAX as u64) as i64
    }

    /// The counter of the millisecond.
    pub fn counter(ordinal: i64) -> u32 {
        (ordinal as u64 & u64::from(IDS_PER_MILLISECOND - 1)) as u32
    }

    /// The smallest number that an id of this moment or later can have.
    pub fn first_ordinal(time: Timestamp) -> i64 {
        let millis = time.as_micros().div_euclid(1000).clamp(0, i64::MAX >> COUNTER_BITS);
        millis << COUNTER_BITS
    }

    /// When a job with this number was created, cut to the millisecond.
    pub fn time_of(ordinal: i64) -> Timestamp {
        Timestamp::from_micros((ordinal >> COUNTER_BITS) * 1000)
    }

    /// The bytes of the UUID.
    pub fn as_bytes(&self) -> &[u8; 16] {
        self.0.as_bytes()
    }

    /// The id with these bytes.
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(Uuid::from_bytes(bytes))
    }
}

impl fmt::Display for JobId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.hyphenated().fmt(formatter)
    }
}

impl fmt::Debug for JobId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

/// The text is not a UUID in its usual form of 36 characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a job id is a UUID of 36 characters, for example 0199c3a4-5f60-7c1e-8a52-3f0d9b7e6c11")]
pub struct MalformedId;

impl FromStr for JobId {
    type Err = MalformedId;

    fn from_str(text: &str) -> Result<Self, MalformedId> {
        if text.len() != 36 {
            return Err(MalformedId);
        }
        Uuid::try_parse(text).map(Self).map_err(|_| MalformedId)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn ids_order_as_their_moment_then_their_counter(
            a in 0i64..(1 << 50), b in 0i64..(1 << 50), m in 0u32..IDS_PER_MILLISECOND, n in 0u32..IDS_PER_MILLISECOND,
            x: u64, y: u64,
        ) {
            let left = JobId::new(Timestamp::from_micros(a), m, x);
            let right = JobId::new(Timestamp::from_micros(b), n, y);

            let expected = (a / 1000, m).cmp(&(b / 1000, n));

            prop_assert_eq!(left.ordinal().cmp(&right.ordinal()), expected);
            if expected.is_ne() {
                prop_assert_eq!(left.cmp(&right), expected);
            }
            prop_assert_eq!(JobId::counter(left.ordinal()), m);
            let first = JobId::first_ordinal(Timestamp::from_micros(a));
            prop_assert_eq!(left.ordinal() - first, i64::from(m));
            prop_assert_eq!(JobId::time_of(left.ordinal()).as_micros(), a / 1000 * 1000);
        }

        #[test]
        fn an_id_survives_its_text_and_is_version_seven(micros in 0i64..(1 << 50), counter in 0..IDS_PER_MILLISECOND, chance: u64) {
            let id = JobId::new(Timestamp::from_micros(micros), counter, chance);

            let text = id.to_string();

            prop_assert_eq!(text.parse::<JobId>(), Ok(id));
            prop_assert_eq!(Uuid::parse_str(&text).unwrap().get_version_num(), 7);
        }
    }

    #[test]
    fn other_spellings_of_a_uuid_are_refused() {
        for text in ["", "x", "0199c3a45f607c1e8a523f0d9b7e6c11", "{0199c3a4-5f60-7c1e-8a52-3f0d9b7e6c11}"] {
            assert_eq!(text.parse::<JobId>(), Err(MalformedId), "{text}");
        }
    }
}
