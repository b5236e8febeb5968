//! The measurements, one after the other: who runs beside whom, for how long, and what is required.

use crate::calls::Call;
use crate::crowd::{self, Crowd, Seen};
use crate::lives::Lives;
use crate::load::{Calls, Figures, Load};
use crate::redis::Redis;
use crate::report::{Report, Unit, median, thousands, time};
use crate::roles::Server;
use crate::stalled::{Stalled, Stood};
use crate::watchers::{Watched, Watchers};
use crate::workers::{self, Workers};
use crate::{Options, disk, roles};
use anyhow::ensure;
use std::path::Path;
use std::time::Duration;
use tempfile::TempDir;

pub const CALLERS: usize = 64;
pub const CONNECTIONS: usize = 4;
const WATCHERS: usize = 10_000;
/// Each carries as many streams as the server allows on one.
const WATCHERS_CONNECTIONS: usize = 10;
const STALLED: usize = 50;
/// Of either kind.
const CROWD: usize = 5_000;

/// Makes all measurements that are wanted, and prints the table.
pub fn all(options: &Options) -> anyhow::Result<()> {
    let mut report = Report::default();
    let cores = std::thread::available_parallelism()?;
    let busy = std::fs::read_to_string("/proc/loadavg")?;
    let busy = busy.split(' ').next().unwrap_or_default();
    println!("{cores} cores, load average {busy} before the run");
    let run = Run { options, echo: Server::echo()? };
    if options.wants("start") {
        run.start(&mut report)?;
    }
    if options.wants("alone") {
        run.alone(&mut report)?;
    }
    if options.wants("status") {
        run.status(&mut report)?;
    }
    if options.wants("lives") {
        run.lives(&mut report)?;
    }
    if options.wants("watchers") {
        run.watchers(&mut report)?;
    }
    if options.wants("stalled") {
        run.stalled(&mut report)?;
    }
    if options.wants("batch") {
        run.batch(&mut report)?;
    }
    if options.wants("queue") {
        run.queue(&mut report)?;
    }
    if options.wants("prune") {
        run.prune(&mut report)?;
    }
    if options.wants("workers") {
        run.workers(&mut report)?;
    }
    if options.wants("http") {
        run.http(&mut report)?;
    }
    if options.wants("traces") {
        run.traces(&mut report)?;
    }
    if options.wants("crowd") {
        run.crowd(&mut report)?;
    }
    if options.wants("programs") {
        run.programs(&mut report)?;
    }
    if options.wants("chat") {
        run.chat(&mut report)?;
    }
    report.print();
    Ok(())
}

/// One run of the benchmark, with the echo that all calls are measured against.
pub struct Run<'a> {
    pub options: &'a Options,
    pub echo: Server,
}

/// The figures of one pair, by round.
type Pairs = Vec<(Figures, Figures)>;

impl Run<'_> {
    fn start(&self, report: &mut Report) -> anyhow::Result<()> {
        println!("\nStartJob, {CALLERS} callers on {CONNECTIONS} connections");
        let folder = folder()?;
        let server = Server::longhaul(folder.path())?;
        let pairs = self.pairs(&server, Call::Start, CALLERS, CONNECTIONS)?;
        report.at_least("StartJob, calls of the echo's", rate(&pairs), 0.45, Unit::Percent);
        report.at_most("StartJob, p99 of the echo's", p99(&pairs), 4.0, Unit::Times);
        report.beside("StartJob", describe(pairs.iter().map(|pair| pair.1)));
        report.beside("echo", describe(pairs.iter().map(|pair| pair.0)));
        let named = self.pairs(&server, Call::StartNamed, CALLERS, CONNECTIONS)?;
        report.at_least("StartJob with a request id, of the echo's", rate(&named), 0.30, Unit::Percent);
        report.beside("StartJob with a request id", describe(named.iter().map(|pair| pair.1)));
        self.redis(report)
    }

    fn redis(&self, report: &mut Report) -> anyhow::Result<()> {
        let folder = folder()?;
        let Some(redis) = Redis::start(folder.path())? else {
            println!("    LPUSH into Redis: skipped, there is no redis-server on this machine");
            return Ok(());
        };
        let what = Call::Push;
        let time = self.options.round();
        let order =
            Calls { address: redis.address, what, callers: CALLERS, connections: CALLERS, time, pid: None };
        let rounds = (0..self.options.rounds).map(|_| roles::load::<Figures>(Load::Calls(order)));
        let rounds = rounds.collect::<anyhow::Result<Vec<_>>>()?;
        report.beside("LPUSH into Redis, appendfsync always", describe(rounds.into_iter()));
        Ok(())
    }

    fn alone(&self, report: &mut Report) -> anyhow::Result<()> {
        println!("\nStartJob, one caller alone");
        let folder = folder()?;
        let server = Server::longhaul(folder.path())?;
        let sync = disk::append_and_sync(folder.path())?;
        let pairs = self.pairs(&server, Call::Start, 1, 1)?;
        let sync = (sync + disk::append_and_sync(folder.path())?) / 2;
        let echo = median(pairs.iter().map(|pair| pair.0.p50.as_secs_f64()));
        let start = median(pairs.iter().map(|pair| pair.1.p50.as_secs_f64()));
        let required = echo + 2.5 * sync.as_secs_f64();
        report.at_most("StartJob, one caller, p50", start, required, Unit::Time);
        let syncs = (start - echo) / sync.as_secs_f64();
        let parts = format!("echo {}, append and fdatasync {}", Unit::Time.show(echo), time(sync));
        report.beside("its parts", format!("{parts}: the echo and {syncs:.1} of these"));
        Ok(())
    }

    fn status(&self, report: &mut Report) -> anyhow::Result<()> {
        println!("\nGetStatus among 10,000 jobs, {CALLERS} callers on {CONNECTIONS} connections");
        let folder = folder()?;
        let server = Server::longhaul(folder.path())?;
        let pairs = self.pairs(&server, Call::Status, CALLERS, CONNECTIONS)?;
        report.at_least("GetStatus, calls of the echo's", rate(&pairs), 0.60, Unit::Percent);
        report.beside("GetStatus", describe(pairs.iter().map(|pair| pair.1)));
        Ok(())
    }

    fn lives(&self, report: &mut Report) -> anyhow::Result<()> {
        println!("\nno-op jobs from StartJob to SUCCEEDED, {CALLERS} callers on {CONNECTIONS} connections");
        let jobs = if self.options.quick { 40_000 } else { 200_000 };
        let mut rates = Vec::new();
        for round in 1..=self.options.rounds {
            let folder = folder()?;
            let server = Server::handlers(folder.path())?;
            let (callers, connections) = (CALLERS, CONNECTIONS);
            let order = Lives { address: server.address, jobs, callers, connections };
            let rate = roles::load::<f64>(Load::Lives(order))?;
            println!("  round {round}: {}", Unit::PerSecond("jobs").show(rate));
            rates.push(rate);
        }
        report.at_least("no-op jobs to SUCCEEDED", median(rates), 15_000.0, Unit::PerSecond("jobs"));
        Ok(())
    }

    fn watchers(&self, report: &mut Report) -> anyhow::Result<()> {
        println!(
            "\n{WATCHERS} watchers of one job on {WATCHERS_CONNECTIONS} connections, 20 updates a second"
        );
        let (mut ratios, mut bare_bytes, mut bytes) = (Vec::new(), Vec::new(), Vec::new());
        let mut rates = Vec::new();
        for round in 1..=self.options.rounds {
            let folder = folder()?;
            let bare = self.watched(&Server::echo()?, true)?;
            let watched = self.watched(&Server::handlers(folder.path())?, false)?;
            println!(
                "  round {round}: bare stream {} · WatchJob {}",
                show_watched(&bare),
                show_watched(&watched)
            );
            ratios.push(watched.rate / bare.rate);
            rates.push(watched.rate);
            bare_bytes.push(bare.bytes_each);
            bytes.push(watched.bytes_each);
        }
        report.at_least("messages to watchers, of a bare stream's", median(ratios), 0.80, Unit::Percent);
        report.beside("messages to watchers", Unit::PerSecond("messages").show(median(rates)));
        report.at_most("memory of a watcher", median(bytes), 16.0 * 1024.0, Unit::Bytes);
        report.beside("memory of a bare stream", Unit::Bytes.show(median(bare_bytes)));
        Ok(())
    }

    fn watched(&self, server: &Server, bare: bool) -> anyhow::Result<Watched> {
        roles::load(Load::Watchers(Watchers {
            address: server.address,
            pid: server.pid(),
            bare,
            watchers: WATCHERS,
            connections: WATCHERS_CONNECTIONS,
            time: self.options.round(),
        }))
    }

    fn stalled(&self, report: &mut Report) -> anyhow::Result<()> {
        println!("\n{STALLED} watchers that stop reading while a job writes 30 MiB, and one that reads");
        let folder = folder()?;
        let server = Server::handlers(folder.path())?;
        let order = Stalled { address: server.address, pid: server.pid(), watchers: STALLED };
        let stood = roles::load::<Stood>(Load::Stalled(order))?;
        let limit = 64.0 * 1024.0 * 1024.0;
        report.at_most("memory with 50 stalled watchers, rise", stood.bytes as f64, limit, Unit::Bytes);
        report.at_most("the fast one beside them, latest", stood.latest.as_secs_f64(), 1.0, Unit::Time);
        Ok(())
    }

    fn workers(&self, report: &mut Report) -> anyhow::Result<()> {
        println!("\nworkers elsewhere, over Work and Emit");
        let few = if self.options.quick { 1 } else { 5 };
        let measured = |what: &dyn Fn(&Server) -> Workers| -> anyhow::Result<Vec<workers::Figures>> {
            let rounds = (0..self.options.rounds).map(|_| {
                let folder = folder()?;
                let server = Server::longhaul(folder.path())?;
                roles::load::<workers::Figures>(Load::Workers(what(&server)))
            });
            rounds.collect()
        };
        let middle =
            |rounds: &[workers::Figures], place: usize| median(rounds.iter().map(|round| round[place]));
        let carried = measured(&|server| Workers::Carry(server.address, few * 20_000))?;
        report.at_least(
            "no-op jobs through one worker",
            middle(&carried, 0),
            8_000.0,
            Unit::PerSecond("jobs"),
        );
        let delivered = measured(&|server| Workers::Deliver(server.address, few * 100))?;
        report.at_most("StartJob's answer to the worker, p50", middle(&delivered, 0), 2e-3, Unit::Time);
        report.beside("the same, p99", Unit::Time.show(middle(&delivered, 1)));
        let emitted = measured(&|server| Workers::Emit(server.address, few * 200_000))?;
        report.at_least(
            "chunks of 32 bytes into a job",
            middle(&emitted, 0),
            200_000.0,
            Unit::PerSecond("chunks"),
        );
        let cancelled = measured(&|server| Workers::Cancel(server.address, few * 40))?;
        report.at_most("CancelJob's call to the worker, p99", middle(&cancelled, 1), 20e-3, Unit::Time);
        report.beside("the same, p50", Unit::Time.show(middle(&cancelled, 0)));
        let time = Duration::from_secs(if self.options.quick { 10 } else { 20 });
        let idle = measured(&|server| Workers::Idle(server.address, server.pid(), 1_000, time))?;
        report.at_most("1,000 idle workers, of a core", middle(&idle, 0), 0.02, Unit::Percent);
        Ok(())
    }

    /// What traces cost the server, beside the same without.
    fn traces(&self, report: &mut Report) -> anyhow::Result<()> {
        println!(
            "\nStartJob with traces beside StartJob without, {CALLERS} callers on {CONNECTIONS} connections"
        );
        let collector = Server::collector()?;
        let endpoint = format!("--otlp-endpoint=http://{}", collector.address);
        let settings = |traces: &str| vec![endpoint.clone(), format!("--traces-per-second={traces}")];
        let folders = [folder()?, folder()?, folder()?];
        let without = Server::longhaul(folders[0].path())?;
        let usual = Server::longhaul_with(folders[1].path(), &settings("100"))?;
        let all = Server::longhaul_with(folders[2].path(), &settings("1000000"))?;
        let (mut of_usual, mut of_all) = (Vec::new(), Vec::new());
        for round in 1..=self.options.rounds {
            let calls = |server: &Server| {
                let (address, time, pid) = (server.address, self.options.round(), Some(server.pid()));
                let (what, callers, connections) = (Call::Start, CALLERS, CONNECTIONS);
                let order = Calls { address, what, callers, connections, time, pid };
                roles::load::<Figures>(Load::Calls(order)).map(|figures| figures.server_time)
            };
            let (none, hundred, each) = (calls(&without)?, calls(&usual)?, calls(&all)?);
            let show = |time| Unit::Time.show(time);
            println!(
                "  round {round}: off {} · 100 a second {} · all {}",
                show(none),
                show(hundred),
                show(each)
            );
            of_usual.push(hundred / none);
            of_all.push(each / none);
        }
        let collected = roles::load::<f64>(Load::Collected(collector.address))?;
        ensure!(collected > 0.0, "no trace has come to the collector");
        report.at_most("server time with traces, of that without", median(of_usual), 1.1, Unit::Percent);
        report.beside("the same with every call traced", Unit::Percent.show(median(of_all)));
        Ok(())
    }

    fn crowd(&self, report: &mut Report) -> anyhow::Result<()> {
        println!("\n{CROWD} watchers of one job over server-sent events beside {CROWD} over gRPC, twice");
        crowd::allow_open_files()?;
        let folder = folder()?;
        let server = Server::handlers(folder.path())?;
        let order = Crowd { address: server.address, pid: server.pid(), each: CROWD };
        let [first, second] = roles::load::<[Seen; 2]>(Load::Crowd(order))?;
        let latest = first.latest.max(second.latest);
        report.at_most("the end of a job, seen by the last of a crowd", latest, 5.0, Unit::Time);
        report.at_most(
            "memory of a second crowd, of the first's",
            second.bytes / first.bytes,
            1.1,
            Unit::Times,
        );
        report.beside("memory of the server with it", Unit::Bytes.show(first.bytes));
        Ok(())
    }

    /// What the JSON API costs the server beside the same call over gRPC.
    fn http(&self, report: &mut Report) -> anyhow::Result<()> {
        println!(
            "\nJSON beside gRPC, {CALLERS} callers on {CONNECTIONS} connections; over HTTP/1.1 on {CALLERS}"
        );
        let folder = folder()?;
        let server = Server::longhaul(folder.path())?;
        let (address, time, pid) = (server.address, self.options.round(), Some(server.pid()));
        for (name, grpc, two, one) in [
            ("StartJob", Call::Start, Call::StartTwo, Call::StartOne),
            ("GetStatus", Call::Status, Call::StatusTwo, Call::StatusOne),
        ] {
            let (mut on_two, mut on_one, mut times) = (Vec::new(), Vec::new(), Vec::new());
            for round in 1..=self.options.rounds {
                let calls = |what| {
                    let (callers, connections) = (CALLERS, CONNECTIONS);
                    let order = Calls { address, what, callers, connections, time, pid };
                    roles::load::<Figures>(Load::Calls(order)).map(|figures| figures.server_time)
                };
                let (grpc, two, one) = (calls(grpc)?, calls(two)?, calls(one)?);
                let show = |time| Unit::Time.show(time);
                println!(
                    "  round {round}: {name} gRPC {} · JSON {} · over HTTP/1.1 {}",
                    show(grpc),
                    show(two),
                    show(one)
                );
                on_two.push(two / grpc);
                on_one.push(one / grpc);
                times.push(grpc);
            }
            let what = |how: &str| format!("{name} as JSON{how}, server time of gRPC's");
            report.at_most(&what(""), median(on_two), 2.0, Unit::Times);
            report.at_most(&what(" over HTTP/1.1"), median(on_one), 2.0, Unit::Times);
            report.beside(&format!("{name} over gRPC, server time"), Unit::Time.show(median(times)));
        }
        Ok(())
    }

    /// Lets the echo and this server take turns.
    fn pairs(
        &self,
        server: &Server,
        what: Call,
        callers: usize,
        connections: usize,
    ) -> anyhow::Result<Pairs> {
        let time = self.options.round();
        let calls = |address, what| {
            let order = Calls { address, what, callers, connections, time, pid: None };
            roles::load::<Figures>(Load::Calls(order))
        };
        let mut pairs = Pairs::new();
        for round in 1..=self.options.rounds {
            let pair = (calls(self.echo.address, Call::Echo)?, calls(server.address, what)?);
            println!("  round {round}: echo {} · {what:?} {}", show(&pair.0), show(&pair.1));
            pairs.push(pair);
        }
        Ok(pairs)
    }
}

/// An empty folder on the disk that the build is on, which is gone with this value.
pub fn folder() -> anyhow::Result<TempDir> {
    Ok(TempDir::with_prefix_in("speed-", Path::new(env!("CARGO_TARGET_TMPDIR")))?)
}

fn rate(pairs: &Pairs) -> f64 {
    median(pairs.iter().map(|(echo, other)| other.rate / echo.rate))
}

fn p99(pairs: &Pairs) -> f64 {
    median(pairs.iter().map(|(echo, other)| other.p99.as_secs_f64() / echo.p99.as_secs_f64()))
}

pub fn show(figures: &Figures) -> String {
    format!("{}/s p50 {} p99 {}", thousands(figures.rate), time(figures.p50), time(figures.p99))
}

fn show_watched(watched: &Watched) -> String {
    let rate = Unit::PerSecond("messages").show(watched.rate);
    format!("{rate}, {} a watcher", Unit::Bytes.show(watched.bytes_each))
}

fn describe(rounds: impl Iterator<Item = Figures> + Clone) -> String {
    let of = |part: fn(&Figures) -> f64| median(rounds.clone().map(|figures| part(&figures)));
    let (p50, p99) = (of(|figures| figures.p50.as_secs_f64()), of(|figures| figures.p99.as_secs_f64()));
    let rate = Unit::PerSecond("calls").show(of(|figures| figures.rate));
    format!("{rate}, p50 {}, p99 {}", Unit::Time.show(p50), Unit::Time.show(p99))
}
