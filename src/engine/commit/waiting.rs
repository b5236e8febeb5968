//! What waits for a commit, and how much of it one batch takes.

use crate::engine::error::Error;
use crate::store::{Operation, Outcome};
use bytes::Bytes;
use std::collections::VecDeque;
use tokio::sync::{OwnedSemaphorePermit, oneshot};

/// How many bytes of inputs, or of output that is taken over, take a place: all that wait hold a quarter of a gigabyte at most.
const BYTES_PER_PLACE: usize = 64 << 10;
/// How many jobs take a place.
const JOBS_PER_PLACE: usize = 16;
/// How many operations one batch takes, so that the first of them does not wait for too many; a submission counts as many
/// as it has jobs. Reports come first, so that however many jobs are started, those that run can end. It is exceeded only for what
/// belongs together.
pub const BATCH_MAX: usize = 1_024;

/// Something to be committed.
pub struct Request {
    /// What.
    pub operation: Operation,
    /// Where what comes of it goes.
    pub answer: Reply,
    /// A client's call has one; a report has none.
    pub place: Option<OwnedSemaphorePermit>,
    /// The report that comes next is committed with this one, or neither is.
    pub with_next: bool,
}

/// Where what comes of an operation goes.
pub enum Reply {
    /// To whoever waits for it.
    Waiting(oneshot::Sender<Result<Outcome, Error>>),
    /// To what is to be done with it, on the thread that commits. Dropped where nothing comes any more.
    Then(Box<dyn FnOnce(Result<Outcome, Error>) + Send>),
}

impl Reply {
    /// Gives it.
    pub fn give(self, outcome: Result<Outcome, Error>) {
        match self {
            // Nobody there any more: it has happened all the same.
            Self::Waiting(sender) => drop(sender.send(outcome)),
            Self::Then(then) => then(outcome),
        }
    }
}

/// How many places of those that may wait an operation takes.
pub fn places(operation: &Operation) -> u32 {
    let extra = match operation {
        Operation::Submit(submissions) => {
            let bytes: usize = submissions.iter().map(|submission| submission.spec.input.len()).sum();
            bytes / BYTES_PER_PLACE + submissions.len() / JOBS_PER_PLACE
        }
        Operation::Retry(retry) => retry.output.as_ref().map_or(0, Bytes::len) / BYTES_PER_PLACE,
        _ => 0,
    };
    u32::try_from(1 + extra).unwrap_or(u32::MAX)
}

/// How much of a batch an operation is.
fn weight(operation: &Operation) -> usize {
    match operation {
        Operation::Submit(submissions) => submissions.len().max(1),
        _ => 1,
    }
}

/// What waits for a batch.
#[derive(Default)]
pub struct Waiting {
    reports: VecDeque<Request>,
    calls: VecDeque<Request>,
}

impl Waiting {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.reports.len() + self.calls.len()
    }

    /// Whether something is about to come that belongs to what has.
    pub fn is_open(&self) -> bool {
        self.reports.back().is_some_and(|report| report.with_next)
    }

    /// Takes one in.
    pub fn push(&mut self, request: Request) {
        match request.place {
            Some(_) => self.calls.push_back(request),
            None => self.reports.push_back(request),
        }
    }

    /// Takes the next batch: reports, then calls until they are as much as a batch takes, one of them at least.
    pub fn take(&mut self) -> Vec<Request> {
        let mut end = self.reports.len().min(BATCH_MAX);
        while end > 0 && self.reports[end - 1].with_next {
            end += 1;
        }
        let mut batch: Vec<Request> = self.reports.drain(..end).collect();
        let mut taken = 0;
        while let Some(call) = self.calls.pop_front() {
            taken += weight(&call.operation);
            if taken > BATCH_MAX && taken > weight(&call.operation) {
                self.calls.push_front(call);
                break;
            }
            batch.push(call);
        }
        batch
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::{DEFAULT_TENANT, JobId, Terms, Wish};
    use crate::store::{Retry, Submission};
    use std::sync::Arc;
    use tokio::sync::Semaphore;

    fn request(operation: Operation, place: Option<OwnedSemaphorePermit>) -> Request {
        Request { operation, answer: Reply::Waiting(oneshot::channel().0), place, with_next: false }
    }

    /// A submission of so many jobs, from a client.
    fn call(jobs: usize) -> Request {
        let wish = Wish { kind: "work".into(), input: "{}".into(), ..Default::default() };
        let spec = Arc::new(wish.into_spec(DEFAULT_TENANT, &Terms::default()).unwrap());
        let submit = Operation::Submit(vec![Submission { spec, chance: 0 }; jobs]);
        let place = Arc::new(Semaphore::new(1)).try_acquire_owned().unwrap();
        request(submit, Some(place))
    }

    fn report() -> Request {
        request(Operation::Delete(JobId::default()), None)
    }

    fn weights(batch: &[Request]) -> Vec<usize> {
        batch.iter().map(|request| weight(&request.operation)).collect()
    }

    #[test]
    fn a_flood_of_starts_leaves_every_report_its_place_in_the_next_batch() {
        let mut waiting = Waiting::default();
        (0..10).for_each(|_| waiting.push(call(1_000)));
        (0..5).for_each(|_| waiting.push(report()));

        assert_eq!(weights(&waiting.take()), [1, 1, 1, 1, 1, 1_000]);
        waiting.push(report());
        assert_eq!(weights(&waiting.take()), [1, 1_000]);
    }

    #[test]
    fn what_belongs_together_is_in_one_batch() {
        let mut waiting = Waiting::default();
        (1..BATCH_MAX).for_each(|_| waiting.push(report()));
        waiting.push(Request { with_next: true, ..report() });
        assert!(waiting.is_open());
        waiting.push(report());
        waiting.push(report());

        assert!(!waiting.is_open());
        assert_eq!((waiting.take().len(), waiting.take().len()), (BATCH_MAX + 1, 1));
    }

    #[test]
    fn what_is_taken_over_has_the_places_of_as_much_input() {
        let retry = |output: Option<usize>| {
            let output = output.map(|bytes| vec![0; bytes].into());
            Operation::Retry(Retry {
                job: JobId::default(),
                tenant: DEFAULT_TENANT.to_owned(),
                request: None,
                trace: None,
                output,
                chance: 0,
            })
        };

        assert_eq!([None, Some(0), Some(1 << 20)].map(|output| places(&retry(output))), [1, 1, 17]);
    }

    #[test]
    fn a_batch_takes_calls_in_their_order_up_to_its_weight() {
        let mut waiting = Waiting::default();
        [500, 500, 24, 1, 2_000, 7].into_iter().for_each(|jobs| waiting.push(call(jobs)));

        let batches: Vec<_> = std::iter::from_fn(|| {
            let batch = waiting.take();
            (!batch.is_empty()).then(|| weights(&batch))
        })
        .collect();

        assert_eq!(batches, [vec![500, 500, 24], vec![1], vec![2_000], vec![7]]);
    }

    #[test]
    fn a_call_with_much_in_it_takes_more_places() {
        assert_eq!(places(&call(1).operation), 1);
        assert_eq!(places(&call(1_000).operation), 63);
    }
}
