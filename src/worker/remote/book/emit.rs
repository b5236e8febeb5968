//! What is said and heard on `Emit`: output and logs, until they are durable.

use super::{Book, Held, Pages, lost, refused};
use crate::job::LeaseToken;
use crate::proto;
use crate::worker::remote::output::Output;
use crate::worker::source::Error;
use bytes::Bytes;

/// How often a gap is looked at again. It may come of a frame that was refused before it; one that is still there when all
/// was sent anew is one in what the server had called durable.
const GAPS_MAX: u32 = 3;

/// What is said of a checkpoint that cannot be kept.
const NO_CHECKPOINTS: &str = "the server is older than checkpoints and keeps none";

impl Book {
    /// Takes output, and waits while too much of it is not durable.
    pub async fn append(&self, token: &LeaseToken, push: impl Fn(&mut Output)) -> Result<(), Error> {
        loop {
            let moved = self.moved.notified();
            let pushed = {
                let mut pages = self.pages.lock();
                let held = pages.held.get_mut(token).ok_or_else(lost)?;
                held.refused.clone().map_or(Ok(()), Err)?;
                let has_room = held.output.has_room();
                if has_room {
                    push(&mut held.output);
                    pages.emit(token);
                }
                has_room
            };
            if pushed {
                self.to_emit.notify_one();
                return Ok(());
            }
            moved.await;
        }
    }

    /// Takes a checkpoint behind all output that was taken, and waits until it is durable, or another that came later. Refused
    /// where the server is older than checkpoints; all else goes on then.
    pub async fn checkpoint(&self, token: &LeaseToken, data: Bytes, output_bytes: u64) -> Result<(), Error> {
        let number = {
            let mut pages = self.pages.lock();
            let held = pages.held.get_mut(token).ok_or_else(lost)?;
            held.refused.clone().map_or(Ok(()), Err)?;
            let number = held.output.checkpoint(data, output_bytes);
            pages.emit(token);
            number
        };
        self.to_emit.notify_one();
        loop {
            let moved = self.moved.notified();
            {
                let pages = self.pages.lock();
                let held = pages.held.get(token).ok_or_else(lost)?;
                held.refused.clone().map_or(Ok(()), Err)?;
                match held.output.has_recorded(number) {
                    Some(true) => return Ok(()),
                    Some(false) => return Err(Error::Refused(NO_CHECKPOINTS.to_owned())),
                    None => {}
                }
            }
            moved.await;
        }
    }

    /// Waits until the server has what a success rests on: the stages and the log. Output may still be on its way, unless it
    /// was missed already. Returns how much of that there is.
    pub async fn completed(&self, token: &LeaseToken) -> Result<u64, Error> {
        self.flushed(token, |held| match held.missed {
            true => held.output.is_empty(),
            false => !held.output.has_lines(),
        })
        .await
    }

    /// Waits until the server has all of an attempt.
    pub async fn emitted(&self, token: &LeaseToken) -> Result<(), Error> {
        self.flushed(token, |held| held.output.is_empty()).await.map(drop)
    }

    async fn flushed(&self, token: &LeaseToken, is_done: impl Fn(&Held) -> bool) -> Result<u64, Error> {
        loop {
            let moved = self.moved.notified();
            {
                let pages = self.pages.lock();
                let held = pages.held.get(token).ok_or_else(lost)?;
                held.refused.clone().map_or(Ok(()), Err)?;
                if held.stages.is_empty() && is_done(held) {
                    return Ok(held.output.total());
                }
            }
            moved.await;
        }
    }

    /// Waits until there is output that is not durable; to be called while there is no stream.
    pub async fn has_output(&self) {
        loop {
            let to_emit = self.to_emit.notified();
            if self.pages.lock().held.values().any(Held::has_output) {
                return;
            }
            to_emit.await;
        }
    }

    /// Begins another stream, which sends all that is not durable; its number.
    pub fn begin_emit(&self) -> u64 {
        let mut pages = self.pages.lock();
        pages.emit += 1;
        let Pages { held, unsent, .. } = &mut *pages;
        unsent.clear();
        for (token, held) in held.iter_mut() {
            held.output.rewind();
            held.emits = held.has_output();
            if held.emits {
                unsent.push_back(*token);
            }
        }
        pages.emit
    }

    /// Lets the stream send nothing more.
    pub fn end_emit(&self) {
        self.pages.lock().emit += 1;
        self.to_emit.notify_waiters();
    }

    /// The next frame of a stream; none once it has ended.
    pub async fn next_frame(&self, stream: u64) -> Option<proto::AppendOutputRequest> {
        loop {
            let to_emit = self.to_emit.notified();
            {
                let mut pages = self.pages.lock();
                if pages.emit != stream {
                    // It was meant for a later one.
                    self.to_emit.notify_one();
                    return None;
                }
                if let Some(frame) = pages.next_frame() {
                    return Some(frame);
                }
            }
            to_emit.await;
        }
    }

    /// Takes note of what has become durable, or was refused; an error where all that is not durable is to be sent anew.
    pub fn settle(&self, answer: proto::AppendOutputResponse) -> Result<(), String> {
        let Ok(token) = answer.lease_token.parse::<LeaseToken>() else { return Ok(()) };
        let mut pages = self.pages.lock();
        let Some(held) = pages.held.get_mut(&token) else { return Ok(()) };
        let is_gap = matches!(answer.refusal.as_str(), "OUTPUT_GAP" | "LOG_GAP");
        if answer.refusal.is_empty() {
            if held.output.settle(&answer) {
                held.gaps = 0;
            }
        } else if is_gap && held.gaps < GAPS_MAX {
            held.gaps += 1;
            return Err(answer.message);
        } else if is_gap {
            held.refused = Some(Error::OutputConflict(answer.message));
        } else {
            match refused(&answer.refusal, answer.message) {
                Error::Transient(message) => return Err(message),
                // Whether the lease is lost is told on the other stream.
                error => held.refused = Some(error),
            }
        }
        drop(pages);
        self.moved.notify_waiters();
        Ok(())
    }
}

impl Pages {
    /// Something of this lease is to be sent.
    fn emit(&mut self, token: &LeaseToken) {
        if let Some(held) = self.held.get_mut(token)
            && !std::mem::replace(&mut held.emits, true)
        {
            self.unsent.push_back(*token);
        }
    }

    fn next_frame(&mut self) -> Option<proto::AppendOutputRequest> {
        while let Some(token) = self.unsent.pop_front() {
            let Some(held) = self.held.get_mut(&token) else { continue };
            held.emits = false;
            if held.refused.is_none()
                && let Some(frame) = held.output.next_frame(&token.to_string())
            {
                // Behind the others: each lease has its turn.
                self.emit(&token);
                return Some(frame);
            }
        }
        None
    }
}

impl Held {
    fn has_output(&self) -> bool {
        !self.output.is_empty() && self.refused.is_none()
    }
}
