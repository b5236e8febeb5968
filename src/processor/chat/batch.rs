//! A job that is many questions. Each has a line of the output, with its answer or its error, and is not asked again once it
//! has: behind each line is a checkpoint that says which are finished.

use super::answer::{Answer, Reading, Tokens};
use super::caller::{Caller, QUIET_MAX};
use super::exchange::Audience;
use super::failure::{self, Trouble};
use super::items::Items;
use super::tally::{Blame, Tally};
use crate::job::limits::RESULT_BYTES_MAX;
use crate::job::{Failure, LogLevel, Progress, Timestamp};
use crate::worker::Context;
use bytes::Bytes;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt as _, StreamExt as _};
use serde::Serialize;
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// How many refusals in a row it sits out: its releases are counted, and a batch may be refused more often than that.
const REFUSALS_MAX: u32 = 10;
/// How many accidents in a row beyond the requests at once are an outage.
const MORE_ACCIDENTS: usize = 3;
/// Bytes of lines that are written with one checkpoint, but for a longer line: as much is one commit.
const WRITTEN_BYTES_MAX: usize = 256 << 10;
/// How often the job says that it is alive while answers come.
const ALIVE_INTERVAL: Duration = Duration::from_secs(1);

/// Asks all that is not finished, and returns what all of it came to.
pub async fn run(caller: &Caller, context: &Context, items: &Items) -> Result<Bytes, Failure> {
    let tally = match context.last_checkpoint() {
        None => Tally::default(),
        Some(checkpoint) => Tally::read(checkpoint, items.len()).map_err(|error| {
            let text = format!("the checkpoint is none of a batch, so nobody knows what is paid: {error}");
            Failure::new("UNKNOWN_CHECKPOINT", text).permanent()
        })?,
    };
    let asking =
        Asking { caller, context, items, leaving: CancellationToken::new(), heard: AtomicU64::new(0) };
    // Those that failed come last, so that however many there are each attempt gets further.
    let mut left: Vec<_> = (0..items.len()).filter(|index| !tally.has(*index)).collect();
    left.sort_by_key(|index| tally.tries(*index));
    let batch = Batch {
        asking: &asking,
        limit: caller.provider.batch_concurrent,
        waiting: left.into_iter().map(|index| (index, None)).collect(),
        tally,
        lines: Vec::new(),
        accidents: 0,
        left: None,
        last_error: None,
    };
    batch.run().await
}

/// What is needed to ask an item.
struct Asking<'a> {
    caller: &'a Caller,
    context: &'a Context,
    items: &'a Items,
    /// Nothing more is to be asked; what was asked comes to its end, since it is paid.
    leaving: CancellationToken,
    /// Pieces of answers that came.
    heard: AtomicU64,
}

/// What came of asking an item; nothing where it was not asked any more.
type Outcome = (usize, Option<Result<Answer, Trouble>>);

/// The items on their way.
struct Batch<'a> {
    asking: &'a Asking<'a>,
    /// Requests at once.
    limit: usize,
    /// Those that are not asked yet, and when they may be.
    waiting: VecDeque<(usize, Option<Instant>)>,
    tally: Tally,
    /// What is to be written.
    lines: Vec<u8>,
    /// Accidents since the last answer that may be the provider's.
    accidents: usize,
    /// Why the job cannot go on now.
    left: Option<Left>,
    last_error: Option<String>,
}

/// Why nothing more is asked.
enum Left {
    Failed(Failure),
    /// The provider wants quiet for so long.
    Busy(Failure, Duration),
}

/// An item's line.
#[derive(Serialize)]
struct Line<'a> {
    index: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a str>,
    #[serde(flatten)]
    answer: Option<&'a Answer>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<Value>,
}

/// What the job returns.
#[derive(Serialize)]
struct Summary {
    items: usize,
    answered: usize,
    failed: usize,
    usage: Option<Tokens>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cost: Option<f64>,
}

impl Batch<'_> {
    async fn run(mut self) -> Result<Bytes, Failure> {
        let asking = self.asking;
        asking.context.stage("Answering").await?;
        self.tell()?;
        let (mut asked, mut heard) = (FuturesUnordered::new(), 0);
        loop {
            while self.left.is_none()
                && asked.len() < self.limit
                && let Some((index, start)) = self.waiting.pop_front()
            {
                asked.push(asking.ask(index, start));
            }
            let first = match tokio::time::timeout(ALIVE_INTERVAL, asked.next()).await {
                Ok(Some(first)) => first,
                Ok(None) => break,
                Err(_) => {
                    let now = asking.heard.load(Ordering::Relaxed);
                    if std::mem::replace(&mut heard, now) < now {
                        self.tell()?;
                    }
                    continue;
                }
            };
            self.take(first).await?;
            while let Some(Some(next)) = asked.next().now_or_never() {
                self.take(next).await?;
            }
            self.write().await?;
        }
        self.conclude().await
    }

    /// What has become of an item.
    async fn take(&mut self, (index, outcome): Outcome) -> Result<(), Failure> {
        match outcome {
            None => {}
            Some(Ok(answer)) => {
                self.accidents = 0;
                if answer.text.is_some() {
                    self.line(index, Some(&answer), None).await?;
                    self.tally.answer(index, &answer);
                } else {
                    self.tally.add(&answer);
                    let text = format!("its text is more than {RESULT_BYTES_MAX} bytes");
                    let provider = &self.asking.caller.provider;
                    self.fail(index, &failure::of(provider, "ANSWER_TOO_LONG", &text)).await?;
                }
            }
            Some(Err(Trouble::Failed(failure))) if failure.permanent => self.fail(index, &failure).await?,
            Some(Err(Trouble::Failed(failure))) => self.accident(index, failure).await?,
            Some(Err(Trouble::Barred(failure))) => self.leave(Left::Failed(failure)),
            Some(Err(Trouble::Busy(failure, delay))) => self.refused(index, failure, delay).await?,
        }
        Ok(())
    }

    /// It may have been the item or the provider: which of them shows when others are asked.
    async fn accident(&mut self, index: usize, failure: Failure) -> Result<(), Failure> {
        match self.tally.blame(index, failure.reason != "PROVIDER_UNREACHABLE") {
            Blame::Item => return self.fail(index, &failure).await,
            Blame::Open => {}
            Blame::Provider => self.accidents += 1,
        }
        if self.accidents >= self.limit + MORE_ACCIDENTS {
            self.leave(Left::Failed(failure));
            return Ok(());
        }
        let wait = failure::backoff(self.tally.tries(index).max(1), self.asking.context.chance());
        self.waiting.push_back((index, Some(Instant::now() + wait)));
        self.log(index, wait, &failure).await
    }

    /// The provider wants quiet.
    async fn refused(
        &mut self,
        index: usize,
        failure: Failure,
        delay: Option<Duration>,
    ) -> Result<(), Failure> {
        let context = self.asking.context;
        let (delay, refusals) = self.asking.caller.leave_alone(delay, context.chance());
        self.waiting.push_back((index, None));
        if delay > QUIET_MAX || refusals >= REFUSALS_MAX {
            self.leave(Left::Busy(failure, delay));
            return Ok(());
        }
        self.log(index, delay, &failure).await
    }

    async fn log(&self, index: usize, wait: Duration, failure: &Failure) -> Result<(), Failure> {
        let text = format!("items[{index}] again in {:.3} s: {}", wait.as_secs_f64(), failure.message);
        self.asking.context.log(LogLevel::Warn, text).await
    }

    /// Asks nothing more; the first reason for that is the job's.
    fn leave(&mut self, why: Left) {
        self.left.get_or_insert(why);
        self.asking.leaving.cancel();
    }

    async fn fail(&mut self, index: usize, failure: &Failure) -> Result<(), Failure> {
        self.last_error = Some(format!("items[{index}]: {}", failure.message));
        let details = failure.details.as_ref().and_then(|text| serde_json::from_slice::<Value>(text).ok());
        let mut error = json!({"reason": failure.reason, "message": failure.message});
        if let Some(details) = details {
            error["details"] = details;
        }
        self.line(index, None, Some(error)).await?;
        self.tally.fail(index);
        Ok(())
    }

    /// Adds an item's line to what is to be written; the tally does not have it yet.
    async fn line(
        &mut self,
        index: usize,
        answer: Option<&Answer>,
        error: Option<Value>,
    ) -> Result<(), Failure> {
        let line = Line { index, id: self.asking.items.id(index), answer, error };
        let mut line = serde_json::to_vec(&line).expect("an answer can be written");
        line.push(b'\n');
        if self.lines.len() + line.len() > WRITTEN_BYTES_MAX {
            self.write().await?;
        }
        self.lines.append(&mut line);
        Ok(())
    }

    /// Writes down what is finished, so that it is never asked again.
    async fn write(&mut self) -> Result<(), Failure> {
        if self.lines.is_empty() {
            return Ok(());
        }
        let lines = std::mem::take(&mut self.lines);
        self.asking.context.output_with_checkpoint(lines, self.tally.written()).await?;
        self.tell()
    }

    /// Tells how far it has come.
    fn tell(&self) -> Result<(), Failure> {
        let (finished, all) = (self.tally.finished(), self.asking.items.len());
        let mut metrics = self.tally.usage.unwrap_or_default().metrics();
        metrics.insert("items_answered".to_owned(), self.tally.answered as f64);
        metrics.insert("items_failed".to_owned(), self.tally.failed as f64);
        if let Some(cost) = self.tally.cost {
            metrics.insert("cost".to_owned(), cost);
        }
        self.asking.context.metrics(metrics)?;
        self.asking.context.progress(Progress {
            fraction: Some(finished as f64 / all as f64),
            stage: "Answering".to_owned(),
            completed: finished as i64,
            total: Some(all as i64),
            unit: "items".to_owned(),
            ..Default::default()
        })
    }

    async fn conclude(self) -> Result<Bytes, Failure> {
        let context = self.asking.context;
        if let Some(left) = self.left {
            // How often an item was asked in vain, the next attempt has to know.
            context.checkpoint(self.tally.written(), context.output_bytes()).await?;
            return Err(match left {
                Left::Failed(failure) => failure,
                Left::Busy(failure, delay) => super::give_back(context, failure, delay),
            });
        }
        let Tally { answered, failed, usage, cost, .. } = self.tally;
        if answered == 0 {
            // Whoever has the job tried again has mended something, and wants all of it asked anew.
            context.checkpoint(Bytes::new(), 0).await?;
            let provider = &self.asking.caller.provider;
            let last = self.last_error.unwrap_or_default();
            let text = format!("none of {failed} items has an answer, and the output says why; {last}");
            return Err(failure::of(provider, "NO_ANSWERS", &text).permanent());
        }
        let summary = Summary { items: self.asking.items.len(), answered, failed, usage, cost };
        Ok(serde_json::to_vec(&summary).expect("a summary can be written").into())
    }
}

impl Asking<'_> {
    /// Asks an item once it may be.
    async fn ask(&self, index: usize, start: Option<Instant>) -> Outcome {
        let place = async {
            if let Some(start) = start {
                tokio::time::sleep_until(start).await;
            }
            self.caller.place().await
        };
        let place = tokio::select! {
            biased;
            () = self.leaving.cancelled() => return (index, None),
            place = place => place,
        };
        let answer = async {
            let question = self.items.question(index, &self.caller.provider)?;
            self.caller.ask(place?, question, &mut Heard(self)).await
        };
        (index, Some(answer.await))
    }
}

/// Nobody reads along, but while something comes the job is alive.
struct Heard<'a>(&'a Asking<'a>);

impl Heard<'_> {
    fn count(&self) {
        self.0.heard.fetch_add(1, Ordering::Relaxed);
    }
}

impl Audience for Heard<'_> {
    fn now(&self) -> Timestamp {
        self.0.context.now()
    }

    async fn asked(&mut self) -> Result<(), Failure> {
        Ok(())
    }

    async fn read(&mut self, _: Reading) -> Result<(), Failure> {
        self.count();
        Ok(())
    }

    async fn written(&mut self, _: &str, _: &str) -> Result<(), Failure> {
        self.count();
        Ok(())
    }
}
