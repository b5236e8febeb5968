//! A reader's way through one job: snapshot, history, what happens, the end.
//!
//! It is pulled by whoever reads it, and holds a cursor and at most one page of events. So a slow reader costs itself only,
//! and readers that come late, come back or keep up use the same code.

use super::error::Error;
use super::hub::{LIVE_KINDS, Latest, Newest, Seat, Shared};
use super::{Engine, Parts};
use crate::job::{JobId, Sequence, Snapshot, Timestamp};
use crate::mutants::{self, Mutant};
use crate::store::EventLimit;
use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, Sleep};

/// After how much silence a watcher is told that the stream is alive.
const KEEPALIVE: Duration = Duration::from_secs(15);
/// How much of a job's history a watcher holds at a time.
const PAGE: EventLimit = EventLimit { events: 64, bytes: 128 << 10 };

/// How a job is to be watched.
#[derive(Clone, Copy, Debug)]
pub struct WatchOptions {
    /// Begin after this event, 0 for the whole history; absent: with what happens from now on.
    pub after: Option<Sequence>,
    /// The shortest time between two latest-wins events.
    pub minimum_interval: Duration,
    /// Leave out the job's output.
    pub omit_output: bool,
    /// How much the snapshot shows.
    pub parts: Parts,
}

/// What a watcher is told next.
#[derive(Clone, Debug)]
pub enum Message {
    /// The whole job; always the first.
    Snapshot {
        /// The job.
        snapshot: Box<Snapshot>,
        /// The cursor.
        cursor: Sequence,
    },
    /// Something happened.
    Shared(Arc<Shared>),
    /// Nothing has happened for a while.
    Keepalive {
        /// The job.
        job: JobId,
        /// The cursor.
        cursor: Sequence,
        /// Its last attempt.
        attempt: u32,
        /// Now.
        time: Timestamp,
    },
}

/// A job that is being watched.
#[derive(Debug)]
pub struct Watch {
    engine: Engine,
    seat: Seat,
    job: JobId,
    cursor: Sequence,
    omit_output: bool,
    minimum_interval: Duration,
    snapshot: Option<Box<Snapshot>>,
    page: VecDeque<Arc<Shared>>,
    attempt: u32,
    /// How many latest-wins events of each kind there were when the last was sent.
    seen: [u64; LIVE_KINDS],
    /// The kind of which one was sent last, so that the others have their turn.
    last_kind: usize,
    next_live: Instant,
    last_sent: Instant,
    alarm: Pin<Box<Sleep>>,
}

/// What a watcher does next.
enum Next {
    Send(Message),
    End,
    Fail(Error),
    ReadHistory,
    /// Look again: there is a page now.
    Decide,
    /// Wait for the bell, or until then.
    Wait(Instant),
}

impl Watch {
    /// Takes a place at the job's doorbell, then reads the job: whatever happens in between rings.
    pub(super) async fn open(engine: &Engine, job: JobId, options: WatchOptions) -> Result<Self, Error> {
        let mut seat = engine.hub().join(job);
        let seen = seat.bell.hear().live.each_ref().map(|newest| newest.number);
        // What is reported from now on is in the snapshot, or is news, or both.
        let snapshot = engine.get(job, options.parts).await?;
        let sequence = snapshot.job.sequence();
        if let Some(after) = options.after.filter(|after| *after > sequence) {
            return Err(Error::AheadOfJob { after, sequence });
        }
        seat.tell(&snapshot.job);
        let now = Instant::now();
        Ok(Self {
            engine: engine.clone(),
            seat,
            job,
            cursor: options.after.unwrap_or(sequence) + u64::from(mutants::is(Mutant::CursorTooFar)),
            omit_output: options.omit_output,
            minimum_interval: options.minimum_interval,
            attempt: snapshot.job.attempt,
            snapshot: Some(Box::new(snapshot)),
            page: VecDeque::new(),
            seen,
            last_kind: LIVE_KINDS - 1,
            next_live: now,
            last_sent: now,
            alarm: Box::pin(tokio::time::sleep_until(now + KEEPALIVE)),
        })
    }

    /// Waits for what is to be told next; nothing once the job is final and all of it was told.
    ///
    /// Cancel safe: nothing is lost where the wait is given up.
    pub async fn next(&mut self) -> Option<Result<Message, Error>> {
        loop {
            match self.decide() {
                Next::Send(message) => {
                    self.last_sent = Instant::now();
                    return Some(Ok(message));
                }
                Next::End => return None,
                Next::Fail(error) => return Some(Err(error)),
                Next::ReadHistory => {
                    if let Err(error) = self.read_history().await {
                        return Some(Err(error));
                    }
                }
                Next::Decide => {}
                Next::Wait(until) => self.wait(until).await,
            }
        }
    }

    /// Whether there is nothing to tell but what the job is: it has ended, and the cursor is its last.
    pub fn is_told(&self) -> bool {
        let latest = self.seat.bell.latest();
        latest.is_final && latest.sequence <= self.cursor
    }

    /// Makes sure that what comes after the cursor can be read.
    pub async fn look(&mut self) -> Result<(), Error> {
        let sequence = self.seat.bell.latest().sequence;
        if self.page.is_empty() && sequence > self.cursor && !self.seat.read_tail(self.cursor, &mut self.page)
        {
            self.read_history().await?;
        }
        Ok(())
    }

    fn decide(&mut self) -> Next {
        if let Some(snapshot) = self.snapshot.take() {
            return Next::Send(Message::Snapshot { snapshot, cursor: self.cursor });
        }
        while let Some(event) = self.page.pop_front() {
            self.cursor = event.sequence;
            self.attempt = event.attempt;
            if !(self.omit_output && event.is_output()) {
                return Next::Send(Message::Shared(event));
            }
        }
        let latest = self.seat.bell.hear();
        if latest.is_closing {
            return Next::Fail(Error::stopping());
        }
        if latest.is_forgotten {
            return Next::Fail(Error::NotFound);
        }
        if latest.sequence > self.cursor {
            drop(latest);
            return match self.seat.read_tail(self.cursor, &mut self.page) {
                true => Next::Decide,
                false => Next::ReadHistory,
            };
        }
        if latest.is_final {
            return Next::End;
        }
        let live = newest_live(&latest, self.seen, self.attempt, self.last_kind);
        drop(latest);
        let now = Instant::now();
        let quiet = self.last_sent + KEEPALIVE;
        match live {
            Some(live) if self.next_live <= now => {
                self.next_live = now + self.minimum_interval;
                Next::Send(Message::Shared(self.take_live(live)))
            }
            Some(_) => Next::Wait(self.next_live.min(quiet)),
            None if quiet <= now => Next::Send(Message::Keepalive {
                job: self.job,
                cursor: self.cursor,
                attempt: self.attempt,
                time: self.engine.now(),
            }),
            None => Next::Wait(quiet),
        }
    }

    /// Takes note of a latest-wins event that is sent now, and stamps it with this stream's cursor.
    fn take_live(&mut self, live: NewestLive) -> Arc<Shared> {
        self.seen[live.kind] = live.number;
        self.last_kind = live.kind;
        self.attempt = live.shared.attempt;
        match live.shared.sequence == self.cursor {
            true => live.shared,
            false => Arc::new(live.shared.at(self.cursor)),
        }
    }

    async fn read_history(&mut self) -> Result<(), Error> {
        let events = match self.engine.history(self.job, self.cursor, PAGE).await {
            // What lies before the damage can be read, one by one.
            Err(Error::Damaged(_)) => {
                let one = EventLimit { events: 1, ..PAGE };
                self.engine.history(self.job, self.cursor, one).await?
            }
            other => other?,
        };
        let gap = events.first().is_none_or(|event| event.sequence != self.cursor + 1);
        if gap {
            return Err(Error::NotFound);
        }
        self.page.extend(events.into_iter().map(|event| Arc::new(Shared::kept(self.job, event))));
        Ok(())
    }

    /// Waits for the bell, or until a moment.
    async fn wait(&mut self, until: Instant) {
        // A timer costs more than a look at the clock: one that is due too early stays as it is.
        if self.alarm.deadline() > until || self.alarm.is_elapsed() {
            self.alarm.as_mut().reset(until);
        }
        tokio::select! {
            biased;
            () = self.seat.bell.rung() => {}
            () = self.alarm.as_mut() => {}
        }
    }
}

/// The newest latest-wins event that was not sent.
struct NewestLive {
    shared: Arc<Shared>,
    kind: usize,
    number: u64,
}

/// The one that is next. All kinds have their turn; what belongs to an earlier attempt than `attempt` has had it.
fn newest_live(
    latest: &Latest,
    seen: [u64; LIVE_KINDS],
    attempt: u32,
    last_kind: usize,
) -> Option<NewestLive> {
    let in_turn = (1..=LIVE_KINDS).map(|step| (last_kind + step) % LIVE_KINDS);
    in_turn.into_iter().find_map(|kind| {
        let Newest { number, event } = &latest.live[kind];
        let shared = event.as_ref().filter(|shared| *number > seen[kind] && shared.attempt >= attempt)?;
        Some(NewestLive { shared: Arc::clone(shared), kind, number: *number })
    })
}
