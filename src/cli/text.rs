//! Text that came from elsewhere, as it may be shown on a terminal; and standard output, where nobody may be reading any
//! more. What is for programs (`--json`, output into a file) does not come by here.

use console::measure_text_width;
use std::borrow::Cow;
use std::io::{self, Write as _};

/// Text without what commands a terminal: control characters, and those that turn the direction of writing. Line ends
/// and tabs stay.
pub fn printable(text: &str) -> String {
    let harmless = |c: char| c == '\n' || c == '\t' || !(c.is_control() || turns_direction(c));
    text.chars().map(|c| if harmless(c) { c } else { '\u{fffd}' }).collect()
}

/// As [`printable`], on one line.
pub fn one_line(text: &str) -> String {
    printable(text.trim_end()).replace(['\n', '\t', '\u{2028}', '\u{2029}'], " ")
}

/// What fits into so many columns; an ellipsis says that there was more.
pub fn shortened(text: &str, columns: usize) -> Cow<'_, str> {
    console::truncate_str(text, columns, "…")
}

/// The end of a text as far as it fits into so many columns; an ellipsis says that there was more.
pub fn ending(text: &str, columns: usize) -> Cow<'_, str> {
    if measure_text_width(text) <= columns {
        return Cow::Borrowed(text);
    }
    let mut room = columns.saturating_sub(1);
    let mut start = text.len();
    for (at, c) in text.char_indices().rev() {
        let Some(left) = room.checked_sub(measure_text_width(c.encode_utf8(&mut [0; 4]))) else { break };
        (room, start) = (left, at);
    }
    Cow::Owned(format!("…{}", &text[start..]))
}

/// Embedding, override and isolate of Unicode's bidirectional algorithm (UAX #9).
fn turns_direction(c: char) -> bool {
    matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Prints a line on standard output.
///
/// # Errors
///
/// Those of standard output: a pipe that is closed is one, for the caller to stop.
pub fn print_line(line: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(line.as_bytes())?;
    out.write_all(b"\n")?;
    out.flush()
}

/// Whether an error says that nobody reads standard output any more, as in `longhaul list | head -1`.
pub fn is_closed_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_a_job_says_commands_the_terminal() {
        assert_eq!(printable("a\x1b[2Jb\r\n\tc\u{9b}d"), "a\u{fffd}[2Jb\u{fffd}\n\tc\u{fffd}d");
        assert_eq!(printable("evil\u{202e}txt"), "evil\u{fffd}txt");
        assert_eq!(printable("日本 ä 👍"), "日本 ä 👍");
    }

    #[test]
    fn a_line_is_one_line() {
        assert_eq!(one_line("a\nb\tc\u{2028}d\n"), "a b c d");
    }

    #[test]
    fn what_is_too_long_is_cut_by_columns_and_not_by_characters() {
        assert_eq!(shortened("short", 5), "short");
        assert_eq!(shortened("longer", 5), "long…");
        assert_eq!(shortened("日本語です", 6), "日本…");
        assert_eq!(ending("short", 5), "short");
        assert_eq!(ending("longer", 5), "…nger");
        assert_eq!(ending("日本語です", 6), "…です");
        assert_eq!(ending("longer", 0), "…");
    }
}
