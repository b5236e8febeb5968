//! The right to work on a job and to record what came of it.

use super::id::JobId;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// The server that watches over a lease's deadline, which only its memory holds.
///
/// It stays the same over restarts of that server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Keeper(pub u64);

/// Hexadecimal digits of a secret, zeros in front included.
const SECRET_DIGITS: usize = 16;

/// Names one lease in every report made under it.
///
/// The epoch grows with each lease of a job, so an earlier token can do nothing. The secret is there so that a token
/// cannot be guessed from a ticket.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct LeaseToken {
    /// The job that is leased.
    pub job: JobId,
    /// The number of the lease among those of its job, from 1.
    pub epoch: u32,
    /// What only the holder knows.
    pub secret: u64,
}

impl fmt::Display for LeaseToken {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}.{:x}.{:016x}", self.job, self.epoch, self.secret)
    }
}

impl fmt::Debug for LeaseToken {
    /// Leaves out the secret.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}.{:x}", self.job, self.epoch)
    }
}

/// The text is not a lease token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this is not a lease token")]
pub struct MalformedToken;

impl FromStr for LeaseToken {
    type Err = MalformedToken;

    fn from_str(text: &str) -> Result<Self, MalformedToken> {
        let mut parts = text.splitn(3, '.');
        let mut next = || parts.next().ok_or(MalformedToken);
        let (job, epoch, secret) = (next()?, next()?, next()?);
        // A lease has one name only.
        let digits = |text: &str| text.bytes().all(|c| matches!(c, b'0'..=b'9' | b'a'..=b'f'));
        if epoch.starts_with('0') || secret.len() != SECRET_DIGITS || !digits(epoch) || !digits(secret) {
            return Err(MalformedToken);
        }
        Ok(Self {
            job: job.parse().map_err(|_| MalformedToken)?,
            epoch: u32::from_str_radix(epoch, 16).map_err(|_| MalformedToken)?,
            secret: u64::from_str_radix(secret, 16).map_err(|_| MalformedToken)?,
        })
    }
}

/// A lease as the job's row knows it. Its deadline is not here: it lives in the memory of its keeper.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// What only the holder knows.
    pub secret: u64,
    /// The worker that holds it.
    pub worker: String,
    /// The server that watches over its deadline.
    pub keeper: Keeper,
    /// The worker runs in its keeper's own process, so the lease ends when that process does.
    pub in_process: bool,
    /// The worker has begun; until then the claim is provisional and leaves no trace.
    pub accepted: bool,
}

/// How a lease ended: the last that a report ended, or a cancellation, remembered so that a repeated report gets the same
/// answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndedLease {
    /// Its number.
    pub epoch: u32,
    /// Its secret.
    pub secret: u64,
    /// What ended it.
    pub by: EndedBy,
    /// What became of the job then.
    pub state: super::State,
}

/// What ended a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum EndedBy {
    /// Its worker completed the job.
    Completion,
    /// Its worker failed, or stopped as it was asked to.
    Failure,
    /// Its worker gave the job back.
    Release,
    /// The server took it back: a timeout, a cancellation, silence, a restart.
    Server,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::Timestamp;

    #[test]
    fn a_token_survives_its_text_and_hides_its_secret_in_logs() {
        let job = JobId::new(Timestamp::from_micros(1_790_000_000_000_000), 7, 99);
        let token = LeaseToken { job, epoch: 300, secret: 0xdead_beef };

        assert_eq!(token.to_string().parse(), Ok(token));
        assert!(!format!("{token:?}").contains("deadbeef"));
        assert_eq!("x.1.2".parse::<LeaseToken>(), Err(MalformedToken));
        for other in [
            format!("{token}0"),
            token.to_string().replace(".12c.", ".+12c."),
            format!("{job}.012c.00000000deadbeef"),
        ] {
            assert_eq!(other.parse::<LeaseToken>(), Err(MalformedToken), "{other}");
        }
    }
}
