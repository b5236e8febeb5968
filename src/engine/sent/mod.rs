//! What an attempt has sent, and where each part of it is: taken, on its way to be durable, or there. And what of it is to be
//! committed next.
//!
//! Pure: it knows no time, no task and no store. Those are the pump's, in `output`.

mod begun;
mod channel;
mod checkpoints;
mod held;
mod marks;
mod piece;
mod text;

pub use begun::Begun;
pub use checkpoints::{Admitted, SentCheckpoint};
pub use marks::Marks;
pub use piece::Piece;

use super::error::Error;
use crate::job::limits::{CHANNELS_MAX, OUTPUT_BYTES_MAX, OUTPUT_EVENT_BYTES_MAX, OUTPUT_HISTORY_BYTES_MAX};
use crate::job::{LogLine, Refusal, Sequence, Transition};
use channel::Channel;
use checkpoints::Checkpoints;
use held::{Held, Item};
use piece::{RECORD_BYTES, bytes_of};

/// The output and the log of one attempt that are not durable yet, and how much is.
#[derive(Debug)]
pub struct Sent {
    channels: Vec<Channel>,
    lines: Lines,
    checkpoints: Checkpoints,
    /// Bytes of output that the job has in its history, and those that are about to be.
    history: u64,
    coming: u64,
    /// What waits for the next commit, in the order in which it came.
    held: Held,
    /// How much has come altogether, and how much of that is durable.
    taken: u64,
    settled: u64,
    /// Nothing that came before this should be held any more.
    hurried: u64,
    /// The attempt's output lies behind this event.
    after: Sequence,
}

#[derive(Debug, Default)]
struct Lines {
    next: u64,
    offset: u64,
    durable: u64,
}

/// How much of what an attempt has sent is durable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Durable {
    /// Bytes of a channel.
    pub bytes: u64,
    /// Lines of the log.
    pub lines: u64,
    /// The number of the last checkpoint.
    pub checkpoints: u64,
}

impl Sent {
    /// Goes on behind what was sent already.
    pub fn new(begun: &Begun) -> Self {
        Self {
            channels: begun.channels.iter().map(|(name, bytes)| Channel::new(name, *bytes)).collect(),
            lines: Lines { next: begun.lines, offset: begun.lines, durable: begun.lines },
            checkpoints: Checkpoints::new(begun.checkpoints),
            history: begun.history,
            coming: 0,
            held: Held::default(),
            taken: 0,
            settled: 0,
            hurried: 0,
            after: begun.after,
        }
    }

    /// How much is not durable yet, without the data of checkpoints.
    pub fn pending(&self) -> usize {
        (self.taken - self.settled) as usize
    }

    /// Whether nobody should wait for company of what is held.
    pub fn is_urgent(&self) -> bool {
        let is_reset = self.held.begins_with_a_reset();
        self.hurried > self.settled || self.pending() >= OUTPUT_EVENT_BYTES_MAX || is_reset
    }

    /// Nothing that has come so far should be held any more; returns how much that is.
    pub fn hurry(&mut self) -> u64 {
        self.hurried = self.taken;
        self.taken
    }

    /// Whether all is durable that had come when this much had.
    pub fn is_settled(&self, taken: u64) -> bool {
        self.settled >= taken
    }

    /// Where the next byte of a channel and the next line of the log belong.
    pub fn next(&self, channel: &str) -> (u64, u64) {
        (self.known(channel).map_or(0, |known| known.next), self.lines.next)
    }

    /// How much of a channel and of the log is durable, and whether that is all that was taken of them.
    pub fn durable(&self, channel: &str) -> (Durable, bool) {
        let lines = self.lines.durable;
        let (checkpoints, all_checkpoints) = self.checkpoints.durable();
        let all_others = lines == self.lines.next && all_checkpoints;
        match self.known(channel) {
            Some(known) => {
                let (bytes, all) = known.durable();
                (Durable { bytes, lines, checkpoints }, all && all_others)
            }
            None => (Durable { bytes: 0, lines, checkpoints }, all_others),
        }
    }

    /// The events behind which, and up to which, the bytes from `start` to `end` of a channel lie; the latter only where
    /// that is known. About a mebibyte lies between them, where there are marks. Those are returned as well.
    pub fn lies_between(&self, channel: &str, start: u64, end: u64) -> (Sequence, Option<Sequence>, Marks) {
        let marks = self.known(channel).map(|known| known.marks.clone()).unwrap_or_default();
        let (before, behind) = marks.around(start, end);
        (before.unwrap_or(self.after), behind, marks)
    }

    /// Takes over the marks of a channel whose history was read to its end, while nobody reset it.
    pub fn mark(&mut self, channel: &str, marks: Marks) {
        if let Some(known) = self.channels.iter_mut().find(|known| known.name == channel) {
            known.marks.join(marks);
        }
    }

    fn known(&self, channel: &str) -> Option<&Channel> {
        self.channels.iter().find(|known| known.name == channel)
    }

    /// The number of a channel, which is made where there is room for another, once `more` bytes fit behind what it has, or
    /// behind what is kept of it. So the transition need not refuse them, which would be the end of all output of the attempt.
    pub fn room(&mut self, name: &str, kept: Option<u64>, more: usize) -> Result<usize, Error> {
        let voided = kept.map_or(0, |kept| self.next(name).0.saturating_sub(kept));
        let valid: u64 = self.channels.iter().map(|channel| channel.next).sum();
        let limits = [
            (valid - voided + more as u64, OUTPUT_BYTES_MAX),
            (self.history + self.coming + more as u64, OUTPUT_HISTORY_BYTES_MAX),
        ];
        if let Some((_, limit)) = limits.into_iter().find(|(bytes, limit)| bytes > limit) {
            return Err(Error::Refused(Refusal::OutputLimit { limit }));
        }
        if let Some(index) = self.channels.iter().position(|channel| channel.name == name) {
            return Ok(index);
        }
        if self.channels.len() >= CHANNELS_MAX {
            return Err(Error::Refused(Refusal::ChannelLimit));
        }
        self.channels.push(Channel::new(name, 0));
        Ok(self.channels.len() - 1)
    }

    /// Takes the next bytes of a channel.
    pub fn push(&mut self, index: usize, data: &[u8]) {
        self.channels[index].next += data.len() as u64;
        self.taken += data.len() as u64;
        self.coming += data.len() as u64;
        self.held.push(index, data);
    }

    /// Takes lines of the log.
    pub fn push_lines(&mut self, lines: Vec<LogLine>) {
        self.lines.next += lines.len() as u64;
        self.taken += bytes_of(&lines) as u64;
        self.held.push_lines(lines);
    }

    /// Voids what a channel has beyond `kept`.
    pub fn reset(&mut self, index: usize, kept: u64) {
        self.channels[index].reset(kept);
        self.taken += RECORD_BYTES as u64;
        self.held.push_reset(index, kept);
    }

    /// What is to be recorded of a checkpoint, see [`Checkpoints::admit`].
    pub fn admit(&self, checkpoint: SentCheckpoint, present: u64) -> Result<Option<Admitted>, Error> {
        self.checkpoints.admit(checkpoint, present)
    }

    /// Whether another checkpoint may come. One may be on its way and one wait, which the next takes the place of: so they are
    /// bounded without counting as pending, and whoever sends one after the other does not wait for each to be durable.
    pub fn has_room_for_a_checkpoint(&self) -> bool {
        self.held.has_room_for_a_checkpoint()
    }

    /// Takes a checkpoint. Whoever sends one waits for it.
    pub fn push_checkpoint(&mut self, checkpoint: Admitted) {
        self.checkpoints.take(&checkpoint);
        self.taken += RECORD_BYTES as u64;
        self.held.push_checkpoint(checkpoint);
        self.hurry();
    }

    /// Takes what goes into the next commit. A character of which only the beginning has come stays, unless that was all there
    /// was the last time as well: then no rest has come for a whole window. Where somebody waits, and so before each checkpoint,
    /// all goes as it is: where text may be cut there is the worker's to say.
    pub fn pieces(&mut self) -> Vec<Piece> {
        let items = self.held.take_batch();
        // A reset waits for nobody, so what comes before it goes as it is.
        let whole = self.hurried > self.settled || !self.held.is_empty();
        let mut last = vec![0; self.channels.len()];
        for (place, item) in items.iter().enumerate() {
            if let Item::Data(index, _) = item {
                last[*index] = place;
            }
        }
        let (mut pieces, mut kept_back) = (Vec::new(), Vec::new());
        for (place, item) in items.into_iter().enumerate() {
            match item {
                Item::Lines(lines) => {
                    let offset = self.lines.offset;
                    self.lines.offset += lines.len() as u64;
                    pieces.push(Piece::Lines { offset, lines });
                }
                Item::Checkpoint(checkpoint, counted) => pieces.push(Piece::Checkpoint(checkpoint, counted)),
                Item::Reset(index, kept) => {
                    let channel = &mut self.channels[index];
                    channel.commit_reset(kept);
                    pieces.push(Piece::Reset { index, channel: channel.name.clone(), kept });
                }
                Item::Data(index, mut data) => {
                    let channel = &mut self.channels[index];
                    if last[index] == place && !whole {
                        let rest = channel.keep_back(&mut data);
                        if !rest.is_empty() {
                            kept_back.push(Item::Data(index, rest));
                        }
                    }
                    if !data.is_empty() {
                        let offset = channel.offset;
                        channel.offset += data.len() as u64;
                        let (channel, data) = (channel.name.clone(), data.freeze());
                        pieces.push(Piece::Data { index, channel, offset, data });
                    }
                }
            }
        }
        self.held.give_back(kept_back);
        pieces
    }

    /// Takes note that `pieces` are durable, each with its step.
    pub fn settle(&mut self, pieces: &[Piece], steps: &[Transition]) {
        for (piece, step) in pieces.iter().zip(steps) {
            self.settled += piece.bytes() as u64;
            self.history = step.job.emitted.history_bytes;
            match piece {
                Piece::Data { index, offset, data, .. } => {
                    self.coming -= data.len() as u64;
                    self.channels[*index].settle(offset + data.len() as u64, &step.events);
                }
                Piece::Reset { index, kept, .. } => {
                    self.channels[*index].settle_reset(*kept, &step.events);
                }
                Piece::Lines { offset, lines } => self.lines.durable = offset + lines.len() as u64,
                Piece::Checkpoint(checkpoint, _) => self.checkpoints.settle(checkpoint),
            }
        }
    }
}

#[cfg(test)]
mod tests;
