//! `longhaul start`: starts a job, and watches it where that is asked for.

use super::connect::{Client, Connect, Usage, call};
use super::text::print_line;
use super::times::Time;
use super::watch::{self, Patience};
use crate::clock::{Clock as _, SystemClock};
use crate::proto::{Job, JobOptions, RetryPolicy, StartJobRequest, start_job_request};
use crate::wire::canonical::canonical_json;
use crate::wire::reply;
use anyhow::Context as _;
use clap::Args;
use serde_json::{Map, Value};
use std::io::Read as _;
use std::process::ExitCode;

/// Start a job and print its ticket
///
/// The ticket is durable: the job is done whatever happens to this command or to the server.
///
/// Example: longhaul start simulate --prompt "Hello, world" --watch
#[derive(Args, Clone, Debug)]
#[command(verbatim_doc_comment)]
pub struct Start {
    /// The kind of work
    kind: String,
    /// What the job works on: a JSON object, @FILE to read it from a file, or - from standard input
    #[arg(long, value_name = "JSON|@FILE|-", allow_hyphen_values = true)]
    input: Option<String>,
    /// The field "prompt" of the input
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    prompt: Option<String>,
    /// Higher runs sooner, from -100 to 100
    #[arg(long, value_name = "NUMBER", default_value_t = 0, allow_hyphen_values = true)]
    priority: i32,
    /// Not before this time has passed, for example 10s
    #[arg(long = "in", value_name = "TIME")]
    delay: Option<Time>,
    /// A tag to find the job by; may be given several times
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = label)]
    labels: Vec<(String, String)>,
    /// All attempts, the first included [default: 3]
    #[arg(long, value_name = "NUMBER")]
    attempts: Option<i32>,
    /// Start at most one job under this id, however often the command is repeated
    #[arg(long, value_name = "ID")]
    request_id: Option<String>,
    /// Watch the job to its end
    #[arg(long)]
    watch: bool,
    #[command(flatten)]
    connect: Connect,
    #[command(flatten)]
    patience: Patience,
}

impl Start {
    /// Does it.
    pub async fn run(self) -> anyhow::Result<ExitCode> {
        let request = self.request()?;
        let mut client = self.connect.client().await?;
        let job = client.start_job(call(request)).await?.into_inner();
        started(client, &job, self.watch, &self.connect, self.patience).await
    }

    fn request(&self) -> anyhow::Result<StartJobRequest> {
        let schedule_time =
            self.delay.map(|Time(delay)| reply::timestamp(SystemClock::new().now().after(delay)));
        let retry_policy =
            self.attempts.map(|maximum_attempts| RetryPolicy { maximum_attempts, ..Default::default() });
        Ok(StartJobRequest {
            kind: self.kind.clone(),
            payload: self.payload()?.map(start_job_request::Payload::InputJson),
            options: Some(JobOptions {
                priority: self.priority,
                schedule_time,
                retry_policy,
                ..Default::default()
            }),
            request_id: self.request_id.clone().unwrap_or_default(),
            labels: self.labels.iter().cloned().collect(),
        })
    }

    /// The input as JSON text, untouched unless a prompt is to be put into it.
    fn payload(&self) -> anyhow::Result<Option<String>> {
        let given = self.input.as_deref().map(read).transpose()?;
        let Some(prompt) = &self.prompt else { return Ok(given) };
        let mut input: Map<String, Value> = match &given {
            Some(text) => serde_json::from_str(text)
                .map_err(|error| Usage(format!("--input is not a JSON object: {error}")))?,
            None => Map::new(),
        };
        input.insert("prompt".to_owned(), Value::String(prompt.clone()));
        Ok(Some(Value::Object(input).to_string()))
    }
}

/// Tells the ticket of a job that has just been started, and watches it where that is asked for.
pub async fn started(
    client: Client,
    job: &Job,
    watch: bool,
    connect: &Connect,
    patience: Patience,
) -> anyhow::Result<ExitCode> {
    if watch {
        // Whoever watches sees the ticket too, where it does not mix with the job's output.
        eprintln!("{}", job.id);
        return watch::to_the_end(client, &job.id, 0, connect, patience).await;
    }
    print_line(&if connect.json { canonical_json(job) } else { job.id.clone() })?;
    Ok(ExitCode::SUCCESS)
}

/// The text that an argument stands for.
fn read(argument: &str) -> anyhow::Result<String> {
    match argument.strip_prefix('@') {
        Some(path) => std::fs::read_to_string(path).with_context(|| format!("cannot read {path}")),
        None if argument == "-" => {
            let mut text = String::new();
            std::io::stdin().read_to_string(&mut text).context("cannot read standard input")?;
            Ok(text)
        }
        None => Ok(argument.to_owned()),
    }
}

/// A label as it is written on the command line.
pub fn label(text: &str) -> Result<(String, String), String> {
    let (key, value) =
        text.split_once('=').ok_or_else(|| format!("{text:?} is not of the form KEY=VALUE"))?;
    Ok((key.to_owned(), value.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::super::Cli;
    use super::*;
    use clap::Parser as _;

    fn request(arguments: &[&str]) -> anyhow::Result<StartJobRequest> {
        match Cli::parse_from(["longhaul", "start"].iter().chain(arguments)).command {
            super::super::Command::Start(start) => start.request(),
            other => panic!("not a start: {other:?}"),
        }
    }

    fn input(arguments: &[&str]) -> Option<String> {
        request(arguments).unwrap().payload.map(|payload| match payload {
            start_job_request::Payload::InputJson(text) => text,
            start_job_request::Payload::Input(_) => panic!("inputs are sent as text"),
        })
    }

    #[test]
    fn an_input_is_sent_as_it_was_given() {
        assert_eq!(
            input(&["work", "--input", r#"{ "n": 9007199254740993 }"#]).unwrap(),
            r#"{ "n": 9007199254740993 }"#
        );
        assert_eq!(input(&["work"]), None);
    }

    #[test]
    fn a_prompt_is_put_into_the_input() {
        let both = input(&["work", "--input", r#"{"seconds":1}"#, "--prompt", "say \"hi\""]).unwrap();

        assert_eq!(both, r#"{"prompt":"say \"hi\"","seconds":1}"#);
    }

    #[test]
    fn a_prompt_cannot_be_put_into_what_is_no_object() {
        let error = request(&["work", "--input", "[1]", "--prompt", "hi"]).unwrap_err();

        assert!(error.is::<Usage>(), "{error}");
    }

    #[test]
    fn an_input_can_be_read_from_a_file() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "{}").unwrap();

        assert_eq!(input(&["work", "--input", &format!("@{}", file.path().display())]).unwrap(), "{}");
    }

    #[test]
    fn the_options_reach_the_request() {
        let request = request(&[
            "work",
            "--priority",
            "-5",
            "--label",
            "a=b=c",
            "--attempts",
            "7",
            "--request-id",
            "once",
        ])
        .unwrap();

        let options = request.options.unwrap();
        assert_eq!(options.priority, -5);
        assert_eq!(options.retry_policy.unwrap().maximum_attempts, 7);
        assert_eq!(request.labels["a"], "b=c");
        assert_eq!(request.request_id, "once");
    }
}
