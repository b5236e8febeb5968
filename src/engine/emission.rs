//! Output that says where it belongs, as a worker sends it that may lose its connection: what comes twice is skipped, what
//! is missing is told, and what contradicts is refused.

use super::output::{Durable, Output};
use super::{Engine, Error, EventLimit};
use crate::job::{Body, Command, LeaseToken, LogLine, Refusal};
use crate::store::{Operation, Outcome};
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
    /// A refusal concerns this frame alone, unless the lease is lost.
    pub async fn take(&self, frame: Frame) -> Result<(), Error> {
        let shared = self.engine.shared();
        shared.leases.touch(&self.token, shared.clock.now())?;
        // What is sent again on another stream must not come in between.
        let _turn = self.output.turn().await;
        let Frame { channel, reset_to, offset, mut data, line_offset, mut lines } = frame;
        if let Some(keep) = reset_to {
            self.reset(&channel, keep, offset, data).await?;
        } else {
            let (next, _) = self.output.next(&channel)?;
            if offset > next {
                return Err(Error::Refused(Refusal::OutputGap { expected: next }));
            }
            let present = usize::try_from(next - offset).unwrap_or(usize::MAX).min(data.len());
            if present > 0 {
                self.output.flush().await?;
                self.compare(&channel, offset, &data.split_to(present)).await?;
            }
            self.output.append(shared.committer(), &self.token, &channel, data).await?;
        }
        let (_, expected) = self.output.next(&channel)?;
        if line_offset > expected {
            return Err(Error::Refused(Refusal::LogGap { expected }));
        }
        lines.drain(..lines.len().min(usize::try_from(expected - line_offset).unwrap_or(usize::MAX)));
        match lines.is_empty() {
            true => Ok(()),
            false => self.output.append_lines(shared.committer(), &self.token, lines).await,
        }
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

    /// Voids a channel's output from `keep` on, and goes on with `data`; nothing, where that is what is there.
    async fn reset(&self, channel: &str, keep: u64, offset: u64, data: Bytes) -> Result<(), Error> {
        self.output.flush().await?;
        let (next, _) = self.output.next(channel)?;
        let gap = |expected| Err(Error::Refused(Refusal::OutputGap { expected }));
        if keep > next {
            return gap(next);
        }
        if offset > keep {
            return gap(keep);
        }
        let stays = usize::try_from(keep - offset).unwrap_or(usize::MAX).min(data.len());
        self.compare(channel, offset, &data[..stays]).await?;
        let end = keep.max(offset + data.len() as u64);
        if end == next && self.compare(channel, offset, &data).await.is_ok() {
            return Ok(());
        }
        let command = Command::AppendOutput {
            lease: self.token,
            channel: channel.to_owned(),
            reset_to: Some(keep),
            offset,
            data,
        };
        let operation = Operation::Apply(self.token.job, Box::new(command));
        let answer = self.engine.shared().committer().queue(operation);
        let Outcome::Apply(outcome) = super::commit::received(answer).await? else {
            unreachable!("an outcome is of its operation's kind")
        };
        let step = outcome?;
        self.output.recorded(channel, &step.job, &step.events);
        Ok(())
    }

    /// Makes sure that `data` is what is durable at `offset` of a channel.
    async fn compare(&self, channel: &str, offset: u64, data: &[u8]) -> Result<(), Error> {
        let end = offset + data.len() as u64;
        if data.is_empty() {
            return Ok(());
        }
        let (mut after, upto) = self.output.lies_between(channel, offset, end);
        let mut kept = vec![0; data.len()];
        loop {
            let wanted = [(self.token.job, after)];
            let events = self.engine.read(move |store| store.events(&wanted, COMPARED)).await?.remove(0);
            for event in &events {
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
        match kept == data {
            true => Ok(()),
            false => Err(Error::Refused(Refusal::OutputConflict { offset })),
        }
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
