//! The `Emit` stream: output and logs of one worker's attempts.
//!
//! Pulled by its client like every stream. Frames are taken as they come, and what has become durable since the last answer
//! is told together; a worker that writes faster than the disk waits at its own end.

use crate::engine::{Durable, Emission, Engine, Error, Frame, StopListener, Stopping};
use crate::job::LeaseToken;
use crate::proto;
use crate::wire::refusals::Refusals;
use crate::wire::{reply, report, status};
use futures_core::Stream;
use futures_util::stream;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use tokio::sync::Notify;
use tonic::{Status, Streaming};

/// How many leases one stream remembers; those that have nothing on its way are forgotten first.
const CARRIED_MAX: usize = 1_000;

/// What the server sends on one stream.
pub fn responses(
    engine: Engine,
    refusals: Refusals,
    frames: Streaming<proto::AppendOutputRequest>,
) -> impl Stream<Item = Result<proto::AppendOutputResponse, Status>> + Send {
    let session = Session {
        refusals,
        frames,
        heard_all: false,
        carried: BTreeMap::new(),
        moved: Arc::default(),
        outbox: VecDeque::new(),
        stopping: engine.stopping(),
        closing: false,
        engine,
    };
    stream::unfold(Some(session), async |session| {
        let mut session = session?;
        match session.next().await? {
            Ok(answer) => Some((Ok(answer), Some(session))),
            Err(status) => Some((Err(status), None)),
        }
    })
}

struct Session {
    engine: Engine,
    refusals: Refusals,
    frames: Streaming<proto::AppendOutputRequest>,
    heard_all: bool,
    /// By the text of its token, so that a frame costs no parsing.
    carried: BTreeMap<String, Carried>,
    /// Rings when something of these has become durable.
    moved: Arc<Notify>,
    outbox: VecDeque<proto::AppendOutputResponse>,
    stopping: StopListener,
    /// The server stops: what was taken is still answered.
    closing: bool,
}

/// An attempt whose output comes on this stream.
struct Carried {
    token: LeaseToken,
    emission: Emission,
    channels: Vec<Told>,
}

/// What the worker knows of a channel.
struct Told {
    channel: String,
    durable: Durable,
    /// Frames were taken that it has not been told of.
    owed: bool,
}

impl Session {
    /// The next answer; none once all has come and is durable.
    async fn next(&mut self) -> Option<Result<proto::AppendOutputResponse, Status>> {
        loop {
            if let Some(answer) = self.answer() {
                return Some(Ok(answer));
            }
            if self.heard_all || self.closing {
                self.finish().await;
                let end = self.closing.then(Error::stopping);
                let last = self.answer().map(Ok);
                return last.or_else(|| end.map(|error| Err(status::status(&error))));
            }
            tokio::select! {
                // Frames last: they may come without end.
                biased;
                stopping = self.stopping.next() => self.closing = stopping == Stopping::Closing,
                () = self.moved.notified() => self.tell(),
                frame = self.frames.message() => match frame {
                    Ok(Some(frame)) => self.take(frame).await,
                    Ok(None) => self.heard_all = true,
                    Err(status) => return Some(Err(status)),
                },
            }
        }
    }

    /// An answer that is ready.
    fn answer(&mut self) -> Option<proto::AppendOutputResponse> {
        let answer = self.outbox.pop_front()?;
        if !answer.refusal.is_empty() {
            self.refusals.tell(&answer.refusal);
        }
        Some(answer)
    }

    async fn take(&mut self, frame: proto::AppendOutputRequest) {
        let (lease_token, channel) = (frame.lease_token.clone(), frame.channel.clone());
        let parsed = match self.carried.get(&lease_token) {
            Some(carried) => report::frame_of(frame).map(|frame| (carried.token, frame)),
            None => report::frame(frame),
        };
        let (token, frame) = match parsed {
            Ok(parsed) => parsed,
            Err(violations) => {
                let message = status::invalid(violations).message().to_owned();
                let reason = (status::INVALID_REQUEST.to_owned(), message);
                return self.outbox.push_back(refusal(lease_token, channel, reason));
            }
        };
        if let Err(error) = self.take_of(&lease_token, token, &channel, frame).await {
            let is_over = |carried: &Carried| !carried.channels.iter().any(|told| told.owed);
            if !self.engine.is_held(&token) && self.carried.get(&lease_token).is_some_and(is_over) {
                self.carried.remove(&lease_token);
            }
            self.outbox.push_back(refusal(lease_token, channel, status::refusal(&error)));
        }
    }

    async fn take_of(
        &mut self,
        text: &str,
        token: LeaseToken,
        channel: &str,
        frame: Frame,
    ) -> Result<(), Error> {
        let carried = self.carry(text, token)?;
        carried.emission.take(frame).await?;
        carried.owe(channel);
        // What is durable already rings no more.
        if let Ok((_, true)) = carried.emission.durable(channel) {
            self.moved.notify_one();
        }
        Ok(())
    }

    fn carry(&mut self, text: &str, token: LeaseToken) -> Result<&mut Carried, Error> {
        if !self.carried.contains_key(text) {
            if self.carried.len() >= CARRIED_MAX {
                self.carried.retain(|_, carried| carried.channels.iter().any(|told| told.owed));
            }
            let emission = self.engine.emission(&token)?;
            emission.listen(&self.moved);
            self.carried.insert(text.to_owned(), Carried { token, emission, channels: Vec::new() });
        }
        Ok(self.carried.get_mut(text).expect("it is there, or was just put there"))
    }

    /// Tells what has become durable.
    fn tell(&mut self) {
        let outbox = &mut self.outbox;
        self.carried.retain(|text, carried| carried.tell(text, outbox));
    }

    /// Waits until all that was taken is durable, or refused.
    async fn finish(&mut self) {
        for carried in self.carried.values() {
            // A failure is told below.
            let _ = carried.emission.flush().await;
        }
        self.tell();
    }
}

impl Carried {
    fn owe(&mut self, channel: &str) {
        match self.channels.iter_mut().find(|told| told.channel == channel) {
            Some(told) => told.owed = true,
            None => {
                let channel = channel.to_owned();
                self.channels.push(Told { channel, durable: Durable::default(), owed: true });
            }
        }
    }

    /// Tells of each channel what is new; false where nothing more will be durable.
    fn tell(&mut self, text: &str, outbox: &mut VecDeque<proto::AppendOutputResponse>) -> bool {
        let mut goes_on = true;
        for told in self.channels.iter_mut().filter(|told| told.owed) {
            match self.emission.durable(&told.channel) {
                Ok((durable, all)) => {
                    if durable != told.durable || all {
                        outbox.push_back(reply::durable(&self.token, told.channel.clone(), durable));
                    }
                    told.durable = durable;
                    told.owed = !all;
                }
                Err(error) => {
                    outbox.push_back(refusal(text.to_owned(), told.channel.clone(), status::refusal(&error)));
                    goes_on = false;
                }
            }
        }
        goes_on
    }
}

/// Tells that a frame was refused.
fn refusal(
    lease_token: String,
    channel: String,
    (refusal, message): (String, String),
) -> proto::AppendOutputResponse {
    proto::AppendOutputResponse { lease_token, channel, refusal, message, ..Default::default() }
}
