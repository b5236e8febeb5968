//! Output that says where it belongs, as a worker sends it that may lose its connection: what comes twice is skipped, what
//! is missing is told, and what contradicts is refused.

use super::output::{Output, Trailer};
use super::sent::{Durable, SentCheckpoint};
use super::{Engine, Error, EventLimit};
use crate::job::{Body, LeaseToken, LogLine, Refusal};
use bytes::Bytes;
use std::sync::Arc;
use tokio::sync::Notify;

/// How much history is read at once to compare what is sent again.
const COMPARED: EventLimit = EventLimit { events: 1_000, bytes: 1 << 20 };

/// A part of an attempt's output and log.
#[derive(Clone, Debug, Default)]
pub struct Frame {
    /// The channel of `data`; empty is the main output.
    pub channel: String,
    /// Void everything from here on first.
    pub reset_to: Option<u64>,
    /// Where `data` belongs.
    pub offset: u64,
    /// The next bytes.
    pub data: Bytes,
    /// How many lines of the log the attempt sent before these.
    pub line_offset: u64,
    /// Lines of the log.
    pub lines: Vec<LogLine>,
    /// Where the attempt is once all of that is there.
    pub checkpoint: Option<SentCheckpoint>,
}

/// What the attempt under one lease sends.
#[derive(Clone, Debug)]
pub struct Emission {
    engine: Engine,
    token: LeaseToken,
    output: Arc<Output>,
}

impl Engine {
    /// Takes in what the attempt under this lease sends.
    pub fn emission(&self, token: &LeaseToken) -> Result<Emission, Error> {
        let output = self.shared().leases.output(token, self.shared().clock.now())?;
        Ok(Emission { engine: self.clone(), token: *token, output })
    }

    /// Takes a frame, and waits until it is durable; returns how much of its channel and of the log is.
    pub async fn append_frame(&self, token: &LeaseToken, frame: Frame) -> Result<Durable, Error> {
        let emission = self.emission(token)?;
        let channel = frame.channel.clone();
        emission.take(frame).await?;
        self.accept(token).await?;
        emission.output.flush().await?;
        Ok(emission.durable(&channel)?.0)
    }
}

impl Emission {
    /// Takes a frame; waits only while too much is not durable yet, or where it was sent before.
    ///
    /// A refusal concerns this frame alone, unless the lease is lost, and nothing of the frame is taken then. Where the call is
    /// dropped, a part of the frame may have been; what is known of the output is true all the same.
    pub async fn take(&self, frame: Frame) -> Result<(), Error> {
        let shared = self.engine.shared();
        shared.leases.touch(&self.token, shared.clock.now())?;
        // What is sent again on another stream must not come in between.
        let _turn = self.output.turn().await;
        let Frame { channel, reset_to, offset, mut data, line_offset, mut lines, checkpoint } = frame;
        let (next, next_line) = self.output.next(&channel)?;
        if line_offset > next_line {
            return Err(Error::Refused(Refusal::LogGap { expected: next_line }));
        }
        let kept = reset_to.unwrap_or(next);
        for (wanted, expected) in [(kept, next), (offset, kept)] {
            if wanted > expected {
                return Err(Error::Refused(Refusal::OutputGap { expected }));
            }
        }
        let end = kept.max(offset + data.len() as u64);
        let main = if channel.is_empty() { end } else { self.output.next("")?.0 };
        let checkpoint =
            checkpoint.map(|checkpoint| self.output.admit(checkpoint, main)).transpose()?.flatten();
        let present = usize::try_from(kept - offset).unwrap_or(usize::MAX).min(data.len());
        if kept < next && end == next && self.has(&channel, offset, &data).await? {
            // The reset was sent before, and has come.
            data.clear();
        } else {
            if !self.has(&channel, offset, &data.split_to(present)).await? {
                return Err(Error::Refused(Refusal::OutputConflict { offset }));
            }
            if kept < next {
                self.output.reset(shared.committer(), &self.token, &channel, kept, data.len()).await?;
            }
        }
        lines.drain(..lines.len().min(usize::try_from(next_line - line_offset).unwrap_or(usize::MAX)));
        let behind = Trailer { lines, checkpoint };
        self.output.append(shared.committer(), &self.token, &channel, data, behind).await
    }

    /// How much of a channel and of the log is durable, and whether that is all that was taken of them; an error where no
    /// more will be.
    pub fn durable(&self, channel: &str) -> Result<(Durable, bool), Error> {
        self.output.durable(channel)
    }

    /// Rings whenever more has become durable, for as long as `listener` lives.
    pub fn listen(&self, listener: &Arc<Notify>) {
        self.output.listen(listener);
    }

    /// Nothing more is about to come: what was taken need not wait for company.
    pub async fn flush(&self) -> Result<(), Error> {
        self.output.flush().await
    }

    /// Whether `data` is what has come at `offset` of a channel; waits until that is durable.
    async fn has(&self, channel: &str, offset: u64, data: &[u8]) -> Result<bool, Error> {
        let end = offset + data.len() as u64;
        if data.is_empty() {
            return Ok(true);
        }
        self.output.flush().await?;
        let (mut after, upto, mut marks) = self.output.lies_between(channel, offset, end);
        let mut kept = vec![0; data.len()];
        loop {
            let wanted = [(self.token.job, after)];
            let events = self.engine.read(move |store| store.events(&wanted, COMPARED)).await?.remove(0);
            for event in &events {
                marks.note(channel, event);
                if let Body::OutputAppended { channel: other, offset: at, data: piece } = &event.body
                    && other == channel
                {
                    copy_overlap(&mut kept, offset, piece, *at);
                }
            }
            match events.last() {
                Some(last) if upto.is_none_or(|upto| last.sequence < upto) => after = last.sequence,
                Some(_) | None => break,
            }
        }
        if upto.is_none() {
            // All was read, so what was voided again has been passed over.
            self.output.mark(channel, marks);
        }
        Ok(kept == data)
    }
}

/// Puts what `piece`, which begins at `at`, has of the bytes from `offset` on where it belongs.
fn copy_overlap(kept: &mut [u8], offset: u64, piece: &[u8], at: u64) {
    let end = (offset + kept.len() as u64).min(at + piece.len() as u64);
    let start = offset.max(at);
    if start < end {
        let length = (end - start) as usize;
        let (into, from) = ((start - offset) as usize, (start - at) as usize);
        kept[into..into + length].copy_from_slice(&piece[from..from + length]);
    }
}
