//! One channel of an attempt's output: where its bytes are on their way.

use super::marks::Marks;
use super::text::incomplete_character;
use crate::job::Event;
use bytes::BytesMut;

/// What is known of a channel.
#[derive(Debug)]
pub struct Channel {
    /// Its name; empty is the main output.
    pub name: String,
    /// Where the next byte belongs that comes.
    pub next: u64,
    /// Where the next one belongs that is committed.
    pub offset: u64,
    /// Where its bytes lie in the history.
    pub marks: Marks,
    durable: u64,
    /// Resets that are not durable yet, and the least that they keep: of what lies beyond, nothing counts as durable.
    resets: usize,
    kept: u64,
    /// How much was held when only the beginning of a character was, the last time.
    begun: usize,
}

impl Channel {
    /// One that has so much.
    pub fn new(name: &str, bytes: u64) -> Self {
        Self {
            name: name.to_owned(),
            next: bytes,
            offset: bytes,
            marks: Marks::default(),
            durable: bytes,
            resets: 0,
            kept: u64::MAX,
            begun: 0,
        }
    }

    /// How much is durable, and whether that is all that has come.
    pub fn durable(&self) -> (u64, bool) {
        (self.durable.min(self.kept), self.durable == self.next && self.resets == 0)
    }

    /// Takes a reset.
    pub fn reset(&mut self, kept: u64) {
        self.next = kept;
        self.resets += 1;
        self.kept = self.kept.min(kept);
    }

    /// Takes note that a reset is about to be committed.
    pub fn commit_reset(&mut self, kept: u64) {
        (self.offset, self.begun) = (kept, 0);
    }

    /// Parts what is not to be committed from `data`, which is all that is held: a character of which only the beginning has
    /// come, unless that was all there was the last time as well.
    pub fn keep_back(&mut self, data: &mut BytesMut) -> BytesMut {
        let whole = data.len() - incomplete_character(data);
        let is_stuck = whole == 0 && data.len() == self.begun;
        let rest = data.split_off(if is_stuck { data.len() } else { whole });
        self.begun = rest.len();
        rest
    }

    /// Takes note that all up to `end` is durable, as these events.
    pub fn settle(&mut self, end: u64, events: &[Event]) {
        self.durable = end;
        self.note(events);
    }

    /// Takes note that a reset is durable, as these events.
    pub fn settle_reset(&mut self, kept: u64, events: &[Event]) {
        self.resets -= 1;
        if self.resets == 0 {
            self.kept = u64::MAX;
        }
        self.settle(kept, events);
    }

    fn note(&mut self, events: &[Event]) {
        events.iter().for_each(|event| self.marks.note(&self.name, event));
    }
}
