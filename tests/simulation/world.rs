//! One run: who there is, what goes wrong, and what is looked at in the end.

use crate::client::{Client, END, GROUPS, in_group};
use crate::crowd::Shown;
use crate::disk::{Disk, Fate};
use crate::ledger::{Ledger, Sights, Trace, is_final};
use crate::lots::Lots;
use crate::machine::Machine;
use crate::network::{Network, Wire};
use crate::script::{Script, Waits};
use crate::stranger::Stranger;
use crate::time::{DAY, MachineClock};
use longhaul::job::Timestamp;
use longhaul::proto::JobFilter;
use longhaul::proto::job::State;
use longhaul::proto::job_service_client::JobServiceClient;
use longhaul::proto::worker_service_client::WorkerServiceClient;
use longhaul::worker::{Channel, Identity, Pool, Registry, RemoteSource};
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// How long the storm lasts, in milliseconds.
const STORM: std::ops::Range<u64> = 3_000..14_000;
/// How long one that nobody sees the end of.
const ENDLESS_STORM: std::ops::Range<u64> = 10_000..25_000;

/// What came of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Of all that happened.
    pub checksum: u32,
    pub violations: Vec<String>,
    /// What was seen, and how often.
    pub sights: Sights,
    /// The lines of the trace, where they are kept.
    pub told: Vec<String>,
}

/// Runs a seed, on the caller's thread.
pub fn run(seed: u64, trace: Trace) -> Report {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(async {
        let world = World::new(seed, trace);
        // Whatever hangs, hangs in a time that costs nothing.
        if tokio::time::timeout(10 * END, world.live()).await.is_err() {
            world.ledger.blame("the run does not end".into());
        }
        Report {
            checksum: world.ledger.checksum(),
            violations: world.ledger.violations(),
            sights: world.ledger.sights(),
            told: world.ledger.lines(),
        }
    })
}

struct World {
    ledger: Arc<Ledger>,
    network: Arc<Network>,
    lots: Lots,
    machine: Arc<Machine>,
    wires: Mutex<Vec<Arc<Wire>>>,
    /// Things go wrong until the very end: what is promised of the end is not looked at.
    endless: bool,
}

/// A worker's machine, for as long as its process lives.
struct Elsewhere {
    wire: Arc<Wire>,
    pool: Arc<Pool<RemoteSource>>,
}

impl World {
    fn new(seed: u64, trace: Trace) -> Self {
        let lots = Lots::new(seed);
        let ledger = Arc::new(Ledger::new(trace));
        let stormy = Arc::new(AtomicBool::new(true));
        let network = Network::new(Arc::clone(&stormy));
        let endless = lots.one_in(4);
        let machine = Arc::new(Machine {
            ledger: Arc::clone(&ledger),
            network: Arc::clone(&network),
            lots: lots.fork(),
            fate: Fate { lots: lots.fork(), stormy, endless, epoch: Instant::now() },
            clock: MachineClock::new(DAY),
            jumps: endless,
            slots: lots.among(0..3) as usize,
            newest: Mutex::default(),
            disk: Mutex::new(Disk::new(lots.one_in(8))),
            process: Mutex::default(),
            off: CancellationToken::new(),
        });
        Self { ledger, network, lots, machine, wires: Mutex::default(), endless }
    }

    async fn live(&self) {
        let mut everybody = JoinSet::new();
        everybody.spawn(Arc::clone(&self.machine).live());
        let mut workers: Vec<(String, Elsewhere)> = Vec::new();
        for number in 0..self.lots.among(1..4) {
            let name = format!("w{number}");
            workers.push((name.clone(), self.elsewhere(&name)));
        }
        let stranger = Stranger {
            name: "stranger".to_owned(),
            stub: WorkerServiceClient::new(self.wire().link()),
            ledger: Arc::clone(&self.ledger),
            network: Arc::clone(&self.network),
            lots: self.lots.fork(),
        };
        everybody.spawn(stranger.live());
        let shown: Vec<Arc<Mutex<Shown>>> = (0..GROUPS).map(|_| Arc::default()).collect();
        for (group, shown) in (0..).zip(&shown) {
            let filter = in_group(&group.to_string());
            everybody.spawn(self.client("crowd").watch_many(filter, Arc::clone(shown)));
        }
        let at_work: Arc<Mutex<Shown>> = Arc::default();
        let states = vec![State::Running.into(), State::Retrying.into()];
        let filter = JobFilter { states, ..Default::default() };
        everybody.spawn(self.client("crowd").watch_many(filter, Arc::clone(&at_work)));
        let mut clients = JoinSet::new();
        for number in 0..self.lots.among(1..4) {
            clients.spawn(self.client(&format!("c{number}")).live(self.lots.among(3..9)));
        }

        self.storm(&mut workers).await;
        if self.endless {
            // What is left is looked at, and nobody is to change it.
            workers.iter().for_each(|(_, worker)| worker.wire.cut());
            self.machine.kill();
        }
        self.ledger.note(|| "all is calm".into());
        self.network.calm();
        self.wires.lock().iter().for_each(|wire| wire.let_all_pass());
        let last = self.client("last");
        if self.endless {
            clients.abort_all();
        } else {
            let gone = tokio::time::timeout(2 * END, async { while clients.join_next().await.is_some() {} });
            self.ledger.demand(gone.await.is_ok(), || "a client waits for ever".into());
            self.until_all_have_ended(&last).await;
            self.check_crowd(&last, &shown, &at_work).await;
            crate::promptness::check(&last, &self.machine, &self.ledger).await;
        }
        while !self.network.is_served() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        last.check_all().await;
        self.machine.off.cancel();
    }

    fn wire(&self) -> Arc<Wire> {
        let wire = self.network.wire(self.lots.fork());
        self.wires.lock().push(Arc::clone(&wire));
        wire
    }

    fn client(&self, name: &str) -> Client {
        Client {
            name: name.to_owned(),
            stub: JobServiceClient::new(self.wire().link()),
            ledger: Arc::clone(&self.ledger),
            network: Arc::clone(&self.network),
            lots: self.lots.fork(),
            clock: self.machine.clock.clone(),
        }
    }

    /// A worker on a machine of its own, as `longhaul worker` is one.
    fn elsewhere(&self, name: &str) -> Elsewhere {
        let wire = self.wire();
        let dial = {
            let wire = Arc::clone(&wire);
            move || Channel::new(wire.link())
        };
        let ahead = self.lots.millis(0..2 * DAY.as_millis() as u64);
        let identity = Identity { worker_id: name.to_owned(), ..Default::default() };
        let clock = Arc::new(MachineClock::new(ahead).begin(Timestamp::default()));
        let source =
            RemoteSource::over(dial, identity, clock, self.lots.fork().chance_of_the_moment(Instant::now()));
        let script =
            || Script { worker: name.to_owned(), ledger: Arc::clone(&self.ledger), lots: self.lots.fork() };
        let mut registry =
            Registry::default().with("work", script()).with("prompt", script()).with("waits", Waits);
        if name == "w0" || self.lots.one_in(2) {
            registry = registry.with("rare", script());
        }
        let slots = self.lots.among(1..4) as usize;
        Elsewhere { wire, pool: Arc::new(Pool::start(source, registry, slots)) }
    }

    /// Lets things go wrong, one after the other and together.
    async fn storm(&self, workers: &mut [(String, Elsewhere)]) {
        let (time, pause) = if self.endless { (ENDLESS_STORM, 600) } else { (STORM, 1_500) };
        let over = Instant::now() + self.lots.millis(time);
        while Instant::now() < over {
            tokio::time::sleep(self.lots.millis(30..pause)).await;
            self.wires.lock().retain(|wire| !wire.is_cut());
            let wires = self.wires.lock().clone();
            let wire = self.lots.pick(&wires);
            match self.lots.among(0..16) {
                0..4 => wire.break_all(),
                4..7 => {
                    self.ledger.note(|| "a wire is held up".into());
                    let (wire, time) = (Arc::clone(wire), self.lots.millis(100..8_000));
                    wire.hold_up();
                    tokio::spawn(async move {
                        tokio::time::sleep(time).await;
                        wire.let_pass();
                    });
                }
                7..9 => self.machine.kill(),
                9..11 => {
                    let machine = Arc::clone(&self.machine);
                    tokio::spawn(async move { machine.stop().await });
                }
                11..13 => {
                    let lot = self.lots.among(0..workers.len() as u64) as usize;
                    let (name, worker) = &mut workers[lot];
                    self.ledger.note(|| format!("{name} is killed"));
                    worker.wire.cut();
                    let dead = std::mem::replace(worker, self.elsewhere(name));
                    tokio::spawn(async move { dead.pool.drain(Duration::ZERO).await });
                }
                13 => {
                    self.ledger.note(|| "everything stands still for a while".into());
                    tokio::time::advance(self.lots.millis(500..10_000)).await;
                }
                14 => wires.iter().for_each(|wire| wire.break_all()),
                _ => self.machine.set_clock(),
            }
        }
    }

    /// Nothing goes wrong any more: every job comes to its end.
    async fn until_all_have_ended(&self, last: &Client) {
        let over = Instant::now() + END;
        loop {
            tokio::time::sleep(Duration::from_secs(1)).await;
            let Some(jobs) = last.all(Default::default()).await else { continue };
            let open: Vec<_> = jobs.iter().filter(|job| !is_final(job.state())).collect();
            if open.is_empty() {
                return;
            }
            if Instant::now() >= over {
                let open = open.iter().map(|job| format!("{} is {:?}", job.id, job.state()));
                return self
                    .ledger
                    .blame(format!("not all come to their end: {:?}", open.collect::<Vec<_>>()));
            }
        }
    }

    async fn check_crowd(&self, last: &Client, shown: &[Arc<Mutex<Shown>>], at_work: &Mutex<Shown>) {
        tokio::time::sleep(Duration::from_secs(3)).await;
        for (group, shown) in (0..GROUPS).zip(shown) {
            let Some(listed) = last.all(in_group(&group.to_string())).await else {
                return self.ledger.blame("a group cannot be listed".into());
            };
            let shown = shown.lock();
            self.ledger.demand(shown.synced, || format!("the watch of group {group} is not in step"));
            if let Some(what) = shown.differs(&listed) {
                self.ledger.blame(format!("the watch of group {group} {what}"));
            }
        }
        if let Some(what) = at_work.lock().differs(&[]) {
            self.ledger.blame(format!("the watch of what is at work {what}"));
        }
    }
}
