//! How a program that runs jobs is named, by flags or in the server's settings file.

use super::times::Time;
use crate::processor::exec::{Limits, Program, Reading, has_blanks, warden};
use anyhow::{Context as _, ensure};
use bytesize::ByteSize;
use clap::{Args, ValueEnum};
use serde::Deserialize;
use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::process::ExitCode;

/// Our own binary, also where its file has been replaced since.
pub const MYSELF: &str = "/proc/self/exe";

/// What of our environment a program gets unless told otherwise: what it needs to find itself, and nothing that is a secret.
const ENVIRONMENT: [&str; 10] =
    ["PATH", "HOME", "USER", "LOGNAME", "LANG", "LANGUAGE", "LC_ALL", "LC_CTYPE", "TZ", "TMPDIR"];
/// Below these no program can even start.
const MEMORY_BYTES_MIN: u64 = 16 << 20;
const OPEN_FILES_MIN: u64 = 8;

/// Under which the help shows what a program may use.
const LIMITS: &str = "Limits of the program";

/// A program that runs jobs, as it is named.
#[derive(Args, Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ProgramOptions {
    /// What its standard output means [default: jsonl]
    #[arg(long, value_name = "MODE")]
    pub progress: Option<Progress>,
    /// Keep one process for each slot, which runs one job after the other
    #[arg(long)]
    pub persistent: bool,
    /// Where the program finds its job: on standard input, or in the file LONGHAUL_JOB_FILE [default: stdin]
    #[arg(long, value_name = "PLACE")]
    pub job: Option<Place>,
    /// Pass this variable on, or set it, beside those of a clean environment
    #[arg(long, value_name = "NAME[=VALUE]")]
    pub env: Vec<String>,
    /// Where it runs [default: here]
    #[arg(long, value_name = "FOLDER")]
    pub dir: Option<PathBuf>,
    /// How many seconds long what it makes will be, for `--progress ffmpeg`; for example {input.seconds}
    #[arg(long, value_name = "SECONDS")]
    pub total: Option<String>,
    /// The file that it makes, which is the job's result; for example out/{job.id}.mp4
    #[arg(long, value_name = "FILE")]
    pub result_file: Option<String>,
    /// Address space of each of its processes
    #[arg(long, help_heading = LIMITS, value_name = "BYTES")]
    pub memory_max: Option<ByteSize>,
    /// Processor time of each of its processes
    #[arg(long, help_heading = LIMITS, value_name = "TIME")]
    pub cpu_time_max: Option<Time>,
    /// Open files of each of its processes
    #[arg(long, help_heading = LIMITS, value_name = "NUMBER")]
    pub open_files_max: Option<u64>,
    /// The largest file that it writes
    #[arg(long, help_heading = LIMITS, value_name = "BYTES")]
    pub file_size_max: Option<ByteSize>,
    /// Its processes, all together
    #[arg(long, help_heading = LIMITS, value_name = "NUMBER")]
    pub processes_max: Option<u32>,
    /// The program and its arguments, where {input.NAME}, {job.id}, {job.kind} and {job.attempt} stand for the job's own
    #[arg(last = true, required = true, value_name = "COMMAND")]
    pub command: Vec<String>,
}

/// What a program's standard output means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Progress {
    /// Messages of the child protocol, a line each; the rest is output
    Jsonl,
    /// What `ffmpeg -progress pipe:1` writes
    Ffmpeg,
    /// Output, in whose lines percentages and counts are progress
    Lines,
    /// Output
    None,
}

/// Where a program finds its job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Place {
    /// On its standard input
    Stdin,
    /// In a file
    File,
}

impl ProgramOptions {
    /// The program, checked.
    pub fn settle(self) -> anyhow::Result<Program> {
        let reading = match self.progress.unwrap_or(Progress::Jsonl) {
            Progress::Jsonl => Reading::Jsonl,
            Progress::Ffmpeg => Reading::Ffmpeg,
            Progress::Lines => Reading::Lines,
            Progress::None => Reading::None,
        };
        let job_in_file = self.job == Some(Place::File);
        let environment = environment(&self.env)?;
        let mut command = self.command.into_iter();
        let name = command.next().context("command is empty")?;
        let arguments: Vec<String> = command.collect();
        if self.persistent {
            ensure!(reading == Reading::Jsonl, "persistent goes with progress jsonl alone");
            ensure!(!job_in_file, "persistent programs get their jobs on stdin");
            ensure!(
                self.result_file.is_none(),
                "result_file is for a program that runs one job; this one is persistent"
            );
            let blank = arguments.iter().find(|argument| has_blanks(argument));
            ensure!(
                blank.is_none(),
                "a persistent program is started before its jobs, and has {blank:?} in its command"
            );
        }
        ensure!(self.total.is_none() || reading == Reading::Ffmpeg, "total goes with progress ffmpeg alone");
        let limits = Limits {
            memory_bytes: self.memory_max.map(|size| size.as_u64()),
            cpu_time: self.cpu_time_max.map(|Time(time)| time),
            open_files: self.open_files_max,
            file_bytes: self.file_size_max.map(|size| size.as_u64()),
            processes: self.processes_max,
        };
        ensure!(
            limits.memory_bytes.is_none_or(|bytes| bytes >= MEMORY_BYTES_MIN),
            "memory_max is {}; it must be at least {}",
            self.memory_max.unwrap_or_default(),
            ByteSize(MEMORY_BYTES_MIN)
        );
        ensure!(
            limits.open_files.is_none_or(|files| files >= OPEN_FILES_MIN),
            "open_files_max is {}; it must be at least {OPEN_FILES_MIN}",
            limits.open_files.unwrap_or_default()
        );
        ensure!(
            limits.processes.is_none_or(|processes| processes >= 1),
            "processes_max is 0; it must be at least 1"
        );
        let folder = match &self.dir {
            None => None,
            Some(folder) => {
                let whole = folder.canonicalize().with_context(|| format!("dir is {}", folder.display()))?;
                ensure!(whole.is_dir(), "dir is {}, which is no folder", folder.display());
                Some(whole)
            }
        };
        let path =
            environment.iter().rev().find(|(name, _)| name == "PATH").map(|(_, path)| path.as_os_str());
        let here = folder.clone().map_or_else(std::env::current_dir, Ok)?;
        let file = which::which_in(&name, path, here)
            .map_err(|_| anyhow::anyhow!("there is no command {name:?}"))?;
        Ok(Program {
            file,
            arguments,
            reading,
            persistent: self.persistent,
            job_in_file,
            environment,
            folder,
            total: self.total,
            result_file: self.result_file,
            limits,
        })
    }
}

/// A clean environment, and what was asked for beside.
fn environment(wanted: &[String]) -> anyhow::Result<Vec<(OsString, OsString)>> {
    let ours = |name: &str| Some((OsString::from(name), std::env::var_os(name)?));
    let mut environment: Vec<(OsString, OsString)> =
        ENVIRONMENT.iter().filter_map(|name| ours(name)).collect();
    for wanted in wanted {
        let added = match wanted.split_once('=') {
            Some((name, value)) => (OsString::from(name), OsString::from(value)),
            None => ours(wanted).with_context(|| format!("env names {wanted}, which is not set"))?,
        };
        ensure!(!added.0.is_empty(), "env is {wanted:?}; it must be NAME or NAME=VALUE");
        environment.retain(|(name, _)| *name != added.0);
        environment.push(added);
    }
    Ok(environment)
}

/// Becomes a program, under limits: how a warden starts one.
#[derive(Args, Clone, Debug)]
pub struct Launch {
    /// The limits, as JSON.
    limits: String,
    /// The program's file.
    file: PathBuf,
    /// Its arguments.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<OsString>,
}

impl Launch {
    /// Does so; it returns only where that fails.
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let limits = serde_json::from_str(&self.limits)?;
        let name = self.file.file_name().unwrap_or(OsStr::new("")).display().to_string();
        Err(warden::launch(limits, self.file, self.arguments))
            .with_context(|| format!("{name} cannot be started"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn options(text: &str) -> ProgramOptions {
        toml::from_str(text).unwrap()
    }

    #[test]
    fn a_program_is_found_and_has_a_clean_environment() {
        let program = options(
            "command = [\"sh\", \"-c\", \"true\"]\nenv = [\"MODEL=small\", \"PATH=/bin:/usr/bin\"]\nmemory_max = \"1 GiB\"",
        );

        let program = program.settle().unwrap();

        assert!(program.file.is_absolute() && program.file.ends_with("sh"), "{program:?}");
        assert_eq!(program.arguments, ["-c", "true"]);
        let value = |name: &str| {
            let found = program.environment.iter().find(|(known, _)| known == name);
            found.map(|(_, value)| value.to_str().unwrap())
        };
        assert_eq!(value("MODEL"), Some("small"));
        assert_eq!(value("PATH"), Some("/bin:/usr/bin"));
        assert_eq!(value("CARGO_MANIFEST_DIR"), None, "it is in ours");
        assert_eq!(program.limits.memory_bytes, Some(1 << 30));
    }

    #[rstest]
    #[case("command = []", "command is empty")]
    #[case("command = [\"no-such-command\"]", "there is no command \"no-such-command\"")]
    #[case("command = [\"sh\"]\nenv = [\"NOT_SET_ANYWHERE\"]", "env names NOT_SET_ANYWHERE")]
    #[case("command = [\"sh\"]\nenv = [\"=1\"]", "env is")]
    #[case("command = [\"sh\"]\npersistent = true\nprogress = \"lines\"", "persistent")]
    #[case("command = [\"sh\", \"{input.a}\"]\npersistent = true", "{input.a}")]
    #[case("command = [\"sh\"]\npersistent = true\njob = \"file\"", "stdin")]
    #[case("command = [\"sh\"]\ntotal = \"5\"", "total")]
    #[case("command = [\"sh\"]\nmemory_max = \"1 KiB\"", "memory_max is")]
    #[case("command = [\"sh\"]\nopen_files_max = 1", "open_files_max is 1")]
    #[case("command = [\"sh\"]\nprocesses_max = 0", "processes_max is 0")]
    #[case("command = [\"sh\"]\ndir = \"/no/such/folder\"", "dir is /no/such/folder")]
    fn what_cannot_be_is_told_by_its_name(#[case] text: &str, #[case] expected: &str) {
        let error = format!("{:#}", options(text).settle().unwrap_err());

        assert!(error.contains(expected), "{error}");
    }
}
