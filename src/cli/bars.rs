//! A watch on a terminal: a bar for each job with its stage, the time that is left and the newest of its output.

use super::follow::Screen;
use super::text::printable;
use super::view::View;
use crate::proto::JobEvent;
use crate::proto::job::State;
use crate::wire::canonical::json_value;
use indicatif::{MultiProgress, ProgressBar, ProgressState, ProgressStyle};
use parking_lot::Mutex;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

/// The bar's length: a tenth of a percent is as fine as anyone can see.
const LENGTH: u64 = 1000;
const TICK: Duration = Duration::from_millis(120);
/// How much of the output's last line is looked at; the terminal shows what fits.
const TAIL_CHARACTERS: usize = 200;

/// The bars of one terminal.
#[derive(Clone, Debug, Default)]
pub struct Terminal(MultiProgress);

impl Terminal {
    /// Another bar, below those that are there.
    pub fn bar(&self, label: &str) -> Bar {
        let head = Arc::new(Mutex::new(String::new()));
        let label = if label.is_empty() { String::new() } else { format!("{label:<10} ") };
        let bar = ProgressBar::new(LENGTH).with_style(style(false, Arc::clone(&head))).with_prefix(label);
        let bar = self.0.add(bar);
        bar.enable_steady_tick(TICK);
        Bar { bar, head, measured: false }
    }
}

/// The bar of one job.
#[derive(Debug)]
pub struct Bar {
    bar: ProgressBar,
    /// What stands behind the bar.
    head: Arc<Mutex<String>>,
    /// Whether the style has a bar, or only shows that something goes on.
    measured: bool,
}

impl Bar {
    fn draw(&mut self, view: &View, head: String) {
        let measured = view.progress.fraction.is_some();
        *self.head.lock() = head;
        if self.measured != measured {
            self.measured = measured;
            self.bar.set_style(style(measured, Arc::clone(&self.head)));
        }
        self.bar.set_position(position(view));
        self.bar.set_message(tail(view.output()));
    }
}

impl Screen for Bar {
    fn message(&mut self, view: &View, _: &JobEvent) {
        self.draw(view, head(view));
    }

    fn reconnecting(&mut self, view: &View) {
        self.draw(view, "reconnecting".to_owned());
    }

    fn end(&mut self, view: &View) {
        self.draw(view, head(view));
        if let Some(result) = &view.result {
            self.bar.set_message(printable(&json_value(result)));
        }
        self.bar.abandon();
    }
}

fn style(measured: bool, head: Arc<Mutex<String>>) -> ProgressStyle {
    let template = match measured {
        true => "{prefix}{bar:28} {percent:>3} %  {head}\n  {wide_msg:.dim}",
        false => "{prefix}{spinner} {head}\n  {wide_msg:.dim}",
    };
    ProgressStyle::with_template(template)
        .expect("the template is one of two that work")
        .progress_chars("━━╌")
        .with_key("head", move |_: &ProgressState, line: &mut dyn std::fmt::Write| {
            // Writing to the terminal's own buffer does not fail.
            let _ = line.write_str(&head.lock());
        })
}

fn position(view: &View) -> u64 {
    (view.progress.fraction.unwrap_or(0.0).clamp(0.0, 1.0) * LENGTH as f64) as u64
}

/// What stands behind the bar: what is being done, in which attempt, for how long.
fn head(view: &View) -> String {
    let mut head = match view.state {
        State::Running if !view.progress.stage.is_empty() => printable(&view.progress.stage),
        state => state.as_str_name().to_owned(),
    };
    if view.attempt > 1 {
        let _ = write!(head, " · attempt {}", view.attempt);
    }
    match (view.state, view.seconds_left(), &view.failure) {
        (State::Running, Some(left), _) => {
            let _ = write!(head, " · {left:.0} s left");
        }
        (_, _, Some(failure)) => {
            let _ = write!(head, " · {}: {}", printable(&failure.reason), printable(&failure.message));
        }
        _ => {}
    }
    head.replace('\n', " ")
}

/// The end of the last line of the output.
fn tail(output: &[u8]) -> String {
    // Four bytes are the longest character.
    let recent = &output[output.len().saturating_sub(4 * TAIL_CHARACTERS)..];
    let text = String::from_utf8_lossy(recent);
    let line = text.trim_end().rsplit('\n').next().unwrap_or_default();
    let skipped = line.chars().count().saturating_sub(TAIL_CHARACTERS);
    printable(&line.chars().skip(skipped).collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::{Failure, Progress};

    fn running(fraction: f64, stage: &str) -> View {
        let progress = Progress { fraction: Some(fraction), stage: stage.to_owned(), ..Default::default() };
        View { state: State::Running, attempt: 1, progress, ..Default::default() }
    }

    #[test]
    fn the_head_says_what_is_done_and_in_which_attempt() {
        assert_eq!(head(&running(0.5, "Writing")), "Writing");
        assert_eq!(head(&View { attempt: 2, ..running(0.5, "Writing") }), "Writing · attempt 2");
        assert_eq!(head(&running(0.5, "")), "RUNNING");
    }

    #[test]
    fn the_head_says_why_a_job_waits_for_its_next_attempt() {
        let failure =
            Failure { reason: "PANIC".to_owned(), message: "oh\nno".to_owned(), ..Default::default() };
        let view = View { state: State::Retrying, failure: Some(failure), ..running(0.5, "Writing") };

        assert_eq!(head(&view), "RETRYING · PANIC: oh no");
    }

    #[test]
    fn the_tail_is_the_end_of_the_last_line() {
        assert_eq!(tail(b"first\nsecond line"), "second line");
        assert_eq!(tail("ä".repeat(900).as_bytes()).chars().count(), TAIL_CHARACTERS);
        assert_eq!(tail(b""), "");
    }

    #[test]
    fn the_bar_stays_within_its_length() {
        assert_eq!(position(&running(0.25, "")), 250);
        assert_eq!(position(&running(7.0, "")), LENGTH);
    }
}
