//! Where waiting jobs stand, and when their turn may come. About: it looks at each queue a few times a second at most, and
//! only while somebody asks.

use crate::job::{Job, State, Timestamp};
use crate::store::{Rank, Store};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

/// How far down a queue places are told.
const POSITIONS_MAX: usize = 1_000;
/// How old what is told may be.
const FRESH: Duration = Duration::from_millis(250);
/// Over about how long the pace of a queue is measured.
const PACE_WINDOW: Duration = Duration::from_secs(30);
/// How many queues are remembered.
const QUEUES_MAX: usize = 256;

/// The queues that somebody has asked about lately, by tenant and kind.
#[derive(Debug, Default)]
pub struct Queues(Mutex<HashMap<String, HashMap<String, Queue>>>);

#[derive(Debug, Default)]
struct Queue {
    read_time: Timestamp,
    /// The first jobs, in order; nothing where they have never been read.
    ranks: Option<Arc<[Rank]>>,
    pace: Pace,
}

/// How many jobs of a queue begin in a second: an average whose weights fall exponentially.
#[derive(Debug, Default)]
struct Pace {
    per_second: f64,
    time: Timestamp,
}

impl Pace {
    fn at(&self, now: Timestamp) -> f64 {
        self.per_second * (-now.since(self.time).as_secs_f64() / PACE_WINDOW.as_secs_f64()).exp()
    }

    fn count(&mut self, now: Timestamp) {
        *self = Self { per_second: self.at(now) + 1.0 / PACE_WINDOW.as_secs_f64(), time: now };
    }
}

impl Queues {
    /// About where a pending job stands among those that wait for its kind, 1 being next; none where it is far
    /// down, or where that is not known.
    pub fn position(&self, store: &dyn Store, job: &Job, now: Timestamp) -> Option<u32> {
        if job.state != State::Pending {
            return None;
        }
        let ranks = self.ranks(store, job, now)?;
        let before = ranks.partition_point(|rank| *rank < Rank::of(job));
        (before < POSITIONS_MAX).then_some(before as u32 + 1)
    }

    /// When the job at this position may begin, at the pace of its queue lately.
    pub fn expected_start(&self, job: &Job, position: u32, now: Timestamp) -> Option<Timestamp> {
        let queues = self.0.lock();
        let pace = queues.get(&job.tenant)?.get(&job.kind)?.pace.at(now);
        let seconds = f64::from(position) / pace;
        Duration::try_from_secs_f64(seconds).ok().filter(|_| pace > 1e-3).map(|wait| now.after(wait))
    }

    /// A worker has taken a job.
    pub fn taken(&self, job: &Job, now: Timestamp) {
        let mut queues = self.0.lock();
        if let Some(queue) = queues.get_mut(&job.tenant).and_then(|kinds| kinds.get_mut(&job.kind)) {
            queue.pace.count(now);
        }
    }

    fn ranks(&self, store: &dyn Store, job: &Job, now: Timestamp) -> Option<Arc<[Rank]>> {
        {
            let mut queues = self.0.lock();
            // Nearly always it is known, and nothing has to be allocated.
            let known = queues.get_mut(&job.tenant).and_then(|kinds| kinds.get_mut(&job.kind));
            match known {
                Some(queue) if now.since(queue.read_time) < FRESH => return queue.ranks.clone(),
                // Others go on with what is known meanwhile.
                Some(queue) => queue.read_time = now,
                None => {
                    let kinds = queues.entry(job.tenant.clone()).or_default();
                    if kinds.len() >= QUEUES_MAX {
                        kinds.clear();
                    }
                    kinds.insert(job.kind.clone(), Queue { read_time: now, ..Default::default() });
                }
            }
        }
        let ranks: Arc<[Rank]> = match store.queue(&job.tenant, &job.kind, POSITIONS_MAX) {
            Ok(ranks) => ranks.into(),
            Err(error) => {
                tracing::warn!(%error, "a queue cannot be read");
                return None;
            }
        };
        let mut queues = self.0.lock();
        if let Some(queue) = queues.get_mut(&job.tenant).and_then(|kinds| kinds.get_mut(&job.kind)) {
            queue.ranks = Some(Arc::clone(&ranks));
        }
        Some(ranks)
    }
}
