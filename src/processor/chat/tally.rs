//! What of a batch is finished, as its checkpoint has it, and what it came to.

use super::answer::{Answer, Tokens};
use super::items::ITEMS_MAX;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// How often an item is asked that fails by accident, while others are answered.
const TRIES_MAX: u32 = 3;
/// The same where others were answered before it was asked and none since: it may be the provider as well.
const LONE_TRIES_MAX: u32 = 6;

/// Whose doing it is that an item has failed by accident.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blame {
    /// Its own: it is not asked again.
    Item,
    /// The provider's, as it seems.
    Provider,
    /// Others were answered, but it was not asked often.
    Open,
}

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
    /// The items that are not finished though they were asked.
    #[serde(default)]
    tried: BTreeMap<usize, Tried>,
}

/// How an item has fared that was asked and has neither answer nor error.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
struct Tried(
    /// How often it was asked.
    u32,
    /// How many had an answer when it was asked first.
    usize,
);

impl Tally {
    /// Reads what was written of a batch of so many items.
    pub fn read(text: &[u8], items: usize) -> Result<Self, String> {
        let tally: Self = serde_json::from_slice(text).map_err(|error| error.to_string())?;
        let bits: usize = tally.finished.iter().map(|word| word.count_ones() as usize).sum();
        let beyond = (items..tally.finished.len().saturating_mul(64)).any(|index| tally.has(index));
        match beyond || tally.answered.checked_add(tally.failed) != Some(bits) {
            true => Err(format!("it is not of {items} items")),
            false => Ok(tally),
        }
    }

    /// What is to be written of it.
    pub fn written(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a tally can be written")
    }

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

    /// How often this one was asked in vain.
    pub fn tries(&self, index: usize) -> u32 {
        self.tried.get(&index).map_or(0, |tried| tried.0)
    }

    /// This one has failed by accident. Who is to blame shows by the others; where the provider was not even `reached`, it is
    /// never the item.
    pub fn blame(&mut self, index: usize, reached: bool) -> Blame {
        let tried = self.tried.entry(index).or_insert(Tried(0, self.answered));
        if !reached {
            return Blame::Provider;
        }
        tried.0 = tried.0.saturating_add(1);
        let others_answered = self.answered > tried.1;
        let most = if others_answered { TRIES_MAX } else { LONE_TRIES_MAX };
        match (tried.0 >= most && self.answered > 0, others_answered) {
            (true, _) => Blame::Item,
            (false, true) => Blame::Open,
            (false, false) => Blame::Provider,
        }
    }

    fn finish(&mut self, index: usize) {
        self.tried.remove(&index);
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
    use crate::processor::chat::answer::Ended;

    #[test]
    fn a_tally_is_what_was_written_of_it_and_fits_into_a_checkpoint() {
        let mut tally = Tally::default();
        for index in 0..ITEMS_MAX {
            tally.blame(index, true);
        }
        let most = tally.written();
        for index in (0..ITEMS_MAX).filter(|index| index % 3 > 0) {
            tally.fail(index);
        }

        let written = tally.written();
        let read = Tally::read(&written, ITEMS_MAX).unwrap();

        assert!(most.len() < CHECKPOINT_BYTES_MAX, "{}", most.len());
        assert_eq!(read, tally);
        assert_eq!((0..ITEMS_MAX + 100).filter(|index| read.has(*index)).count(), read.failed);
        assert!(!read.has(0) && read.has(1) && read.has(2) && !read.has(3));
        assert_eq!((read.tries(0), read.tries(1)), (1, 0));
    }

    #[test]
    fn who_is_to_blame_shows_by_the_others() {
        use Blame::{Item, Open, Provider};
        let answer = Answer {
            text: None,
            finish_reason: Ended::Stop,
            truncated: false,
            model: None,
            usage: None,
            cost: None,
        };
        let (mut tally, mut blamed) = (Tally::default(), Vec::new());
        let mut blame = |tally: &mut Tally, index, reached| blamed.push(tally.blame(index, reached));

        // Before any answer it is the provider, however often.
        (0..9).for_each(|_| blame(&mut tally, 0, true));
        tally.answer(1, &answer);
        blame(&mut tally, 0, false);
        blame(&mut tally, 0, true);
        // With an answer in between, and without one.
        blame(&mut tally, 2, true);
        tally.answer(3, &answer);
        (0..2).for_each(|_| blame(&mut tally, 2, true));
        (0..6).for_each(|_| blame(&mut tally, 4, true));

        let expected = [vec![Provider; 10], vec![Item, Provider, Open, Item], vec![Provider; 5], vec![Item]];
        assert_eq!(blamed, expected.concat());
    }

    #[test]
    fn a_tally_of_other_items_or_with_wrong_sums_is_none() {
        let mut tally = Tally::default();
        tally.fail(70);
        let written = serde_json::to_string(&tally).unwrap();
        let swollen = written.replace("\"failed\":1", "\"failed\":2");

        assert!(Tally::read(written.as_bytes(), 71).is_ok());
        assert!(Tally::read(written.as_bytes(), 70).is_err());
        assert!(Tally::read(swollen.as_bytes(), 71).is_err());
    }
}
