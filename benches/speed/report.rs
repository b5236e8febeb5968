//! What is said of the measurements: a line for each as it is there, and one table at the end.

use std::time::Duration;

/// One requirement, and what was measured of it.
#[derive(Debug)]
pub struct Row {
    pub what: String,
    pub measured: String,
    pub required: String,
    /// Absent where nothing is required.
    pub met: Option<bool>,
}

/// All rows so far.
#[derive(Debug, Default)]
pub struct Report(Vec<Row>);

impl Report {
    /// A figure that must reach another.
    pub fn at_least(&mut self, what: &str, measured: f64, required: f64, unit: Unit) {
        let required_text = format!("≥ {}", unit.show(required));
        self.add(what, unit.show(measured), required_text, Some(measured >= required));
    }

    /// A figure that must not pass another.
    pub fn at_most(&mut self, what: &str, measured: f64, required: f64, unit: Unit) {
        let required_text = format!("≤ {}", unit.show(required));
        self.add(what, unit.show(measured), required_text, Some(measured <= required));
    }

    /// Something that stands beside the others for comparison.
    pub fn beside(&mut self, what: &str, measured: String) {
        self.add(what, measured, String::new(), None);
    }

    fn add(&mut self, what: &str, measured: String, required: String, met: Option<bool>) {
        let row = Row { what: what.to_owned(), measured, required, met };
        println!("  {} {}: {} {}", row.mark(), row.what, row.measured, row.bound());
        self.0.push(row);
    }

    /// Prints the table, in Markdown.
    pub fn print(&self) {
        println!("\n| measurement | measured | required | |\n|---|---|---|---|");
        for row in &self.0 {
            println!("| {} | {} | {} | {} |", row.what, row.measured, row.required, row.mark());
        }
        let missed = self.0.iter().filter(|row| row.met == Some(false)).count();
        println!("\n{missed} requirements not met");
    }
}

impl Row {
    fn mark(&self) -> &'static str {
        match self.met {
            Some(true) => "✓",
            Some(false) => "✗",
            None => " ",
        }
    }

    fn bound(&self) -> String {
        if self.required.is_empty() { String::new() } else { format!("(required {})", self.required) }
    }
}

/// How a figure is written.
#[derive(Clone, Copy, Debug)]
pub enum Unit {
    /// Of one.
    Percent,
    /// A ratio.
    Times,
    /// Something a second.
    PerSecond(&'static str),
    /// In seconds.
    Time,
    /// In bytes.
    Bytes,
}

impl Unit {
    /// The figure with its unit.
    pub fn show(self, value: f64) -> String {
        match self {
            Self::Percent => format!("{:.0} %", value * 100.0),
            Self::Times => format!("{value:.1} ×"),
            Self::PerSecond(what) => format!("{} {what}/s", thousands(value)),
            Self::Time => time(Duration::from_secs_f64(value)),
            Self::Bytes if value < 1024.0 * 1024.0 => format!("{:.1} KiB", value / 1024.0),
            Self::Bytes => format!("{:.1} MiB", value / 1024.0 / 1024.0),
        }
    }
}

/// A short time, for people.
pub fn time(time: Duration) -> String {
    match time.as_secs_f64() * 1e6 {
        micros if micros < 1_000.0 => format!("{micros:.0} µs"),
        micros if micros < 1_000_000.0 => format!("{:.2} ms", micros / 1e3),
        micros => format!("{:.2} s", micros / 1e6),
    }
}

/// A whole number with commas.
pub fn thousands(value: f64) -> String {
    let digits = format!("{value:.0}");
    let groups: Vec<_> = digits.as_bytes().rchunks(3).rev().map(String::from_utf8_lossy).collect();
    groups.join(",")
}

/// The value in the middle.
pub fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<_> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => f64::NAN,
        odd if odd % 2 == 1 => values[odd / 2],
        even => f64::midpoint(values[even / 2 - 1], values[even / 2]),
    }
}
