//! The measurements, one after the other: who runs beside whom, for how long, and what is required.

use crate::calls::Call;
use crate::load::{Calls, Figures, Load};
use crate::report::{Report, Unit, median, thousands, time};
use crate::roles::Server;
use crate::{Options, disk, roles};
use std::path::Path;
use tempfile::TempDir;

const CALLERS: usize = 64;
const CONNECTIONS: usize = 4;

/// Makes all measurements that are wanted, and prints the table.
pub fn all(options: &Options) -> anyhow::Result<()> {
    let mut report = Report::default();
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
    report.print();
    Ok(())
}

/// One run of the benchmark, with the echo that all calls are measured against.
struct Run<'a> {
    options: &'a Options,
    echo: Server,
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

    /// Lets the echo and this server take turns.
    fn pairs(&self, server: &Server, what: Call, callers: usize, connections: usize) -> anyhow::Result<Pairs> {
        let time = self.options.round();
        let calls = |address, what| {
            let order = Calls { address, what, callers, connections, time };
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
fn folder() -> anyhow::Result<TempDir> {
    Ok(TempDir::with_prefix_in("speed-", Path::new(env!("CARGO_TARGET_TMPDIR")))?)
}

fn rate(pairs: &Pairs) -> f64 {
    median(pairs.iter().map(|(echo, other)| other.rate / echo.rate))
}

fn p99(pairs: &Pairs) -> f64 {
    median(pairs.iter().map(|(echo, other)| other.p99.as_secs_f64() / echo.p99.as_secs_f64()))
}

fn show(figures: &Figures) -> String {
    format!("{}/s p50 {} p99 {}", thousands(figures.rate), time(figures.p50), time(figures.p99))
}

fn describe(rounds: impl Iterator<Item = Figures> + Clone) -> String {
    let of = |part: fn(&Figures) -> f64| median(rounds.clone().map(|figures| part(&figures)));
    let (p50, p99) = (of(|figures| figures.p50.as_secs_f64()), of(|figures| figures.p99.as_secs_f64()));
    let rate = Unit::PerSecond("calls").show(of(|figures| figures.rate));
    format!("{rate}, p50 {}, p99 {}", Unit::Time.show(p50), Unit::Time.show(p99))
}
