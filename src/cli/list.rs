//! `longhaul list`: the jobs that there are, newest first, and how many of them.

use super::connect::{Client, Connect, call};
use super::start::label;
use super::table::{Table, state_name};
use super::text::{one_line, print_line};
use super::times::{brief, now, seconds};
use super::view::is_final;
use crate::proto::job::State;
use crate::proto::{CountJobsRequest, CountJobsResponse, Job, JobFilter, ListJobsRequest};
use crate::wire::canonical::canonical_json;
use clap::{Args, ValueEnum};
use std::collections::BTreeMap;
use std::process::ExitCode;

/// The most that the server puts on a page.
const PAGE: u32 = 1_000;
const HEADINGS: [&str; 7] = ["JOB", "KIND", "STATE", "PROGRESS", "ATTEMPT", "AGE", "DETAILS"];

/// List jobs, newest first, and count them
///
/// Only jobs that match every option that is given. The last line counts all jobs of the kinds given by state, also those that
/// are not listed.
///
/// Example: longhaul list
/// Example: longhaul list --state running,retrying --kind simulate --label team=voice
#[derive(Args, Clone, Debug)]
#[command(verbatim_doc_comment)]
pub struct List {
    /// Only jobs in this state; may be given several times
    #[arg(
        long = "state",
        value_name = "STATE",
        value_enum,
        ignore_case = true,
        value_delimiter = ',',
        help_heading = "Which jobs"
    )]
    states: Vec<Which>,
    /// Only jobs of this kind; may be given several times
    #[arg(long = "kind", value_name = "KIND", value_delimiter = ',', help_heading = "Which jobs")]
    kinds: Vec<String>,
    /// Only jobs with this tag; may be given several times
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = label, help_heading = "Which jobs")]
    labels: Vec<(String, String)>,
    /// At most this many
    #[arg(
        long, value_name = "NUMBER", default_value_t = 50, help_heading = "Which jobs",
        value_parser = clap::value_parser!(u32).range(1..)
    )]
    limit: u32,
    #[command(flatten)]
    connect: Connect,
}

/// A state, or a group of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Which {
    Scheduled,
    Pending,
    Running,
    Retrying,
    Cancelling,
    Succeeded,
    Failed,
    Cancelled,
    Expired,
    /// Not ended
    Active,
    /// However it ended
    Ended,
}

impl Which {
    fn states(self) -> Vec<State> {
        match self {
            Self::Scheduled => vec![State::Scheduled],
            Self::Pending => vec![State::Pending],
            Self::Running => vec![State::Running],
            Self::Retrying => vec![State::Retrying],
            Self::Cancelling => vec![State::Cancelling],
            Self::Succeeded => vec![State::Succeeded],
            Self::Failed => vec![State::Failed],
            Self::Cancelled => vec![State::Cancelled],
            Self::Expired => vec![State::Expired],
            Self::Active => {
                vec![State::Scheduled, State::Pending, State::Running, State::Retrying, State::Cancelling]
            }
            Self::Ended => vec![State::Succeeded, State::Failed, State::Cancelled, State::Expired],
        }
    }
}

impl List {
    /// Does it.
    pub async fn run(self) -> anyhow::Result<ExitCode> {
        let mut client = self.connect.client().await?;
        if self.connect.json {
            self.pages(&mut client, |jobs| jobs.iter().try_for_each(|job| print_line(&canonical_json(job))))
                .await?;
            return Ok(ExitCode::SUCCESS);
        }
        let (mut table, mut listed, now) = (Table::new(), 0, now());
        let more = self
            .pages(&mut client, |jobs| {
                let headings = (listed == 0).then(|| HEADINGS.map(str::to_owned).to_vec());
                let rows: Vec<_> = headings.into_iter().chain(jobs.iter().map(|job| row(job, now))).collect();
                listed += jobs.len();
                table.lines(&rows).iter().try_for_each(|line| print_line(line))
            })
            .await?;
        match (listed, more) {
            (0, _) => print_line("no job matches")?,
            (_, true) => print_line(&format!("… and older ones: --limit is {}", self.limit))?,
            (_, false) => {}
        }
        let request = CountJobsRequest { kinds: self.kinds.clone() };
        let counts = client.count_jobs(call(request)).await?.into_inner();
        print_line(&format!("\n{}", counted(&self.kinds, &counts)))?;
        Ok(ExitCode::SUCCESS)
    }

    /// Shows each page that has jobs, up to the limit; says whether there are more.
    async fn pages(
        &self,
        client: &mut Client,
        mut show: impl FnMut(&[Job]) -> std::io::Result<()>,
    ) -> anyhow::Result<bool> {
        let mut left = self.limit;
        let mut page_token = String::new();
        loop {
            let request = ListJobsRequest {
                filter: Some(self.filter()),
                page_size: left.min(PAGE) as i32,
                page_token,
                ..Default::default()
            };
            let page = client.list_jobs(call(request)).await?.into_inner();
            if !page.jobs.is_empty() {
                show(&page.jobs)?;
            }
            left = left.saturating_sub(page.jobs.len() as u32);
            page_token = page.next_page_token;
            if left == 0 || page_token.is_empty() {
                return Ok(!page_token.is_empty());
            }
        }
    }

    fn filter(&self) -> JobFilter {
        JobFilter {
            states: self.states.iter().flat_map(|which| which.states()).map(i32::from).collect(),
            kinds: self.kinds.clone(),
            labels: self.labels.iter().cloned().collect(),
            ..Default::default()
        }
    }
}

/// A job in a line.
fn row(job: &Job, now: f64) -> Vec<String> {
    let fraction = job.progress.as_ref().and_then(|progress| progress.fraction);
    let age = job.create_time.as_ref().map(|created| brief(now - seconds(created)));
    let attempt = if job.attempt > 0 { job.attempt.to_string() } else { String::new() };
    vec![
        one_line(&job.id),
        one_line(&job.kind),
        state_name(job.state()),
        fraction.map_or(String::new(), |fraction| format!("{:.0} %", fraction * 100.0)),
        attempt,
        age.unwrap_or_default(),
        details(job),
    ]
}

/// What is being done or went wrong, and the labels.
fn details(job: &Job) -> String {
    let stage = job.progress.as_ref().map(|progress| &progress.stage);
    let stage = stage.filter(|stage| !stage.is_empty() && !is_final(job.state()));
    let failure = job.failure.as_ref().map(|failure| format!("{}: {}", failure.reason, failure.message));
    let labels = job.labels.iter().collect::<BTreeMap<_, _>>();
    let labels = labels.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(" ");
    let parts = [Some(labels).filter(|labels| !labels.is_empty()), failure, stage.cloned()];
    one_line(&parts.into_iter().flatten().collect::<Vec<_>>().join(" · "))
}

/// How many jobs there are, and which were counted.
fn counted(kinds: &[String], counts: &CountJobsResponse) -> String {
    let mut by_state: BTreeMap<State, i64> = BTreeMap::new();
    for count in &counts.counts {
        *by_state.entry(count.state()).or_default() += count.jobs;
    }
    let which = match kinds {
        [] => "all jobs".to_owned(),
        [kind] => format!("all jobs of kind {}", one_line(kind)),
        kinds => format!("all jobs of kinds {}", one_line(&kinds.join(", "))),
    };
    let parts: Vec<_> =
        by_state.iter().map(|(state, jobs)| format!("{} {}", grouped(*jobs), state_name(*state))).collect();
    let parts = if parts.is_empty() { "none".to_owned() } else { parts.join(" · ") };
    let truncated = if counts.truncated { " (and some of further kinds)" } else { "" };
    format!("{which}: {parts}{truncated}")
}

/// A number with a comma before each group of three digits.
fn grouped(number: i64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::{Cli, Command};
    use super::*;
    use crate::proto::{Failure, JobCount, Progress};
    use clap::Parser as _;

    fn filter(arguments: &[&str]) -> JobFilter {
        match Cli::parse_from(["longhaul", "list"].iter().chain(arguments)).command {
            Command::List(list) => list.filter(),
            other => panic!("not a list: {other:?}"),
        }
    }

    fn count(kind: &str, state: State, jobs: i64) -> JobCount {
        JobCount { kind: kind.to_owned(), state: state.into(), jobs }
    }

    #[test]
    fn states_are_taken_in_any_case_and_in_groups() {
        let filter = filter(&["--state", "RUNNING,failed", "--state", "Ended", "--label", "a=b=c"]);

        let states: Vec<State> = filter.states().collect();
        assert_eq!(
            states,
            [
                State::Running,
                State::Failed,
                State::Succeeded,
                State::Failed,
                State::Cancelled,
                State::Expired
            ]
        );
        assert_eq!(filter.labels["a"], "b=c");
    }

    #[test]
    fn every_state_is_either_active_or_ended() {
        for number in 1..=9 {
            let state = State::try_from(number).unwrap();

            let ended = Which::Ended.states().contains(&state);

            assert_eq!(ended, is_final(state), "{state:?}");
            assert_ne!(ended, Which::Active.states().contains(&state), "{state:?}");
        }
    }

    #[test]
    fn a_row_says_what_went_wrong_and_cannot_command_the_terminal() {
        let mut job = Job {
            id: "ticket".to_owned(),
            kind: "work".to_owned(),
            attempt: 2,
            labels: [("team".to_owned(), "voice".to_owned())].into(),
            progress: Some(Progress {
                fraction: Some(0.5),
                stage: "Reading".to_owned(),
                ..Default::default()
            }),
            failure: Some(Failure {
                reason: "PANIC".to_owned(),
                message: "oh\n\x1b[2Jno".to_owned(),
                ..Default::default()
            }),
            create_time: Some(prost_types::Timestamp { seconds: 1_000, nanos: 0 }),
            ..Default::default()
        };
        job.set_state(State::Failed);

        let row = row(&job, 1_250.0);

        assert_eq!(
            row,
            ["ticket", "work", "FAILED", "50 %", "2", "4m10s", "team=voice · PANIC: oh \u{fffd}[2Jno"]
        );
    }

    #[test]
    fn the_counts_say_what_was_counted() {
        let counts = CountJobsResponse {
            counts: vec![
                count("a", State::Succeeded, 1_234_567),
                count("a", State::Pending, 2),
                count("b", State::Pending, 998),
            ],
            truncated: false,
        };

        assert_eq!(counted(&[], &counts), "all jobs: 1,000 PENDING · 1,234,567 SUCCEEDED");
        assert_eq!(
            counted(&["a".to_owned(), "b".to_owned()], &CountJobsResponse::default()),
            "all jobs of kinds a, b: none"
        );
    }
}
