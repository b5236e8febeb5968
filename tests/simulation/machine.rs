//! The server's machine: one process of it after the other, over one disk.

use crate::disk::{Disk, Fate, Mounted};
use crate::ledger::Ledger;
use crate::lots::Lots;
use crate::network::{Network, Served};
use crate::script::{Script, Waits};
use crate::time::{DAY, MachineClock};
use longhaul::api;
use longhaul::clock::{Clock, SystemClock};
use longhaul::engine::{Engine, Settings, Threads};
use longhaul::job::Timestamp;
use longhaul::rpc;
use longhaul::wire::refusals::Refusals;
use longhaul::worker::{LocalSource, Pool, Registry};
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// As short as partitions are long, so that leases end.
pub const LEASE: Duration = Duration::from_secs(3);
/// Longer than most that is late is late.
const ACCEPT: Duration = Duration::from_secs(1);
/// So short that some do not let go in time.
const GRACE: Duration = Duration::from_secs(1);
/// So short that some attempts do not end in it.
const DRAIN: Duration = Duration::from_millis(300);

/// The machine.
pub struct Machine {
    pub ledger: Arc<Ledger>,
    pub network: Arc<Network>,
    pub lots: Lots,
    pub fate: Fate,
    pub clock: MachineClock,
    /// It may be set by a day, and not by seconds only.
    pub jumps: bool,
    /// How many jobs it runs itself at a time.
    pub slots: usize,
    /// Up to when its processes have lived, by their clocks.
    pub newest: Mutex<Timestamp>,
    pub disk: Mutex<Disk>,
    pub process: Mutex<Option<Process>>,
    /// The machine stays off.
    pub off: CancellationToken,
}

/// A process of the server.
#[derive(Clone)]
pub struct Process {
    pub engine: Engine,
    pub clock: Arc<SystemClock>,
    pub dead: CancellationToken,
    pool: Arc<Pool<LocalSource>>,
    mounted: Arc<Mounted>,
}

impl Machine {
    /// Starts the server whenever it is not there.
    pub async fn live(self: Arc<Self>) {
        while !self.off.is_cancelled() {
            if let Some(process) = self.boot().await {
                let served = Served {
                    jobs: rpc::Jobs::service(api::Jobs::new(process.engine.clone())),
                    workers: rpc::Workers::service(process.engine.clone(), Refusals::default()),
                    dead: process.dead.clone(),
                };
                self.network.serve(Some(served));
                *self.process.lock() = Some(process.clone());
                process.dead.cancelled().await;
                self.network.serve(None);
                // A store notes the time once a second.
                let died = process.clock.now();
                let noted = Timestamp::from_micros(died.as_micros() - self.lots.among(0..1_000_000) as i64);
                let mut newest = self.newest.lock();
                *newest = noted.max(*newest);
                self.ledger.server_ended(*newest, died);
                drop(newest);
                self.process.lock().take();
                tokio::spawn(bury(process));
            }
            let stormy = self.network.is_stormy();
            tokio::time::sleep(if stormy { self.lots.millis(5..1_500) } else { Duration::from_millis(5) })
                .await;
        }
    }

    async fn boot(&self) -> Option<Process> {
        let dead = CancellationToken::new();
        let mounted = self.disk.lock().mount(self.fate.clone(), dead.clone(), Arc::clone(&self.ledger));
        self.set_clock();
        let clock = Arc::new(self.clock.begin(*self.newest.lock()));
        self.ledger.server_ended(clock.now(), clock.now());
        let lots = self.lots.fork();
        let commit_time = {
            let lots = lots.fork();
            move || Duration::from_millis(*lots.pick(&[0, 0, 1, 1, 2, 5, 20]))
        };
        let settings = Settings {
            lease_duration: LEASE,
            accept_timeout: ACCEPT,
            cancel_grace: GRACE,
            threads: Threads::None(Arc::new(commit_time)),
            ..Default::default()
        };
        let store = Arc::clone(&mounted) as Arc<_>;
        let started =
            Engine::start_up(store, Arc::clone(&clock) as Arc<dyn Clock>, settings, lots.chance()).await;
        let engine = match started {
            Ok(engine) => engine,
            Err(error) => {
                self.ledger.note(|| format!("the server does not start: {error}"));
                self.ledger.server_ended(clock.now(), clock.now());
                mounted.die();
                return None;
            }
        };
        self.ledger.note(|| format!("the server starts at {}", clock.now().as_micros()));
        let script =
            || Script { worker: "pool".to_owned(), ledger: Arc::clone(&self.ledger), lots: lots.fork() };
        let registry =
            Registry::default().with("work", script()).with("prompt", script()).with("waits", Waits);
        let pool = Arc::new(Pool::start(LocalSource::new(engine.clone(), "pool"), registry, self.slots));
        Some(Process { engine, clock, dead, pool, mounted })
    }

    /// Somebody sets the clock, a little or by a day.
    pub fn set_clock(&self) {
        self.clock.set(match self.jumps {
            true => *self.lots.pick(&[Duration::ZERO, DAY, 2 * DAY]),
            false => DAY + self.lots.millis(0..5_000),
        });
    }

    /// Ends the process without notice.
    pub fn kill(&self) {
        if let Some(process) = &*self.process.lock() {
            self.ledger.note(|| "the server is killed".into());
            process.mounted.die();
        }
    }

    /// Ends the process in good order.
    pub async fn stop(&self) {
        let process = self.process.lock().clone();
        if let Some(process) = process {
            self.ledger.note(|| "the server stops".into());
            let begin = process.clock.now();
            process.engine.drain(DRAIN);
            process.pool.drain(DRAIN).await;
            process.engine.close().await;
            self.ledger.server_ended(begin, process.clock.now());
            process.mounted.die();
        }
    }
}

/// Lets go of what is left of a process. It has no effect any more, whatever it does.
async fn bury(process: Process) {
    process.pool.drain(Duration::ZERO).await;
    process.engine.close().await;
}
