//! What an attempt does, by lot: it writes, waits, enters stages, and ends well or badly. It is the handler of every pool.

use crate::ledger::Ledger;
use crate::lots::Lots;
use async_trait::async_trait;
use bytes::Bytes;
use longhaul::job::{Failure, LogLevel, Progress};
use longhaul::worker::{Context, Handler};
use std::sync::Arc;
use std::time::Duration;

/// What a panic of an attempt says, so that it is not taken for one of the server's.
pub const SCRIPTED: &str = "as was decided by lot";

/// Runs attempts.
pub struct Script {
    pub worker: String,
    pub ledger: Arc<Ledger>,
    pub lots: Lots,
}

/// How an attempt ends.
#[derive(Clone, Copy, Debug)]
pub enum End {
    Success,
    Failure,
    Permanent,
    Panic,
}

/// What it does until then.
pub struct Plan {
    pub pieces: u64,
    /// The longest wait between two of them, in milliseconds.
    pub pause: u64,
    pub co_operates: bool,
    pub end: End,
}

impl Plan {
    pub fn new(lots: &Lots) -> Self {
        let chatty = lots.one_in(25);
        let end = match lots.among(0..100) {
            0..78 => End::Success,
            78..93 => End::Failure,
            93..97 => End::Permanent,
            _ => End::Panic,
        };
        Self {
            pieces: if chatty { lots.among(80..160) } else { lots.among(0..6) },
            pause: if chatty { 3 } else { *lots.pick(&[1, 50, 400, 400, 3_000, 8_000]) },
            co_operates: !lots.one_in(5),
            end,
        }
    }
}

/// Waits until it is told to stop.
pub struct Waits;

#[async_trait]
impl Handler for Waits {
    async fn run(&self, context: &Context) -> Result<Bytes, Failure> {
        context.cancelled().cancelled().await;
        Err(Failure::new("STOPPED", SCRIPTED))
    }
}

#[async_trait]
impl Handler for Script {
    async fn run(&self, context: &Context) -> Result<Bytes, Failure> {
        let job = context.assignment.id.to_string();
        let (ledger, lots) = (&self.ledger, self.lots.fork());
        let checkpoint = context.last_checkpoint().map(Bytes::as_ref).unwrap_or_default();
        let nonce = ledger.begin_attempt(&self.worker, &job, (checkpoint, context.output_bytes()), &lots);
        ledger.note(|| format!("{nonce} begins attempt {} of {job}", context.assignment.attempt));
        let plan = Plan::new(&lots);
        for piece in 0..plan.pieces {
            self.wait(context, &plan, &lots).await?;
            match lots.among(0..12) {
                0 => context.stage(&format!("stage {}", piece % 3)).await?,
                1 => context.log(LogLevel::Info, format!("{nonce} at {piece}")).await?,
                2 => context.progress(Progress {
                    fraction: Some(piece as f64 / plan.pieces as f64),
                    ..Default::default()
                })?,
                3 => context.metrics([("pieces".to_owned(), piece as f64)].into())?,
                4 => context.output_to("notes", format!("{nonce} – {piece}\n")).await?,
                5 | 6 => {
                    // Now and then two at once, of which one may stand for both.
                    let all = !lots.one_in(4);
                    let both = if lots.one_in(3) { vec![!all, all] } else { vec![all] };
                    let record = async |all| {
                        let (number, checkpoint) = ledger.checkpoints(&nonce, all);
                        let bytes = checkpoint.len() as u64;
                        context.checkpoint(checkpoint, bytes).await.map(|()| ledger.recorded(&nonce, number))
                    };
                    futures_util::future::join_all(both.into_iter().map(record))
                        .await
                        .into_iter()
                        .collect::<Result<(), _>>()?;
                }
                _ => {
                    let text = format!("{nonce}/{piece} ");
                    ledger.writes(&nonce, &text);
                    context.output(text).await?;
                }
            }
        }
        self.wait(context, &plan, &lots).await?;
        ledger.note(|| format!("{nonce} ends with {:?}", plan.end));
        match plan.end {
            End::Success => Ok(format!(r#"{{"nonce":"{nonce}"}}"#).into()),
            End::Failure => Err(Failure::new("BY_LOT", SCRIPTED)),
            End::Permanent => Err(Failure::new("BY_LOT", SCRIPTED).permanent()),
            End::Panic => panic!("{SCRIPTED}"),
        }
    }
}

impl Script {
    async fn wait(&self, context: &Context, plan: &Plan, lots: &Lots) -> Result<(), Failure> {
        let pause = Duration::from_millis(lots.among(0..plan.pause + 1));
        if !plan.co_operates {
            tokio::time::sleep(pause).await;
            return Ok(());
        }
        match context.cancelled().run_until_cancelled(tokio::time::sleep(pause)).await {
            Some(()) => Ok(()),
            None => Err(Failure::new("STOPPED", SCRIPTED)),
        }
    }
}
