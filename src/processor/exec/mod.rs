//! Runs programs: a process for each job, or one that takes job after job. The page docs/child-protocol.md is its contract.
//!
//! This side supervises and understands; the processes themselves are started and ended by a `warden` beside each slot, so
//! that nothing which a program has started outlives it, or us.

mod attempt;
mod ffmpeg;
mod lines;
mod message;
mod outcome;
mod percent;
mod program;
mod seat;
mod stdout;
pub mod warden;

pub use program::{Limits, Program, Reading, has_blanks};

use crate::job::{Failure, reason};
use crate::worker::{Context, Handler};
use async_trait::async_trait;
use attempt::{Hearing, Verdict, attend};
use bytes::Bytes;
use parking_lot::Mutex;
use program::Call;
use seat::{Seat, Warden};
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use stdout::Stdout;
use tempfile::NamedTempFile;
use tokio_util::sync::CancellationToken;
use warden::{End, Launch};

/// Runs jobs by a program. Clones share their wardens.
#[derive(Clone, Debug)]
pub struct Exec {
    program: Arc<Program>,
    /// Our own binary, which is a warden when it is called so.
    longhaul: PathBuf,
    /// Those that run no job.
    free: Arc<Mutex<Vec<Seat>>>,
}

impl Exec {
    /// Runs jobs by `program`, under wardens that are `longhaul`.
    pub fn new(program: Program, longhaul: impl Into<PathBuf>) -> Self {
        Self { program: Arc::new(program), longhaul: longhaul.into(), free: Arc::default() }
    }
}

#[async_trait]
impl Handler for Exec {
    /// Where it is dropped before its end, the warden's socket is closed, and with that all that runs there is ended.
    async fn run(&self, context: &Context) -> Result<Bytes, Failure> {
        let call = self.program.call(&context.assignment)?;
        let result_file = call.result_file.clone();
        let free = self.free.lock().pop();
        let mut seat = match free {
            Some(seat) => seat,
            None => Seat::start(&self.longhaul).map_err(|error| not_run(&error))?,
        };
        let (end, verdict) = self.run_in(&mut seat, context, call).await?;
        if end.is_some() {
            seat.pipes = None;
        }
        self.free.lock().push(seat);
        let result = match end {
            Some(end) if self.program.persistent => outcome::of_persistent(end, verdict),
            Some(end) => outcome::of(end, verdict),
            None => outcome::of_verdict(verdict),
        }?;
        match result_file {
            Some(file) => outcome::of_file(&self.program.folder.clone().unwrap_or_default().join(file)),
            None => Ok(result),
        }
    }
}

impl Exec {
    /// Has the program do a job: what it said, and how it ended, where it did. After a failure the seat is of no use.
    async fn run_in(
        &self,
        seat: &mut Seat,
        context: &Context,
        call: Call,
    ) -> Result<(Option<End>, Verdict), Failure> {
        let mut line = message::job_line(&context.assignment);
        let mut environment = call.environment;
        let mut job_file = None;
        if self.program.job_in_file {
            let file = write_job_file(&line).map_err(|error| not_run(&error))?;
            environment.push(("LONGHAUL_JOB_FILE".into(), file.path().into()));
            (line, job_file) = (Bytes::new(), Some(file));
        }
        let is_running = seat.is_taken().map_err(|error| not_run(&error))?;
        if !is_running {
            let Program { file, folder, limits, .. } = &*self.program;
            let (file, folder, limits) = (file.clone(), folder.clone(), *limits);
            let launch = Launch { file, arguments: call.arguments, environment, folder, limits };
            seat.launch(launch).map_err(|error| not_run(&error))?;
        }
        let Seat { warden, pipes: Some(pipes) } = seat else { unreachable!("what was launched has pipes") };
        let stdout = Stdout::new(self.program.reading, call.total);
        let ended = CancellationToken::new();
        let hearing = Hearing::new(context, stdout, self.program.persistent).hear(pipes, line, &ended);
        let heard = self.follow(hearing, &ended, warden, context).await;
        // Until now the program may have read it.
        drop(job_file);
        heard
    }

    /// Follows a program until its end or, where it goes on, to the end of its job.
    async fn follow(
        &self,
        hearing: impl Future<Output = Result<Verdict, Failure>>,
        ended: &CancellationToken,
        warden: &Warden,
        context: &Context,
    ) -> Result<(Option<End>, Verdict), Failure> {
        let (mut hearing, mut ending) = (pin!(hearing), pin!(attend(warden, context)));
        let mut heard = None;
        let end = loop {
            tokio::select! {
                biased;
                verdict = &mut hearing, if heard.is_none() => {
                    let verdict = verdict?;
                    if self.program.persistent {
                        if verdict.is_final() {
                            return Ok((None, verdict));
                        }
                        // It has closed its output, and no job comes to an end like that.
                        warden.kill().map_err(|error| not_run(&error))?;
                    }
                    heard = Some(verdict);
                }
                end = &mut ending => break end.map_err(|error| not_run(&error))?,
            }
        };
        // However long it takes to record what it has said: it is told whole.
        ended.cancel();
        let verdict = match heard {
            Some(verdict) => verdict,
            None => hearing.await?,
        };
        Ok((Some(end), verdict))
    }
}

/// Writes a job's line into a file that goes when its job does.
fn write_job_file(line: &[u8]) -> io::Result<NamedTempFile> {
    let mut file = NamedTempFile::with_prefix("longhaul-job-")?;
    file.write_all(line)?;
    Ok(file)
}

/// The failure of an attempt whose program could not be run, which is not its own fault.
fn not_run(error: &io::Error) -> Failure {
    Failure::new(reason::HANDLER_ERROR, error.to_string())
}
