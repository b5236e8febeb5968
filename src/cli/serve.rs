//! Puts the rooms together, and owns the order in which they start and stop.

use super::collector::Collector;
use super::program::MYSELF;
use super::settings::{Options, Settings};
use crate::clock::{Clock, SystemClock};
use crate::engine::{self, Engine, Observe};
use crate::job::{DEFAULT_TENANT, Terms, Timestamp};
use crate::metrics::{COUNTS_MAX, Metrics, Recent};
use crate::processor::chat::{Chat, Provider};
use crate::processor::exec::Exec;
use crate::store::{self, SqliteStore, Store};
use crate::traces::Traces;
use crate::wire::refusals::Refusals;
use crate::wire::status::REASONS;
use crate::worker::{Gate, LocalSource, Pool, Registry};
use crate::{api, edge, http, processor, rpc};
use anyhow::Context as _;
use clap::Args;
use futures_util::future::join_all;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// How far the system's clock may have gone back without a word about it.
const CLOCK_BEHIND: Duration = Duration::from_secs(2);
/// The name under which the server's own slots hold jobs.
const POOL_NAME: &str = "pool";
/// How many reads of the store may go on at once: a few more than there are cores, since some wait for the disk.
const READERS: usize = 8;
/// Files that are open beside the connections: the store, its readers, the runtime's own.
const FILES_BESIDE: u64 = 100;
/// How long calls may take to end once the jobs and the watches have: they are short, and a peer that is gone should not
/// hold up the end.
const CALLS_DRAIN: Duration = Duration::from_secs(5);
/// How long workers elsewhere have to take their streams to another server: a connect or two. Their leases outlive the
/// streams, so it is no time to end jobs in.
const GO_AWAY_TIME: Duration = Duration::from_secs(2);

/// Run the server
///
/// It keeps jobs in its data folder, listens for gRPC on one port, and runs the built-in kinds in its own slots. Stop it with
/// Ctrl-C or SIGTERM: running jobs get some time to end, and what is left runs again after the next start.
///
/// Example: longhaul serve --data-dir ./jobs --slots 4
#[derive(Args, Clone, Debug)]
#[command(verbatim_doc_comment)]
pub struct Serve {
    /// A TOML file with settings, each named as its flag with `_` for `-`
    #[arg(long, env = "LONGHAUL_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// The settings themselves.
    #[command(flatten)]
    pub options: Options,
}

impl Serve {
    /// The settings in force.
    pub fn settings(self) -> anyhow::Result<Settings> {
        let file = self.config.as_deref().map(Options::read).transpose()?.unwrap_or_default();
        self.options.or(file).settle()
    }
}

/// Serves until a signal tells to stop.
pub async fn run(settings: Settings) -> anyhow::Result<()> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    allow_open_files(settings.connections_max);
    let programs = settings.programs.clone();
    let registry = programs.into_iter().fold(processor::built_in(), |registry, (kind, program)| {
        registry.with(kind, Exec::new(program, MYSELF))
    });
    let running = start(settings, registry).await?;
    println!("longhaul listening on {}", running.address());
    std::io::stdout().flush()?;
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    tracing::info!("stopping; a second signal stops at once");
    tokio::select! {
        () = running.shut_down() => Ok(()),
        _ = interrupt.recv() => anyhow::bail!("stopped at once"),
        _ = terminate.recv() => anyhow::bail!("stopped at once"),
    }
}

/// A server that runs.
#[derive(Debug)]
pub struct Running {
    engine: Engine,
    metrics: Arc<Metrics>,
    /// That of the server's slots, and one for each provider.
    pools: Vec<Pool<LocalSource>>,
    health: rpc::Health,
    address: SocketAddr,
    drain_timeout: Duration,
    /// No more connections.
    closing: CancellationToken,
    connections: JoinHandle<std::io::Result<()>>,
    traces: Traces,
}

/// The system's clock, or where that has gone back since, one that goes on from the newest time in the store.
fn clock_after(newest: Timestamp) -> Arc<dyn Clock> {
    let clock = SystemClock::not_before(newest);
    if clock.began_ahead() > CLOCK_BEHIND {
        let behind = humantime::format_duration(Duration::from_secs(clock.began_ahead().as_secs()));
        tracing::warn!(
            "the system's clock is {behind} behind the store; time goes on from there, a tenth slower until both agree"
        );
    }
    Arc::new(clock)
}

/// Starts a server with these handlers: the store first, then what was left in it, then the slots, and when all is there
/// the port.
pub async fn start(settings: Settings, registry: Registry) -> anyhow::Result<Running> {
    let listener = TcpListener::bind(settings.listen)
        .await
        .with_context(|| format!("cannot listen on {}", settings.listen))?;
    let address = listener.local_addr()?;
    let folder = settings.data_dir.clone();
    let chats: Vec<Slots> = settings.providers.iter().map(Slots::of).collect::<anyhow::Result<_>>()?;
    let store_settings = store::Settings {
        queue_max: settings.queue_max,
        free_bytes_min: settings.free_bytes_min,
        readers: READERS,
        keeper: rand::random(),
    };
    let open = move || {
        let store = SqliteStore::open(&folder, store_settings)?;
        let counts = store.count(DEFAULT_TENANT, &[], COUNTS_MAX)?;
        anyhow::Ok((store, counts))
    };
    let (store, counts) = tokio::task::spawn_blocking(open).await??;
    let clock = clock_after(store.latest());
    let start = clock.now();
    let kinds: Vec<String> = registry
        .kinds()
        .iter()
        .chain(settings.providers.iter().map(|provider| &provider.kind))
        .cloned()
        .collect();
    let metrics = Arc::new(Metrics::new(start, &kinds, settings.slots, REASONS));
    // Before the engine does anything: what it finds due there would come first.
    metrics.remember(&counts);
    let store = {
        let metrics = Arc::clone(&metrics);
        store.timed(move |time| metrics.flushed(time))
    };
    let traces = match &settings.collector {
        Collector::At(settings) => {
            let traces = Traces::start(settings, store.keeper(), Arc::clone(&clock), Arc::new(rand::random));
            traces.context("otlp_endpoint")?
        }
        Collector::Nowhere => Traces::default(),
        Collector::Beyond(why) => {
            tracing::warn!(%why, "jobs are not traced");
            Traces::default()
        }
    };
    let recent = Arc::new(Recent::default());
    let figures = Arc::clone(&metrics);
    traces.count_lost(move |spans| figures.lost_spans(spans));
    let engine_settings = engine::Settings {
        lease_duration: settings.lease_duration,
        heartbeat_interval: settings.heartbeat_interval,
        accept_timeout: settings.accept_timeout,
        cancel_grace: settings.cancel_grace,
        terms: Terms {
            input_bytes_max: settings.input_bytes_max,
            retention: settings.retention,
            ..Terms::default()
        },
        progress_timeouts: registry.progress_timeouts().collect(),
        observers: traces
            .observer()
            .into_iter()
            .chain([Arc::clone(&metrics) as Arc<dyn Observe>, Arc::clone(&recent) as Arc<dyn Observe>])
            .collect(),
        threads: engine::Threads::Own,
    };
    let engine = Engine::start_up(Arc::new(store), clock, engine_settings, Arc::new(rand::random)).await?;
    let pool = Pool::start(LocalSource::new(engine.clone(), POOL_NAME), registry, settings.slots);
    let chats = chats.into_iter().map(|chat| chat.start(&engine));
    let pools = std::iter::once(pool).chain(chats).collect();
    let refusals = {
        let metrics = Arc::clone(&metrics);
        Refusals::to(move |reason| metrics.refused(reason))
    };
    let api = api::Jobs::new(engine.clone()).measured(Arc::clone(&metrics)).traced(traces.clone());
    let http = http::Http {
        api: api.clone(),
        scrapes: http::Scrapes::new(engine.clone(), Arc::clone(&metrics)),
        refusals: refusals.clone(),
        ai_kind: settings.ai_kind.into(),
        token: http::Token::new([rand::random(), rand::random()]),
        overviews: http::Overviews::new(engine.clone(), recent, start),
    };
    let refused = {
        let refusals = refusals.clone();
        move |reason| refusals.tell(reason)
    };
    let services = rpc::Services::new()
        .web_service(rpc::Jobs::service(api.clone()))
        .service(rpc::Workers::service(engine.clone(), refusals.clone()))
        .refusals(refusals);
    let health = services.health();
    let options = edge::Options {
        allowed_hosts: settings.allowed_hosts,
        allowed_origins: settings.allowed_origins,
        connections_max: settings.connections_max,
        drain_timeout: CALLS_DRAIN,
        ..Default::default()
    };
    health.serving().await;
    let closing = CancellationToken::new();
    let closed = {
        let (closing, health) = (closing.clone(), health.clone());
        async move {
            closing.cancelled().await;
            health.end().await;
        }
    };
    let open = metrics.connections();
    let told = move |connections| {
        open.set(connections as i64);
    };
    let services = services.beside(edge::Patient(http));
    let connections = tokio::spawn(edge::serve(listener, options, services, told, refused, closed));
    tracing::info!(%address, data_dir = %settings.data_dir.display(), slots = settings.slots, "serving");
    Ok(Running {
        engine,
        metrics,
        pools,
        health,
        address,
        drain_timeout: settings.drain_timeout,
        closing,
        connections,
        traces,
    })
}

/// The slots of a provider: jobs beyond them wait where all jobs wait, and they take no slot of another kind.
struct Slots {
    provider: Arc<Provider>,
    registry: Registry,
    gate: Gate,
}

impl Slots {
    fn of(provider: &Provider) -> anyhow::Result<Self> {
        let (provider, gate) = (Arc::new(provider.clone()), Gate::default());
        let chat = Chat::new(Arc::clone(&provider), gate.clone());
        let chat = chat.with_context(|| format!("[chat.{}] cannot be asked", provider.kind))?;
        let registry = Registry::default().with(provider.kind.clone(), chat);
        Ok(Self { provider, registry, gate })
    }

    fn start(self, engine: &Engine) -> Pool<LocalSource> {
        let source = LocalSource::new(engine.clone(), format!("{POOL_NAME}-{}", self.provider.kind));
        Pool::start_behind(self.gate, source, self.registry, self.provider.max_concurrent)
    }
}

impl Running {
    /// The address that it listens on.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The engine, for a program that has the server inside.
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// All figures as of now, in the text format of OpenMetrics.
    pub async fn figures(&self) -> Result<String, engine::Error> {
        let metrics = Arc::clone(&self.metrics);
        self.engine.aside(move |engine| metrics.text(engine)).await
    }

    /// Stops in good order: no new work, an end for what runs, an end for who watches, then the store, then what is still to be
    /// told of all that.
    pub async fn shut_down(self) {
        self.health.not_serving().await;
        let grace = GO_AWAY_TIME.min(self.drain_timeout);
        self.engine.drain(grace);
        let workers_gone = tokio::time::timeout(grace, self.engine.workers_gone());
        let drained = self.pools.iter().map(|pool| pool.drain(self.drain_timeout));
        let _ = tokio::join!(join_all(drained), workers_gone);
        // They have the engine, too.
        drop(self.pools);
        self.engine.close_streams();
        self.closing.cancel();
        match self.connections.await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "the port was not closed in good order"),
            Err(error) => tracing::error!(%error, "the port was not closed in good order"),
        }
        self.engine.close().await;
        // The last handle: another server may have the folder while the last spans are on their way.
        drop(self.engine);
        self.traces.shut_down().await;
        tracing::info!("stopped");
    }
}

/// Lets this process have a file open for each connection, as far as it may decide that itself.
fn allow_open_files(connections_max: usize) {
    let wanted = connections_max as u64 + FILES_BESIDE;
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let possible = wanted.min(maximum.unwrap_or(u64::MAX));
    if current.is_some_and(|current| current < possible) {
        // Where it is refused, the limit that is left tells.
        let _ = setrlimit(Resource::Nofile, Rlimit { current: Some(possible), maximum });
    }
    let left = getrlimit(Resource::Nofile).current;
    if left.is_some_and(|left| left < connections_max as u64) {
        tracing::warn!(
            connections_max,
            open_files_max = left,
            "fewer files may be open than connections_max needs"
        );
    }
}

/// The runtime that a server runs in.
pub fn runtime(worker_threads: usize) -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().worker_threads(worker_threads).enable_all().build()
}
