//! What a job has done, read from the end of its history: a page that is read each second must not cost the more the longer
//! the job is.

use crate::api;
use crate::job::{Body, Event, Job};
use crate::proto::ListJobEventsRequest;
use bytes::Bytes;
use tonic::Status;

/// How much of the output of a channel is shown.
const SHOWN_BYTES_MAX: usize = 64 << 10;
/// How many steps and lines of the log are shown.
const SHOWN_EVENTS_MAX: usize = 200;
/// The events of one read: with the largest ones it is as large as a page may be.
const READ_EVENTS: u64 = 16;
/// How many events are looked at; an output of words, about twenty times a second, is 64 KiB in fewer.
const EVENTS_MAX: u64 = 1_024;
/// How many bytes are looked at, most of which may be void.
const READ_BYTES_MAX: usize = 4 << 20;

/// The end of a job's past.
#[derive(Debug, Default)]
pub struct Past {
    /// The end of each channel's output, in the order in which they were begun.
    pub outputs: Vec<Tail>,
    /// All that is no output, oldest first.
    pub events: Vec<Event>,
    /// The number of the first event that was looked at.
    pub first: u64,
}

/// The end of the valid output of a channel.
#[derive(Debug, Default, PartialEq)]
pub struct Tail {
    /// The channel; empty is the main one.
    pub channel: String,
    /// The text; what is no UTF-8 is marked as such.
    pub text: String,
    /// How many bytes it is.
    pub bytes: u64,
    /// How many bytes the output has.
    pub of: u64,
}

/// Reads the end of a job's past, as it was with the job's last event.
pub async fn past(api: &api::Jobs, job: &Job) -> Result<Past, Status> {
    let mut past = Backwards::new(job);
    let mut before = job.sequence() + 1;
    let first = before.saturating_sub(EVENTS_MAX).max(1);
    let mut bytes = 0;
    while before > first && !past.is_enough() && bytes < READ_BYTES_MAX {
        let after = before.saturating_sub(READ_EVENTS + 1);
        let events = between(api, job, after, before).await?;
        for event in events.into_iter().rev() {
            bytes += past.take(event);
        }
        before = after + 1;
    }
    Ok(past.turned(before))
}

/// The events after one and before another, of which there are few. It may take two reads: the last one may have a result.
async fn between(api: &api::Jobs, job: &Job, after: u64, before: u64) -> Result<Vec<Event>, Status> {
    let mut events = Vec::new();
    let mut next = Some(after);
    while let Some(after) = next.filter(|after| after + 1 < before) {
        let request = ListJobEventsRequest {
            job_id: job.id.to_string(),
            after_sequence: after as i64,
            page_size: (before - after - 1) as i32,
        };
        let page = api.history(request).await?;
        events.extend(page.events);
        next = page.next_after;
    }
    events.retain(|event| event.sequence < before);
    Ok(events)
}

/// A text as a page can have it: in HTML a NUL is nothing at all.
pub fn shown_text(text: &str) -> String {
    text.replace('\0', "\u{fffd}")
}

/// A past, as it is known from the last events of a history, the latest first.
struct Backwards {
    outputs: Vec<End>,
    events: Vec<Event>,
}

impl Backwards {
    fn new(job: &Job) -> Self {
        let outputs = job.emitted.channels.iter().map(|channel| End::new(&channel.name, channel.bytes));
        Self { outputs: outputs.collect(), events: Vec::new() }
    }

    fn is_enough(&self) -> bool {
        self.events.len() >= SHOWN_EVENTS_MAX && self.outputs.iter().all(End::is_enough)
    }

    /// Goes back over an event; returns how large it was.
    fn take(&mut self, event: Event) -> usize {
        let bytes = self.outputs.iter_mut().map(|output| output.take(&event)).max().unwrap_or_default();
        if !matches!(event.body, Body::OutputAppended { .. }) && self.events.len() < SHOWN_EVENTS_MAX {
            self.events.push(event);
        }
        bytes
    }

    fn turned(mut self, first: u64) -> Past {
        self.events.reverse();
        Past { outputs: self.outputs.into_iter().map(End::tail).collect(), events: self.events, first }
    }
}

/// The end of the output of a channel.
struct End {
    channel: String,
    of: u64,
    /// What is valid of earlier output ends here.
    valid: u64,
    /// The pieces, the last one first.
    pieces: Vec<Bytes>,
    bytes: usize,
}

impl End {
    fn new(channel: &str, of: u64) -> Self {
        Self { channel: channel.to_owned(), of, valid: of, pieces: Vec::new(), bytes: 0 }
    }

    fn is_enough(&self) -> bool {
        self.valid == 0 || self.bytes >= SHOWN_BYTES_MAX
    }

    /// Goes back over an event; returns how large it was.
    fn take(&mut self, event: &Event) -> usize {
        match &event.body {
            Body::OutputReset { channel, kept_bytes } if *channel == self.channel => {
                self.valid = self.valid.min(*kept_bytes);
                0
            }
            Body::OutputAppended { channel, offset, data } => {
                if *channel == self.channel && *offset < self.valid && !self.is_enough() {
                    let valid = data.len().min((self.valid - offset) as usize);
                    self.pieces.push(data.slice(..valid));
                    self.bytes += valid;
                    self.valid = *offset;
                }
                data.len()
            }
            Body::OutputReset { .. }
            | Body::StateChanged(_)
            | Body::StageEntered { .. }
            | Body::Logged(_) => 0,
        }
    }

    fn tail(self) -> Tail {
        let mut bytes = Vec::with_capacity(self.bytes);
        for piece in self.pieces.iter().rev() {
            bytes.extend_from_slice(piece);
        }
        let mut from = bytes.len().saturating_sub(SHOWN_BYTES_MAX);
        if (bytes.len() as u64) < self.of || from > 0 {
            // The first character may have been cut.
            let is_cut = |byte: &&u8| **byte & 0xc0 == 0x80;
            from += bytes[from..].iter().take(3).take_while(is_cut).count();
        }
        let shown = &bytes[from..];
        Tail {
            text: shown_text(&String::from_utf8_lossy(shown)),
            bytes: shown.len() as u64,
            channel: self.channel,
            of: self.of,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::Timestamp;
    use proptest::prelude::*;

    fn appended(channel: &str, offset: usize, data: &[u8]) -> Body {
        Body::OutputAppended {
            channel: channel.to_owned(),
            offset: offset as u64,
            data: Bytes::copy_from_slice(data),
        }
    }

    fn reset(channel: &str, kept: usize) -> Body {
        Body::OutputReset { channel: channel.to_owned(), kept_bytes: kept as u64 }
    }

    /// The end as it is seen over the last `events` of these.
    fn seen(bodies: Vec<Body>, of: usize, events: usize) -> Tail {
        let mut end = End::new("", of as u64);
        for body in bodies.into_iter().rev().take(events) {
            end.take(&Event { sequence: 1, attempt: 1, time: Timestamp::default(), body });
        }
        end.tail()
    }

    #[test]
    fn what_was_voided_is_not_shown() {
        let history = vec![
            appended("", 0, b"one two three"),
            reset("", 4),
            appended("", 4, b"four"),
            appended("other", 0, b"else"),
            reset("other", 0),
        ];

        assert_eq!(
            seen(history, 8, 5),
            Tail { channel: String::new(), text: "one four".to_owned(), bytes: 8, of: 8 }
        );
    }

    #[test]
    fn a_cut_never_splits_a_character() {
        let text = "ü".repeat(SHOWN_BYTES_MAX);

        let tail = seen(vec![appended("", 0, format!("x{text}").as_bytes())], text.len() + 1, 1);

        assert_eq!(tail.text, "ü".repeat(SHOWN_BYTES_MAX / 2));
        assert_eq!((tail.bytes, tail.of), (SHOWN_BYTES_MAX as u64, text.len() as u64 + 1));
    }

    proptest! {
        #[test]
        fn it_is_the_end_of_what_a_reader_renders(
            steps in prop::collection::vec((any::<bool>(), 0usize..40, "[a-z]{1,9}"), 0..20), events in 0usize..40,
        ) {
            let (mut bodies, mut output) = (Vec::new(), String::new());
            for (resets, kept, text) in steps {
                if resets {
                    output.truncate(kept);
                    bodies.push(reset("", output.len()));
                } else {
                    bodies.push(appended("", output.len(), text.as_bytes()));
                    output += &text;
                }
            }

            let whole = bodies.len();
            let tail = seen(bodies, output.len(), events);

            prop_assert!(output.ends_with(&tail.text));
            prop_assert_eq!(tail.bytes, tail.text.len() as u64);
            if events >= whole {
                prop_assert_eq!(tail.text, output);
            }
        }
    }
}
