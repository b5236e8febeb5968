//! Doorbells: for each job that somebody watches, the newest state and a short tail of its events.
//!
//! It holds no queue for any watcher and waits for none. A doorbell that is lost costs a moment: once a second what is
//! watched is compared with the store.

use super::bell::{Bell, Listener};
use crate::job::{Body, Event, Job, JobId, Live, Metrics, Progress, Sequence, State, Timestamp};
use crate::mutants::{self, Mutant};
use bytes::Bytes;
use parking_lot::Mutex;
use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

/// How many events of a watched job are at hand for readers that keep up.
const TAIL_EVENTS_MAX: usize = 64;
/// How many bytes of output they may have.
const TAIL_BYTES_MAX: usize = 256 << 10;
/// How many bytes all tails may have together; past it new events are read from the store. With the two forms that watchers
/// may have made of them they take about three times as much.
const TAILS_BYTES_MAX: usize = 64 << 20;

/// An event as every watcher of its job gets it, with a place for its encoded form.
#[derive(Debug)]
pub struct Shared {
    /// The job it happened to.
    pub job: JobId,
    /// The cursor that it carries.
    pub sequence: Sequence,
    /// The attempt it belongs to.
    pub attempt: u32,
    /// When the server recorded it.
    pub time: Timestamp,
    /// What happened.
    pub body: SharedBody,
    encoded: [OnceLock<Bytes>; 2],
}

/// The forms that an event may have for those who watch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// For programs.
    Binary,
    /// For browsers.
    Text,
}

/// What a watcher is told.
#[derive(Clone, Debug, PartialEq)]
pub enum SharedBody {
    /// Something kept.
    Kept(Body),
    /// The attempt came further.
    Progress(Progress),
    /// The attempt measured something.
    Metrics(Metrics),
    /// The job stands there in its queue, and may begin then.
    Queue {
        /// 1 is next.
        position: u32,
        /// At the pace of the queue lately.
        expected_start: Option<Timestamp>,
    },
}

impl Shared {
    /// A kept event of a job.
    pub fn kept(job: JobId, event: Event) -> Self {
        let Event { sequence, attempt, time, body } = event;
        Self { job, sequence, attempt, time, body: SharedBody::Kept(body), encoded: Default::default() }
    }

    /// The same with another cursor.
    pub fn at(&self, sequence: Sequence) -> Self {
        let Self { job, attempt, time, .. } = *self;
        Self { job, sequence, attempt, time, body: self.body.clone(), encoded: Default::default() }
    }

    /// One of its encoded forms, which the first that asks makes for all.
    pub fn encoded(&self, form: Form, encode: impl FnOnce(&Self) -> Bytes) -> Bytes {
        self.encoded[form as usize].get_or_init(|| encode(self)).clone()
    }

    /// Whether it is a part of the job's output.
    pub fn is_output(&self) -> bool {
        match &self.body {
            SharedBody::Kept(Body::OutputAppended { .. } | Body::OutputReset { .. }) => true,
            SharedBody::Kept(Body::StateChanged(_) | Body::StageEntered { .. } | Body::Logged(_))
            | SharedBody::Progress(_)
            | SharedBody::Metrics(_)
            | SharedBody::Queue { .. } => false,
        }
    }

    fn bytes(&self) -> usize {
        match &self.body {
            SharedBody::Kept(Body::OutputAppended { data, .. }) => data.len(),
            SharedBody::Kept(Body::Logged(line)) => line.message.len(),
            SharedBody::Kept(Body::StateChanged(change)) => change.result.as_ref().map_or(0, Bytes::len),
            SharedBody::Kept(Body::StageEntered { .. } | Body::OutputReset { .. })
            | SharedBody::Progress(_)
            | SharedBody::Metrics(_)
            | SharedBody::Queue { .. } => 0,
        }
    }
}

/// What a doorbell says: the newest of a job.
#[derive(Clone, Debug, Default)]
pub struct Latest {
    /// The job's last kept event.
    pub sequence: Sequence,
    /// It is the last for good.
    pub is_final: bool,
    /// The job was forgotten.
    pub is_forgotten: bool,
    /// The server is about to stop.
    pub is_closing: bool,
    /// The newest progress, measurements and place in the queue, in this order.
    pub live: [Newest; LIVE_KINDS],
}

/// How many kinds of latest-wins events there are.
pub const LIVE_KINDS: usize = 3;

/// The newest latest-wins event of a kind.
#[derive(Clone, Debug, Default)]
pub struct Newest {
    /// How many there were with it.
    pub number: u64,
    /// It; absent before the first.
    pub event: Option<Arc<Shared>>,
}

/// The jobs that are watched.
#[derive(Debug, Default)]
pub struct Hub {
    jobs: Mutex<HashMap<JobId, Arc<Watched>>>,
    /// As many as in `jobs`, so that nobody who watches nothing pays for the lock.
    count: AtomicUsize,
    seats: AtomicUsize,
    closing: AtomicBool,
    tail_bytes: Arc<AtomicUsize>,
}

/// A job that is watched.
#[derive(Debug)]
struct Watched {
    bell: Bell<Latest>,
    /// How many watch it. Changes under the lock of all jobs alone.
    seats: AtomicUsize,
    tail: Mutex<Tail>,
    all_tail_bytes: Arc<AtomicUsize>,
}

/// The newest events of a job, without a gap.
#[derive(Debug, Default)]
struct Tail {
    events: VecDeque<Arc<Shared>>,
    bytes: usize,
}

/// A watcher's place at a job's doorbell.
#[derive(Debug)]
pub struct Seat {
    hub: Arc<Hub>,
    job: JobId,
    watched: Arc<Watched>,
    /// Changes with each ring.
    pub bell: Listener<Latest>,
}

impl Hub {
    /// Takes a place. Whatever is published from now on rings.
    pub fn join(self: &Arc<Self>, job: JobId) -> Seat {
        let mut jobs = self.jobs.lock();
        let watched = jobs.entry(job).or_insert_with(|| {
            Arc::new(Watched {
                bell: Bell::new(Latest {
                    is_closing: self.closing.load(Ordering::SeqCst),
                    ..Default::default()
                }),
                seats: AtomicUsize::new(0),
                tail: Mutex::default(),
                all_tail_bytes: Arc::clone(&self.tail_bytes),
            })
        });
        let watched = Arc::clone(watched);
        // Under the lock, so that the last one to leave sees this one.
        watched.seats.fetch_add(1, Ordering::Relaxed);
        let bell = watched.bell.listen();
        self.count.store(jobs.len(), Ordering::SeqCst);
        self.seats.fetch_add(1, Ordering::Relaxed);
        Seat { hub: Arc::clone(self), job, watched, bell }
    }

    /// Shows events that are durable, and the state that they led to.
    pub fn publish(&self, job: &Job, events: &[Event]) {
        let Some(watched) = self.watched(job.id).filter(|_| !mutants::is(Mutant::DoorbellLost)) else {
            return;
        };
        let shared = events.iter().map(|event| Arc::new(Shared::kept(job.id, event.clone())));
        watched.extend_tail(shared.collect());
        watched.ring(job.sequence(), job.state);
    }

    /// Shows what is latest-wins.
    pub fn publish_live(&self, job: JobId, attempt: u32, live: &Live, change: Change, now: Timestamp) {
        let Some(watched) = self.watched(job) else { return };
        watched.bell.ring(|latest| {
            if change.progress {
                latest.tell(0, job, attempt, now, SharedBody::Progress(live.progress.clone()));
            }
            if change.metrics {
                latest.tell(1, job, attempt, now, SharedBody::Metrics(live.metrics.clone()));
            }
        });
    }

    /// Shows where a job stands in its queue, if that has changed.
    pub fn publish_position(
        &self,
        job: &Job,
        position: u32,
        expected_start: Option<Timestamp>,
        now: Timestamp,
    ) {
        let Some(watched) = self.watched(job.id) else { return };
        watched.bell.ring_if(|latest| {
            let told = latest.live[2].event.as_ref().map(|event| (event.attempt, &event.body));
            let is_news = match told {
                Some((attempt, SharedBody::Queue { position: told, .. })) => {
                    (attempt, *told) != (job.attempt, position)
                }
                _ => true,
            };
            if is_news {
                let body = SharedBody::Queue { position, expected_start };
                latest.tell(2, job.id, job.attempt, now, body);
            }
            is_news
        });
    }

    /// Sends every watcher away, those that are about to come as well.
    pub fn close(&self) {
        let jobs = self.jobs.lock();
        self.closing.store(true, Ordering::SeqCst);
        let mut watched: Vec<_> = jobs.iter().collect();
        watched.sort_unstable_by_key(|(job, _)| **job);
        for (_, watched) in watched {
            watched.bell.ring(|latest| latest.is_closing = true);
        }
    }

    /// How many places are taken.
    pub fn seats(&self) -> usize {
        self.seats.load(Ordering::Relaxed)
    }

    /// How many events of watched jobs are at hand.
    pub fn events_at_hand(&self) -> usize {
        self.jobs.lock().values().map(|watched| watched.tail.lock().events.len()).sum()
    }

    /// The jobs that are watched, in order, so that who reads them goes through the store once.
    pub fn jobs(&self) -> Vec<JobId> {
        let mut jobs: Vec<JobId> = self.jobs.lock().keys().copied().collect();
        jobs.sort_unstable();
        jobs
    }

    /// Tells what the store knows of a watched job, in case a doorbell was lost.
    pub fn compare(&self, id: JobId, job: Option<&Job>) {
        let Some(watched) = self.watched(id) else { return };
        match job {
            Some(job) => watched.ring(job.sequence(), job.state),
            None => watched.bell.ring(|latest| latest.is_forgotten = true),
        }
    }

    fn watched(&self, job: JobId) -> Option<Arc<Watched>> {
        if self.count.load(Ordering::SeqCst) == 0 {
            return None;
        }
        self.jobs.lock().get(&job).cloned()
    }
}

impl Latest {
    fn tell(&mut self, kind: usize, job: JobId, attempt: u32, time: Timestamp, body: SharedBody) {
        let sequence = self.sequence;
        let event = Arc::new(Shared { job, sequence, attempt, time, body, encoded: Default::default() });
        self.live[kind] = Newest { number: self.live[kind].number + 1, event: Some(event) };
    }
}

/// Which of the latest-wins parts has changed.
#[derive(Clone, Copy, Debug)]
pub struct Change {
    /// The progress.
    pub progress: bool,
    /// The measurements.
    pub metrics: bool,
}

impl Watched {
    fn ring(&self, sequence: Sequence, state: State) {
        self.bell.ring_if(|latest| {
            let news = sequence > latest.sequence || state.is_final() && !latest.is_final;
            if news && sequence >= latest.sequence {
                latest.sequence = sequence;
                latest.is_final = state.is_final();
            }
            news
        });
    }

    fn extend_tail(&self, events: Vec<Arc<Shared>>) {
        let mut tail = self.tail.lock();
        let before = tail.bytes;
        for event in events {
            let follows = tail.events.back().is_none_or(|last| last.sequence + 1 == event.sequence);
            if !follows || self.all_tail_bytes.load(Ordering::Relaxed) > TAILS_BYTES_MAX {
                tail.events.clear();
                tail.bytes = 0;
            }
            tail.bytes += event.bytes();
            tail.events.push_back(event);
            while !mutants::is(Mutant::TailUnbounded)
                && (tail.events.len() > TAIL_EVENTS_MAX
                    || tail.bytes > TAIL_BYTES_MAX && tail.events.len() > 1)
            {
                let first = tail.events.pop_front();
                tail.bytes -= first.map_or(0, |first| first.bytes());
            }
        }
        let after = tail.bytes;
        self.all_tail_bytes.fetch_add(after, Ordering::Relaxed);
        self.all_tail_bytes.fetch_sub(before, Ordering::Relaxed);
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.all_tail_bytes.fetch_sub(self.tail.get_mut().bytes, Ordering::Relaxed);
    }
}

impl Seat {
    /// Puts the events after a cursor into `events`, where the tail reaches back as far and has any; whether it does.
    pub fn read_tail(&self, after: Sequence, events: &mut VecDeque<Arc<Shared>>) -> bool {
        let tail = self.watched.tail.lock();
        // What was told by a comparison with the store is not in it.
        let has_any = tail.events.back().is_some_and(|last| last.sequence > after);
        match tail.events.front() {
            Some(first) if has_any && first.sequence <= after + 1 => {
                let skipped = (after + 1 - first.sequence) as usize;
                events.extend(tail.events.iter().skip(skipped).cloned());
                true
            }
            Some(_) | None => false,
        }
    }

    /// Tells the state that was read after the place was taken, for those who come first.
    pub fn tell(&self, job: &Job) {
        self.watched.ring(job.sequence(), job.state);
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.hub.seats.fetch_sub(1, Ordering::Relaxed);
        let mut jobs = self.hub.jobs.lock();
        if self.watched.seats.fetch_sub(1, Ordering::Relaxed) == 1 {
            jobs.remove(&self.job);
            self.hub.count.store(jobs.len(), Ordering::SeqCst);
        }
    }
}
