//! Cuts what a program writes into lines, as a terminal would show them. What it keeps is bounded.

use bytes::BytesMut;

/// A piece of what a program writes.
#[derive(Debug, PartialEq, Eq)]
pub enum Piece<'a> {
    /// A line, or the rest of one, without its end.
    Line(&'a [u8]),
    /// A beginning of a line that is longer than may be kept.
    Part(&'a [u8]),
    /// A line that the next one is drawn over: it ended with a carriage return.
    Redrawn(&'a [u8]),
}

/// Puts lines together from what comes bit by bit.
#[derive(Debug)]
pub struct Lines {
    held: BytesMut,
    /// The last byte was a carriage return, and what stands before it may still be a line.
    returned: bool,
    bytes_max: usize,
}

impl Lines {
    /// Holds back so many bytes of a line at the most.
    pub fn new(bytes_max: usize) -> Self {
        Self { held: BytesMut::new(), returned: false, bytes_max }
    }

    /// Takes the next bytes, and tells of each piece that is complete.
    pub fn feed(&mut self, mut data: &[u8], mut tell: impl FnMut(Piece<'_>)) {
        while !data.is_empty() {
            let end = data.iter().position(|byte| matches!(byte, b'\n' | b'\r'));
            if std::mem::take(&mut self.returned) && end != Some(0) {
                self.held.clear();
            }
            let Some(end) = end else {
                self.hold(data, &mut tell);
                return;
            };
            self.hold(&data[..end], &mut tell);
            if data[end] == b'\n' {
                tell(Piece::Line(&self.held));
                self.held.clear();
            } else {
                tell(Piece::Redrawn(&self.held));
                self.returned = true;
            }
            data = &data[end + 1..];
        }
    }

    /// Tells of what is left where the last line has no end.
    pub fn end(&mut self, mut tell: impl FnMut(Piece<'_>)) {
        if !std::mem::take(&mut self.returned) && !self.held.is_empty() {
            tell(Piece::Line(&self.held));
        }
        self.held.clear();
    }

    fn hold(&mut self, mut data: &[u8], tell: &mut impl FnMut(Piece<'_>)) {
        while self.held.len() + data.len() > self.bytes_max {
            let (more, rest) = data.split_at(self.bytes_max - self.held.len());
            self.held.extend_from_slice(more);
            tell(Piece::Part(&self.held));
            self.held.clear();
            data = rest;
        }
        self.held.extend_from_slice(data);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rstest::rstest;

    fn pieces(lines: &mut Lines, data: &[u8]) -> Vec<String> {
        let mut told = Vec::new();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let mut tell = |piece: Piece<'_>| {
            told.push(match piece {
                Piece::Line(line) => format!("line {}", text(line)),
                Piece::Part(part) => format!("part {}", text(part)),
                Piece::Redrawn(line) => format!("redrawn {}", text(line)),
            });
        };
        lines.feed(data, &mut tell);
        told
    }

    #[rstest]
    #[case("a\nb\n", &["line a", "line b"])]
    #[case("a\n\nb", &["line a", "line "])]
    #[case("10%\r20%\r\n", &["redrawn 10%", "redrawn 20%", "line 20%"])]
    #[case("10%\r20%\rdone\n", &["redrawn 10%", "redrawn 20%", "line done"])]
    #[case("abcdefghij\n", &["part abcdefgh", "line ij"])]
    fn lines_are_as_a_terminal_shows_them(#[case] written: &str, #[case] expected: &[&str]) {
        assert_eq!(pieces(&mut Lines::new(8), written.as_bytes()), expected);
    }

    #[test]
    fn the_last_line_needs_no_end() {
        let mut lines = Lines::new(8);
        pieces(&mut lines, b"a\nb");

        let mut last = Vec::new();
        lines.end(|piece| last.push(format!("{piece:?}")));

        assert_eq!(last, [format!("{:?}", Piece::Line(b"b"))]);
    }

    proptest! {
        #[test]
        fn it_does_not_matter_how_the_bytes_come(written in "[ab\r\n]{0,40}", cuts in prop::collection::vec(0usize..40, 0..5)) {
            let whole = pieces(&mut Lines::new(6), written.as_bytes());

            let mut lines = Lines::new(6);
            let mut parts = Vec::new();
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(written.len())).collect();
            cuts.sort_unstable();
            let mut from = 0;
            for cut in cuts.into_iter().chain([written.len()]) {
                parts.extend(pieces(&mut lines, &written.as_bytes()[from..cut]));
                from = cut;
            }

            prop_assert_eq!(parts, whole);
        }
    }
}
