//! The server's settings. Each has one name in three spellings, and the first that is given wins: the flag
//! `--lease-duration 30s`, the variable `LONGHAUL_LEASE_DURATION=30s`, the file's `lease_duration = "30s"`; then the default.

use super::chat::ChatOptions;
use super::collector::Collector;
use super::program::ProgramOptions;
use super::times::Time;
use crate::edge::Origin;
use crate::job::check_kind;
use crate::job::limits::INPUT_BYTES_MAX;
use crate::processor::chat::{self, Provider};
use crate::processor::exec::Program;
use crate::processor::{self, simulate};
use anyhow::{Context as _, bail, ensure};
use clap::{Args, ValueEnum};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The address that a server listens on unless told otherwise: this machine alone.
pub const LISTEN: &str = "127.0.0.1:3000";
/// More slots than any machine runs tasks for.
const SLOTS_MAX: usize = 10_000;
const WORKER_THREADS_MAX: usize = 256;
/// The log before it is moved into the database, and as much again for what running jobs write meanwhile.
const FREE_BYTES_MIN: u64 = 64 << 20;
/// No lease should be so short that one lost packet ends it.
const LEASE_DURATION_MIN: Duration = Duration::from_secs(1);

/// No worker should give more signs than this.
const HEARTBEAT_INTERVAL_MIN: Duration = Duration::from_millis(100);

/// What may be set, by flag, by variable or in the file.
#[derive(Args, Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// The address to listen on [default: 127.0.0.1:3000]
    #[arg(long, env = "LONGHAUL_LISTEN", value_name = "ADDRESS")]
    pub listen: Option<SocketAddr>,
    /// Where jobs are kept [default: longhaul in $XDG_DATA_HOME or ~/.local/share]
    #[arg(long, env = "LONGHAUL_DATA_DIR", value_name = "FOLDER")]
    pub data_dir: Option<PathBuf>,
    /// How many jobs run at once in the server itself, 0 for none [default: twice the cores]
    #[arg(long, env = "LONGHAUL_SLOTS", value_name = "NUMBER")]
    pub slots: Option<usize>,
    /// Threads for calls and built-in handlers [default: one for each core]
    #[arg(long, env = "LONGHAUL_WORKER_THREADS", value_name = "NUMBER")]
    pub worker_threads: Option<usize>,
    /// How long a lease lasts without a sign of its worker [default: 30s]
    #[arg(long, env = "LONGHAUL_LEASE_DURATION", value_name = "TIME")]
    pub lease_duration: Option<Time>,
    /// How often a worker elsewhere is to give a sign [default: a third of lease-duration, which is also the most]
    #[arg(long, env = "LONGHAUL_HEARTBEAT_INTERVAL", value_name = "TIME")]
    pub heartbeat_interval: Option<Time>,
    /// How soon a worker must accept a job [default: 10s]
    #[arg(long, env = "LONGHAUL_ACCEPT_TIMEOUT", value_name = "TIME")]
    pub accept_timeout: Option<Time>,
    /// How long a worker may take to let go of a cancelled job [default: 10s]
    #[arg(long, env = "LONGHAUL_CANCEL_GRACE", value_name = "TIME")]
    pub cancel_grace: Option<Time>,
    /// How long running jobs may take to end when the server stops [default: 30s]
    #[arg(long, env = "LONGHAUL_DRAIN_TIMEOUT", value_name = "TIME")]
    pub drain_timeout: Option<Time>,
    /// How long a job is kept after its end [default: 7days]
    #[arg(long, env = "LONGHAUL_RETENTION", value_name = "TIME")]
    pub retention: Option<Time>,
    /// How many jobs may wait [default: 10000000]
    #[arg(long, env = "LONGHAUL_QUEUE_MAX", value_name = "NUMBER")]
    pub queue_max: Option<u64>,
    /// How much of the disk new jobs leave free, in bytes, so that others can end; at most a tenth of it [default: 67108864]
    #[arg(long, env = "LONGHAUL_FREE_BYTES_MIN", value_name = "BYTES")]
    pub free_bytes_min: Option<u64>,
    /// The largest input, in bytes [default: 1048576, which is also the most]
    #[arg(long, env = "LONGHAUL_INPUT_BYTES_MAX", value_name = "BYTES")]
    pub input_bytes_max: Option<usize>,
    /// How many connections there may be [default: 20000]
    #[arg(long, env = "LONGHAUL_CONNECTIONS_MAX", value_name = "NUMBER")]
    pub connections_max: Option<usize>,
    /// Names under which clients may call this server, beside localhost
    #[arg(long, env = "LONGHAUL_ALLOWED_HOSTS", value_name = "NAME,…", value_delimiter = ',')]
    pub allowed_hosts: Option<Vec<String>>,
    /// Origins of web pages that may call this server, like `https://app.example:8443`, beside its own
    #[arg(long, env = "LONGHAUL_ALLOWED_ORIGINS", value_name = "ORIGIN,…", value_delimiter = ',')]
    pub allowed_origins: Option<Vec<String>>,
    /// Where traces are sent, by OTLP over gRPC; no traces without it [default: $OTEL_EXPORTER_OTLP_ENDPOINT]
    #[arg(long, env = "LONGHAUL_OTLP_ENDPOINT", value_name = "URL")]
    pub otlp_endpoint: Option<String>,
    /// How many started jobs a second are traced at most, with all that becomes of them [default: 100]
    #[arg(long, env = "LONGHAUL_TRACES_PER_SECOND", value_name = "NUMBER")]
    pub traces_per_second: Option<u32>,
    /// Allow an address that others can reach, without encryption and without any check of who calls
    #[arg(long, env = "LONGHAUL_INSECURE", num_args = 0..=1, default_missing_value = "true", value_name = "BOOL")]
    pub insecure: Option<bool>,
    /// The kind of the jobs that `/ai/start` starts [default: simulate]
    #[arg(long, env = "LONGHAUL_AI_KIND", value_name = "KIND")]
    pub ai_kind: Option<String>,
    /// A server with the chat API of OpenAI that runs jobs of the kind `chat`, with the key in $OPENAI_API_KEY
    /// [default: $OPENAI_BASE_URL]
    #[arg(long, env = "LONGHAUL_CHAT_URL", value_name = "URL")]
    pub chat_url: Option<String>,
    /// Models of that server that jobs may name, the first of them where they do not [default: its own choice]
    #[arg(long, env = "LONGHAUL_CHAT_MODELS", value_name = "NAME,…", value_delimiter = ',')]
    pub chat_models: Option<Vec<String>>,
    /// How logs are written [default: text]
    #[arg(long, env = "LONGHAUL_LOG_FORMAT", value_name = "FORMAT")]
    pub log_format: Option<LogFormat>,
    /// What is logged, for example `debug` or `longhaul::store=debug` [default: info]
    #[arg(long, env = "LONGHAUL_LOG", value_name = "FILTER")]
    pub log: Option<String>,
    /// Programs that run jobs in the server's slots, by kind. In the file alone: `[exec.KIND]`.
    #[arg(skip)]
    pub exec: BTreeMap<String, ProgramOptions>,
    /// Providers of answers with slots of their own, by kind. In the file alone: `[chat.KIND]`.
    #[arg(skip)]
    pub chat: BTreeMap<String, ChatOptions>,
}

/// How logs are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One object a line.
    Json,
}

/// The settings in force.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The address to listen on.
    pub listen: SocketAddr,
    /// Where jobs are kept.
    pub data_dir: PathBuf,
    /// How many jobs run at once in the server itself.
    pub slots: usize,
    /// Threads for calls and built-in handlers.
    pub worker_threads: usize,
    /// How long a lease lasts without a sign of its worker.
    pub lease_duration: Duration,
    /// How often a worker elsewhere is to give a sign; none is a third of the lease.
    pub heartbeat_interval: Option<Duration>,
    /// How soon a worker must accept a job.
    pub accept_timeout: Duration,
    /// How long a worker may take to let go of a cancelled job.
    pub cancel_grace: Duration,
    /// How long running jobs may take to end when the server stops.
    pub drain_timeout: Duration,
    /// How long a job is kept after its end.
    pub retention: Duration,
    /// How many jobs may wait.
    pub queue_max: u64,
    /// How much of the disk new jobs leave free.
    pub free_bytes_min: u64,
    /// The largest input, in bytes.
    pub input_bytes_max: usize,
    /// How many connections there may be.
    pub connections_max: usize,
    /// Names under which clients may call this server, beside localhost.
    pub allowed_hosts: Vec<String>,
    /// Origins of web pages that may call this server, beside its own.
    pub allowed_origins: Vec<Origin>,
    /// Where traces are sent.
    pub collector: Collector,
    /// The kind of the jobs that `/ai/start` starts.
    pub ai_kind: String,
    /// How logs are written.
    pub log_format: LogFormat,
    /// What is logged.
    pub log: String,
    /// Programs that run jobs in the server's slots, by kind.
    pub programs: BTreeMap<String, Program>,
    /// Providers of answers.
    pub providers: Vec<Provider>,
}

impl Options {
    /// What a file sets.
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        let text =
            std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        toml::from_str(&text)
            .with_context(|| format!("{} has a setting that is not understood", path.display()))
    }

    /// These, and where they say nothing the others.
    pub fn or(self, other: Self) -> Self {
        Self {
            listen: self.listen.or(other.listen),
            data_dir: self.data_dir.or(other.data_dir),
            slots: self.slots.or(other.slots),
            worker_threads: self.worker_threads.or(other.worker_threads),
            lease_duration: self.lease_duration.or(other.lease_duration),
            heartbeat_interval: self.heartbeat_interval.or(other.heartbeat_interval),
            accept_timeout: self.accept_timeout.or(other.accept_timeout),
            cancel_grace: self.cancel_grace.or(other.cancel_grace),
            drain_timeout: self.drain_timeout.or(other.drain_timeout),
            retention: self.retention.or(other.retention),
            queue_max: self.queue_max.or(other.queue_max),
            free_bytes_min: self.free_bytes_min.or(other.free_bytes_min),
            input_bytes_max: self.input_bytes_max.or(other.input_bytes_max),
            connections_max: self.connections_max.or(other.connections_max),
            allowed_hosts: self.allowed_hosts.or(other.allowed_hosts),
            allowed_origins: self.allowed_origins.or(other.allowed_origins),
            otlp_endpoint: self.otlp_endpoint.or(other.otlp_endpoint),
            traces_per_second: self.traces_per_second.or(other.traces_per_second),
            insecure: self.insecure.or(other.insecure),
            ai_kind: self.ai_kind.or(other.ai_kind),
            log_format: self.log_format.or(other.log_format),
            log: self.log.or(other.log),
            chat_url: self.chat_url.or(other.chat_url),
            chat_models: self.chat_models.or(other.chat_models),
            chat: if self.chat.is_empty() { other.chat } else { self.chat },
            exec: if self.exec.is_empty() { other.exec } else { self.exec },
        }
    }

    /// The settings in force, checked.
    pub fn settle(self) -> anyhow::Result<Settings> {
        let cores = std::thread::available_parallelism().map_or(2, usize::from);
        let time = |time: Option<Time>, seconds| time.map_or(Duration::from_secs(seconds), |Time(time)| time);
        let providers = providers(self.chat, self.chat_url, self.chat_models, &self.exec)?;
        let settings = Settings {
            providers,
            listen: self.listen.unwrap_or(LISTEN.parse().expect("the default is an address")),
            data_dir: match self.data_dir {
                Some(folder) => folder,
                None => default_data_dir()?,
            },
            slots: self.slots.unwrap_or(2 * cores),
            worker_threads: self.worker_threads.unwrap_or(cores),
            lease_duration: time(self.lease_duration, 30),
            heartbeat_interval: self.heartbeat_interval.map(|Time(interval)| interval),
            accept_timeout: time(self.accept_timeout, 10),
            cancel_grace: time(self.cancel_grace, 10),
            drain_timeout: time(self.drain_timeout, 30),
            retention: time(self.retention, 7 * 24 * 3600),
            queue_max: self.queue_max.unwrap_or(10_000_000),
            free_bytes_min: self.free_bytes_min.unwrap_or(FREE_BYTES_MIN),
            input_bytes_max: self.input_bytes_max.unwrap_or(INPUT_BYTES_MAX),
            connections_max: self.connections_max.unwrap_or(20_000),
            allowed_hosts: self.allowed_hosts.unwrap_or_default(),
            allowed_origins: origins(&self.allowed_origins.unwrap_or_default())?,
            collector: Collector::of(self.otlp_endpoint, self.traces_per_second, |name| {
                std::env::var(name).ok()
            })?,
            ai_kind: self.ai_kind.unwrap_or_else(|| simulate::KIND.to_owned()),
            log_format: self.log_format.unwrap_or_default(),
            log: self.log.unwrap_or_else(|| "info".to_owned()),
            programs: programs(self.exec)?,
        };
        settings.check(self.insecure.unwrap_or(false))?;
        Ok(settings)
    }
}

impl Settings {
    fn check(&self, insecure: bool) -> anyhow::Result<()> {
        let Self {
            listen, slots, worker_threads, lease_duration, heartbeat_interval, input_bytes_max, ..
        } = self;
        ensure!(
            insecure || listen.ip().is_loopback(),
            "listen is {listen}, which others can reach, and this version has neither TLS nor tokens: anybody could start, \
             read and cancel jobs. Give --insecure if that is what you want, for example behind a proxy that checks"
        );
        ensure!(*slots <= SLOTS_MAX, "slots is {slots}; the limit is {SLOTS_MAX}");
        ensure!(
            (1..=WORKER_THREADS_MAX).contains(worker_threads),
            "worker_threads is {worker_threads}; it must be from 1 to {WORKER_THREADS_MAX}"
        );
        ensure!(
            *lease_duration >= LEASE_DURATION_MIN,
            "lease_duration is {lease_duration:?}; it must be at least {LEASE_DURATION_MIN:?}"
        );
        let longest = *lease_duration / 3;
        ensure!(
            heartbeat_interval.is_none_or(|interval| (HEARTBEAT_INTERVAL_MIN..=longest).contains(&interval)),
            "heartbeat_interval is {:?}; it must be from {HEARTBEAT_INTERVAL_MIN:?} to a third of lease_duration, {longest:?}",
            heartbeat_interval.unwrap_or_default()
        );
        ensure!(
            (2..=INPUT_BYTES_MAX).contains(input_bytes_max),
            "input_bytes_max is {input_bytes_max}; it must be from 2 to {INPUT_BYTES_MAX}"
        );
        ensure!(self.connections_max > 0, "connections_max is 0; it must be at least 1");
        checked_kind(&self.ai_kind).context("ai_kind")?;
        Ok(())
    }
}

/// The origins among these; a variable may be set and empty.
fn origins(allowed: &[String]) -> anyhow::Result<Vec<Origin>> {
    let named = allowed.iter().map(|text| text.trim()).filter(|text| !text.is_empty());
    let origin = |text: &str| text.parse().with_context(|| format!("allowed_origins has `{text}`"));
    named.map(origin).collect()
}

fn programs(options: BTreeMap<String, ProgramOptions>) -> anyhow::Result<BTreeMap<String, Program>> {
    let settled = options.into_iter().map(|(kind, options)| {
        let program = checked_kind(&kind).and_then(|()| options.settle());
        let program = program.with_context(|| format!("[exec.{kind}]"))?;
        Ok((kind, program))
    });
    settled.collect()
}

/// The providers; what flags and variables name is the kind `chat`, unless the file has one that is called so.
fn providers(
    mut options: BTreeMap<String, ChatOptions>,
    url: Option<String>,
    models: Option<Vec<String>>,
    programs: &BTreeMap<String, ProgramOptions>,
) -> anyhow::Result<Vec<Provider>> {
    let variable = |name: &str| std::env::var(name).ok();
    ensure!(
        url.is_none() || !options.contains_key(chat::KIND),
        "chat_url and [chat.{}] are two providers of one kind",
        chat::KIND
    );
    if let Some(named) = ChatOptions::of_flags(url, models, variable) {
        options.entry(chat::KIND.to_owned()).or_insert(named);
    }
    let settled = options.into_iter().map(|(kind, options)| {
        let provider = checked_kind(&kind).and_then(|()| {
            let is_taken = programs.contains_key(&kind) || processor::built_in().get(&kind).is_some();
            ensure!(!is_taken, "jobs of this kind are run by something else");
            options.settle(&kind, variable)
        });
        provider.with_context(|| format!("[chat.{kind}]"))
    });
    settled.collect()
}

fn checked_kind(kind: &str) -> anyhow::Result<()> {
    check_kind(kind).map_err(|violations| anyhow::anyhow!("{}", violations[0].description))
}

/// Where jobs are kept unless told otherwise.
pub fn default_data_dir() -> anyhow::Result<PathBuf> {
    let folder = |name: &str| std::env::var_os(name).filter(|folder| !folder.is_empty()).map(PathBuf::from);
    match (folder("XDG_DATA_HOME"), folder("HOME")) {
        (Some(data), _) => Ok(data.join("longhaul")),
        (None, Some(home)) => Ok(home.join(".local/share/longhaul")),
        (None, None) => bail!("data_dir is not set, and neither is HOME, below which it would be"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::traces;

    fn file(text: &str) -> Options {
        toml::from_str(text).unwrap()
    }

    #[test]
    fn what_is_given_first_wins_and_the_rest_has_its_default() {
        let flags = Options { slots: Some(3), data_dir: Some("here".into()), ..Default::default() };
        let file = file("slots = 7\nlease_duration = \"1m 30s\"\nallowed_hosts = [\"jobs.example\"]");

        let settings = flags.or(file).settle().unwrap();

        assert_eq!(settings.slots, 3);
        assert_eq!(settings.lease_duration, Duration::from_secs(90));
        assert_eq!(settings.allowed_hosts, ["jobs.example"]);
        assert_eq!(settings.accept_timeout, Duration::from_secs(10));
        assert_eq!(settings.listen.to_string(), LISTEN);
    }

    #[test]
    fn an_origin_is_checked_at_the_start() {
        let settle =
            |origins: &str| file(&format!("data_dir = \"here\"\nallowed_origins = [{origins}]")).settle();

        let allowed = settle(r#"" https://app.example ", """#).unwrap().allowed_origins;
        assert_eq!(allowed, ["https://app.example".parse().unwrap()]);
        for origin in ["*", "null", "app.example", "https://app.example/"] {
            let error = settle(&format!("\"{origin}\"")).unwrap_err();
            assert!(error.to_string().starts_with(&format!("allowed_origins has `{origin}`")), "{error:#}");
            assert!(error.chain().count() == 2, "it says why: {error:#}");
        }
    }

    #[test]
    fn a_slip_in_the_file_is_named() {
        let error = toml::from_str::<Options>("lease_durations = \"30s\"").unwrap_err().to_string();

        assert!(error.contains("lease_durations"), "{error}");
    }

    #[test]
    fn an_address_that_others_can_reach_needs_a_word() {
        let options = |insecure| Options {
            listen: Some("0.0.0.0:3000".parse().unwrap()),
            data_dir: Some("here".into()),
            insecure,
            ..Default::default()
        };

        let error = options(None).settle().unwrap_err().to_string();

        assert!(error.contains("--insecure"), "{error}");
        assert!(options(Some(true)).settle().is_ok());
    }

    #[test]
    fn jobs_are_traced_where_there_is_a_collector() {
        let given =
            file("otlp_endpoint = \"http://collector:4317\"\ntraces_per_second = 7").settle().unwrap();

        let endpoint = "http://collector:4317".to_owned();
        assert_eq!(given.collector, Collector::At(traces::Settings { endpoint, traces_per_second: 7 }));
    }

    #[test]
    fn a_bad_value_is_refused_with_its_limit() {
        for text in [
            "slots = 100000",
            "worker_threads = 0",
            "lease_duration = \"1ms\"",
            "connections_max = 0",
            "traces_per_second = 0",
            "otlp_endpoint = \"https://collector:4317\"",
            "ai_kind = \"No\"",
        ] {
            let name = text.split(' ').next().unwrap();
            let error = file(text).settle().unwrap_err().to_string();

            assert!(error.starts_with(name), "{error}");
        }
    }
}
