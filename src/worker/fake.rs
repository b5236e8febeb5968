//! A source of jobs for tests: gives what it was offered, and remembers what was said of it.

#![allow(missing_docs, reason = "names that say it, seen by tests alone")]

use super::source::{Assignment, Error, JobSource, LeasedJob};
use crate::engine::Order;
use crate::job::{Failure, JobId, LeaseToken, LogLine, Metrics, Progress, Timestamp};
use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

/// Something that was said of a job.
#[derive(Clone, Debug, PartialEq)]
pub enum Said {
    Progress(Progress),
    Metrics(Metrics),
    Stage(String),
    Output(String, String),
    Log(u64, LogLine),
    Checkpoint(String, u64),
    Completed(String),
    Failed(Failure),
    Stopped,
    Released(String, std::time::Duration),
    Interrupted,
}

/// The source; a copy is the same one.
#[derive(Clone, Debug, Default)]
pub struct Fake(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    offered: Mutex<VecDeque<LeasedJob>>,
    /// Kept, since a lease is over when its orders are closed.
    orders: Mutex<Vec<watch::Sender<Order>>>,
    /// Errors that the next calls to lease end with.
    lease_errors: Mutex<VecDeque<Error>>,
    /// Errors that the next records of an end have.
    end_errors: Mutex<VecDeque<Error>>,
    /// How long it takes to record a piece of output.
    output_time: Mutex<Duration>,
    said: Mutex<Vec<(Instant, Said)>>,
    /// How many jobs each call to lease asked for.
    asked: Mutex<Vec<usize>>,
    /// How often it was to rest.
    rests: Mutex<usize>,
    news: Notify,
}

impl Fake {
    /// Offers a job, which is leased as soon as there is a slot. The orders for it go into what is returned.
    pub fn offer(&self, kind: &str, input: &str, attempt: u32) -> watch::Sender<Order> {
        self.offer_from(kind, input, attempt, "", 0)
    }

    /// The same, of a job whose last attempt has left a checkpoint.
    pub fn offer_from(
        &self,
        kind: &str,
        input: &str,
        attempt: u32,
        checkpoint: &str,
        output_offset: u64,
    ) -> watch::Sender<Order> {
        let (orders, receiver) = watch::channel(Order::Continue);
        let id = JobId::new(Timestamp::from_micros(1), 0, 7);
        let assignment = Assignment {
            id,
            kind: kind.to_owned(),
            attempt,
            input: Bytes::copy_from_slice(input.as_bytes()),
            deadline: None,
            trace: None,
            checkpoint: Bytes::copy_from_slice(checkpoint.as_bytes()),
            output_offset,
        };
        let token = LeaseToken { job: id, epoch: attempt, secret: 7 };
        self.0.orders.lock().push(orders.clone());
        self.0.offered.lock().push_back(LeasedJob { assignment, token, orders: receiver });
        self.0.news.notify_waiters();
        orders
    }

    /// Closes all orders, as a source does that is gone.
    pub fn leave(&self) {
        self.0.orders.lock().clear();
    }

    pub fn fail_lease(&self, error: Error) {
        self.0.lease_errors.lock().push_back(error);
    }

    pub fn fail_end(&self, error: Error) {
        self.0.end_errors.lock().push_back(error);
    }

    pub fn slow_down(&self, output_time: Duration) {
        *self.0.output_time.lock() = output_time;
    }

    pub fn said(&self) -> Vec<Said> {
        self.0.said.lock().iter().map(|(_, said)| said.clone()).collect()
    }

    /// When each thing was said.
    pub fn times(&self) -> Vec<Instant> {
        self.0.said.lock().iter().map(|(time, _)| *time).collect()
    }

    pub fn asked(&self) -> Vec<usize> {
        self.0.asked.lock().clone()
    }

    pub fn rests(&self) -> usize {
        *self.0.rests.lock()
    }

    /// How a job ended, once it has.
    pub async fn end(&self) -> Said {
        let is_end = |said: &Said| {
            matches!(
                said,
                Said::Completed(_) | Said::Failed(_) | Said::Stopped | Said::Released(..) | Said::Interrupted
            )
        };
        loop {
            let news = self.0.news.notified();
            if let Some(end) = self.said().into_iter().find(is_end) {
                return end;
            }
            news.await;
        }
    }

    fn say(&self, said: Said) -> Result<(), Error> {
        self.0.said.lock().push((Instant::now(), said));
        self.0.news.notify_waiters();
        Ok(())
    }

    fn say_end(&self, said: Said) -> Result<(), Error> {
        match self.0.end_errors.lock().pop_front() {
            Some(error) => Err(error),
            None => self.say(said),
        }
    }
}

#[async_trait]
impl JobSource for Fake {
    async fn lease(&self, _: &Arc<[String]>, count: usize) -> Result<Vec<LeasedJob>, Error> {
        self.0.asked.lock().push(count);
        if let Some(error) = self.0.lease_errors.lock().pop_front() {
            return Err(error);
        }
        loop {
            let news = self.0.news.notified();
            {
                let mut offered = self.0.offered.lock();
                if !offered.is_empty() {
                    let count = count.min(offered.len());
                    return Ok(offered.drain(..count).collect());
                }
            }
            news.await;
        }
    }

    fn report(&self, _: &LeaseToken, progress: Option<Progress>, metrics: Metrics) -> Result<(), Error> {
        match progress {
            Some(progress) => self.say(Said::Progress(progress)),
            None => self.say(Said::Metrics(metrics)),
        }
    }

    async fn enter_stage(&self, _: &LeaseToken, name: String) -> Result<(), Error> {
        self.say(Said::Stage(name))
    }

    async fn append_output(&self, _: &LeaseToken, channel: &str, data: Bytes) -> Result<(), Error> {
        let time = *self.0.output_time.lock();
        tokio::time::sleep(time).await;
        self.say(Said::Output(channel.to_owned(), String::from_utf8_lossy(&data).into_owned()))
    }

    async fn append_log(&self, _: &LeaseToken, offset: u64, lines: Vec<LogLine>) -> Result<(), Error> {
        lines.into_iter().zip(offset..).try_for_each(|(line, offset)| self.say(Said::Log(offset, line)))
    }

    async fn checkpoint(
        &self,
        token: &LeaseToken,
        output: Bytes,
        data: Bytes,
        output_bytes: u64,
    ) -> Result<(), Error> {
        if !output.is_empty() {
            self.append_output(token, "", output).await?;
        }
        self.say(Said::Checkpoint(String::from_utf8_lossy(&data).into_owned(), output_bytes))
    }

    async fn complete(&self, _: &LeaseToken, result: Bytes) -> Result<(), Error> {
        self.say_end(Said::Completed(String::from_utf8_lossy(&result).into_owned()))
    }

    async fn fail(&self, _: &LeaseToken, failure: Option<Failure>) -> Result<(), Error> {
        self.say_end(failure.map_or(Said::Stopped, Said::Failed))
    }

    async fn release(&self, _: &LeaseToken, why: String, delay: std::time::Duration) -> Result<(), Error> {
        self.say_end(Said::Released(why, delay))
    }

    fn chance(&self) -> u64 {
        0
    }

    fn now(&self) -> Timestamp {
        Timestamp::default()
    }

    async fn interrupt(&self, _: &LeaseToken) -> Result<(), Error> {
        self.say_end(Said::Interrupted)
    }

    async fn rest(&self) {
        *self.0.rests.lock() += 1;
    }
}
