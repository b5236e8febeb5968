//! Joins the pieces of an attempt's output before they are numbered: a million tokens are not a million rows, and the first
//! one is not late.
//!
//! With a leading edge: the first piece after a silence is committed at once, what follows within [`WINDOW`] of it is held
//! and joined. At most one commit of an attempt's output is under way at a time, so pieces stay in order and a commit of
//! unknown outcome can be repeated.

use super::commit::{Committer, received};
use super::error::Error;
use crate::job::limits::OUTPUT_EVENT_BYTES_MAX;
use crate::job::{Command, LeaseToken};
use crate::store::{Operation, Outcome};
use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;

/// How long pieces are held to be joined.
const WINDOW: Duration = Duration::from_millis(50);
/// How much of an attempt's output may wait to be durable; whoever writes more waits.
const PENDING_BYTES_MAX: usize = 256 << 10;
/// How long to wait before a commit of unknown outcome is repeated.
const REPEAT_AFTER: Duration = Duration::from_millis(100);

/// The output of one attempt that is not durable yet.
#[derive(Debug, Default)]
pub struct Output {
    state: Mutex<State>,
    /// Something became durable, or failed.
    moved: Notify,
    /// Nobody should wait for company.
    hurry: Notify,
}

#[derive(Debug, Default)]
struct State {
    channels: Vec<Channel>,
    /// Bytes that are not durable yet, all channels together.
    pending: usize,
    /// A task sees to it that they become so.
    pumping: bool,
    /// No piece should be held any more.
    hurried: bool,
    failed: Option<Error>,
}

#[derive(Debug)]
struct Channel {
    name: String,
    /// Where `held` begins.
    offset: u64,
    held: BytesMut,
    /// How much was held when only the beginning of a character was, the last time.
    begun: usize,
}

impl Output {
    /// Takes the next bytes of a channel; waits while too much is not durable yet.
    pub async fn append(
        self: &Arc<Self>,
        committer: &Arc<Committer>,
        token: &LeaseToken,
        channel: &str,
        mut data: Bytes,
    ) -> Result<(), Error> {
        while !data.is_empty() {
            let moved = self.moved.notified();
            if self.take(committer, token, channel, &mut data)? {
                continue;
            }
            moved.await;
        }
        Ok(())
    }

    /// Takes as much of `data` as there is room for; whether there was any.
    fn take(
        self: &Arc<Self>,
        committer: &Arc<Committer>,
        token: &LeaseToken,
        name: &str,
        data: &mut Bytes,
    ) -> Result<bool, Error> {
        let mut state = self.state.lock();
        if let Some(error) = &state.failed {
            return Err(error.clone());
        }
        let room = PENDING_BYTES_MAX.saturating_sub(state.pending).min(data.len());
        if room == 0 {
            return Ok(false);
        }
        state.pending += room;
        let piece = data.split_to(room);
        match state.channels.iter_mut().find(|channel| channel.name == name) {
            Some(channel) => channel.held.extend_from_slice(&piece),
            None => {
                state.channels.push(Channel {
                    name: name.to_owned(),
                    offset: 0,
                    held: BytesMut::from(&piece[..]),
                    begun: 0,
                });
            }
        }
        if !std::mem::replace(&mut state.pumping, true) {
            tokio::spawn(Arc::clone(self).pump(Arc::clone(committer), *token));
        } else if state.pending >= OUTPUT_EVENT_BYTES_MAX {
            self.hurry.notify_one();
        }
        Ok(true)
    }

    /// Waits until all that was taken is durable.
    pub async fn flush(&self) -> Result<(), Error> {
        loop {
            let moved = self.moved.notified();
            {
                let mut state = self.state.lock();
                if let Some(error) = &state.failed {
                    return Err(error.clone());
                }
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
            if let Err(error) = commit(&committer, &token, &pieces).await {
                self.state.lock().failed = Some(error);
                self.moved.notify_waiters();
                return;
            }
            {
                let mut state = self.state.lock();
                state.pending -= pieces.iter().map(|piece| piece.data.len()).sum::<usize>();
            }
            self.moved.notify_waiters();
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

/// What one channel commits next.
struct Piece {
    channel: String,
    offset: u64,
    data: Bytes,
}

impl State {
    /// Takes what is held. A character of which only the beginning has come stays, unless that was all there was the last
    /// time as well: then no rest has come for a whole window.
    fn pieces(&mut self) -> Vec<Piece> {
        let hurried = self.hurried;
        let mut pieces = Vec::new();
        for channel in self.channels.iter_mut().filter(|channel| !channel.held.is_empty()) {
            let whole = channel.held.len() - incomplete_character(&channel.held);
            let length = if hurried || whole == 0 { channel.held.len() } else { whole };
            if !hurried && whole == 0 && channel.held.len() != channel.begun {
                channel.begun = channel.held.len();
                continue;
            }
            channel.begun = channel.held.len() - length;
            let data = channel.held.split_to(length).freeze();
            pieces.push(Piece { channel: channel.name.clone(), offset: channel.offset, data });
            channel.offset += length as u64;
        }
        pieces
    }
}

/// Commits `pieces` in one batch, again and again while the outcome is unknown.
async fn commit(committer: &Committer, token: &LeaseToken, pieces: &[Piece]) -> Result<(), Error> {
    let send = |piece: &Piece| {
        let command = Command::AppendOutput {
            lease: *token,
            channel: piece.channel.clone(),
            reset_to: None,
            offset: piece.offset,
            data: piece.data.clone(),
        };
        committer.queue(Operation::Apply(token.job, Box::new(command)))
    };
    loop {
        let answers: Vec<_> = pieces.iter().map(send).collect();
        let mut transient = None;
        for answer in answers {
            match received(answer).await {
                Ok(Outcome::Apply(outcome)) => {
                    outcome?;
                }
                Ok(_) => unreachable!("an outcome is of its operation's kind"),
                Err(error) if error.is_transient() => transient = Some(error),
                Err(error) => return Err(error),
            }
        }
        match transient {
            None => return Ok(()),
            Some(error) if committer.is_stopped() => return Err(error),
            Some(error) => {
                tracing::warn!(%error, "output is committed again");
                tokio::time::sleep(REPEAT_AFTER).await;
            }
        }
    }
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
