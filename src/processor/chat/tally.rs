//! What of a batch is finished, as its checkpoint has it, and what it came to.

use super::answer::{Answer, Tokens};
use super::items::ITEMS_MAX;
use serde::{Deserialize, Serialize};

/// The items that are finished, and the sums over them.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tally {
    /// A bit for each item, from the lowest on.
    finished: Vec<u64>,
    /// How many of them have an answer.
    pub answered: usize,
    /// How many have an error.
    pub failed: usize,
    /// Tokens of all answers, where the provider says.
    pub usage: Option<Tokens>,
    /// What they cost, where they have a price.
    pub cost: Option<f64>,
}

impl Tally {
    /// How many items are finished.
    pub fn finished(&self) -> usize {
        self.answered + self.failed
    }

    /// Whether this one is.
    pub fn has(&self, index: usize) -> bool {
        self.finished.get(index / 64).is_some_and(|word| word >> (index % 64) & 1 == 1)
    }

    /// This one has an answer.
    pub fn answer(&mut self, index: usize, answer: &Answer) {
        self.finish(index);
        self.answered += 1;
        self.add(answer);
    }

    /// This one has an error.
    pub fn fail(&mut self, index: usize) {
        self.finish(index);
        self.failed += 1;
    }

    /// Adds what an answer has used, whatever becomes of it.
    pub fn add(&mut self, answer: &Answer) {
        if let Some(tokens) = answer.usage {
            *self.usage.get_or_insert_default() += tokens;
        }
        if let Some(cost) = answer.cost {
            *self.cost.get_or_insert_default() += cost;
        }
    }

    fn finish(&mut self, index: usize) {
        debug_assert!(index < ITEMS_MAX && !self.has(index));
        if self.finished.len() <= index / 64 {
            self.finished.resize(index / 64 + 1, 0);
        }
        self.finished[index / 64] |= 1 << (index % 64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::limits::CHECKPOINT_BYTES_MAX;

    #[test]
    fn a_tally_is_what_was_written_of_it_and_fits_into_a_checkpoint() {
        let mut tally = Tally::default();
        for index in (0..ITEMS_MAX).filter(|index| index % 3 > 0) {
            tally.fail(index);
        }

        let written = serde_json::to_string(&tally).unwrap();
        let read: Tally = serde_json::from_str(&written).unwrap();

        assert!(written.len() < CHECKPOINT_BYTES_MAX / 50, "{}", written.len());
        assert_eq!(read, tally);
        assert_eq!((0..ITEMS_MAX + 100).filter(|index| read.has(*index)).count(), read.failed);
        assert!(!read.has(0) && read.has(1) && read.has(2) && !read.has(3));
    }
}
