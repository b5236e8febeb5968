//! A watch as plain lines, for files, pipes and logs: what happens, when, and to whom.

use super::follow::Screen;
use super::text::{one_line, print_line, printable};
use super::view::{View, is_final};
use crate::proto::{JobEvent, Output, OutputReset, StateChange, job_event, log_line};
use crate::wire::canonical::{canonical_json, json_value};
use std::collections::BTreeMap;
use std::io::{self, Write};

/// How far the fraction must come before it is worth another line.
const STEP: f64 = 0.1;

/// Prints lines, each with the seconds since the ticket.
#[derive(Debug)]
pub struct Lines<W> {
    out: W,
    /// In front of each line, where more than one job is watched.
    label: String,
    /// The attempt whose progress was printed last, and how far it had come.
    printed: (i32, f64),
    /// The place in the queue that was printed last.
    place: Option<i32>,
    ends: Ends,
    broken: bool,
}

impl<W: Write> Lines<W> {
    /// Lines on `out`, with a label in front unless it is empty.
    pub fn new(out: W, label: &str) -> Self {
        let label = if label.is_empty() { String::new() } else { format!("{label:<10} ") };
        Self { out, label, printed: (0, 0.0), place: None, ends: Ends::default(), broken: false }
    }

    fn line(&mut self, age: f64, what: &str, text: &str) {
        // Nobody may be reading any more; the job is watched to its end all the same, for the exit code.
        let _ = write_line(&mut self.out, age, &self.label, what, text);
    }
}

impl<W: Write + Send> Screen for Lines<W> {
    fn message(&mut self, view: &View, event: &JobEvent) {
        let age = view.age_at(event.event_time.as_ref());
        if self.broken {
            self.broken = false;
            self.line(age, "", "connected again");
        }
        match event.event.as_ref() {
            Some(job_event::Event::Progress(progress)) => {
                let Some(fraction) = progress.fraction else { return };
                let printed = if self.printed.0 == event.attempt { self.printed.1 } else { 0.0 };
                if fraction >= printed + STEP {
                    self.printed = (event.attempt, fraction);
                    self.line(age, "progress", &format!("{:.0} %", fraction * 100.0));
                }
            }
            Some(job_event::Event::QueueUpdate(update)) => {
                // Half the way is worth another line; a place further on is not.
                if update.position > 0 && self.place.is_none_or(|place| update.position <= place / 2) {
                    self.place = Some(update.position);
                    self.line(age, "queue", &place(update.position));
                }
            }
            _ => {
                if let Some((what, text)) = words(event, &mut self.ends) {
                    self.line(age, &what, &text);
                }
            }
        }
    }

    fn reconnecting(&mut self, _: &View) {
        if !self.broken {
            self.broken = true;
            eprintln!("{}the connection broke; reconnecting", self.label);
        }
    }

    fn end(&mut self, _: &View) {}

    fn leave(&mut self) {}
}

/// Writes when and to whom what happened: a line, or several where the text has several.
pub fn write_line(out: &mut impl Write, age: f64, label: &str, what: &str, text: &str) -> io::Result<()> {
    for part in printable(text).lines() {
        writeln!(out, "{age:7.1}s  {label}{:<11} {part}", one_line(what))?;
    }
    out.flush()
}

/// Where the output of each channel ends, as far as its events have come.
#[derive(Debug, Default)]
pub struct Ends(BTreeMap<String, i64>);

impl Ends {
    /// Takes in output.
    pub fn append(&mut self, output: &Output) {
        self.0.insert(output.channel.clone(), output.offset + output.data.len() as i64);
    }

    /// Takes in a reset; whether it voids anything, as far as can be told.
    fn cut(&mut self, reset: &OutputReset) -> bool {
        let end = self.0.insert(reset.channel.clone(), reset.kept_bytes);
        end.is_none_or(|end| end > reset.kept_bytes)
    }
}

/// What a kept event says: what happened, and more about it. Nothing for other messages. All events of the job come, in their
/// order, or those from some point on.
pub fn words(event: &JobEvent, ends: &mut Ends) -> Option<(String, String)> {
    let (what, text) = match event.event.as_ref()? {
        job_event::Event::StateChange(change) => (change.state().as_str_name(), step(event.attempt, change)),
        job_event::Event::Stage(stage) => ("stage", stage.name.clone()),
        job_event::Event::Output(output) => {
            ends.append(output);
            (channel(&output.channel), String::from_utf8_lossy(&output.data).into_owned())
        }
        job_event::Event::OutputReset(reset) => {
            let kept = reset.kept_bytes;
            let text = match ends.cut(reset) {
                true => format!("(void from byte {kept} on)"),
                false => format!("(goes on behind byte {kept})"),
            };
            (channel(&reset.channel), text)
        }
        job_event::Event::Log(log) => (level(log.level()), log.message.clone()),
        job_event::Event::Snapshot(_)
        | job_event::Event::Progress(_)
        | job_event::Event::Metrics(_)
        | job_event::Event::Keepalive(_)
        | job_event::Event::QueueUpdate(_) => return None,
    };
    Some((what.to_owned(), text))
}

/// What output on a channel is called.
pub fn channel(name: &str) -> &str {
    if name.is_empty() { "output" } else { name }
}

/// Where a job stands among those that wait.
pub fn place(position: i32) -> String {
    match position {
        1 => "next in the queue".to_owned(),
        position => format!("number {position} in the queue"),
    }
}

/// A step in a line.
fn step(attempt: i32, change: &StateChange) -> String {
    let mut parts = Vec::new();
    if attempt > 0 && !change.worker_id.is_empty() {
        parts.push(format!("attempt {attempt} by {}", change.worker_id));
    } else if attempt > 0 && !is_final(change.state()) {
        parts.push(format!("attempt {attempt}"));
    }
    if let Some(failure) = &change.failure {
        parts.push(format!("{}: {}", failure.reason, failure.message));
    } else if !change.reason.is_empty() {
        parts.push(change.reason.clone());
    }
    if !change.message.is_empty() {
        parts.push(change.message.clone());
    }
    if let Some(result) = &change.result {
        parts.push(json_value(result));
    }
    // A line is printed even where there is nothing to add.
    if parts.is_empty() { " ".to_owned() } else { parts.join(", ") }
}

fn level(level: log_line::Level) -> &'static str {
    match level {
        log_line::Level::Unspecified | log_line::Level::Info => "info",
        log_line::Level::Debug => "debug",
        log_line::Level::Warn => "warning",
        log_line::Level::Error => "error",
    }
}

/// A watch as JSON, one message a line.
#[derive(Debug)]
pub struct JsonLines;

impl Screen for JsonLines {
    fn message(&mut self, _: &View, event: &JobEvent) {
        // As with the other lines, nobody may be reading any more.
        let _ = print_line(&canonical_json(event));
    }

    fn reconnecting(&mut self, _: &View) {}

    fn end(&mut self, _: &View) {}

    fn leave(&mut self) {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use job_event::Event;

    fn said(events: Vec<Event>) -> Vec<String> {
        let mut ends = Ends::default();
        let event = |event| JobEvent { event: Some(event), ..Default::default() };
        events.into_iter().filter_map(|of| Some(words(&event(of), &mut ends)?.1)).collect()
    }

    fn output(channel: &str, offset: i64, text: &'static str) -> Event {
        Event::Output(Output { channel: channel.into(), offset, data: text.into() })
    }

    fn reset(channel: &str, kept_bytes: i64) -> Event {
        Event::OutputReset(OutputReset { channel: channel.into(), kept_bytes })
    }

    #[test]
    fn a_reset_that_keeps_all_there_is_voids_nothing() {
        let of_both = vec![output("", 0, "one "), output("notes", 0, "n"), reset("", 4), reset("notes", 0)];
        assert_eq!(said(of_both)[2..], ["(goes on behind byte 4)", "(void from byte 0 on)"]);

        let twice = vec![output("", 0, "one two"), reset("", 4), reset("", 4)];
        assert_eq!(said(twice)[1..], ["(void from byte 4 on)", "(goes on behind byte 4)"]);
        // What there was before, a watch that came late does not know.
        assert_eq!(said(vec![reset("", 4)]), ["(void from byte 4 on)"]);
    }
}
