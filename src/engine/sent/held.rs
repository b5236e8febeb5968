//! What waits for the next commit, in the order in which it came: joined where that makes no difference, parted where a commit
//! has to end.

use super::checkpoints::Admitted;
use super::piece::RECORD_BYTES;
use super::text::completes;
use crate::job::LogLine;
use crate::mutants::{self, Mutant};
use bytes::BytesMut;

/// A part of what waits.
#[derive(Debug)]
pub enum Item {
    /// For the channel of this number.
    Data(usize, BytesMut),
    /// Of which only so much stays.
    Reset(usize, u64),
    /// For the log.
    Lines(Vec<LogLine>),
    /// Where the attempt is, and how much this counts: those count with it whose place it has taken.
    Checkpoint(Admitted, usize),
}

impl Item {
    fn is_reset(&self) -> bool {
        matches!(self, Self::Reset(..))
    }

    fn is_checkpoint(&self) -> bool {
        matches!(self, Self::Checkpoint(..))
    }
}

/// All that waits.
#[derive(Debug, Default)]
pub struct Held(Vec<Item>);

impl Held {
    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether the next commit is one that a reset begins.
    pub fn begins_with_a_reset(&self) -> bool {
        self.0.first().is_some_and(Item::is_reset)
    }

    /// Joins `data` to what waits of the channel, unless a line of the log or a reset has come in between.
    pub fn push(&mut self, index: usize, mut data: &[u8]) {
        let mut joins = true;
        for item in self.0.iter_mut().rev() {
            match item {
                Item::Lines(_) => joins = false,
                // What comes behind a reset or a checkpoint is committed after it: who waits for one counts what came before.
                Item::Reset(..) | Item::Checkpoint(..) => break,
                Item::Data(other, held) if *other == index => {
                    // What is behind a line still completes the character before it.
                    let length = if joins { data.len() } else { completes(held, data) };
                    held.extend_from_slice(&data[..length]);
                    data = &data[length..];
                    break;
                }
                Item::Data(..) => {}
            }
        }
        if !data.is_empty() {
            self.0.push(Item::Data(index, BytesMut::from(data)));
        }
    }

    /// Takes lines of the log.
    pub fn push_lines(&mut self, lines: Vec<LogLine>) {
        match self.0.last_mut() {
            Some(Item::Lines(held)) => held.extend(lines),
            _ => self.0.push(Item::Lines(lines)),
        }
    }

    /// Takes a reset of a channel.
    pub fn push_reset(&mut self, index: usize, kept: u64) {
        self.0.push(Item::Reset(index, kept));
    }

    /// Whether another checkpoint may come: none waits, or it takes the place of the one that does.
    pub fn has_room_for_a_checkpoint(&self) -> bool {
        let waiting = self.0.iter().filter(|item| item.is_checkpoint()).count();
        waiting == usize::from(self.replaceable().is_some())
    }

    /// Takes a checkpoint. One that waits for the same commit would be recorded only to be overwritten by it, so it takes the
    /// place of that one; whoever waits for the earlier one now waits for this one.
    pub fn push_checkpoint(&mut self, mut checkpoint: Admitted) {
        let mut counted = RECORD_BYTES;
        let behind = self.replaceable().map(|place| self.0.split_off(place));
        for item in behind.into_iter().flatten() {
            match item {
                Item::Checkpoint(earlier, others) => {
                    counted += others;
                    if mutants::is(Mutant::EarlierCheckpointKept) {
                        checkpoint = Admitted { number: checkpoint.number, ..earlier };
                    }
                }
                Item::Data(index, data) => self.push(index, &data),
                Item::Lines(lines) => self.push_lines(lines),
                Item::Reset(index, kept) => self.push_reset(index, kept),
            }
        }
        self.0.push(Item::Checkpoint(checkpoint, counted));
    }

    /// Where the checkpoint is that goes into the same commit as what comes next.
    fn replaceable(&self) -> Option<usize> {
        let last = self.0.iter().rposition(|item| item.is_checkpoint() || item.is_reset())?;
        self.0[last].is_checkpoint().then_some(last)
    }

    /// Takes what goes into one commit, up to a reset: that begins a commit of its own, since what was sent before it could
    /// not be repeated after it. Nor could a checkpoint behind it, which it voids and which is not recorded twice: that goes
    /// in the next one.
    pub fn take_batch(&mut self) -> Vec<Item> {
        let is_reset = self.begins_with_a_reset();
        let ends = |item: &Item| item.is_reset() || is_reset && item.is_checkpoint();
        let end = self.0.iter().skip(1).position(ends).map_or(self.0.len(), |place| place + 1);
        let rest = self.0.split_off(end);
        std::mem::replace(&mut self.0, rest)
    }

    /// Takes back what was not committed of a batch.
    pub fn give_back(&mut self, items: Vec<Item>) {
        self.0.splice(..0, items);
    }
}
