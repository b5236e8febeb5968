//! Joins the pieces of an attempt's output and log before they are numbered: a million tokens are not a million rows, and
//! the first one is not late.
//!
//! With a leading edge: the first piece after a silence is committed at once, what follows within [`WINDOW`] of it is held
//! and joined. At most one commit of an attempt's output is under way at a time, so pieces stay in order and a commit of
//! unknown outcome can be repeated; it is the pump's, so nothing depends on whether whoever sent the pieces still waits. What
//! comes with an offset is checked in `emission`.

use super::commit::Committer;
use super::error::Error;
use super::sent::{Admitted, Begun, Durable, Marks, Piece, Sent, SentCheckpoint};
use crate::job::{LeaseToken, LogLine, Sequence, Transition};
use bytes::Bytes;
use parking_lot::Mutex;
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::sync::futures::Notified;
use tokio::time::Instant;

/// How long pieces are held to be joined.
const WINDOW: Duration = Duration::from_millis(50);
/// How much of an attempt's output may wait to be durable; whoever writes more waits. Two checkpoints may beside that.
const PENDING_BYTES_MAX: usize = 256 << 10;
/// How long to wait before a commit of unknown outcome is repeated.
const REPEAT_AFTER: Duration = Duration::from_millis(100);

/// The output and the log of one attempt on their way to be durable.
#[derive(Debug)]
pub struct Output {
    state: Mutex<State>,
    /// Something became durable, or failed.
    moved: Notify,
    /// Nobody should wait for company.
    hurry: Notify,
    /// Whoever sends frames with offsets has it for the time of one.
    turn: tokio::sync::Mutex<()>,
}

/// What comes behind bytes of a channel, and becomes durable with the last of them.
#[derive(Debug, Default)]
pub struct Trailer {
    /// Of the log.
    pub lines: Vec<LogLine>,
    /// Where the attempt is.
    pub checkpoint: Option<Admitted>,
}

#[derive(Debug)]
struct State {
    sent: Sent,
    /// A task sees to it that what is pending becomes durable.
    pumping: bool,
    failed: Option<Error>,
    listeners: Vec<Weak<Notify>>,
}

impl Output {
    /// Goes on behind what was sent already.
    pub fn new(begun: &Begun) -> Self {
        let sent = Sent::new(begun);
        Self {
            state: Mutex::new(State { sent, pumping: false, failed: None, listeners: Vec::new() }),
            moved: Notify::new(),
            hurry: Notify::new(),
            turn: tokio::sync::Mutex::default(),
        }
    }

    /// Waits until nobody else is in the middle of a frame.
    pub async fn turn(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.turn.lock().await
    }

    /// Takes the next bytes of a channel and what comes behind them; waits while too much is not durable yet. What is refused is
    /// refused as a whole. Of the bytes, those that had to wait for room are committed with what is behind them.
    pub async fn append(
        self: &Arc<Self>,
        committer: &Arc<Committer>,
        token: &LeaseToken,
        channel: &str,
        mut data: Bytes,
        behind: Trailer,
    ) -> Result<(), Error> {
        let with_checkpoint = behind.checkpoint.is_some();
        if data.is_empty() && behind.lines.is_empty() && !with_checkpoint {
            return Ok(());
        }
        loop {
            let room = self.room(with_checkpoint).await?;
            let mut state = self.state.lock();
            if !data.is_empty() {
                let channel = state.sent.room(channel, None, data.len())?;
                state.sent.push(channel, &data.split_to(room.min(data.len())));
            }
            if data.is_empty() {
                if !behind.lines.is_empty() {
                    state.sent.push_lines(behind.lines);
                }
                if let Some(checkpoint) = behind.checkpoint {
                    state.sent.push_checkpoint(checkpoint);
                }
                self.pump_on(&mut state, committer, token);
                return Ok(());
            }
            self.pump_on(&mut state, committer, token);
        }
    }

    /// What is to be recorded of a checkpoint, when the main output will have `present` bytes; nothing, where it has come
    /// before. Whoever has the turn asks, and keeps it until the checkpoint is taken.
    pub fn admit(&self, checkpoint: SentCheckpoint, present: u64) -> Result<Option<Admitted>, Error> {
        self.state.lock().sent()?.admit(checkpoint, present)
    }

    /// Voids what a channel has beyond `kept`, on the condition that `more` bytes have room behind that.
    pub async fn reset(
        self: &Arc<Self>,
        committer: &Arc<Committer>,
        token: &LeaseToken,
        channel: &str,
        kept: u64,
        more: usize,
    ) -> Result<(), Error> {
        self.room(false).await?;
        let mut state = self.state.lock();
        let channel = state.sent.room(channel, Some(kept), more)?;
        state.sent.reset(channel, kept);
        self.pump_on(&mut state, committer, token);
        Ok(())
    }

    /// Waits until there is room, and says how much; where a checkpoint is to come, for that as well.
    async fn room(&self, with_checkpoint: bool) -> Result<usize, Error> {
        let fits = |sent: &Sent| !with_checkpoint || sent.has_room_for_a_checkpoint();
        let room = |sent: &Sent| PENDING_BYTES_MAX.saturating_sub(sent.pending());
        self.once(|sent| Some(room(sent)).filter(|room| *room > 0 && fits(sent))).await
    }

    /// Waits until `found` finds something.
    async fn once<T>(&self, found: impl Fn(&Sent) -> Option<T>) -> Result<T, Error> {
        loop {
            let moved = self.moved.notified();
            if let Some(found) = found(self.state.lock().sent()?) {
                return Ok(found);
            }
            moved.await;
        }
    }

    fn pump_on(self: &Arc<Self>, state: &mut State, committer: &Arc<Committer>, token: &LeaseToken) {
        if !std::mem::replace(&mut state.pumping, true) {
            tokio::spawn(Arc::clone(self).pump(Arc::clone(committer), *token));
        } else if state.sent.is_urgent() {
            self.hurry.notify_one();
        }
    }

    /// Waits until all is durable that was taken by now. Cancel safe.
    pub async fn flush(&self) -> Result<(), Error> {
        let taken = self.state.lock().sent()?.hurry();
        loop {
            let moved = self.moved.notified();
            if self.state.lock().sent()?.is_settled(taken) {
                return Ok(());
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
        let listeners = &mut self.state.lock().listeners;
        listeners.retain(|known| known.strong_count() > 0);
        if !listeners.iter().any(|known| std::ptr::eq(known.as_ptr(), Arc::as_ptr(listener))) {
            listeners.push(Arc::downgrade(listener));
        }
    }

    /// How much of a channel and of the log is durable, and whether that is all that was taken of them; an error where no
    /// more will be.
    pub fn durable(&self, channel: &str) -> Result<(Durable, bool), Error> {
        Ok(self.state.lock().sent()?.durable(channel))
    }

    /// Where the next byte of a channel and the next line of the log belong.
    pub fn next(&self, channel: &str) -> Result<(u64, u64), Error> {
        Ok(self.state.lock().sent()?.next(channel))
    }

    /// See [`Sent::lies_between`].
    pub fn lies_between(&self, channel: &str, start: u64, end: u64) -> (Sequence, Option<Sequence>, Marks) {
        self.state.lock().sent.lies_between(channel, start, end)
    }

    /// See [`Sent::mark`].
    pub fn mark(&self, channel: &str, marks: Marks) {
        self.state.lock().sent.mark(channel, marks);
    }

    /// Commits what is held, once a window, until there was nothing for a whole one.
    async fn pump(self: Arc<Self>, committer: Arc<Committer>, token: LeaseToken) {
        loop {
            let opened = Instant::now();
            let pieces = {
                let mut state = self.state.lock();
                if state.sent.pending() == 0 {
                    state.pumping = false;
                    return;
                }
                state.sent.pieces()
            };
            let committed = commit(&committer, &token, &pieces).await;
            let failed = committed.is_err();
            self.state.lock().settle(&pieces, committed);
            self.moved.notify_waiters();
            if failed {
                return;
            }
            while !self.state.lock().sent.is_urgent() {
                let window = tokio::time::timeout_at(opened + WINDOW, self.hurry.notified());
                if window.await.is_err() {
                    break;
                }
            }
        }
    }
}

impl State {
    /// What is on its way; an error where it will never come.
    fn sent(&mut self) -> Result<&mut Sent, Error> {
        match &self.failed {
            Some(error) => Err(error.clone()),
            None => Ok(&mut self.sent),
        }
    }

    /// Takes note of what has become of `pieces`.
    fn settle(&mut self, pieces: &[Piece], committed: Result<Vec<Transition>, Error>) {
        match committed {
            Err(error) => self.failed = Some(error),
            Ok(steps) => self.sent.settle(pieces, &steps),
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

/// Commits `pieces` together, again and again while the outcome is unknown; returns the step of each.
async fn commit(
    committer: &Committer,
    token: &LeaseToken,
    pieces: &[Piece],
) -> Result<Vec<Transition>, Error> {
    loop {
        let commands = pieces.iter().map(|piece| piece.command(token)).collect();
        let answers = committer.apply_together(token.job, commands);
        let mut transient = None;
        let mut steps = Vec::with_capacity(pieces.len());
        for answer in answers {
            match answer.await {
                Ok(step) => steps.push(*step),
                Err(error) if error.is_transient() => transient = Some(error),
                Err(error) => return Err(error),
            }
        }
        match transient {
            None => return Ok(steps),
            Some(error) if committer.is_stopped() => return Err(error),
            Some(error) => {
                tracing::warn!(%error, "output is committed again");
                tokio::time::sleep(REPEAT_AFTER).await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_listens_twice_is_rung_once_and_who_is_gone_is_forgotten() {
        let output = Output::new(&Begun::default());
        let (here, gone) = (Arc::new(Notify::new()), Arc::new(Notify::new()));

        output.listen(&gone);
        drop(gone);
        (0..3).for_each(|_| output.listen(&here));

        assert_eq!(output.state.lock().listeners.len(), 1);
    }
}
