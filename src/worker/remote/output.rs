//! What an attempt has sent and the server has not yet called durable.

use crate::job::LogLine;
use crate::job::limits::OUTPUT_EVENT_BYTES_MAX;
use crate::proto;
use bytes::{Buf, Bytes, BytesMut};
use std::collections::VecDeque;

/// How much may wait to be durable; whoever writes more waits.
const WAITING_BYTES_MAX: usize = 256 << 10;
/// What a line of the log counts beside its text.
const LINE_BYTES: usize = 32;
/// How many lines go into one frame.
const FRAME_LINES_MAX: usize = 500;

/// The output and the log of one attempt.
#[derive(Debug, Default)]
pub struct Output {
    channels: Vec<Channel>,
    lines: VecDeque<proto::LogLine>,
    /// How many lines lie before the first of these, and how many of them are on their way.
    lines_durable: u64,
    lines_sent: usize,
    bytes: usize,
    /// The last checkpoint, until it is durable: one that came later takes the place of one that was not sent.
    checkpoint: Option<WaitingCheckpoint>,
    /// The numbers of the last one that came, and of the last that the server has.
    checkpoints: u64,
    checkpoints_durable: u64,
    /// The last one that a server answered which knows of none.
    checkpoints_unknown: u64,
}

#[derive(Debug)]
struct WaitingCheckpoint {
    message: proto::Checkpoint,
    /// How much main output there was, which goes before it.
    behind: u64,
    sent: bool,
}

#[derive(Debug, Default)]
struct Channel {
    name: String,
    /// Bytes that the server has, and those that it has not.
    durable: u64,
    data: BytesMut,
    /// How many of `data` are on their way.
    sent: usize,
}

impl Output {
    /// The main output goes on from here.
    pub fn beginning_at(offset: u64) -> Self {
        let main = Channel { durable: offset, ..Default::default() };
        Self { channels: vec![main], ..Default::default() }
    }

    /// Takes a checkpoint, behind all output that has come; its number.
    pub fn checkpoint(&mut self, data: Bytes, output_bytes: u64) -> u64 {
        self.checkpoints += 1;
        let message =
            proto::Checkpoint { data, output_bytes: output_bytes as i64, number: self.checkpoints as i64 };
        let main = self.channels.iter().find(|channel| channel.name.is_empty());
        let behind = main.map_or(0, |main| main.durable + main.data.len() as u64);
        self.checkpoint = Some(WaitingCheckpoint { message, behind, sent: false });
        self.checkpoints
    }

    /// Whether the checkpoint of this number, or a later one, is durable: false, where it never will be since the server knows of
    /// none; nothing, as long as that is open.
    pub fn has_recorded(&self, number: u64) -> Option<bool> {
        let is_durable = self.checkpoints_durable >= number;
        (is_durable || self.checkpoints_unknown >= number).then_some(is_durable)
    }

    /// The checkpoint, where all that it rests on is sent and it is not.
    fn due_checkpoint(&mut self) -> Option<proto::Checkpoint> {
        let main = self.channels.iter().find(|channel| channel.name.is_empty());
        let sent = main.map_or(0, |main| main.durable + main.sent as u64);
        let checkpoint = self.checkpoint.as_mut().filter(|due| !due.sent && due.behind <= sent)?;
        checkpoint.sent = true;
        Some(checkpoint.message.clone())
    }

    /// Whether there is room for more.
    pub fn has_room(&self) -> bool {
        self.bytes < WAITING_BYTES_MAX
    }

    /// Takes the next bytes of a channel.
    pub fn push(&mut self, name: &str, data: &[u8]) {
        let index = self.channels.iter().position(|channel| channel.name == name).unwrap_or_else(|| {
            self.channels.push(Channel { name: name.to_owned(), ..Default::default() });
            self.channels.len() - 1
        });
        self.channels[index].data.extend_from_slice(data);
        self.bytes += data.len();
    }

    /// Takes the next lines of the log.
    pub fn push_lines(&mut self, lines: &[LogLine]) {
        for line in lines {
            self.bytes += line.message.len() + LINE_BYTES;
            self.lines.push_back(super::messages::log_line(line));
        }
    }

    /// The next frame to send.
    pub fn next_frame(&mut self, lease_token: &str) -> Option<proto::AppendOutputRequest> {
        let mut frame =
            proto::AppendOutputRequest { lease_token: lease_token.to_owned(), ..Default::default() };
        let unsent = self.channels.iter_mut().find(|channel| channel.sent < channel.data.len());
        if let Some(channel) = unsent {
            let length = (channel.data.len() - channel.sent).min(OUTPUT_EVENT_BYTES_MAX);
            let data = &channel.data[channel.sent..channel.sent + length];
            frame.channel.clone_from(&channel.name);
            frame.offset = (channel.durable + channel.sent as u64) as i64;
            frame.data = Bytes::copy_from_slice(data);
            channel.sent += length;
        }
        frame.checkpoint = self.due_checkpoint();
        if frame.data.is_empty() && self.lines_sent == self.lines.len() && frame.checkpoint.is_none() {
            return None;
        }
        frame.log_offset = (self.lines_durable + self.lines_sent as u64) as i64;
        frame.logs = self.lines.iter().skip(self.lines_sent).take(FRAME_LINES_MAX).cloned().collect();
        self.lines_sent += frame.logs.len();
        Some(frame)
    }

    /// Takes note of what is durable; says whether that is more than was known.
    pub fn settle(&mut self, answer: &proto::AppendOutputResponse) -> bool {
        let before = self.bytes;
        if let Some(channel) = self.channels.iter_mut().find(|channel| channel.name == answer.channel) {
            let more = (answer.durable_bytes.max(0) as u64).saturating_sub(channel.durable);
            let more = usize::try_from(more).unwrap_or(usize::MAX).min(channel.data.len());
            channel.data.advance(more);
            channel.durable += more as u64;
            channel.sent = channel.sent.saturating_sub(more);
            self.bytes -= more;
        }
        while self.lines_durable < answer.durable_logs.max(0) as u64
            && let Some(line) = self.lines.pop_front()
        {
            self.bytes -= line.message.len() + LINE_BYTES;
            self.lines_durable += 1;
            self.lines_sent = self.lines_sent.saturating_sub(1);
        }
        let known = self.checkpoints_durable;
        match answer.durable_checkpoints {
            Some(durable) => self.checkpoints_durable = known.max(durable.max(0) as u64),
            // Whatever it answers: a server that knows of checkpoints always says how many it has.
            None => self.checkpoints_unknown = self.checkpoints,
        }
        if self.has_recorded(self.checkpoints).is_some() {
            self.checkpoint = None;
        }
        self.bytes < before || self.checkpoints_durable > known
    }

    /// What was on its way is sent again.
    pub fn rewind(&mut self) {
        self.channels.iter_mut().for_each(|channel| channel.sent = 0);
        self.lines_sent = 0;
        if let Some(checkpoint) = &mut self.checkpoint {
            checkpoint.sent = false;
        }
    }

    /// Whether all of it is durable.
    pub fn is_empty(&self) -> bool {
        self.bytes == 0 && self.checkpoint.is_none()
    }

    /// Whether lines of the log are not durable.
    pub fn has_lines(&self) -> bool {
        !self.lines.is_empty()
    }

    /// How much output there is, all channels together.
    pub fn total(&self) -> u64 {
        self.channels.iter().map(|channel| channel.durable + channel.data.len() as u64).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::LogLevel;

    fn answer(channel: &str, durable_bytes: i64, durable_logs: i64) -> proto::AppendOutputResponse {
        let (channel, durable_checkpoints) = (channel.to_owned(), Some(0));
        proto::AppendOutputResponse {
            channel,
            durable_bytes,
            durable_logs,
            durable_checkpoints,
            ..Default::default()
        }
    }

    fn line(text: &str) -> LogLine {
        LogLine { level: LogLevel::Info, message: text.to_owned() }
    }

    #[test]
    fn what_was_not_durable_is_sent_again_from_where_it_belongs() {
        let mut output = Output::default();
        output.push("", b"one");
        output.push_lines(&[line("a"), line("b")]);
        let first = output.next_frame("t").unwrap();
        output.push("", b"two");
        assert_eq!(output.next_frame("t").unwrap().offset, 3);
        assert!(output.next_frame("t").is_none());

        output.settle(&answer("", 2, 1));
        output.rewind();
        let again = output.next_frame("t").unwrap();

        assert_eq!((&first.data[..], first.logs.len()), (&b"one"[..], 2));
        assert_eq!((again.offset, &again.data[..]), (2, &b"etwo"[..]));
        assert_eq!((again.log_offset, again.logs.len()), (1, 1));
        assert_eq!(output.total(), 6);
        output.settle(&answer("", 6, 2));
        assert!(output.is_empty() && output.next_frame("t").is_none());
    }

    #[test]
    fn a_checkpoint_goes_behind_the_main_output_that_was_there_and_is_sent_again() {
        let mut output = Output::beginning_at(5);
        output.push("reasoning", b"hm");
        output.push("", &vec![b'x'; OUTPUT_EVENT_BYTES_MAX + 1]);
        assert_eq!(output.checkpoint(Bytes::from_static(b"a"), 6), 1);

        let sent = |output: &mut Output| -> Vec<(i64, usize, i64)> {
            let frames = std::iter::from_fn(|| output.next_frame("t"));
            let number =
                |frame: &proto::AppendOutputRequest| frame.checkpoint.as_ref().map_or(0, |one| one.number);
            frames.map(|frame| (frame.offset, frame.data.len(), number(&frame))).collect()
        };
        let all = [(5, OUTPUT_EVENT_BYTES_MAX, 0), (5 + OUTPUT_EVENT_BYTES_MAX as i64, 1, 1), (0, 2, 0)];
        assert_eq!(sent(&mut output), all);
        output.rewind();
        assert_eq!(sent(&mut output), all);

        output.settle(&answer("", 6 + OUTPUT_EVENT_BYTES_MAX as i64, 0));
        output.settle(&answer("reasoning", 2, 0));
        assert!(!output.is_empty() && output.has_recorded(1).is_none());
        assert!(
            output.settle(&proto::AppendOutputResponse { durable_checkpoints: Some(1), ..answer("", 0, 0) })
        );
        assert!(output.is_empty() && output.has_recorded(1) == Some(true));
    }

    #[test]
    fn a_later_checkpoint_takes_the_place_of_one_that_was_not_sent() {
        let mut output = Output::default();
        output.checkpoint(Bytes::from_static(b"a"), 0);
        output.checkpoint(Bytes::from_static(b"b"), 0);

        let frame = output.next_frame("t").unwrap();

        let checkpoint = frame.checkpoint.unwrap();
        assert_eq!((&checkpoint.data[..], checkpoint.number), (&b"b"[..], 2));
        assert!(output.next_frame("t").is_none());
    }

    #[test]
    fn of_a_server_that_knows_no_checkpoints_none_is_waited_for_and_a_later_one_may_know_them() {
        let mut output = Output::default();
        output.checkpoint(Bytes::from_static(b"a"), 0);
        output.next_frame("t");

        output.settle(&proto::AppendOutputResponse { durable_checkpoints: None, ..answer("", 0, 0) });

        assert_eq!((output.is_empty(), output.has_recorded(1)), (true, Some(false)));
        assert_eq!(output.checkpoint(Bytes::from_static(b"b"), 0), 2);
        assert_eq!((output.is_empty(), output.has_recorded(2)), (false, None));
        output.settle(&proto::AppendOutputResponse { durable_checkpoints: Some(2), ..answer("", 0, 0) });
        assert_eq!((output.is_empty(), output.has_recorded(2)), (true, Some(true)));
    }

    #[test]
    fn a_repeated_answer_changes_nothing() {
        let mut output = Output::default();
        output.push("x", b"data");
        output.next_frame("t");

        output.settle(&answer("x", 3, 0));
        output.settle(&answer("x", 3, 0));
        output.settle(&answer("unknown", 9, 0));

        assert_eq!((output.total(), output.is_empty()), (4, false));
    }
}
