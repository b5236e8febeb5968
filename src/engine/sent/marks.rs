//! Where in a long history the bytes of a channel lie, so that what is sent again is compared with little of it.

use crate::job::{Body, Event, Sequence};

/// How far marks are apart, and so how much is read at most to compare what is sent again.
const MARK_EVERY: u64 = 1 << 20;

/// Here and there an offset of a channel, with the event behind which its bytes lie.
#[derive(Clone, Debug, Default)]
pub struct Marks(Vec<(u64, Sequence)>);

impl Marks {
    /// Takes note of an event of the channel; of such events all must come, in their order.
    pub fn note(&mut self, channel: &str, event: &Event) {
        match &event.body {
            Body::OutputAppended { channel: other, offset, .. } if other == channel => {
                self.set(*offset, event.sequence - 1);
            }
            Body::OutputReset { channel: other, kept_bytes } if other == channel => {
                self.0.retain(|(offset, _)| offset < kept_bytes);
            }
            _ => {}
        }
    }

    /// Takes over others of the same channel.
    pub fn join(&mut self, others: Self) {
        for (offset, after) in others.0 {
            self.set(offset, after);
        }
    }

    /// The events behind which, and up to which, the bytes from `start` to `end` lie, as far as there are marks.
    pub fn around(&self, start: u64, end: u64) -> (Option<Sequence>, Option<Sequence>) {
        let before = self.0.iter().rev().find(|(offset, _)| *offset <= start);
        let behind = self.0.iter().find(|(offset, _)| *offset >= end);
        (before.map(|mark| mark.1), behind.map(|mark| mark.1))
    }

    fn set(&mut self, offset: u64, after: Sequence) {
        let place = self.0.partition_point(|(known, _)| *known <= offset);
        let is_far = place.checked_sub(1).is_none_or(|before| self.0[before].0 + MARK_EVERY <= offset);
        if is_far {
            self.0.insert(place, (offset, after));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::Timestamp;

    fn noted(events: &[(Sequence, u64)]) -> Marks {
        let mut marks = Marks::default();
        for (sequence, offset) in events {
            let channel = String::new();
            let body = Body::OutputAppended { channel, offset: *offset, data: "x".into() };
            marks.note("", &Event { sequence: *sequence, time: Timestamp::default(), attempt: 1, body });
        }
        marks
    }

    #[test]
    fn what_lies_between_two_marks_is_found_between_their_events() {
        let marks = noted(&[(10, 0), (11, 5), (20, MARK_EVERY), (30, 2 * MARK_EVERY)]);

        assert_eq!(marks.around(MARK_EVERY + 1, MARK_EVERY + 9), (Some(19), Some(29)));
        assert_eq!(marks.around(3 * MARK_EVERY, 3 * MARK_EVERY + 1), (Some(29), None));
        assert_eq!(noted(&[(20, 5)]).around(0, 5), (None, Some(19)));
    }

    #[test]
    fn a_reset_takes_the_marks_of_what_it_voids_along() {
        let mut marks = noted(&[(10, 0), (20, MARK_EVERY)]);
        let body = Body::OutputReset { channel: String::new(), kept_bytes: 7 };

        marks.note("", &Event { sequence: 21, time: Timestamp::default(), attempt: 1, body });

        assert_eq!(marks.around(7, 8), (Some(9), None));
    }
}
