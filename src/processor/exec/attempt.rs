//! One attempt: gives a program its job, passes on what it says, and tells it to stop when it must.

use super::lines::{Lines, Piece};
use super::message::{Said, Step};
use super::seat::{Pipes, Warden};
use super::stdout::Stdout;
use super::warden::End;
use crate::job::limits::{LOG_LINE_BYTES_MAX, LOG_LINES_MAX};
use crate::job::{Failure, LogLevel, LogLine, Progress};
use crate::worker::Context;
use bytes::{Buf as _, Bytes, BytesMut};
use std::io;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

/// What is read at once.
const READ_BYTES: usize = 16 << 10;
/// How long nothing may come of a program that has ended before it is taken to be silent: somebody elsewhere may have its pipes.
const LAST_WORDS_TIME: Duration = Duration::from_secs(1);
/// How much may still come: what the largest pipes hold. Somebody elsewhere may go on for ever.
const LAST_WORDS_BYTES_MAX: usize = 2 << 20;
/// What is left of a grace period once the program is killed, so that this is told before the server gives up: a part of it,
/// and at most so long.
const TELL_TIME: (f64, Duration) = (0.1, Duration::from_secs(1));

/// What a program has said of its job that decides how it ends.
#[derive(Debug, Default, PartialEq)]
pub struct Verdict {
    pub result: Option<Bytes>,
    pub failure: Option<Failure>,
    /// The last line on standard error.
    pub last_words: String,
}

impl Verdict {
    /// Whether it decides: the program has given a result, or a failure.
    pub fn is_final(&self) -> bool {
        self.result.is_some() || self.failure.is_some()
    }
}

/// A program's words about one job, as they are heard.
pub struct Hearing<'a> {
    context: &'a Context,
    /// A result or a failure is the end of the job, though not of the program.
    ends_with_verdict: bool,
    stdout: Stdout,
    stderr: Lines,
    progress: Progress,
    log_lines: u32,
    verdict: Verdict,
}

impl<'a> Hearing<'a> {
    pub fn new(context: &'a Context, stdout: Stdout, ends_with_verdict: bool) -> Self {
        Self {
            context,
            ends_with_verdict,
            stdout,
            stderr: Lines::new(LOG_LINE_BYTES_MAX),
            progress: Progress::default(),
            log_lines: 0,
            verdict: Verdict::default(),
        }
    }

    /// Gives the program its job, and passes on what it says until it has nothing more to say about it: until it closes its
    /// pipes or, once it has `ended`, until nothing more comes.
    ///
    /// Reads only as fast as what is read is taken, so that a flood holds up the program and fills no memory.
    pub async fn hear(
        mut self,
        pipes: &mut Pipes,
        mut line: Bytes,
        ended: &CancellationToken,
    ) -> Result<Verdict, Failure> {
        let (mut out, mut err) = (BytesMut::new(), BytesMut::new());
        let mut last_words = 0;
        let (mut out_open, mut err_open) = (true, true);
        if line.is_empty() {
            pipes.stdin = None;
        }
        while out_open || err_open {
            out.reserve(READ_BYTES);
            err.reserve(READ_BYTES);
            if last_words > LAST_WORDS_BYTES_MAX {
                break;
            }
            tokio::select! {
                written = write(&mut pipes.stdin, &line), if !line.is_empty() => {
                    // A program need not read its job.
                    line.advance(written.unwrap_or(line.len()));
                    if line.is_empty() && !self.ends_with_verdict {
                        pipes.stdin = None;
                    }
                }
                read = pipes.stderr.read_buf(&mut err), if err_open => {
                    err_open = read.is_ok_and(|read| read > 0);
                    last_words += if ended.is_cancelled() { err.len() } else { 0 };
                    self.log(&err, !err_open).await?;
                    err.clear();
                }
                read = pipes.stdout.read_buf(&mut out), if out_open => {
                    out_open = read.is_ok_and(|read| read > 0);
                    last_words += if ended.is_cancelled() { out.len() } else { 0 };
                    self.take(&out, !out_open).await?;
                    out.clear();
                    if self.ends_with_verdict && (self.verdict.is_final() || !out_open) {
                        // What it had to say before is there already.
                        while pipes.stderr.try_read_buf(&mut err).is_ok_and(|read| read > 0) {
                            self.log(&err, false).await?;
                            err.clear();
                        }
                        return Ok(self.verdict);
                    }
                }
                () = silence(ended) => break,
            }
        }
        if out_open {
            self.take(&[], true).await?;
        }
        if err_open {
            self.log(&[], true).await?;
        }
        Ok(self.verdict)
    }

    /// Takes what has come on standard output.
    async fn take(&mut self, data: &[u8], is_end: bool) -> Result<(), Failure> {
        let mut said = Vec::new();
        self.stdout.feed(data, &mut said);
        if is_end {
            self.stdout.end(&mut said);
        }
        for said in said {
            // What comes behind the verdict is about nothing.
            if self.ends_with_verdict && self.verdict.is_final() {
                break;
            }
            self.pass_on(said).await?;
        }
        Ok(())
    }

    async fn pass_on(&mut self, said: Said) -> Result<(), Failure> {
        match said {
            Said::Output { channel, data } => self.context.output_to(&channel, data).await?,
            Said::Step(step) => self.step(step).await?,
            Said::Log(line) => self.log_lines(vec![line]).await?,
            Said::Metrics(metrics) => self.context.metrics(metrics)?,
            Said::Checkpoint { data, output_bytes } => {
                let output_bytes = output_bytes.unwrap_or_else(|| self.context.output_bytes());
                self.context.checkpoint(data, output_bytes).await?;
            }
            Said::Result(result) => self.verdict.result = Some(result),
            Said::Failure(failure) => self.verdict.failure = Some(failure),
        }
        Ok(())
    }

    async fn step(&mut self, step: Step) -> Result<(), Failure> {
        let Step { fraction, estimated, stage, completed, total, unit, seconds_left } = step;
        let progress = &mut self.progress;
        let counted = completed.is_some() || total.is_some();
        progress.completed = completed.unwrap_or(progress.completed);
        progress.total = total.or(progress.total);
        progress.unit = unit.unwrap_or(std::mem::take(&mut progress.unit));
        progress.estimated = estimated.unwrap_or(progress.estimated);
        let of_total =
            progress.total.filter(|total| *total > 0).map(|total| progress.completed as f64 / total as f64);
        progress.fraction = fraction.or(of_total.filter(|_| counted)).or(progress.fraction);
        // Of an earlier report it would be wrong by now.
        let left = seconds_left.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
        progress.expected_end_time = left.map(|left| self.context.expected_time(left));
        if let Some(stage) = stage.filter(|stage| !stage.is_empty() && *stage != progress.stage) {
            progress.stage.clone_from(&stage);
            self.context.stage(&stage).await?;
        }
        self.context.progress(self.progress.clone())
    }

    /// Takes what has come on standard error: lines for the log.
    async fn log(&mut self, data: &[u8], is_end: bool) -> Result<(), Failure> {
        let (mut lines, mut said) = (Vec::new(), Vec::new());
        let Self { stdout, stderr, .. } = self;
        let mut hear = |piece: Piece<'_>| match piece {
            Piece::Line(line) | Piece::Part(line) => {
                stdout.error_line(line, &mut said);
                lines.push(String::from_utf8_lossy(line).into_owned());
            }
            Piece::Redrawn(line) => stdout.error_line(line, &mut said),
        };
        stderr.feed(data, &mut hear);
        if is_end {
            stderr.end(&mut hear);
        }
        for said in said {
            self.pass_on(said).await?;
        }
        if let Some(last) = lines.iter().rev().find(|line| !line.trim().is_empty()) {
            self.verdict.last_words.clone_from(last);
        }
        let line = |text| LogLine { level: LogLevel::Info, message: text };
        self.log_lines(lines.into_iter().map(line).collect()).await
    }

    /// Logs, up to the number of lines that a job may have; one more, so that its log says itself that it is full.
    async fn log_lines(&mut self, mut lines: Vec<LogLine>) -> Result<(), Failure> {
        lines.truncate((LOG_LINES_MAX + 1 - self.log_lines) as usize);
        self.log_lines += lines.len() as u32;
        match lines.is_empty() {
            true => Ok(()),
            false => self.context.log_lines(lines).await,
        }
    }
}

/// Comes to its end when the program has ended and is silent for long enough.
async fn silence(ended: &CancellationToken) {
    ended.cancelled().await;
    sleep(LAST_WORDS_TIME).await;
}

async fn write(stdin: &mut Option<tokio::net::unix::pipe::Sender>, line: &[u8]) -> io::Result<usize> {
    match stdin {
        Some(stdin) => stdin.write(line).await,
        None => Ok(line.len()),
    }
}

/// Waits for a program's end; tells it to stop when its job is cancelled, and ends it when the grace period does.
pub async fn attend(warden: &Warden, context: &Context) -> io::Result<End> {
    let mut kill_time = None;
    let mut killed = false;
    loop {
        tokio::select! {
            end = warden.ended() => return end,
            () = context.cancelled().cancelled(), if kill_time.is_none() => {
                warden.terminate()?;
                let grace = context.grace();
                kill_time = Some(Instant::now() + grace - grace.mul_f64(TELL_TIME.0).min(TELL_TIME.1));
            }
            () = sleep_until(kill_time.unwrap_or_else(Instant::now)), if kill_time.is_some() && !killed => {
                warden.kill()?;
                killed = true;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::program::Reading;
    use super::*;
    use crate::worker::JobSource;
    use crate::worker::fake::{Fake, Said as Told};
    use std::sync::Arc;
    use tokio::net::unix::pipe;

    const LINES: &str = "{\"output\": \"one\"}\n{\"output\": \"two\"}\n{\"failure\": {\"reason\": \"NO_LUCK\", \"message\": \"no\"}}\n";

    /// What was heard of a program that has written this and ended, by a server that takes so long for each piece of output.
    /// Somebody elsewhere may still have its pipes.
    async fn heard(text: &str, output_time: Duration, is_held: bool) -> (Verdict, Vec<Told>) {
        let source = Fake::default();
        source.slow_down(output_time);
        let _orders = source.offer("program", "{}", 1);
        let leased = source.lease(&["program".to_owned()].into(), 1).await.unwrap().remove(0);
        let context = Context::new(leased.assignment, leased.token, Arc::new(source.clone()));
        let (mut out, stdout) = pipe::pipe().unwrap();
        let (err, stderr) = pipe::pipe().unwrap();
        out.write_all(text.as_bytes()).await.unwrap();
        let held = is_held.then_some((out, err));
        let (mut pipes, ended) = (Pipes { stdin: None, stdout, stderr }, CancellationToken::new());
        ended.cancel();

        let hearing = Hearing::new(&context, Stdout::new(Reading::Jsonl, None), false);
        let verdict = hearing.hear(&mut pipes, Bytes::new(), &ended).await.unwrap();

        drop(held);
        (verdict, source.said())
    }

    // Pipes are the kernel's, and know no time but its own.
    #[tokio::test]
    async fn what_a_program_has_said_is_told_whole_however_long_that_takes() {
        for is_held in [false, true] {
            let (verdict, told) = heard(LINES, LAST_WORDS_TIME.mul_f64(1.1), is_held).await;

            assert_eq!(verdict.failure.unwrap().reason, "NO_LUCK");
            assert_eq!(told.len(), 2, "{told:?}");
        }
    }

    #[tokio::test]
    async fn a_line_that_was_not_ended_is_told_as_well() {
        for is_held in [false, true] {
            let (verdict, _) = heard(LINES.trim_end(), Duration::ZERO, is_held).await;

            assert!(verdict.is_final(), "{verdict:?}");
        }
    }
}
