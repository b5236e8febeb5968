//! A table for people: columns as wide as what is in them, and on a terminal no wider than the screen.

use super::text::shortened;
use crate::proto::job::State;
use console::{Alignment, Style, Term, measure_text_width, pad_str};

/// On a terminal no column takes more, but for the first and the last.
const COLUMN_MAX: usize = 24;
const GAP: &str = "  ";

/// Lays out rows as they come, in portions: a column never gets narrower.
#[derive(Debug)]
pub struct Table {
    widths: Vec<usize>,
    /// The terminal's columns, where it goes to one.
    screen: Option<usize>,
}

impl Table {
    /// A table for standard output.
    pub fn new() -> Self {
        let screen = Term::stdout().size_checked().map(|(_, columns)| usize::from(columns));
        Self { widths: Vec::new(), screen: screen.filter(|_| Term::stdout().is_term()) }
    }

    /// The lines for some rows. Cells are single lines that may be coloured.
    pub fn lines(&mut self, rows: &[Vec<String>]) -> Vec<String> {
        for row in rows {
            self.widths.resize(self.widths.len().max(row.len()), 0);
            for (column, cell) in row.iter().enumerate() {
                self.widths[column] = self.widths[column].max(self.width(column, cell));
            }
        }
        rows.iter().map(|row| self.line(row)).collect()
    }

    fn width(&self, column: usize, cell: &str) -> usize {
        let width = measure_text_width(cell);
        if self.screen.is_some() && column > 0 { width.min(COLUMN_MAX) } else { width }
    }

    fn line(&self, row: &[String]) -> String {
        let last = row.len().saturating_sub(1);
        let cells = row.iter().enumerate().map(|(column, cell)| match column == last {
            true => cell.clone(),
            false => pad_str(cell, self.widths[column], Alignment::Left, Some("…")).into_owned(),
        });
        let line = cells.collect::<Vec<_>>().join(GAP);
        match self.screen {
            Some(columns) => shortened(line.trim_end(), columns).into_owned(),
            None => line.trim_end().to_owned(),
        }
    }
}

/// The name of a state, in its colour where standard output shows colours.
pub fn state_name(state: State) -> String {
    colour(state).apply_to(state.as_str_name()).to_string()
}

/// The colour of a state: as of lights in traffic, with blue for what is under way.
pub fn colour(state: State) -> Style {
    match state {
        State::Succeeded => Style::new().green(),
        State::Failed | State::Expired => Style::new().red(),
        State::Retrying | State::Cancelling => Style::new().yellow(),
        State::Running => Style::new().blue(),
        State::Unspecified | State::Scheduled | State::Pending | State::Cancelled => Style::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(rows: &[&[&str]]) -> Vec<Vec<String>> {
        rows.iter().map(|row| row.iter().map(|&cell| cell.to_owned()).collect()).collect()
    }

    #[test]
    fn columns_line_up_whatever_their_characters_take() {
        let mut table = Table { widths: Vec::new(), screen: None };

        let lines = table.lines(&rows(&[&["JOB", "KIND", "MORE"], &["日本", "a", "x"], &["b", "c", ""]]));

        assert_eq!(lines, ["JOB   KIND  MORE", "日本  a     x", "b     c"]);
    }

    #[test]
    fn a_later_portion_is_as_wide_as_the_one_before() {
        let mut table = Table { widths: Vec::new(), screen: None };

        table.lines(&rows(&[&["wide-one", "x"]]));

        assert_eq!(table.lines(&rows(&[&["a", "x"]])), ["a         x"]);
    }

    #[test]
    fn nothing_goes_beyond_the_screen() {
        let mut table = Table { widths: Vec::new(), screen: Some(40) };
        let kind = "k".repeat(64);

        let lines = table.lines(&rows(&[&["job", &kind, "a long text that is cut at the end"]]));

        assert_eq!(lines, ["job  kkkkkkkkkkkkkkkkkkkkkkk…  a long t…"]);
        assert_eq!(measure_text_width(&lines[0]), 40);
    }
}
