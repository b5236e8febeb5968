//! A program that runs jobs: how it is called, what it may use, and how it is understood.

use super::ffmpeg;
use crate::job::Failure;
use crate::worker::{Assignment, invalid_input};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use std::collections::HashMap;
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

/// Bytes of a command's arguments, once they are filled in: far below what a kernel takes, and enough for names and numbers.
const ARGUMENTS_BYTES_MAX: usize = 64 << 10;

/// A program that runs jobs.
#[derive(Clone, Debug)]
pub struct Program {
    /// The file to run, by its whole path.
    pub file: PathBuf,
    /// Its arguments, in which `{input.NAME}` and `{job.id}` stand for what a job says.
    pub arguments: Vec<String>,
    /// What its standard output means.
    pub reading: Reading,
    /// One process runs one job after the other.
    pub persistent: bool,
    /// The job is in a file, and not on standard input.
    pub job_in_file: bool,
    /// All of its environment, but for what a job adds.
    pub environment: Vec<(OsString, OsString)>,
    /// Where it runs; none is where we do.
    pub folder: Option<PathBuf>,
    /// How long what it makes will be, in seconds, as text like an argument; for [`Reading::Ffmpeg`].
    pub total: Option<String>,
    /// The file that it makes, as text like an argument. It is the job's result.
    pub result_file: Option<String>,
    /// What it may use.
    pub limits: Limits,
}

/// What a program's standard output means.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Reading {
    /// Messages of the child protocol, a line each; what is none is output.
    #[default]
    Jsonl,
    /// What `ffmpeg -progress` writes.
    Ffmpeg,
    /// Output, in whose lines progress is looked for.
    Lines,
    /// Output.
    None,
}

/// What a program may use; what is not limited here is so by the machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Bytes of address space of each process.
    pub memory_bytes: Option<u64>,
    /// Processor time of each process.
    pub cpu_time: Option<Duration>,
    /// Open files of each process.
    pub open_files: Option<u64>,
    /// Bytes of a file that it writes.
    pub file_bytes: Option<u64>,
    /// Processes that it is and has started, all together.
    pub processes: Option<u32>,
}

/// How a program is called for one job.
#[derive(Clone, Debug)]
pub struct Call {
    pub arguments: Vec<String>,
    pub environment: Vec<(OsString, OsString)>,
    /// In seconds.
    pub total: Option<f64>,
    pub result_file: Option<PathBuf>,
}

impl Program {
    /// How it is called for a job. What the job's input lacks is its failure, for good.
    pub fn call(&self, assignment: &Assignment) -> Result<Call, Failure> {
        if self.persistent {
            let environment = self.environment.clone();
            return Ok(Call {
                arguments: self.arguments.clone(),
                environment,
                total: None,
                result_file: None,
            });
        }
        let arguments: Result<Vec<String>, Failure> =
            self.arguments.iter().map(|argument| fill(argument, assignment)).collect();
        let arguments = arguments?;
        let bytes: usize = arguments.iter().map(String::len).sum();
        if bytes > ARGUMENTS_BYTES_MAX {
            let text =
                format!("the command's arguments are {bytes} bytes; the limit is {ARGUMENTS_BYTES_MAX}");
            return Err(invalid_input(text));
        }
        let total = self.total.as_deref().map(|total| fill(total, assignment)).transpose()?;
        let total = total.map(|total| {
            ffmpeg::seconds(&total).ok_or_else(|| invalid_input(format!("{total:?} is no number of seconds")))
        });
        let mut environment = self.environment.clone();
        let job = [
            ("LONGHAUL_JOB_ID", assignment.id.to_string()),
            ("LONGHAUL_JOB_KIND", assignment.kind.clone()),
            ("LONGHAUL_JOB_ATTEMPT", assignment.attempt.to_string()),
        ];
        environment.extend(job.map(|(name, value)| (name.into(), value.into())));
        let result_file = self.result_file.as_deref().map(|file| fill(file, assignment)).transpose()?;
        Ok(Call {
            arguments,
            environment,
            total: total.transpose()?,
            result_file: result_file.map(Into::into),
        })
    }
}

/// A text with each `{input.NAME}` and `{job.NAME}` filled in; other braces stay as they are.
fn fill(text: &str, assignment: &Assignment) -> Result<String, Failure> {
    let mut filled = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, name, behind)) = next_blank(rest) {
        filled.push_str(before);
        let value = match name {
            "job.id" => assignment.id.to_string(),
            "job.kind" => assignment.kind.clone(),
            "job.attempt" => assignment.attempt.to_string(),
            _ => of_input(name, &assignment.input)?,
        };
        if value.contains('\0') {
            return Err(invalid_input(format!("{name} has a zero byte in it, which no argument can have")));
        }
        // Or a client could give options to the program.
        if filled.is_empty() && value.starts_with('-') && value.parse::<f64>().is_err() {
            return Err(invalid_input(format!("{name} is {value:?}; it must not begin with \"-\"")));
        }
        filled.push_str(&value);
        rest = behind;
    }
    filled.push_str(rest);
    Ok(filled)
}

/// What an input has at `input.NAME.NAME`: a text, or a number as it is written there.
fn of_input(path: &str, input: &[u8]) -> Result<String, Failure> {
    let mut value: &RawValue =
        serde_json::from_slice(input).map_err(|error| invalid_input(format!("input: {error}")))?;
    for name in path.split('.').skip(1) {
        let fields: Option<HashMap<String, &RawValue>> = serde_json::from_str(value.get()).ok();
        value = fields
            .and_then(|fields| fields.get(name).copied())
            .ok_or_else(|| invalid_input(format!("{path} is missing")))?;
    }
    match value.get() {
        text if text.starts_with('"') => {
            serde_json::from_str(text).map_err(|error| invalid_input(format!("{path}: {error}")))
        }
        other if other.starts_with(['{', '[', 'n']) => {
            Err(invalid_input(format!("{path} must be a text, a number, true or false")))
        }
        plain => Ok(plain.to_owned()),
    }
}

/// What stands before the next blank of a text, its name, and what stands behind it.
fn next_blank(text: &str) -> Option<(&str, &str, &str)> {
    text.match_indices('{').find_map(|(at, _)| {
        let (name, behind) = text[at + 1..].split_once('}')?;
        let is_name = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | '.');
        let is_blank = matches!(name, "job.id" | "job.kind" | "job.attempt")
            || name.strip_prefix("input.").is_some_and(|rest| !rest.is_empty() && rest.chars().all(is_name));
        is_blank.then_some((&text[..at], name, behind))
    })
}

/// Whether a text has blanks that a job fills in.
pub fn has_blanks(text: &str) -> bool {
    next_blank(text).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::{JobId, Timestamp};
    use bytes::Bytes;
    use rstest::rstest;

    fn assignment(input: &'static str) -> Assignment {
        Assignment {
            id: JobId::new(Timestamp::from_micros(1), 0, 7),
            kind: "render".into(),
            attempt: 3,
            input: Bytes::from_static(input.as_bytes()),
            deadline: None,
            trace: None,
            checkpoint: Bytes::new(),
            output_offset: 0,
        }
    }

    fn filled(text: &str, input: &'static str) -> Result<String, String> {
        let assignment = assignment(input);
        fill(text, &assignment).map_err(|failure| {
            assert!(failure.permanent && failure.reason == "INVALID_INPUT", "{failure:?}");
            failure.message
        })
    }

    #[rstest]
    #[case("plain", "plain")]
    #[case("{input.a}", "one")]
    #[case("x={input.n}:{input.deep.b}-{job.attempt}", "x=1.50:true-3")]
    #[case("{print $1} {input} {job} {other.a} {", "{print $1} {input} {job} {other.a} {")]
    #[case("{{input.a}}", "{one}")]
    #[case("{job.kind}", "render")]
    #[case("{input.negative}", "-2")]
    #[case("{input.big}", "12345678901234567890123")]
    #[case("--option={input.dash}", "--option=--help")]
    fn blanks_are_filled_in_and_nothing_else_is(#[case] text: &str, #[case] expected: &str) {
        let input = r#"{"a": "one", "n": 1.50, "deep": {"b": true}, "negative": -2, "big": 12345678901234567890123, "dash": "--help"}"#;

        assert_eq!(filled(text, input).unwrap(), expected);
    }

    #[rstest]
    #[case("{input.b}", r#"{"a": 1}"#, "input.b is missing")]
    #[case("{input.a.b}", r#"{"a": 1}"#, "input.a.b is missing")]
    #[case("{input.a}", r#"{"a": [1]}"#, "input.a must be a text")]
    #[case("{input.a}", r#"{"a": "-y"}"#, "must not begin with")]
    #[case("{input.a}", r#"{"a": "a\u0000b"}"#, "zero byte")]
    fn what_the_input_lacks_is_told_by_name(
        #[case] text: &str,
        #[case] input: &'static str,
        #[case] expected: &str,
    ) {
        let error = filled(text, input).unwrap_err();

        assert!(error.contains(expected), "{error}");
    }

    #[test]
    fn arguments_have_a_limit() {
        let program = Program {
            file: "/bin/true".into(),
            arguments: vec!["{input.a}{input.a}".into()],
            reading: Reading::None,
            persistent: false,
            job_in_file: false,
            environment: Vec::new(),
            folder: None,
            total: None,
            result_file: None,
            limits: Limits::default(),
        };
        let input = format!(r#"{{"a": "{}"}}"#, "x".repeat(ARGUMENTS_BYTES_MAX / 2 + 1));

        let failure = program.call(&Assignment { input: input.into(), ..assignment("") }).unwrap_err();

        assert!(failure.message.contains("the limit is 65536"), "{}", failure.message);
    }
}
