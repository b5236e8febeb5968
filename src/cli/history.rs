//! `longhaul history`: what happened to a job, from its ticket on, and where its time went.

use super::connect::{Connect, call};
use super::lines::{self, Ends, words, write_line};
use super::text::{one_line, print_line, shortened};
use super::times::{between, fine, now, seconds};
use super::view::is_final;
use crate::proto::job::State;
use crate::proto::{JobEvent, ListJobEventsRequest, Output, StateChange, job_event};
use crate::wire::canonical::canonical_json;
use clap::Args;
use prost_types::Timestamp;
use std::io::{self, Write};
use std::process::ExitCode;

/// The most that the server puts on a page.
const PAGE: i32 = 1_000;
/// How much of joined output is shown.
const EXCERPT_COLUMNS: usize = 60;
/// Enough for the excerpt, whatever its characters take.
const EXCERPT_BYTES: usize = 4 * EXCERPT_COLUMNS;

/// Show what happened to a job, and where its time went
///
/// Every state, stage, log line and piece of output since the ticket; pieces of output that follow each other are shown as one, by
/// how they begin. Below that, how long the job waited and how long each attempt and stage took.
///
/// Example: longhaul history 0199a6d0-3c6a-7c5e-9d1b-5a8f0f6f2c11
#[derive(Args, Clone, Debug)]
#[command(verbatim_doc_comment)]
pub struct History {
    /// The ticket
    job: String,
    #[command(flatten)]
    connect: Connect,
}

impl History {
    /// Does it.
    pub async fn run(self) -> anyhow::Result<ExitCode> {
        let mut client = self.connect.client().await?;
        let mut timeline = Timeline::new(io::stdout());
        let mut after_sequence = 0;
        loop {
            let request = ListJobEventsRequest { job_id: self.job.clone(), after_sequence, page_size: PAGE };
            let page = client.list_job_events(call(request)).await?.into_inner();
            for event in &page.events {
                match self.connect.json {
                    true => print_line(&canonical_json(event))?,
                    false => timeline.take(event)?,
                }
            }
            after_sequence = page.next_after_sequence;
            if after_sequence == 0 {
                break;
            }
        }
        if !self.connect.json {
            timeline.finish(now())?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// A job's history as lines, and the time that it spent.
#[derive(Debug)]
struct Timeline<W> {
    out: W,
    created: Option<Timestamp>,
    /// Pieces of output that followed each other and are not printed yet.
    pieces: Option<Pieces>,
    ends: Ends,
    /// What the job is in, and since when.
    phase: Option<Span>,
    /// The stages of the phase so far, the last of which goes on.
    stages: Vec<Span>,
    /// What is known of where the time went.
    spent: Vec<String>,
}

/// A part of a job's life, and when it began.
#[derive(Debug)]
struct Span {
    name: String,
    start: f64,
}

/// Output that came in pieces.
#[derive(Debug)]
struct Pieces {
    channel: String,
    first: Option<Timestamp>,
    last: Option<Timestamp>,
    count: usize,
    bytes: usize,
    beginning: Vec<u8>,
}

impl<W: Write> Timeline<W> {
    fn new(out: W) -> Self {
        Self {
            out,
            created: None,
            pieces: None,
            ends: Ends::default(),
            phase: None,
            stages: Vec::new(),
            spent: Vec::new(),
        }
    }

    /// Takes in the next event.
    fn take(&mut self, event: &JobEvent) -> io::Result<()> {
        self.created = self.created.or(event.event_time);
        let time = event.event_time.as_ref().map_or(0.0, seconds);
        match &event.event {
            Some(job_event::Event::Output(output)) => return self.take_output(event, output),
            Some(job_event::Event::StateChange(change)) => self.take_step(event.attempt, change, time),
            Some(job_event::Event::Stage(stage)) => {
                self.stages.push(Span { name: one_line(&stage.name), start: time });
            }
            _ => {}
        }
        self.print_pieces()?;
        let age = self.age(event.event_time.as_ref());
        match words(event, &mut self.ends) {
            Some((what, text)) => write_line(&mut self.out, age, "", &what, &text),
            None => Ok(()),
        }
    }

    fn take_step(&mut self, attempt: i32, change: &StateChange, time: f64) {
        self.close_phase(time, "");
        let name = match change.state() {
            State::Running => format!("attempt {attempt}"),
            state => state.as_str_name().to_owned(),
        };
        self.phase = (!is_final(change.state())).then_some(Span { name, start: time });
    }

    fn take_output(&mut self, event: &JobEvent, output: &Output) -> io::Result<()> {
        self.ends.append(output);
        if self.pieces.as_ref().is_some_and(|pieces| pieces.channel != output.channel) {
            self.print_pieces()?;
        }
        let pieces = self.pieces.get_or_insert_with(|| Pieces {
            channel: output.channel.clone(),
            first: event.event_time,
            last: None,
            count: 0,
            bytes: 0,
            beginning: Vec::new(),
        });
        pieces.last = event.event_time;
        pieces.count += 1;
        pieces.bytes += output.data.len();
        let room = EXCERPT_BYTES - pieces.beginning.len();
        pieces.beginning.extend_from_slice(&output.data[..room.min(output.data.len())]);
        Ok(())
    }

    fn print_pieces(&mut self) -> io::Result<()> {
        let Some(pieces) = self.pieces.take() else { return Ok(()) };
        let age = self.age(pieces.first.as_ref());
        write_line(&mut self.out, age, "", lines::channel(&pieces.channel), &pieces.text())
    }

    /// Notes how long the phase that ends took, and its stages.
    fn close_phase(&mut self, end: f64, remark: &str) {
        let Some(phase) = self.phase.take() else { return };
        self.spent.push(format!("{:>8}  {}{remark}", fine(end - phase.start), phase.name));
        let ends = self.stages.iter().skip(1).map(|next| next.start).chain([end]);
        for (stage, end) in self.stages.iter().zip(ends) {
            self.spent.push(format!("{:>8}    {}", fine(end - stage.start), stage.name));
        }
        self.stages.clear();
    }

    /// Prints what is left, and where the time went.
    fn finish(&mut self, now: f64) -> io::Result<()> {
        self.print_pieces()?;
        self.close_phase(now, ", so far");
        if !self.spent.is_empty() {
            writeln!(self.out, "\n    took")?;
        }
        for line in &self.spent {
            writeln!(self.out, "{line}")?;
        }
        self.out.flush()
    }

    fn age(&self, time: Option<&Timestamp>) -> f64 {
        self.created.as_ref().zip(time).map_or(0.0, |(created, time)| between(created, time))
    }
}

impl Pieces {
    fn text(&self) -> String {
        let beginning = String::from_utf8_lossy(&self.beginning);
        // The cut may have split a character.
        let whole = beginning.trim_end_matches('\u{fffd}');
        let mut text = format!("{}  ({} bytes", shortened(&one_line(whole), EXCERPT_COLUMNS), self.bytes);
        if let (true, Some(first), Some(last)) = (self.count > 1, &self.first, &self.last) {
            text += &format!(" in {} pieces over {}", self.count, fine(between(first, last)));
        }
        text + ")"
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::{LogLine, Stage};
    use job_event::Event;

    fn event(second: f64, attempt: i32, event: Event) -> JobEvent {
        let nanos = (second.fract() * 1e9) as i32;
        let event_time = Some(Timestamp { seconds: 1_000 + second as i64, nanos });
        JobEvent { attempt, event_time, event: Some(event), ..Default::default() }
    }

    fn moved(second: f64, attempt: i32, state: State) -> JobEvent {
        let reason = "WHY".to_owned();
        event(
            second,
            attempt,
            Event::StateChange(StateChange { state: state.into(), reason, ..Default::default() }),
        )
    }

    fn stage(second: f64, name: &str) -> JobEvent {
        event(second, 1, Event::Stage(Stage { name: name.to_owned() }))
    }

    fn output(second: f64, data: &str) -> JobEvent {
        event(second, 1, Event::Output(Output { data: data.to_owned().into(), ..Default::default() }))
    }

    fn shown(events: &[JobEvent]) -> String {
        let mut timeline = Timeline::new(Vec::new());
        events.iter().for_each(|event| timeline.take(event).unwrap());
        timeline.finish(1_100.0).unwrap();
        String::from_utf8(timeline.out).unwrap()
    }

    #[test]
    fn a_history_is_a_line_for_each_event_and_then_where_the_time_went() {
        let text = shown(&[
            moved(0.0, 0, State::Pending),
            moved(0.5, 1, State::Running),
            stage(0.5, "Reading"),
            stage(2.0, "Writing"),
            event(3.0, 1, Event::Log(LogLine { message: "two\nlines".to_owned(), ..Default::default() })),
            moved(4.5, 1, State::Succeeded),
        ]);

        let expected = "
    0.0s  PENDING     WHY
    0.5s  RUNNING     attempt 1, WHY
    0.5s  stage       Reading
    2.0s  stage       Writing
    3.0s  info        two
    3.0s  info        lines
    4.5s  SUCCEEDED   WHY

    took
    0.5s  PENDING
    4.0s  attempt 1
    1.5s    Reading
    2.5s    Writing
";
        assert_eq!(text, &expected[1..]);
    }

    #[test]
    fn pieces_of_output_that_follow_each_other_are_one_line() {
        let text = shown(&[
            moved(0.0, 0, State::Pending),
            output(1.0, "to be "),
            output(1.5, "or\nnot "),
            output(3.0, "to be\x1b[2J"),
            stage(3.0, "Done"),
            output(4.0, "."),
        ]);

        assert!(
            text.contains(
                "    1.0s  output      to be or not to be\u{fffd}[2J  (22 bytes in 3 pieces over 2.0s)\n"
            ),
            "{text}"
        );
        assert!(text.contains("    4.0s  output      .  (1 bytes)\n"), "{text}");
    }

    #[test]
    fn the_excerpt_never_ends_in_half_a_character() {
        let text = shown(&[moved(0.0, 0, State::Pending), output(0.0, "a"), output(0.0, &"日".repeat(200))]);

        assert!(!text.contains('\u{fffd}') && text.contains("日…  (601 bytes in 2 pieces"), "{text}");
    }

    #[test]
    fn the_time_of_a_job_that_goes_on_is_counted_so_far() {
        let text = shown(&[moved(0.0, 0, State::Pending), moved(40.0, 1, State::Running)]);

        assert!(text.ends_with("   40.0s  PENDING\n   1m00s  attempt 1, so far\n"), "{text}");
    }
}
