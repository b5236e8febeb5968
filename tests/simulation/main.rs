//! The whole of longhaul but its sockets, simulated: engine, store, services, workers elsewhere, watchers and clients in one
//! thread on a time of its own, everything by lot from one seed. What anybody is told is held against what is promised.
//!
//! A machine of the server and its processes are in `machine` and `disk`, what lies between in `network`, who is there in
//! `client`, `reads`, `crowd`, `script` and `stranger`, what must be true in `ledger`, `view`, `laws` and `promptness`.

mod client;
mod crowd;
mod disk;
mod laws;
mod ledger;
mod lots;
mod machine;
mod network;
mod promptness;
mod reads;
mod script;
mod stranger;
mod time;
mod times;
mod view;
mod world;

use clap::Parser;
use ledger::{Sights, Trace};
use longhaul::mutants::{self, Mutant};
use std::cell::Cell;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;
use world::{Report, run};

/// How many seeds are run unless somebody says otherwise.
const SEEDS: u64 = 2_000;
/// Within how many seeds a mutant must be found.
const MUTANT_SEEDS: u64 = 500;
/// What must be seen, or the lots are drawn from the wrong things.
const SIGHTS: [&str; 18] = [
    "a batch is started",
    "a claim leaves others waiting",
    "a grace period ends",
    "a job departs from a watch",
    "a job expires",
    "a job is forgotten",
    "a job is given back",
    "a job is repeated",
    "a job takes too long",
    "a lease ends",
    "a third attempt",
    "a watch is resumed in the middle",
    "a worker has lost its job and goes on",
    "an attempt ends with its server",
    "an attempt goes on from a checkpoint",
    "an attempt stalls",
    "an attempt takes too long",
    "output is void",
];
/// One seed in so many is run twice, which must come to the same.
const TWICE: u64 = 20;

#[derive(Parser)]
struct Options {
    /// Runs this seed alone, and shows what happens.
    #[arg(long)]
    seed: Option<u64>,
    /// Runs so many seeds.
    #[arg(long, default_value_t = SEEDS)]
    seeds: u64,
    /// Begins with this one.
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// Puts this fault in, which must be found.
    #[arg(long)]
    mutant: Option<String>,
    /// Puts no fault in by itself.
    #[arg(long)]
    no_mutants: bool,
    /// How many seeds are run at a time.
    #[arg(long, default_value_t = 2)]
    threads: u64,
    /// What cargo's own tests take as well.
    #[arg(long, hide = true)]
    nocapture: bool,
}

fn main() -> ExitCode {
    let options = Options::parse();
    std::panic::set_hook(Box::new(|panic| {
        if panic.payload_as_str() != Some(script::SCRIPTED) {
            PANICKED.set(true);
            eprintln!("{panic}");
        }
    }));
    let mutant = options.mutant.as_deref().map(named);
    mutants::put_in(mutant);
    if let Some(seed) = options.seed {
        let Report { checksum, violations, .. } = judge(seed, Trace::Shown, true);
        violations.iter().for_each(|violation| println!("violation: {violation}"));
        println!("seed {seed}: {} violations, trace {checksum:08x}", violations.len());
        return if violations.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    }
    let mut failed = 0;
    let mut passed = 0;
    let mut count = |good: bool| if good { passed += 1 } else { failed += 1 };
    if mutant.is_none() {
        let began = Instant::now();
        let found = search(&options, options.from..options.from + options.seeds, false);
        println!("simulation: {} seeds in {:.1?}", options.seeds, began.elapsed());
        if let Some((_, why)) = &found {
            println!("simulation: {why}");
        }
        count(found.is_none());
    }
    for (mutant, name) in Mutant::ALL {
        if options.no_mutants && options.mutant.is_none()
            || options.mutant.as_deref().is_some_and(|one| one != name)
        {
            continue;
        }
        mutants::put_in(Some(mutant));
        let found = search(&options, 0..MUTANT_SEEDS, true);
        match &found {
            Some((seed, why)) => println!("mutant {name:?}: found by seed {seed}: {why}"),
            None => println!("mutant {name:?}: NOT found by {MUTANT_SEEDS} seeds"),
        }
        count(found.is_some());
    }
    println!("test result: {}. {passed} passed; {failed} failed", if failed == 0 { "ok" } else { "FAILED" });
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

thread_local! {
    /// Something in the server, or in a test, has panicked in this thread's run.
    static PANICKED: Cell<bool> = const { Cell::new(false) };
}

/// What a run comes to, and where `twice`, whether it comes to that again.
fn judge(seed: u64, trace: Trace, twice: bool) -> Report {
    PANICKED.set(false);
    let mut report = run(seed, trace);
    if PANICKED.get() {
        report.violations.push("something has panicked".into());
    }
    if twice {
        let again = run(seed, if trace == Trace::Shown { Trace::Kept } else { trace });
        if again != report {
            let why = difference(&report, &again);
            report.violations.push(format!("the same seed comes to two different runs{why}"));
        }
    }
    report
}

/// The first lines of two traces that differ, where they were kept, or else what was seen.
fn difference(one: &Report, other: &Report) -> String {
    let same = one.told.iter().zip(&other.told).take_while(|(one, other)| one == other).count();
    let line = |report: &Report| match report.told.get(same) {
        Some(line) => line.trim_end().to_owned(),
        None => format!("trace {:08x}, saw {:?}", report.checksum, report.sights),
    };
    format!(":\n  {}\n  {}", line(one), line(other))
}

fn named(name: &str) -> Mutant {
    let known = Mutant::ALL.into_iter().find(|(_, known)| *known == name);
    known.unwrap_or_else(|| panic!("{name:?} is none of {:?}", Mutant::ALL.map(|(_, known)| known))).0
}

/// A seed, and what it has found.
type Found = Option<(u64, String)>;

/// Runs seeds until one of them finds something, or none does.
fn search(options: &Options, seeds: std::ops::Range<u64>, is_mutant: bool) -> Found {
    let next = AtomicU64::new(seeds.start);
    let found: parking_lot::Mutex<Found> = parking_lot::Mutex::default();
    let sights: parking_lot::Mutex<Sights> = parking_lot::Mutex::default();
    std::thread::scope(|scope| {
        for _ in 0..options.threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::SeqCst);
                    if seed >= seeds.end || found.lock().is_some() {
                        return;
                    }
                    let twice = seed.is_multiple_of(TWICE) && !is_mutant;
                    let mut report = judge(seed, if twice { Trace::Whole } else { Trace::Brief }, twice);
                    for (what, times) in &report.sights {
                        *sights.lock().entry(what).or_default() += times;
                    }
                    if report.violations.is_empty() {
                        continue;
                    }
                    if !is_mutant {
                        report.violations.iter().for_each(|violation| println!("seed {seed}: {violation}"));
                        println!("again: cargo test --features mutants --test simulation -- --seed {seed}");
                    }
                    *found.lock() = Some((seed, report.violations.swap_remove(0)));
                    return;
                }
            });
        }
    });
    let found = found.into_inner();
    if is_mutant || found.is_some() {
        return found;
    }
    let sights = sights.into_inner();
    let told: Vec<_> = sights.iter().map(|(what, times)| format!("{what}: {times}")).collect();
    println!("simulation: {}", told.join(", "));
    let unseen: Vec<_> = SIGHTS.into_iter().filter(|sight| !sights.contains_key(sight)).collect();
    let all = seeds.end - seeds.start >= SEEDS;
    (all && !unseen.is_empty()).then(|| (seeds.start, format!("never seen: {unseen:?}")))
}
