//! What waits for the next commit, in the order in which it came: joined where that makes no difference, parted where a commit
//! has to end.

use super::checkpoints::Admitted;
use super::text::completes;
use crate::job::LogLine;
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
    /// Where the attempt is.
    Checkpoint(Admitted),
}

impl Item {
    fn is_reset(&self) -> bool {
        matches!(self, Self::Reset(..))
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

    /// Takes a checkpoint.
    pub fn push_checkpoint(&mut self, checkpoint: Admitted) {
        self.0.push(Item::Checkpoint(checkpoint));
    }

    /// Takes what goes into one commit, up to a reset: that begins a commit of its own, since what was sent before it could
    /// not be repeated after it. Nor could a checkpoint behind it, which it voids and which is not recorded twice: that goes
    /// in the next one.
    pub fn take_batch(&mut self) -> Vec<Item> {
        let is_reset = self.begins_with_a_reset();
        let ends = |item: &Item| item.is_reset() || is_reset && matches!(item, Item::Checkpoint(..));
        let end = self.0.iter().skip(1).position(ends).map_or(self.0.len(), |place| place + 1);
        let rest = self.0.split_off(end);
        std::mem::replace(&mut self.0, rest)
    }

    /// Takes back what was not committed of a batch.
    pub fn give_back(&mut self, items: Vec<Item>) {
        self.0.splice(..0, items);
    }
}
