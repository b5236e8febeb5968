//! What a program's standard output means, as its bytes come. Output is passed on as it comes; what is kept is bounded.

use super::ffmpeg::Ffmpeg;
use super::lines::{Lines, Piece};
use super::message::{self, Said};
use super::percent;
use super::program::Reading;
use crate::job::limits::RESULT_BYTES_MAX;
use bytes::{Bytes, BytesMut};

/// The longest line that may be a message: a result, and what stands around it.
const MESSAGE_BYTES_MAX: usize = RESULT_BYTES_MAX + (4 << 10);
/// The longest line in which progress is looked for.
const LINE_BYTES_MAX: usize = 8 << 10;

/// Understands a program's standard output.
#[derive(Debug)]
pub enum Stdout {
    /// Messages, and text.
    Jsonl(Jsonl),
    /// Lines with progress in them.
    Lines(Lines),
    /// The blocks of ffmpeg.
    Ffmpeg(Lines, Ffmpeg),
    /// Any bytes.
    Raw,
}

/// Messages, a line each, among text.
#[derive(Debug, Default)]
pub struct Jsonl {
    /// The beginning of a line that may be a message.
    held: BytesMut,
    /// What has come of the line is text.
    in_text: bool,
}

impl Stdout {
    /// Of a program that is read so; one that makes something of this length, in seconds, where that is known.
    pub fn new(reading: Reading, total: Option<f64>) -> Self {
        match reading {
            Reading::Jsonl => Self::Jsonl(Jsonl::default()),
            Reading::Lines => Self::Lines(Lines::new(LINE_BYTES_MAX)),
            Reading::Ffmpeg => Self::Ffmpeg(Lines::new(LINE_BYTES_MAX), Ffmpeg::new(total)),
            Reading::None => Self::Raw,
        }
    }

    /// Takes the next bytes; what they say is added to `said`.
    pub fn feed(&mut self, data: &[u8], said: &mut Vec<Said>) {
        let mut text = Text::new(said);
        match self {
            Self::Raw => text.add(data),
            Self::Jsonl(jsonl) => jsonl.feed(data, &mut text),
            Self::Lines(lines) => lines.feed(data, |piece| {
                text.piece(piece, |line, said| {
                    said.extend(percent::find(line).map(Said::Step));
                    false
                })
            }),
            Self::Ffmpeg(lines, ffmpeg) => {
                lines.feed(data, |piece| text.piece(piece, |line, said| ffmpeg.line(line, said)));
            }
        }
        text.close();
    }

    /// Takes the end.
    pub fn end(&mut self, said: &mut Vec<Said>) {
        let mut text = Text::new(said);
        match self {
            Self::Raw => {}
            Self::Jsonl(jsonl) => jsonl.line(&mut text, b""),
            Self::Lines(lines) | Self::Ffmpeg(lines, _) => lines.end(|piece| {
                if let Piece::Line(line) = piece {
                    text.add(line);
                }
            }),
        }
        text.close();
    }

    /// Takes a line of standard error, where that says something beside.
    pub fn error_line(&mut self, line: &[u8], said: &mut Vec<Said>) {
        match self {
            Self::Raw | Self::Jsonl(_) => {}
            Self::Lines(_) => said.extend(percent::find(line).map(Said::Step)),
            Self::Ffmpeg(_, ffmpeg) => ffmpeg.error_line(line),
        }
    }
}

impl Jsonl {
    fn feed(&mut self, mut data: &[u8], text: &mut Text<'_>) {
        while let Some(first) = data.first() {
            self.in_text |= self.held.is_empty() && *first != b'{';
            let end = data.iter().position(|byte| *byte == b'\n').map(|end| end + 1);
            let (part, rest) = data.split_at(end.unwrap_or(data.len()));
            data = rest;
            if self.in_text {
                text.add(part);
                self.in_text = end.is_none();
            } else if end.is_some() {
                self.line(text, part);
            } else {
                self.held.extend_from_slice(part);
                if self.held.len() > MESSAGE_BYTES_MAX {
                    text.add(&std::mem::take(&mut self.held));
                    self.in_text = true;
                }
            }
        }
    }

    /// Takes a line that ends with `part`.
    fn line(&mut self, text: &mut Text<'_>, part: &[u8]) {
        // Most lines come whole, and need not be copied.
        let is_message = |line: &[u8], text: &mut Text<'_>| {
            let line = line.trim_ascii_end();
            line.len() <= MESSAGE_BYTES_MAX && text.message(line)
        };
        if self.held.is_empty() {
            if !is_message(part, text) {
                text.add(part);
            }
            return;
        }
        self.held.extend_from_slice(part);
        let line = std::mem::take(&mut self.held);
        if !is_message(&line, text) {
            text.add(&line);
        }
    }
}

/// Joins output that comes in pieces, in its place among the rest that is said.
struct Text<'a> {
    said: &'a mut Vec<Said>,
    joined: BytesMut,
}

impl<'a> Text<'a> {
    fn new(said: &'a mut Vec<Said>) -> Self {
        Self { said, joined: BytesMut::new() }
    }

    fn add(&mut self, data: &[u8]) {
        self.joined.extend_from_slice(data);
    }

    fn close(&mut self) {
        if !self.joined.is_empty() {
            let data: Bytes = std::mem::take(&mut self.joined).freeze();
            self.said.push(Said::Output { channel: String::new(), data });
        }
    }

    fn message(&mut self, line: &[u8]) -> bool {
        // In its place, which is behind the text so far.
        let before = self.said.len();
        if !message::read(line, self.said) {
            return false;
        }
        if !self.joined.is_empty() {
            let data = std::mem::take(&mut self.joined).freeze();
            self.said.insert(before, Said::Output { channel: String::new(), data });
        }
        true
    }

    /// Takes a piece of text; a line that is `understood` is none.
    fn piece(&mut self, piece: Piece<'_>, mut understood: impl FnMut(&[u8], &mut Vec<Said>) -> bool) {
        match piece {
            Piece::Line(line) => {
                if !understood(line, self.said) {
                    self.add(line);
                    self.add(b"\n");
                }
            }
            Piece::Redrawn(line) => {
                understood(line, self.said);
            }
            Piece::Part(part) => self.add(part),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::processor::exec::message::Step;
    use proptest::prelude::*;

    fn output(text: &str) -> Said {
        Said::Output { channel: String::new(), data: Bytes::copy_from_slice(text.as_bytes()) }
    }

    fn fraction(fraction: f64) -> Said {
        Said::Step(Step { fraction: Some(fraction), ..Default::default() })
    }

    fn understood(reading: Reading, written: &str) -> Vec<Said> {
        let (mut stdout, mut said) = (Stdout::new(reading, None), Vec::new());
        stdout.feed(written.as_bytes(), &mut said);
        stdout.end(&mut said);
        said
    }

    #[test]
    fn messages_stand_in_their_place_among_text() {
        let said =
            understood(Reading::Jsonl, "a\nb\n{\"progress\": 0.5}\nc\n{\"result\": 1}\r\n{\"d\": 1}\n");

        let result = Said::Result(Bytes::from_static(b"1"));
        assert_eq!(said, [output("a\nb\n"), fraction(0.5), output("c\n"), result, output("{\"d\": 1}\n")]);
    }

    #[test]
    fn text_is_shown_before_its_line_ends() {
        let (mut stdout, mut said) = (Stdout::new(Reading::Jsonl, None), Vec::new());

        stdout.feed(b"Once upon", &mut said);
        stdout.feed(b" a time {\"progress\": 0.5}\n", &mut said);

        assert_eq!(said, [output("Once upon"), output(" a time {\"progress\": 0.5}\n")]);
    }

    #[test]
    fn the_last_message_needs_no_end() {
        assert_eq!(understood(Reading::Jsonl, "{\"progress\": 0.5}"), [fraction(0.5)]);
        assert_eq!(understood(Reading::Jsonl, "{\"progr"), [output("{\"progr")]);
    }

    #[test]
    fn a_line_without_end_is_not_kept() {
        let (mut stdout, mut said) = (Stdout::new(Reading::Jsonl, None), Vec::new());
        let mut passed_on = 0;
        for _ in 0..100 {
            stdout.feed(&[b'{'; 64 << 10], &mut said);
            for said in said.drain(..) {
                let Said::Output { data, .. } = said else { panic!("{said:?}") };
                passed_on += data.len();
            }
            let Stdout::Jsonl(jsonl) = &stdout else { unreachable!() };
            assert!(jsonl.held.len() <= MESSAGE_BYTES_MAX);
        }
        assert_eq!(passed_on, 100 * (64 << 10));
    }

    #[test]
    fn lines_are_output_and_redrawn_ones_are_progress_alone() {
        let said = understood(Reading::Lines, "begin\n 10%\r 20%\r\npage 3/10\nend");

        assert_eq!(said[0], fraction(0.1));
        assert_eq!(said[1], fraction(0.2));
        let text: Vec<&Said> = said.iter().filter(|said| matches!(said, Said::Output { .. })).collect();
        assert_eq!(text, [&output("begin\n 20%\npage 3/10\n"), &output("end")]);
    }

    #[test]
    fn what_ffmpeg_writes_is_no_output() {
        let said = understood(Reading::Ffmpeg, "frame=1\nout_time_us=5\nprogress=end\nsomething else\n");

        assert!(matches!(said[0], Said::Step(_)), "{said:?}");
        assert_eq!(said.last(), Some(&output("something else\n")));
    }

    proptest! {
        #[test]
        fn no_byte_of_the_output_is_lost(written in prop::collection::vec(any::<u8>(), 0..200), cut in 0usize..200) {
            let (mut stdout, mut said) = (Stdout::new(Reading::Jsonl, None), Vec::new());
            let (first, second) = written.split_at(cut.min(written.len()));
            stdout.feed(first, &mut said);
            stdout.feed(second, &mut said);
            stdout.end(&mut said);

            let mut joined = Vec::new();
            for said in said {
                let Said::Output { data, .. } = said else { panic!("{said:?}") };
                joined.extend_from_slice(&data);
            }
            prop_assert_eq!(joined, written);
        }
    }
}
