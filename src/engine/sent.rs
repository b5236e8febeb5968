//! What an attempt has sent, and where each part of it is: taken, on its way to be durable, or there. And what of it is to be
//! committed next.
//!
//! Pure: it knows no time, no task and no store. Those are the pump's, in `output`.

use super::error::Error;
use crate::job::limits::{CHANNELS_MAX, OUTPUT_BYTES_MAX, OUTPUT_EVENT_BYTES_MAX, OUTPUT_HISTORY_BYTES_MAX};
use crate::job::{self, Body, Command, Event, Job, LeaseToken, LogLine, Refusal, Sequence, Transition};
use bytes::{Bytes, BytesMut};

/// What a line of the log, or a reset, counts beside its text.
const RECORD_BYTES: usize = 32;
/// How far marks are apart, and so how much is read at most to compare what is sent again.
const MARK_EVERY: u64 = 1 << 20;

/// What an attempt has sent before its output is taken in here: where it goes on.
#[derive(Clone, Debug, Default)]
pub struct Begun {
    channels: Vec<(String, u64)>,
    lines: u64,
    checkpoints: u64,
    /// Bytes of output of all attempts, voided ones included.
    history: u64,
    /// The attempt's output lies behind this event.
    after: Sequence,
}

impl Begun {
    /// What the attempt that `job` is in has sent; nothing, where it is still to begin. The channels of earlier attempts are
    /// known all the same, since they count.
    pub fn of(job: &Job) -> Self {
        let accepted = job.lease.as_ref().is_some_and(|lease| lease.accepted);
        let valid = |bytes| if accepted { bytes } else { 0 };
        let kept = job.checkpoint().unwrap_or(0);
        let bytes = |channel: &job::Channel| match channel.name.is_empty() {
            true if !accepted => kept,
            true | false => valid(channel.bytes),
        };
        // In any other state than this, the last change of state is not the attempt's beginning; and what a checkpoint has kept,
        // be it void by now, lies before that.
        let is_all_behind = job.state == job::State::Running && job.emitted.checkpoint.is_none();
        let channels = job.emitted.channels.iter();
        Self {
            channels: channels.map(|channel| (channel.name.clone(), bytes(channel))).collect(),
            lines: valid(job.emitted.attempt_log_lines),
            checkpoints: valid(job.emitted.checkpoint.map_or(0, |checkpoint| checkpoint.number)),
            history: job.emitted.history_bytes,
            after: if is_all_behind { job.state_sequence } else { 0 },
        }
    }
}

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
    held: Vec<Item>,
    /// How much has come altogether, and how much of that is durable.
    taken: u64,
    settled: u64,
    /// Nothing that came before this should be held any more.
    hurried: u64,
    /// The attempt's output lies behind this event.
    after: Sequence,
}

#[derive(Debug)]
struct Channel {
    name: String,
    /// Where the next byte belongs that comes.
    next: u64,
    /// Where the next one belongs that is committed.
    offset: u64,
    durable: u64,
    /// Resets that are not durable yet, and the least that they keep: of what lies beyond, nothing counts as durable.
    resets: usize,
    kept: u64,
    /// How much was held when only the beginning of a character was, the last time.
    begun: usize,
    marks: Marks,
}

#[derive(Debug, Default)]
struct Lines {
    next: u64,
    offset: u64,
    durable: u64,
}

/// The numbers of the last one that has come, and of the last that is durable.
#[derive(Debug, Default)]
struct Checkpoints {
    taken: u64,
    durable: u64,
}

#[derive(Debug)]
enum Item {
    /// For the channel of this number.
    Data(usize, BytesMut),
    /// Of which only so much stays.
    Reset(usize, u64),
    Lines(Vec<LogLine>),
    /// Its number, and how much of the main output it keeps.
    Checkpoint(u64, u64, Bytes),
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

/// What is committed as one command.
#[derive(Debug)]
pub enum Piece {
    /// More of a channel.
    Data { index: usize, channel: String, offset: u64, data: Bytes },
    /// The end of what a channel had beyond `kept`.
    Reset { index: usize, channel: String, kept: u64 },
    /// More of the log.
    Lines { offset: u64, lines: Vec<LogLine> },
    /// Where the attempt is.
    Checkpoint { number: u64, output_bytes: u64, data: Bytes },
}

impl Piece {
    /// The command that records it. Repeated after an unknown outcome, it and what was sent behind it do nothing more, but
    /// that a reset voids what was recorded behind it, which is then recorded again.
    pub fn command(&self, token: &LeaseToken) -> Command {
        let lease = *token;
        match self {
            Self::Data { channel, offset, data, .. } => Command::AppendOutput {
                lease,
                channel: channel.clone(),
                reset_to: None,
                offset: *offset,
                data: data.clone(),
            },
            Self::Reset { channel, kept, .. } => Command::AppendOutput {
                lease,
                channel: channel.clone(),
                reset_to: Some(*kept),
                offset: *kept,
                data: Bytes::new(),
            },
            Self::Lines { offset, lines } => {
                Command::AppendLog { lease, offset: *offset, lines: lines.clone() }
            }
            Self::Checkpoint { number, output_bytes, data } => Command::Checkpoint {
                lease,
                number: *number,
                output_bytes: *output_bytes,
                data: data.clone(),
            },
        }
    }

    fn bytes(&self) -> usize {
        match self {
            Self::Data { data, .. } => data.len(),
            Self::Reset { .. } => RECORD_BYTES,
            Self::Lines { lines, .. } => bytes_of(lines),
            Self::Checkpoint { data, .. } => data.len() + RECORD_BYTES,
        }
    }
}

fn bytes_of(lines: &[LogLine]) -> usize {
    lines.iter().map(|line| line.message.len() + RECORD_BYTES).sum()
}

/// Here and there an offset of a channel, with the event behind which its bytes lie.
#[derive(Clone, Debug, Default)]
pub struct Marks(Vec<(u64, Sequence)>);

impl Marks {
    /// Takes note of an event of the channel; of such events all must come, in their order.
    pub fn note(&mut self, channel: &str, event: &Event) {
        match &event.body {
            Body::OutputAppended { channel: other, offset, .. } if other == channel => {
                self.set(*offset, event.sequence - 1);
            }
            Body::OutputReset { channel: other, kept_bytes } if other == channel => {
                self.0.retain(|(offset, _)| offset < kept_bytes);
            }
            _ => {}
        }
    }

    fn set(&mut self, offset: u64, after: Sequence) {
        let place = self.0.partition_point(|(known, _)| *known <= offset);
        let is_far = place.checked_sub(1).is_none_or(|before| self.0[before].0 + MARK_EVERY <= offset);
        if is_far {
            self.0.insert(place, (offset, after));
        }
    }
}

impl Channel {
    fn new(name: &str, bytes: u64) -> Self {
        Self {
            name: name.to_owned(),
            next: bytes,
            offset: bytes,
            durable: bytes,
            resets: 0,
            kept: u64::MAX,
            begun: 0,
            marks: Marks::default(),
        }
    }
}

impl Sent {
    /// Goes on behind what was sent already.
    pub fn new(begun: &Begun) -> Self {
        Self {
            channels: begun.channels.iter().map(|(name, bytes)| Channel::new(name, *bytes)).collect(),
            lines: Lines { next: begun.lines, offset: begun.lines, durable: begun.lines },
            checkpoints: Checkpoints { taken: begun.checkpoints, durable: begun.checkpoints },
            history: begun.history,
            coming: 0,
            held: Vec::new(),
            taken: 0,
            settled: 0,
            hurried: 0,
            after: begun.after,
        }
    }

    /// How much is not durable yet.
    pub fn pending(&self) -> usize {
        (self.taken - self.settled) as usize
    }

    /// Whether nobody should wait for company of what is held.
    pub fn is_urgent(&self) -> bool {
        let resets = matches!(self.held.first(), Some(Item::Reset(..)));
        self.hurried > self.settled || self.pending() >= OUTPUT_EVENT_BYTES_MAX || resets
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
        let (lines, checkpoints) = (self.lines.durable, self.checkpoints.durable);
        let all_others = lines == self.lines.next && checkpoints == self.checkpoints.taken;
        match self.known(channel) {
            Some(known) => {
                let all = known.durable == known.next && known.resets == 0;
                (Durable { bytes: known.durable.min(known.kept), lines, checkpoints }, all && all_others)
            }
            None => (Durable { bytes: 0, lines, checkpoints }, all_others),
        }
    }

    /// The events behind which, and up to which, the bytes from `start` to `end` of a channel lie; the latter only where
    /// that is known. About a mebibyte lies between them, where there are marks. Those are returned as well.
    pub fn lies_between(&self, channel: &str, start: u64, end: u64) -> (Sequence, Option<Sequence>, Marks) {
        let marks = self.known(channel).map(|known| known.marks.clone()).unwrap_or_default();
        let before = marks.0.iter().rev().find(|(offset, _)| *offset <= start);
        let behind = marks.0.iter().find(|(offset, _)| *offset >= end);
        (before.map_or(self.after, |mark| mark.1), behind.map(|mark| mark.1), marks)
    }

    /// Takes over the marks of a channel whose history was read to its end, while nobody reset it.
    pub fn mark(&mut self, channel: &str, marks: Marks) {
        if let Some(known) = self.channels.iter_mut().find(|known| known.name == channel) {
            for (offset, after) in marks.0 {
                known.marks.set(offset, after);
            }
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

    /// Joins `data` to what is held of the channel, unless a line of the log or a reset has come in between.
    pub fn push(&mut self, index: usize, mut data: &[u8]) {
        self.channels[index].next += data.len() as u64;
        self.taken += data.len() as u64;
        self.coming += data.len() as u64;
        let mut joins = true;
        for item in self.held.iter_mut().rev() {
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
            self.held.push(Item::Data(index, BytesMut::from(data)));
        }
    }

    /// Takes lines of the log.
    pub fn push_lines(&mut self, lines: Vec<LogLine>) {
        self.lines.next += lines.len() as u64;
        self.taken += bytes_of(&lines) as u64;
        match self.held.last_mut() {
            Some(Item::Lines(held)) => held.extend(lines),
            _ => self.held.push(Item::Lines(lines)),
        }
    }

    /// Whether a checkpoint may keep so much of the main output. The transition would refuse it too late, as `room` says.
    pub fn check_checkpoint(&self, output_bytes: u64) -> Result<(), Error> {
        let present = self.next("").0;
        match output_bytes > present {
            true => Err(Error::Refused(Refusal::CheckpointAhead { output_bytes, present })),
            false => Ok(()),
        }
    }

    /// Takes a checkpoint, unless its number shows that it has come before. Whoever sends one waits for it.
    pub fn push_checkpoint(&mut self, number: Option<u64>, output_bytes: u64, data: Bytes) {
        let number = number.unwrap_or(self.checkpoints.taken + 1);
        if number <= self.checkpoints.taken {
            return;
        }
        self.checkpoints.taken = number;
        self.taken += (data.len() + RECORD_BYTES) as u64;
        self.held.push(Item::Checkpoint(number, output_bytes, data));
        self.hurry();
    }

    /// The number of the last checkpoint that has come.
    pub fn checkpoints(&self) -> u64 {
        self.checkpoints.taken
    }

    /// Voids what a channel has beyond `kept`.
    pub fn reset(&mut self, index: usize, kept: u64) {
        let channel = &mut self.channels[index];
        channel.next = kept;
        channel.resets += 1;
        channel.kept = channel.kept.min(kept);
        self.taken += RECORD_BYTES as u64;
        self.held.push(Item::Reset(index, kept));
    }

    /// Takes what is held, up to a reset: that begins a commit of its own, since what was sent before it could not be
    /// repeated after it. Nor could a checkpoint behind it, which it voids and which is not recorded twice: that goes in the
    /// next one. A character of which only the beginning has come stays, unless that was all there was the last time
    /// as well: then no rest has come for a whole window.
    pub fn pieces(&mut self) -> Vec<Piece> {
        let resets = |item: &Item| matches!(item, Item::Reset(..));
        let is_reset = self.held.first().is_some_and(resets);
        let ends = |item: &Item| resets(item) || is_reset && matches!(item, Item::Checkpoint(..));
        let end = self.held.iter().skip(1).position(ends).map_or(self.held.len(), |place| place + 1);
        let rest = self.held.split_off(end);
        // A reset waits for nobody, so what comes before it goes as it is.
        let whole = self.hurried > self.settled || !rest.is_empty();
        // What a checkpoint keeps goes with it, whatever it ends with: where text may be cut is the worker's to say.
        let needed = self.held.iter().filter_map(|item| match item {
            Item::Checkpoint(_, output_bytes, _) => Some(*output_bytes),
            Item::Data(..) | Item::Reset(..) | Item::Lines(_) => None,
        });
        let needed = needed.max().unwrap_or(0);
        let mut last = vec![0; self.channels.len()];
        for (place, item) in self.held.iter().enumerate() {
            if let Item::Data(index, _) = item {
                last[*index] = place;
            }
        }
        let mut pieces = Vec::new();
        for (place, item) in std::mem::take(&mut self.held).into_iter().enumerate() {
            match item {
                Item::Lines(lines) => {
                    let offset = self.lines.offset;
                    self.lines.offset += lines.len() as u64;
                    pieces.push(Piece::Lines { offset, lines });
                }
                Item::Checkpoint(number, output_bytes, data) => {
                    pieces.push(Piece::Checkpoint { number, output_bytes, data });
                }
                Item::Reset(index, kept) => {
                    let channel = &mut self.channels[index];
                    (channel.offset, channel.begun) = (kept, 0);
                    pieces.push(Piece::Reset { index, channel: channel.name.clone(), kept });
                }
                Item::Data(index, mut held) => {
                    let channel = &mut self.channels[index];
                    let mut length = held.len();
                    if last[index] == place && !whole {
                        let whole = held.len() - incomplete_character(&held);
                        let is_needed = channel.name.is_empty() && channel.offset + (whole as u64) < needed;
                        let stuck = whole == 0 && held.len() == channel.begun || is_needed;
                        length = if stuck { held.len() } else { whole };
                        channel.begun = held.len() - length;
                    }
                    let data = held.split_to(length).freeze();
                    if !held.is_empty() {
                        self.held.push(Item::Data(index, held));
                    }
                    if !data.is_empty() {
                        let (channel, offset) = (channel.name.clone(), channel.offset);
                        self.channels[index].offset += length as u64;
                        pieces.push(Piece::Data { index, channel, offset, data });
                    }
                }
            }
        }
        self.held.extend(rest);
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
                    self.channels[*index].durable = offset + data.len() as u64;
                }
                Piece::Reset { index, kept, .. } => {
                    let channel = &mut self.channels[*index];
                    channel.durable = *kept;
                    channel.resets -= 1;
                    if channel.resets == 0 {
                        channel.kept = u64::MAX;
                    }
                }
                Piece::Lines { offset, lines } => self.lines.durable = offset + lines.len() as u64,
                Piece::Checkpoint { number, .. } => self.checkpoints.durable = *number,
            }
            if let Piece::Data { index, .. } | Piece::Reset { index, .. } = piece {
                let Channel { name, marks, .. } = &mut self.channels[*index];
                step.events.iter().for_each(|event| marks.note(name, event));
            }
        }
    }
}

/// How many bytes at the beginning of `data` belong to the character that `held` ends with the beginning of.
fn completes(held: &[u8], data: &[u8]) -> usize {
    if incomplete_character(held) == 0 {
        return 0;
    }
    data.iter().take(3).take_while(|byte| **byte & 0b1100_0000 == 0b1000_0000).count()
}

/// The length of a UTF-8 character's beginning at the end of `data`, whose rest has not come.
fn incomplete_character(data: &[u8]) -> usize {
    (1..=data.len().min(3))
        .find(|length| {
            let begun = &data[data.len() - length..];
            std::str::from_utf8(begun)
                .is_err_and(|error| error.valid_up_to() == 0 && error.error_len().is_none())
        })
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_character_is_never_split() {
        let text = "aé€😀".as_bytes();

        let incomplete: Vec<usize> = (1..=text.len()).map(|end| incomplete_character(&text[..end])).collect();

        assert_eq!(incomplete, [0, 1, 0, 1, 2, 0, 1, 2, 3, 0]);
    }

    #[test]
    fn bytes_that_are_no_text_are_not_held_back() {
        assert_eq!(incomplete_character(&[0x80, 0x80, 0x80, 0x80]), 0);
        assert_eq!(incomplete_character(&[0xff]), 0);
        assert_eq!(incomplete_character(b""), 0);
    }

    #[test]
    fn what_the_transition_would_refuse_is_refused_here_and_costs_nothing() {
        let mut sent = Sent::new(&Begun { history: OUTPUT_HISTORY_BYTES_MAX - 10, ..Default::default() });
        let refused = |limit| Err(Error::Refused(Refusal::OutputLimit { limit }));

        assert_eq!(sent.room("", None, 11), refused(OUTPUT_HISTORY_BYTES_MAX));
        let index = sent.room("", None, 10).unwrap();
        sent.push(index, b"0123456789");

        assert_eq!(sent.room("", None, 1), refused(OUTPUT_HISTORY_BYTES_MAX));
        assert_eq!(sent.room("", Some(0), 0), Ok(index));
    }

    #[test]
    fn of_what_a_reset_voids_nothing_counts_as_durable_any_more() {
        let begun = Begun { channels: vec![(String::new(), 1_000)], ..Default::default() };
        let mut sent = Sent::new(&begun);

        sent.reset(0, 100);

        assert_eq!(sent.next("").0, 100);
        assert_eq!(sent.durable(""), (Durable { bytes: 100, ..Default::default() }, false));
    }

    #[test]
    fn a_checkpoint_takes_along_what_it_keeps_and_no_more_of_a_character() {
        for (output_bytes, committed) in [(4, 4), (3, 3), (0, 3)] {
            let mut sent = Sent::new(&Begun::default());
            let index = sent.room("", None, 4).unwrap();
            sent.push(index, &"abc€".as_bytes()[..4]);
            sent.push_checkpoint(None, output_bytes, Bytes::from_static(b"c"));
            // Nobody waits.
            sent.hurried = 0;

            let pieces = sent.pieces();

            let [Piece::Data { data, .. }, Piece::Checkpoint { number: 1, .. }] = &pieces[..] else {
                panic!("{pieces:?}")
            };
            assert_eq!(data.len(), committed);
        }
    }

    #[test]
    fn a_checkpoint_that_comes_twice_is_taken_once_and_one_too_far_is_refused() {
        let mut sent = Sent::new(&Begun { checkpoints: 2, ..Default::default() });

        for number in [Some(2), Some(5), Some(4), Some(5), None] {
            sent.push_checkpoint(number, 0, Bytes::new());
        }

        let numbers: Vec<String> = sent.pieces().iter().map(|piece| format!("{piece:?}")).collect();
        assert_eq!(numbers.len(), 2, "{numbers:?}");
        assert_eq!((sent.checkpoints(), sent.durable("").0.checkpoints), (6, 2));
        let ahead = Refusal::CheckpointAhead { output_bytes: 1, present: 0 };
        assert_eq!(sent.check_checkpoint(1), Err(Error::Refused(ahead)));
    }

    #[test]
    fn nothing_passes_a_checkpoint() {
        let mut sent = Sent::new(&Begun::default());
        let index = sent.room("", None, 4).unwrap();
        sent.push(index, b"ab");
        sent.reset(index, 1);
        sent.push(index, b"c");
        sent.push_checkpoint(None, 2, Bytes::from_static(b"c"));
        sent.push(index, b"d");

        let batches: Vec<String> = (0..4)
            .map(|_| {
                let piece = |piece: &Piece| match piece {
                    Piece::Data { offset, data, .. } => format!("{offset}:{}", data.len()),
                    Piece::Reset { kept, .. } => format!("reset {kept}"),
                    Piece::Checkpoint { number, .. } => format!("checkpoint {number}"),
                    Piece::Lines { .. } => unreachable!("none were sent"),
                };
                sent.pieces().iter().map(piece).collect::<Vec<_>>().join(", ")
            })
            .collect();

        assert_eq!(batches, ["0:2", "reset 1, 1:1", "checkpoint 1, 2:1", ""]);
    }

    #[test]
    fn a_reset_begins_a_commit_of_its_own() {
        let mut sent = Sent::new(&Begun::default());
        let index = sent.room("", None, 6).unwrap();
        sent.push(index, b"abc");
        sent.reset(index, 1);
        sent.push(index, b"de");
        sent.reset(index, 2);

        let batches: Vec<String> = (0..4)
            .map(|_| {
                let piece = |piece: &Piece| match piece {
                    Piece::Data { offset, data, .. } => format!("{offset}:{}", data.len()),
                    Piece::Reset { kept, .. } => format!("reset {kept}"),
                    Piece::Lines { .. } | Piece::Checkpoint { .. } => unreachable!("none were sent"),
                };
                sent.pieces().iter().map(piece).collect::<Vec<_>>().join(", ")
            })
            .collect();

        assert_eq!(batches, ["0:3", "reset 1, 1:2", "reset 2", ""]);
    }
}
