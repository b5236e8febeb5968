//! Reads what `ffmpeg -progress` writes: blocks of `key=value`, each ended by `progress=continue` or `progress=end`.
//!
//! `out_time_us` begins as N/A, or below zero, and the last block may well say less than all: a fraction is told only where
//! it is known, and that of a success is 1 whatever was said before.

use super::message::{Said, Step};
use crate::job::Metrics;

/// How far a run of ffmpeg has come.
#[derive(Debug, Default)]
pub struct Ffmpeg {
    /// How long what it makes will be, in seconds.
    total: Option<f64>,
    /// How long it is so far.
    out: Option<f64>,
    metrics: Metrics,
}

impl Ffmpeg {
    /// A run whose product has this length in seconds, where that is known.
    pub fn new(total: Option<f64>) -> Self {
        Self { total: total.filter(|total| *total > 0.0), ..Default::default() }
    }

    /// Takes a line of standard output; whether it is of a block.
    pub fn line(&mut self, line: &[u8], said: &mut Vec<Said>) -> bool {
        let Some((key, value)) = std::str::from_utf8(line).ok().and_then(|line| line.split_once('=')) else {
            return false;
        };
        let value = value.trim();
        match key {
            "out_time_us" => self.out = value.parse().ok().map(|micros: f64| micros / 1e6),
            "fps" | "frame" => self.measure(key, value),
            "speed" => self.measure(key, value.trim_end_matches('x')),
            "progress" => self.block(said),
            // The rest of a block, each a word before a value.
            _ => {
                return key
                    .bytes()
                    .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_');
            }
        }
        true
    }

    /// Takes a line of standard error, which tells the length of the first input.
    pub fn error_line(&mut self, line: &[u8]) {
        if self.total.is_none() {
            let text = String::from_utf8_lossy(line);
            let duration = text.split("Duration: ").nth(1).and_then(|rest| rest.split(',').next());
            self.total = duration.and_then(seconds).filter(|total| *total > 0.0);
        }
    }

    fn measure(&mut self, key: &str, value: &str) {
        if let Ok(value) = value.parse() {
            self.metrics.insert(key.to_owned(), value);
        }
    }

    fn block(&mut self, said: &mut Vec<Said>) {
        let out = self.out.filter(|out| *out >= 0.0);
        let speed = self.metrics.get("speed").copied().filter(|speed| *speed > 0.0);
        let left = out.zip(self.total).map(|(out, total)| (total - out).max(0.0));
        said.push(Said::Step(Step {
            fraction: out.zip(self.total).map(|(out, total)| (out / total).min(1.0)),
            completed: out.map(|out| out as i64),
            total: self.total.map(|total| total.ceil() as i64),
            unit: Some("seconds".to_owned()),
            seconds_left: left.zip(speed).map(|(left, speed)| left / speed),
            ..Default::default()
        }));
        if !self.metrics.is_empty() {
            said.push(Said::Metrics(std::mem::take(&mut self.metrics)));
        }
    }
}

/// The seconds of `90`, `90.5` or `00:01:30.50`.
pub fn seconds(text: &str) -> Option<f64> {
    let mut total = 0.0;
    for part in text.trim().split(':') {
        let part: f64 = part.parse().ok().filter(|part: &f64| part.is_finite() && *part >= 0.0)?;
        total = total * 60.0 + part;
    }
    Some(total)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn steps(ffmpeg: &mut Ffmpeg, lines: &str) -> Vec<Step> {
        let mut said = Vec::new();
        for line in lines.lines() {
            assert!(ffmpeg.line(line.as_bytes(), &mut said), "{line}");
        }
        said.into_iter()
            .filter_map(|said| if let Said::Step(step) = said { Some(step) } else { None })
            .collect()
    }

    #[test]
    fn nothing_is_claimed_before_anything_is_known() {
        let mut ffmpeg = Ffmpeg::new(Some(10.0));

        let steps = steps(
            &mut ffmpeg,
            "frame=0\nout_time_us=N/A\nout_time=N/A\nspeed=N/A\nprogress=continue\n\
             out_time_us=-80000\nprogress=continue\nout_time_us=2500000\nprogress=continue\n\
             out_time_us=10080000\nprogress=end",
        );

        let fractions: Vec<Option<f64>> = steps.iter().map(|step| step.fraction).collect();
        assert_eq!(fractions, [None, None, Some(0.25), Some(1.0)]);
        assert_eq!((steps[2].completed, steps[2].total), (Some(2), Some(10)));
    }

    #[test]
    fn the_first_input_tells_the_length_where_nobody_else_does() {
        let mut ffmpeg = Ffmpeg::new(None);
        ffmpeg.error_line(b"  Duration: N/A, start: 0.000000, bitrate: N/A");
        ffmpeg.error_line(b"  Duration: 00:01:40.00, start: 0.000000, bitrate: 1205 kb/s");
        ffmpeg.error_line(b"  Duration: 00:00:01.00, start: 0.000000, bitrate: 1205 kb/s");

        let steps = steps(&mut ffmpeg, "out_time_us=50000000\nprogress=continue");

        assert_eq!(steps[0].fraction, Some(0.5));
    }

    #[test]
    fn what_it_measures_is_passed_on() {
        let mut said = Vec::new();
        let mut ffmpeg = Ffmpeg::new(Some(10.0));
        for line in
            ["out_time_us=5000000", "fps=30.5", "speed= 1.25x", "bitrate= 100kbits/s", "progress=continue"]
        {
            ffmpeg.line(line.as_bytes(), &mut said);
        }

        assert!(matches!(&said[0], Said::Step(Step { seconds_left: Some(4.0), .. })), "{said:?}");
        let metrics = Metrics::from([("fps".to_owned(), 30.5), ("speed".to_owned(), 1.25)]);
        assert!(said.contains(&Said::Metrics(metrics)), "{said:?}");
    }

    #[rstest]
    #[case("90", Some(90.0))]
    #[case("00:01:30.50", Some(90.5))]
    #[case("N/A", None)]
    #[case("-1", None)]
    #[case("", None)]
    fn a_length_has_two_spellings(#[case] text: &str, #[case] expected: Option<f64>) {
        assert_eq!(seconds(text), expected);
    }
}
