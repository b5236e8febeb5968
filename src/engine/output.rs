//! Joins the pieces of an attempt's output and log before they are numbered: a million tokens are not a million rows, and
//! the first one is not late.
//!
//! With a leading edge: the first piece after a silence is committed at once, what follows within [`WINDOW`] of it is held
//! and joined. At most one commit of an attempt's output is under way at a time, so pieces stay in order and a commit of
//! unknown outcome can be repeated. What comes with an offset is checked in `emission`.

use super::commit::{Committer, received};
use super::error::Error;
use crate::job::limits::{CHANNELS_MAX, OUTPUT_BYTES_MAX, OUTPUT_EVENT_BYTES_MAX};
use crate::job::{Body, Command, Event, Job, LeaseToken, LogLine, Refusal, Sequence};
use crate::store::{Operation, Outcome};
use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::sync::futures::Notified;
use tokio::time::Instant;

/// How long pieces are held to be joined.
const WINDOW: Duration = Duration::from_millis(50);
/// How much of an attempt's output may wait to be durable; whoever writes more waits.
const PENDING_BYTES_MAX: usize = 256 << 10;
/// What a line of the log counts beside its text.
const LINE_BYTES: usize = 32;
/// How long to wait before a commit of unknown outcome is repeated.
const REPEAT_AFTER: Duration = Duration::from_millis(100);
/// How far marks are apart, and so how much is read at most to compare what is sent again.
const MARK_EVERY: u64 = 1 << 20;

/// What an attempt has sent before its output is taken in here: where it goes on.
#[derive(Clone, Debug, Default)]
pub struct Begun {
    channels: Vec<(String, u64)>,
    lines: u64,
    /// The attempt's output lies behind this event.
    after: Sequence,
}

impl Begun {
    /// What the attempt that `job` is in has sent; nothing, where it is still to begin.
    pub fn of(job: &Job) -> Self {
        let accepted = job.lease.as_ref().is_some_and(|lease| lease.accepted);
        let valid = |bytes| if accepted { bytes } else { 0 };
        Self {
            channels: job
                .emitted
                .channels
                .iter()
                .map(|channel| (channel.name.clone(), valid(channel.bytes)))
                .collect(),
            lines: valid(job.emitted.attempt_log_lines),
            // In any other state than this, the last change of state is not the attempt's beginning.
            after: if job.state == crate::job::State::Running { job.state_sequence } else { 0 },
        }
    }
}

/// The output and the log of one attempt that are not durable yet, and how much is.
#[derive(Debug)]
pub struct Output {
    state: Mutex<State>,
    /// Something became durable, or failed.
    moved: Notify,
    /// Nobody should wait for company.
    hurry: Notify,
    /// The attempt's output lies behind this event.
    after: Sequence,
    /// Whoever sends frames with offsets has it for the time of one.
    turn: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct State {
    channels: Vec<Channel>,
    lines: Lines,
    /// What waits for the next commit, in the order in which it came.
    held: Vec<Item>,
    /// Bytes that are not durable yet, all together.
    pending: usize,
    /// A task sees to it that they become so.
    pumping: bool,
    /// No piece should be held any more.
    hurried: bool,
    failed: Option<Error>,
    listeners: Vec<Weak<Notify>>,
}

#[derive(Debug)]
struct Channel {
    name: String,
    /// Where the next byte belongs that comes.
    next: u64,
    /// Where the next one belongs that is committed.
    offset: u64,
    durable: u64,
    /// How much was held when only the beginning of a character was, the last time.
    begun: usize,
    /// Here and there an offset, with the event behind which its bytes lie.
    marks: Vec<(u64, Sequence)>,
}

#[derive(Debug, Default)]
struct Lines {
    next: u64,
    offset: u64,
    durable: u64,
}

#[derive(Debug)]
enum Item {
    /// For the channel of this number.
    Data(usize, BytesMut),
    Lines(Vec<LogLine>),
}

/// How much of what an attempt has sent is durable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Durable {
    /// Bytes of a channel.
    pub bytes: u64,
    /// Lines of the log.
    pub lines: u64,
}

impl Output {
    /// Goes on behind what was sent already.
    pub fn new(begun: &Begun) -> Self {
        let channels = begun.channels.iter().map(|(name, bytes)| Channel::new(name, *bytes)).collect();
        let lines = Lines { next: begun.lines, offset: begun.lines, durable: begun.lines };
        Self {
            state: Mutex::new(State { channels, lines, ..Default::default() }),
            moved: Notify::new(),
            hurry: Notify::new(),
            after: begun.after,
            turn: tokio::sync::Mutex::default(),
        }
    }

    /// Waits until nobody else is in the middle of a frame.
    pub async fn turn(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.turn.lock().await
    }

    /// Takes the next bytes of a channel; waits while too much is not durable yet.
    pub async fn append(
        self: &Arc<Self>,
        committer: &Arc<Committer>,
        token: &LeaseToken,
        channel: &str,
        mut data: Bytes,
    ) -> Result<(), Error> {
        while !data.is_empty() {
            let room = self.room().await?;
            let mut state = self.state.lock();
            let channel = state.channel(channel)?;
            state.check_room_for(data.len().min(room))?;
            state.push(channel, &data.split_to(room.min(data.len())));
            self.pump_on(&mut state, committer, token);
        }
        Ok(())
    }

    /// Takes the next lines of the log likewise.
    pub async fn append_lines(
        self: &Arc<Self>,
        committer: &Arc<Committer>,
        token: &LeaseToken,
        lines: Vec<LogLine>,
    ) -> Result<(), Error> {
        self.room().await?;
        let mut state = self.state.lock();
        state.push_lines(lines);
        self.pump_on(&mut state, committer, token);
        Ok(())
    }

    /// Waits until there is room, and says how much.
    async fn room(&self) -> Result<usize, Error> {
        loop {
            let moved = self.moved.notified();
            {
                let state = self.state.lock();
                state.check()?;
                let room = PENDING_BYTES_MAX.saturating_sub(state.pending);
                if room > 0 {
                    return Ok(room);
                }
            }
            moved.await;
        }
    }

    fn pump_on(self: &Arc<Self>, state: &mut State, committer: &Arc<Committer>, token: &LeaseToken) {
        if !std::mem::replace(&mut state.pumping, true) {
            tokio::spawn(Arc::clone(self).pump(Arc::clone(committer), *token));
        } else if state.pending >= OUTPUT_EVENT_BYTES_MAX {
            self.hurry.notify_one();
        }
    }

    /// Waits until all that was taken is durable.
    pub async fn flush(&self) -> Result<(), Error> {
        loop {
            let moved = self.moved.notified();
            {
                let mut state = self.state.lock();
                state.check()?;
                if state.pending == 0 {
                    state.hurried = false;
                    return Ok(());
                }
                state.hurried = true;
            }
            self.hurry.notify_one();
            moved.await;
        }
    }

    /// Ready when more has become durable than now is.
    pub fn moved(&self) -> Notified<'_> {
        self.moved.notified()
    }

    /// Rings whenever more has become durable, for as long as `listener` lives.
    pub fn listen(&self, listener: &Arc<Notify>) {
        self.state.lock().listeners.push(Arc::downgrade(listener));
    }

    /// How much of a channel and of the log is durable, and whether that is all that was taken of them; an error where no
    /// more will be.
    pub fn durable(&self, channel: &str) -> Result<(Durable, bool), Error> {
        let state = self.state.lock();
        state.check()?;
        let known = state.channels.iter().find(|known| known.name == channel);
        let (bytes, next) = known.map_or((0, 0), |known| (known.durable, known.next));
        let lines = state.lines.durable;
        Ok((Durable { bytes, lines }, bytes == next && lines == state.lines.next))
    }

    /// Where the next byte of a channel and the next line of the log belong.
    pub fn next(&self, channel: &str) -> Result<(u64, u64), Error> {
        let state = self.state.lock();
        state.check()?;
        let known = state.channels.iter().find(|known| known.name == channel);
        Ok((known.map_or(0, |known| known.next), state.lines.next))
    }

    /// The events behind which, and up to which, the bytes from `start` to `end` of a channel lie; the latter only where
    /// that is known. About a mebibyte lies between them.
    pub fn lies_between(&self, channel: &str, start: u64, end: u64) -> (Sequence, Option<Sequence>) {
        let state = self.state.lock();
        let marks = state.channels.iter().find(|known| known.name == channel).map(|known| &known.marks[..]);
        let marks = marks.unwrap_or_default();
        let after = marks.iter().rev().find(|(offset, _)| *offset <= start).map_or(self.after, |mark| mark.1);
        (after, marks.iter().find(|(offset, _)| *offset >= end).map(|mark| mark.1))
    }

    /// Takes note of a step that was recorded beside the pump, while nothing was pending.
    pub fn recorded(&self, channel: &str, job: &Job, events: &[Event]) {
        let mut state = self.state.lock();
        let Ok(index) = state.channel(channel) else { return };
        let valid = job.emitted.channels.iter().find(|known| known.name == channel);
        let known = &mut state.channels[index];
        known.note(events);
        known.durable = valid.map_or(0, |valid| valid.bytes);
        (known.next, known.offset) = (known.durable, known.durable);
    }

    /// Commits what is held, once a window, until there was nothing for a whole one.
    async fn pump(self: Arc<Self>, committer: Arc<Committer>, token: LeaseToken) {
        loop {
            let opened = Instant::now();
            let pieces = {
                let mut state = self.state.lock();
                if state.pending == 0 {
                    state.pumping = false;
                    return;
                }
                state.pieces()
            };
            let committed = commit(&committer, &token, &pieces).await;
            let failed = committed.is_err();
            self.state.lock().settle(&pieces, committed);
            self.moved.notify_waiters();
            if failed {
                return;
            }
            let full = || {
                let state = self.state.lock();
                state.hurried || state.pending >= OUTPUT_EVENT_BYTES_MAX
            };
            while !full() {
                let window = tokio::time::timeout_at(opened + WINDOW, self.hurry.notified());
                if window.await.is_err() {
                    break;
                }
            }
        }
    }
}

/// What is committed as one command.
enum Piece {
    Data { index: usize, channel: String, offset: u64, data: Bytes },
    Lines { offset: u64, lines: Vec<LogLine> },
}

impl Piece {
    fn bytes(&self) -> usize {
        match self {
            Self::Data { data, .. } => data.len(),
            Self::Lines { lines, .. } => bytes_of(lines),
        }
    }
}

fn bytes_of(lines: &[LogLine]) -> usize {
    lines.iter().map(|line| line.message.len() + LINE_BYTES).sum()
}

impl Channel {
    fn new(name: &str, bytes: u64) -> Self {
        let name = name.to_owned();
        Self { name, next: bytes, offset: bytes, durable: bytes, begun: 0, marks: Vec::new() }
    }

    /// Sets marks in what was recorded.
    fn note(&mut self, events: &[Event]) {
        for event in events {
            let is_far = |offset: u64| self.marks.last().is_none_or(|(last, _)| last + MARK_EVERY <= offset);
            match &event.body {
                Body::OutputAppended { channel, offset, .. } if *channel == self.name && is_far(*offset) => {
                    self.marks.push((*offset, event.sequence - 1));
                }
                Body::OutputReset { channel, kept_bytes } if *channel == self.name => {
                    self.marks.retain(|(offset, _)| offset < kept_bytes);
                }
                _ => {}
            }
        }
    }
}

impl State {
    fn check(&self) -> Result<(), Error> {
        self.failed.clone().map_or(Ok(()), Err)
    }

    /// The number of a channel, which is made where there is room for another.
    fn channel(&mut self, name: &str) -> Result<usize, Error> {
        self.check()?;
        if let Some(index) = self.channels.iter().position(|channel| channel.name == name) {
            return Ok(index);
        }
        if self.channels.len() == CHANNELS_MAX {
            return Err(Error::Refused(Refusal::ChannelLimit));
        }
        self.channels.push(Channel::new(name, 0));
        Ok(self.channels.len() - 1)
    }

    /// So that the transition need not refuse it, which would be the end of all output of the attempt.
    fn check_room_for(&self, more: usize) -> Result<(), Error> {
        let valid: u64 = self.channels.iter().map(|channel| channel.next).sum();
        match valid + more as u64 > OUTPUT_BYTES_MAX {
            true => Err(Error::Refused(Refusal::OutputLimit { limit: OUTPUT_BYTES_MAX })),
            false => Ok(()),
        }
    }

    /// Joins `data` to what is held of the channel, unless a line of the log has come in between.
    fn push(&mut self, index: usize, mut data: &[u8]) {
        self.channels[index].next += data.len() as u64;
        self.pending += data.len();
        let mut joins = true;
        for item in self.held.iter_mut().rev() {
            match item {
                Item::Lines(_) => joins = false,
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

    fn push_lines(&mut self, lines: Vec<LogLine>) {
        self.lines.next += lines.len() as u64;
        self.pending += bytes_of(&lines);
        match self.held.last_mut() {
            Some(Item::Lines(held)) => held.extend(lines),
            _ => self.held.push(Item::Lines(lines)),
        }
    }

    /// Takes what is held. A character of which only the beginning has come stays, unless that was all there was the last
    /// time as well: then no rest has come for a whole window.
    fn pieces(&mut self) -> Vec<Piece> {
        let hurried = self.hurried;
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
                Item::Data(index, mut held) => {
                    let channel = &mut self.channels[index];
                    let mut length = held.len();
                    if last[index] == place && !hurried {
                        let whole = held.len() - incomplete_character(&held);
                        let stuck = whole == 0 && held.len() == channel.begun;
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
        pieces
    }

    /// Takes note of what has become of `pieces`.
    fn settle(&mut self, pieces: &[Piece], committed: Result<Vec<Vec<Event>>, Error>) {
        match committed {
            Err(error) => self.failed = Some(error),
            Ok(recorded) => {
                for (piece, events) in pieces.iter().zip(recorded) {
                    self.pending -= piece.bytes();
                    match piece {
                        Piece::Data { index, offset, data, .. } => {
                            let channel = &mut self.channels[*index];
                            channel.durable = offset + data.len() as u64;
                            channel.note(&events);
                        }
                        Piece::Lines { offset, lines } => self.lines.durable = offset + lines.len() as u64,
                    }
                }
            }
        }
        self.listeners.retain(|listener| match listener.upgrade() {
            Some(listener) => {
                listener.notify_one();
                true
            }
            None => false,
        });
    }
}

/// Commits `pieces` in one batch, again and again while the outcome is unknown; returns the events of each.
async fn commit(
    committer: &Committer,
    token: &LeaseToken,
    pieces: &[Piece],
) -> Result<Vec<Vec<Event>>, Error> {
    let send = |piece: &Piece| {
        let lease = *token;
        let command = match piece {
            Piece::Data { channel, offset, data, .. } => Command::AppendOutput {
                lease,
                channel: channel.clone(),
                reset_to: None,
                offset: *offset,
                data: data.clone(),
            },
            Piece::Lines { offset, lines } => {
                Command::AppendLog { lease, offset: *offset, lines: lines.clone() }
            }
        };
        committer.queue(Operation::Apply(token.job, Box::new(command)))
    };
    loop {
        let answers: Vec<_> = pieces.iter().map(send).collect();
        let mut transient = None;
        let mut recorded = Vec::with_capacity(pieces.len());
        for answer in answers {
            match received(answer).await {
                Ok(Outcome::Apply(outcome)) => recorded.push(outcome?.events),
                Ok(_) => unreachable!("an outcome is of its operation's kind"),
                Err(error) if error.is_transient() => transient = Some(error),
                Err(error) => return Err(error),
            }
        }
        match transient {
            None => return Ok(recorded),
            Some(error) if committer.is_stopped() => return Err(error),
            Some(error) => {
                tracing::warn!(%error, "output is committed again");
                tokio::time::sleep(REPEAT_AFTER).await;
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
}
