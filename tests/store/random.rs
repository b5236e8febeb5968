//! Random scripts, carried out by SQLite and by the model beside it: whatever is answered and whatever can be read is the same.
//!
//! A failure names the seed that repeats it. `LONGHAUL_SEEDS=1000` tries more of them.

use crate::bench::{Bench, KEEPER, MemoryFixture, START, SqliteFixture, WHOLE};
use crate::builders::*;
use longhaul::job::*;
use longhaul::store::*;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};
use std::time::Duration;

const TENANTS: [&str; 2] = [DEFAULT_TENANT, "other"];
const KINDS: [&str; 3] = ["a", "b", "c"];
const LABELS: [&str; 2] = ["color", "size"];
const BATCHES: usize = 60;
/// Everything is compared after so many batches; in between, what was answered.
const COMPARED_EVERY: usize = 5;

/// Both stores, and what the script knows of them.
struct Script {
    chance: StdRng,
    sqlite: Bench,
    model: Bench,
    jobs: Vec<JobId>,
    /// All that ever were, so that many are stale.
    leases: Vec<LeaseToken>,
}

impl Script {
    fn new(seed: u64) -> Self {
        Self {
            chance: StdRng::seed_from_u64(seed),
            sqlite: Bench::new(SqliteFixture::default()),
            model: Bench::new(MemoryFixture::default()),
            jobs: Vec::new(),
            leases: Vec::new(),
        }
    }

    fn run(mut self) {
        for batch in 1..=BATCHES {
            // Now and then request ids are old enough to be forgotten.
            let day = Duration::from_secs(if self.chance.random_bool(0.03) { 86_400 } else { 0 });
            let wait = day + Duration::from_millis(self.chance.random_range(0..4_000));
            self.sqlite.wait(wait);
            self.model.wait(wait);
            let operations: Vec<_> = (0..self.chance.random_range(1..6)).map(|_| self.operation()).collect();
            self.commit(&operations);
            if self.chance.random_bool(0.15) {
                // Nobody heard of it, so all of it comes again.
                self.commit(&operations);
            }
            if self.chance.random_bool(0.1) {
                self.sqlite.reopen();
                self.model.reopen();
            }
            if batch % COMPARED_EVERY == 0 {
                self.compare();
            }
        }
    }

    fn commit(&mut self, operations: &[Operation]) {
        let outcomes = self.sqlite.commit(operations.to_vec());
        let expected = self.model.commit(operations.to_vec());
        for ((operation, outcome), expected) in operations.iter().zip(&outcomes).zip(&expected) {
            if let (Outcome::Prune(pruned), Outcome::Prune(expected)) = (outcome, expected) {
                assert_eq!(pruned.forgotten, expected.forgotten, "of {operation:?}");
                // Only SQLite has something left of jobs that it has forgotten, and may want to come back for it.
                assert!(expected.next_due.is_none() || pruned.next_due <= expected.next_due);
                continue;
            }
            assert_eq!(format!("{outcome:?}"), format!("{expected:?}"), "of {operation:?}");
        }
        for outcome in outcomes {
            match outcome {
                Outcome::Submit(Ok(submitted)) => {
                    for one in submitted {
                        if let Submitted::Created(job) = one {
                            self.jobs.push(job.id);
                        }
                    }
                }
                Outcome::Retry(Ok(Submitted::Created(job))) => self.jobs.push(job.id),
                Outcome::Claim(dealt) => self.leases.extend(dealt.claimed.iter().map(|one| one.token)),
                Outcome::Submit(Err(_))
                | Outcome::Retry(_)
                | Outcome::Apply(_)
                | Outcome::Sweep(_)
                | Outcome::KeepLive
                | Outcome::Probe
                | Outcome::Delete(_)
                | Outcome::Prune(_) => {}
            }
        }
    }

    fn operation(&mut self) -> Operation {
        match self.chance.random_range(0..100) {
            0..20 => {
                let count = self.chance.random_range(1..4);
                Operation::Submit((0..count).map(|_| self.submission()).collect())
            }
            20..40 => {
                let kinds: Vec<&str> =
                    KINDS.iter().copied().filter(|_| self.chance.random_bool(0.6)).collect();
                let secrets: Vec<u64> =
                    (0..self.chance.random_range(0..5)).map(|_| self.chance.random()).collect();
                let bytes = if self.chance.random_bool(0.2) { 3 } else { usize::MAX };
                Operation::Claim(Claim { bytes, ..wish(&kinds, secrets, self.chance.random_bool(0.5)) })
            }
            40..52 => {
                Operation::Sweep { limit: self.chance.random_range(1..8), chance: self.chance.random() }
            }
            52..57 => Operation::KeepLive(vec![LiveUpdate {
                job: self.job(),
                attempt: self.chance.random_range(1..4),
                live: live(self.chance.random_range(0..9)),
            }]),
            57..58 => Operation::Probe,
            58..62 => apply(self.job(), cancel()),
            62..66 => Operation::Delete(self.job()),
            66..70 => Operation::Prune { limit: self.chance.random_range(1..8) },
            70..74 => Operation::Retry(Retry {
                job: self.job(),
                tenant: (*TENANTS.choose(&mut self.chance).unwrap()).into(),
                request: self.chance.random_bool(0.5).then(|| self.request()),
                trace: None,
                // As it says nothing of which offsets it knows, it fits by lot.
                output: self
                    .chance
                    .random_bool(0.7)
                    .then(|| "abc".repeat(self.chance.random_range(0..3)).into()),
                chance: self.chance.random(),
            }),
            _ => self.report(),
        }
    }

    fn submission(&mut self) -> Submission {
        let chance = &mut self.chance;
        let mut spec = spec(KINDS.choose(chance).unwrap());
        spec.tenant = (*TENANTS.choose(chance).unwrap()).into();
        spec.options.priority = chance.random_range(-1..=1);
        for key in LABELS {
            if chance.random_bool(0.4) {
                spec.labels.insert(key.to_owned(), chance.random_range(0..2).to_string());
            }
        }
        if chance.random_bool(0.3) {
            spec.options.retention = Duration::from_secs(chance.random_range(0..30));
        }
        if chance.random_bool(0.3) {
            let key = chance.random_range(0..2).to_string();
            spec.options.concurrency = Some(Concurrency { key, limit: chance.random_range(1..3) });
        }
        if chance.random_bool(0.2) {
            spec.options.schedule_time =
                Some(self.model.now.after(Duration::from_secs(chance.random_range(0..9))));
        }
        if chance.random_bool(0.2) {
            spec.options.schedule_to_start_timeout = Some(Duration::from_secs(chance.random_range(1..20)));
        }
        if chance.random_bool(0.2) {
            spec.options.start_to_close_timeout = Some(Duration::from_secs(chance.random_range(1..20)));
        }
        if chance.random_bool(0.1) {
            spec.options.schedule_to_close_timeout = Some(Duration::from_secs(chance.random_range(1..40)));
        }
        if chance.random_bool(0.3) {
            spec.request = Some(self.request());
        }
        Submission { spec: spec.into(), chance: self.chance.random() }
    }

    fn request(&mut self) -> RequestKey {
        let id = self.chance.random_range(0..6).to_string();
        RequestKey { id, fingerprint: [self.chance.random_range(0..2); 32] }
    }

    fn filter(&mut self) -> Filter {
        let chance = &mut self.chance;
        let mut some = |likely| chance.random_bool(likely);
        let states = State::ALL.into_iter().filter(|_| some(0.3)).collect();
        let kinds = KINDS.iter().filter(|_| some(0.3)).map(|kind| (*kind).to_owned()).collect();
        let labels = LABELS.iter().filter(|_| some(0.2));
        let labels = labels.map(|key| ((*key).to_owned(), "0".to_owned())).collect();
        let mut time = |likely| {
            let millis = Duration::from_millis(chance.random_range(0..600_000));
            chance.random_bool(likely).then(|| START.after(millis))
        };
        Filter { states, kinds, labels, created_from: time(0.1), created_before: time(0.1) }
    }

    /// What the holder of a lease says, now or long ago, or what its keeper does.
    fn report(&mut self) -> Operation {
        // Mostly one of the newest, which still hold something.
        let recent = self.leases.len().saturating_sub(8);
        let from = if self.chance.random_bool(0.8) { recent } else { 0 };
        let Some(&lease) = self.leases[from..].choose(&mut self.chance) else {
            return apply(self.job(), cancel());
        };
        let offset = self.chance.random_range(0..3) * 3;
        let delay = Duration::from_secs(self.chance.random_range(0..5));
        let jitter = self.chance.random();
        let command = match self.chance.random_range(0..15) {
            0 | 1 => accept(lease),
            2 => stage(lease, KINDS.choose(&mut self.chance).unwrap()),
            3 | 4 => output(lease, offset, "abc"),
            5 => Command::AppendOutput {
                lease,
                channel: "reasoning".into(),
                reset_to: self.chance.random_bool(0.3).then_some(0),
                offset,
                data: "abcdef".into(),
            },
            6 => log(lease, offset / 3, "line"),
            7 | 8 => complete(lease),
            9 => fail_for(lease, delay),
            10 => release(lease, delay),
            11 => stop(lease),
            12 | 13 => {
                let number = self.chance.random_range(1..4);
                checkpoint(lease, number, offset, vec![number as u8; offset as usize])
            }
            _ => {
                let causes =
                    [LeaseEnd::Expired, LeaseEnd::Unaccepted, LeaseEnd::Restarted, LeaseEnd::Stalled];
                let cause = *causes.choose(&mut self.chance).unwrap();
                let live = Live::default();
                Command::EndLease { epoch: lease.epoch, keeper: KEEPER, cause, live, jitter }
            }
        };
        apply(lease.job, command)
    }

    /// One that is kept, or none.
    fn job(&mut self) -> JobId {
        self.jobs.choose(&mut self.chance).copied().unwrap_or_default()
    }

    fn compare(&mut self) {
        let filters: Vec<Filter> = (0..8).map(|_| self.filter()).collect();
        let jobs = self.chance.random_range(1..20);
        let [sqlite, model] = [self.sqlite.store(), self.model.store()];
        for (filter, tenant) in filters.iter().zip(TENANTS.iter().cycle()) {
            let walk = |store| walk(store, tenant, filter, jobs);
            assert_eq!(walk(sqlite), walk(model), "the jobs of {tenant} in pages of {jobs} by {filter:?}");
        }
        for tenant in TENANTS {
            let all = |store: &dyn Store| {
                store.list(tenant, &Filter::default(), first(1_000), Parts::FULL).unwrap()
            };
            assert_eq!(all(sqlite), all(model), "the jobs of {tenant}");
            let counts = |store: &dyn Store| store.count(tenant, &[], 1_000).unwrap();
            assert_eq!(counts(sqlite), counts(model), "the counts of {tenant}");
            for kind in KINDS {
                let queue = |store: &dyn Store| store.queue(tenant, kind, 5).unwrap();
                assert_eq!(queue(sqlite), queue(model), "the queue of {kind} of {tenant}");
            }
        }
        assert_eq!(sqlite.held(None, 1_000).unwrap(), model.held(None, 1_000).unwrap(), "what is held");
        let wanted: Vec<_> = self.jobs.iter().map(|job| (*job, 0)).collect();
        let histories = |store: &dyn Store| store.events(&wanted, WHOLE).unwrap();
        assert_eq!(histories(sqlite), histories(model), "the histories");
    }
}

/// All jobs that match, page by page.
fn walk(store: &dyn Store, tenant: &str, filter: &Filter, jobs: usize) -> Vec<Snapshot> {
    let mut walked = Vec::new();
    let mut page = first(jobs);
    loop {
        let listed = store.list(tenant, filter, page, Parts::BASIC).unwrap();
        assert!(listed.jobs.len() <= jobs);
        walked.extend(listed.jobs);
        page.before = listed.next;
        if listed.next.is_none() {
            return walked;
        }
    }
}

/// Carries out the script of a seed; a failure says which one it was.
fn play(seed: u64) {
    let script = std::panic::AssertUnwindSafe(|| Script::new(seed).run());
    if let Err(failure) = std::panic::catch_unwind(script) {
        eprintln!("the script of seed {seed} failed; LONGHAUL_SEED={seed} repeats it");
        std::panic::resume_unwind(failure);
    }
}

#[test]
fn sqlite_does_what_the_model_does_whatever_is_asked() {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().expect("a number"));
    if let Some(seed) = number("LONGHAUL_SEED") {
        return play(seed);
    }
    let first: u64 = rand::random_range(0..u64::from(u32::MAX));
    for seed in first..first + number("LONGHAUL_SEEDS").unwrap_or(12) {
        play(seed);
    }
}

#[test]
fn sqlite_does_what_the_model_does_in_scripts_that_were_once_played() {
    for seed in [1, 2, 3] {
        play(seed);
    }
}
