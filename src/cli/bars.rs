//! A watch on a terminal: a bar for each job with its stage, the time that is left and the newest of its output, on two
//! lines that fit the screen.

use super::follow::Screen;
use super::lines::place;
use super::text::{ending, one_line, shortened};
use super::times::{brief, fine};
use super::view::View;
use crate::proto::JobEvent;
use crate::proto::job::State;
use crate::wire::canonical::json_value;
use console::{Term, measure_text_width};
use indicatif::{MultiProgress, ProgressBar, ProgressState, ProgressStyle};
use parking_lot::Mutex;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

/// The bar's length: a tenth of a percent is as fine as anyone can see.
const LENGTH: u64 = 1000;
const TICK: Duration = Duration::from_millis(120);
/// How much of the output's end is looked at; the terminal shows what fits.
const TAIL_BYTES: usize = 4_096;
/// What stands between the bar and the head: the percentage.
const PERCENT_COLUMNS: usize = 8;
/// What a state takes, which is never cut.
const STATE_COLUMNS: usize = 10;
/// A terminal with fewer columns gets a short bar.
const WIDE_COLUMNS: usize = 80;

/// The bars of one terminal.
#[derive(Clone, Debug, Default)]
pub struct Terminal(MultiProgress);

impl Terminal {
    /// Another bar, below those that are there.
    pub fn bar(&self, label: &str) -> Bar {
        let label = if label.is_empty() { String::new() } else { format!("{label:<10} ") };
        let words = Arc::new(Mutex::new(Words { label_columns: label.len(), ..Words::default() }));
        let bar = ProgressBar::new(LENGTH).with_style(style(false, &words)).with_prefix(label);
        let bar = self.0.add(bar);
        bar.enable_steady_tick(TICK);
        Bar { bar, words, measured: false }
    }
}

/// The bar of one job.
#[derive(Debug)]
pub struct Bar {
    bar: ProgressBar,
    words: Arc<Mutex<Words>>,
    /// Whether the style has a bar, or only shows that something goes on.
    measured: bool,
}

/// What stands around the bar. It is cut to the screen when it is drawn, since a screen may change its size.
#[derive(Clone, Debug, Default, PartialEq)]
struct Words {
    label_columns: usize,
    /// What is being done, which is cut first.
    doing: String,
    /// In which attempt, for how long.
    more: String,
    below: String,
    /// Of what stands below, the end says more than the beginning.
    streaming: bool,
}

impl Bar {
    fn draw(&mut self, view: &View, doing: String, more: String) {
        let measured = view.progress.fraction.is_some();
        {
            // Let go before the bar is drawn, which reads the words.
            let mut words = self.words.lock();
            (words.doing, words.more) = (doing, more);
            (words.below, words.streaming) = (tail(view.output()), true);
        }
        if self.measured != measured {
            self.measured = measured;
            self.bar.set_style(style(measured, &self.words));
        }
        self.bar.set_position(position(view));
    }
}

impl Screen for Bar {
    fn message(&mut self, view: &View, _: &JobEvent) {
        self.draw(view, doing(view), more(view));
    }

    fn reconnecting(&mut self, view: &View) {
        self.draw(view, "reconnecting".to_owned(), String::new());
    }

    fn end(&mut self, view: &View) {
        self.draw(view, doing(view), more(view));
        if let Some(result) = &view.result {
            let mut words = self.words.lock();
            words.below = one_line(&json_value(result));
            words.streaming = false;
        }
        self.bar.abandon();
    }

    fn leave(&mut self) {
        self.bar.abandon();
    }
}

impl Words {
    fn head(&self, columns: usize, bar_columns: usize) -> String {
        let room = columns.saturating_sub(self.label_columns + bar_columns);
        let left = room.saturating_sub(measure_text_width(&self.more));
        let doing = shortened(&self.doing, left.max(STATE_COLUMNS));
        shortened(&format!("{doing}{}", self.more), room).into_owned()
    }

    fn below(&self, columns: usize) -> String {
        // Two for the indent.
        let room = columns.saturating_sub(2);
        if self.streaming { ending(&self.below, room) } else { shortened(&self.below, room) }.into_owned()
    }
}

fn columns() -> usize {
    usize::from(Term::stderr().size().1)
}

fn style(measured: bool, words: &Arc<Mutex<Words>>) -> ProgressStyle {
    let bar = if columns() < WIDE_COLUMNS { 14 } else { 28 };
    let (template, bar_columns) = match measured {
        true => (
            format!("{{prefix}}{{bar:{bar}}} {{percent:>3}} %  {{head}}\n  {{below:.dim}}"),
            bar + PERCENT_COLUMNS,
        ),
        false => ("{prefix}{spinner} {head}\n  {below:.dim}".to_owned(), 2),
    };
    let (head, below) = (Arc::clone(words), Arc::clone(words));
    // Writing to the terminal's own buffer does not fail.
    ProgressStyle::with_template(&template)
        .expect("the template is one of two that work")
        .progress_chars("━━╌")
        .with_key("head", move |_: &ProgressState, line: &mut dyn std::fmt::Write| {
            let _ = line.write_str(&head.lock().head(columns(), bar_columns));
        })
        .with_key("below", move |_: &ProgressState, line: &mut dyn std::fmt::Write| {
            let _ = line.write_str(&below.lock().below(columns()));
        })
}

fn position(view: &View) -> u64 {
    (view.progress.fraction.unwrap_or(0.0).clamp(0.0, 1.0) * LENGTH as f64) as u64
}

/// What is being done, or why nothing is.
fn doing(view: &View) -> String {
    let failure = view.failure.as_ref().filter(|_| view.state != State::Running);
    let mut doing = match view.state {
        State::Running if !view.progress.stage.is_empty() => view.progress.stage.clone(),
        state => state.as_str_name().to_owned(),
    };
    if let Some(failure) = failure {
        let _ = write!(doing, " · {}: {}", failure.reason, failure.message);
    }
    one_line(&doing)
}

/// In which attempt it is done, and for how long.
fn more(view: &View) -> String {
    let mut more = String::new();
    if view.attempt > 1 {
        let _ = write!(more, " · attempt {}", view.attempt);
    }
    match view.state {
        State::Pending if view.queue_position > 0 => {
            let _ = write!(more, " · {}", place(view.queue_position));
        }
        State::Running => {
            if let Some(left) = view.seconds_left() {
                let _ = write!(more, " · {} left", brief(left));
            }
        }
        _ if view.is_final() => {
            let _ = write!(more, " · after {}", fine(view.age_at(view.time.as_ref())));
        }
        _ => {}
    }
    more
}

/// The end of the last line of the output.
fn tail(output: &[u8]) -> String {
    let recent = String::from_utf8_lossy(&output[output.len().saturating_sub(TAIL_BYTES)..]);
    one_line(recent.trim_end().rsplit('\n').next().unwrap_or_default())
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
    fn the_words_say_what_is_done_and_in_which_attempt() {
        assert_eq!(doing(&running(0.5, "Writ\ting\x1b")), "Writ ing\u{fffd}");
        assert_eq!(more(&View { attempt: 2, ..running(0.5, "Writing") }), " · attempt 2");
        assert_eq!(doing(&running(0.5, "")), "RUNNING");
    }

    #[test]
    fn the_words_say_why_a_job_waits() {
        let failure =
            Failure { reason: "PANIC".to_owned(), message: "oh\nno".to_owned(), ..Default::default() };
        let retrying = View { state: State::Retrying, failure: Some(failure), ..running(0.5, "Writing") };
        let pending = View { state: State::Pending, queue_position: 3, ..Default::default() };

        assert_eq!(doing(&retrying), "RETRYING · PANIC: oh no");
        assert_eq!(doing(&pending) + &more(&pending), "PENDING · number 3 in the queue");
    }

    #[test]
    fn a_narrow_screen_cuts_the_stage_and_keeps_the_time_that_is_left() {
        let words = Words {
            doing: "分析 the whole prompt".to_owned(),
            more: " · 12s left".to_owned(),
            below: "the newest words are at the end".to_owned(),
            streaming: true,
            ..Default::default()
        };

        assert_eq!(words.head(60, 22), "分析 the whole prompt · 12s left");
        assert_eq!(words.head(44, 22), "分析 the w… · 12s left");
        assert_eq!(words.head(38, 22), "分析 the … · 12…");
        assert_eq!(words.below(22), "…ords are at the end");
        assert_eq!(Words { streaming: false, ..words }.below(22), "the newest words ar…");
    }

    #[test]
    fn the_tail_is_the_end_of_the_last_line() {
        assert_eq!(tail(b"first\nsecond line"), "second line");
        assert_eq!(tail("ä".repeat(9_000).as_bytes()).chars().count(), TAIL_BYTES / 2);
        assert_eq!(tail(b""), "");
    }

    #[test]
    fn the_bar_stays_within_its_length() {
        assert_eq!(position(&running(0.25, "")), 250);
        assert_eq!(position(&running(7.0, "")), LENGTH);
    }
}
