//! Which of the checkpoints that an attempt sends are new, and may be recorded.

use crate::engine::error::Error;
use crate::job::Refusal;
use bytes::Bytes;

/// A checkpoint as it is sent: where an attempt is, as it says.
#[derive(Clone, Debug, Default)]
pub struct SentCheckpoint {
    /// Its number among those of the attempt, where its sender may send it twice.
    pub number: Option<u64>,
    /// How much of the main output stays valid for the next attempt.
    pub output_bytes: u64,
    /// What that is given.
    pub data: Bytes,
}

/// A checkpoint that is to be recorded: it has its number, and keeps no more than there is before it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admitted {
    /// Its number among those of the attempt.
    pub number: u64,
    /// How much of the main output stays valid for the next attempt.
    pub output_bytes: u64,
    /// What that is given.
    pub data: Bytes,
}

/// The numbers of the last one that has come, and of the last that is durable.
#[derive(Debug)]
pub struct Checkpoints {
    taken: u64,
    durable: u64,
}

impl Checkpoints {
    /// Goes on behind so many.
    pub fn new(durable: u64) -> Self {
        Self { taken: durable, durable }
    }

    /// What is to be recorded of one, behind `present` bytes of the main output; nothing, where its number shows that it has
    /// come before. The transition would refuse too late what keeps more, which would be the end of all output of the attempt;
    /// one that has come before may, since there may have been a reset behind it.
    pub fn admit(&self, checkpoint: SentCheckpoint, present: u64) -> Result<Option<Admitted>, Error> {
        let SentCheckpoint { number, output_bytes, data } = checkpoint;
        let number = number.unwrap_or(self.taken + 1);
        if number <= self.taken {
            return Ok(None);
        }
        match output_bytes > present {
            true => Err(Error::Refused(Refusal::CheckpointAhead { output_bytes, present })),
            false => Ok(Some(Admitted { number, output_bytes, data })),
        }
    }

    /// Takes note of one that has come.
    pub fn take(&mut self, checkpoint: &Admitted) {
        self.taken = checkpoint.number;
    }

    /// Takes note that one is durable.
    pub fn settle(&mut self, checkpoint: &Admitted) {
        self.durable = checkpoint.number;
    }

    /// The number of the last that is durable, and whether that is the last that has come.
    pub fn durable(&self) -> (u64, bool) {
        (self.durable, self.durable == self.taken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_that_comes_twice_is_recorded_once_and_one_too_far_is_refused() {
        let mut checkpoints = Checkpoints::new(2);

        let mut recorded = Vec::new();
        for number in [Some(2), Some(5), Some(4), Some(5), None] {
            let checkpoint = SentCheckpoint { number, ..Default::default() };
            if let Some(admitted) = checkpoints.admit(checkpoint, 0).unwrap() {
                checkpoints.take(&admitted);
                recorded.push(admitted.number);
            }
        }

        assert_eq!((recorded, checkpoints.durable()), (vec![5, 6], (2, false)));
        let ahead = |number| SentCheckpoint { number, output_bytes: 1, data: Bytes::new() };
        let refusal = Refusal::CheckpointAhead { output_bytes: 1, present: 0 };
        assert_eq!(checkpoints.admit(ahead(None), 0), Err(Error::Refused(refusal)));
        assert_eq!(checkpoints.admit(ahead(Some(6)), 0), Ok(None));
    }
}
