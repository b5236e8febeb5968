//! Who is there to run jobs, by name, for people who look.
//!
//! It decides nothing: who gets a job is told by `dispatch`, which knows no names.

use super::{Engine, Worker};
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

/// How many workers are told of by name: more than anybody reads.
pub const WORKERS_MAX: usize = 200;

/// Who is there now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Workers {
    /// By name, this process's own first; at most [`WORKERS_MAX`].
    pub named: Vec<Present>,
    /// How many more names there are.
    pub more: usize,
    /// Every kind that somebody can run, those beyond the limit included.
    pub kinds: BTreeSet<String>,
}

/// All workers of one name: a worker elsewhere may have several streams or calls for work.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Present {
    /// What they call themselves.
    pub name: String,
    /// They run in this very process.
    pub in_process: bool,
    /// What they can run. Of one that only holds jobs and asks for no more just now it is what it asked for last, and nothing
    /// where that was before this process began.
    pub kinds: BTreeSet<String>,
    /// How many streams or calls for work they have.
    pub places: usize,
    /// How many jobs they hold.
    pub jobs: usize,
    /// How many more they can take now.
    pub free: usize,
}

/// Whose jobs are whose: workers elsewhere may call themselves as one in this process does.
pub type Holders = HashMap<(bool, String), usize>;

/// How many names are remembered. Past it all are forgotten, and each is known again when it asks for work.
const NAMES_MAX: usize = 10_000;

/// What workers can run, by their names: one that has as many jobs as it can run does not always ask for more.
#[derive(Debug, Default)]
pub struct Roll {
    here: Mutex<HashMap<String, Kinds>>,
    elsewhere: Mutex<HashMap<String, Kinds>>,
}

type Kinds = Arc<[String]>;

impl Roll {
    /// A worker asks for work.
    pub fn note(&self, worker: &Worker) {
        let mut known = self.side(worker.in_process).lock();
        if known.get(&worker.name).is_some_and(|kinds| *kinds == worker.kinds) {
            return;
        }
        if known.len() >= NAMES_MAX {
            known.clear();
        }
        known.insert(worker.name.clone(), Arc::clone(&worker.kinds));
    }

    /// Whether a worker that can run jobs of this kind is one of those that `holds` some.
    fn serves(&self, kind: &str, holds: impl Fn(bool, &str) -> bool) -> bool {
        [true, false].into_iter().any(|in_process| {
            let can = |kinds: &Kinds| kinds.iter().any(|known| known == kind);
            let known = self.side(in_process).lock();
            known.iter().any(|(name, kinds)| can(kinds) && holds(in_process, name))
        })
    }

    fn kinds(&self, in_process: bool, name: &str) -> Option<Kinds> {
        self.side(in_process).lock().get(name).cloned()
    }

    fn side(&self, in_process: bool) -> &Mutex<HashMap<String, Kinds>> {
        if in_process { &self.here } else { &self.elsewhere }
    }
}

impl Engine {
    /// Who is there now. It goes through all workers.
    pub fn workers(&self) -> Workers {
        let shared = self.shared();
        let takers = shared.dispatch.present();
        let holders = shared.leases.holders();
        let takers = takers.iter().map(|(taker, free)| (&taker.worker, *free));
        gather(takers, holders, &shared.roll, WORKERS_MAX)
    }

    /// Whether somebody runs jobs of this kind, here or elsewhere, be it one who has no slot free just now. That costs the same
    /// however many jobs run.
    pub fn is_served(&self, kind: &str) -> bool {
        let shared = self.shared();
        let holds = |in_process, name: &str| shared.leases.held_by(in_process, name) > 0;
        shared.dispatch.serves(kind) || shared.roll.serves(kind, holds)
    }
}

/// Puts together what belongs to one name.
fn gather<'a>(
    takers: impl Iterator<Item = (&'a Worker, usize)>,
    holders: Holders,
    roll: &Roll,
    most: usize,
) -> Workers {
    let mut named: BTreeMap<(bool, String), Present> = BTreeMap::new();
    let mut kinds = BTreeSet::new();
    for (worker, free) in takers {
        let present = named.entry((!worker.in_process, worker.name.clone())).or_default();
        present.places += 1;
        present.free += free;
        for kind in worker.kinds.iter() {
            if !present.kinds.contains(kind) {
                present.kinds.insert(kind.clone());
            }
            if !kinds.contains(kind) {
                kinds.insert(kind.clone());
            }
        }
    }
    for ((in_process, name), jobs) in holders {
        let asked_for = roll.kinds(in_process, &name);
        let present = named.entry((!in_process, name)).or_default();
        present.jobs += jobs;
        if let Some(asked_for) = asked_for.filter(|_| present.places == 0) {
            present.kinds.extend(asked_for.iter().cloned());
            kinds.extend(asked_for.iter().cloned());
        }
    }
    let more = named.len().saturating_sub(most);
    let named = named.into_iter().take(most);
    let named = named.map(|((elsewhere, name), present)| Present { name, in_process: !elsewhere, ..present });
    Workers { named: named.collect(), more, kinds }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn worker(name: &str, kinds: &[&str], in_process: bool) -> Worker {
        let kinds = kinds.iter().map(|kind| (*kind).to_owned()).collect();
        Worker { name: name.to_owned(), kinds, in_process, term: None }
    }

    fn set(kinds: &[&str]) -> BTreeSet<String> {
        kinds.iter().map(|kind| (*kind).to_owned()).collect()
    }

    #[test]
    fn the_streams_of_one_name_are_one_worker() {
        let (one, two) = (worker("gpu", &["chat"], false), worker("gpu", &["chat", "draw"], false));
        let holders = Holders::from([((false, "gpu".to_owned()), 3)]);

        let workers = gather([(&one, 1), (&two, 4)].into_iter(), holders, &Roll::default(), 9);

        let kinds = set(&["chat", "draw"]);
        let gpu = Present {
            name: "gpu".to_owned(),
            in_process: false,
            kinds: kinds.clone(),
            places: 2,
            jobs: 3,
            free: 5,
        };
        assert_eq!(workers, Workers { named: vec![gpu], more: 0, kinds });
    }

    #[test]
    fn one_that_asks_for_no_more_is_there_while_it_holds_jobs() {
        let holders = Holders::from([((false, "busy".to_owned()), 2)]);

        let workers = gather([].into_iter(), holders, &Roll::default(), 9);

        assert_eq!(workers.named.len(), 1);
        assert_eq!(
            (workers.named[0].name.as_str(), workers.named[0].jobs, workers.named[0].places),
            ("busy", 2, 0)
        );
    }

    #[test]
    fn one_that_has_no_slot_free_still_serves_its_kinds() {
        let roll = Roll::default();
        roll.note(&worker("pool", &["simulate", "summarize"], true));
        roll.note(&worker("gone", &["draw"], false));
        let holders = Holders::from([((true, "pool".to_owned()), 4)]);

        let workers = gather([].into_iter(), holders, &roll, 9);

        assert_eq!(workers.kinds, set(&["simulate", "summarize"]));
        assert_eq!(workers.named[0].kinds, workers.kinds);
    }

    #[test]
    fn a_kind_is_served_by_who_holds_jobs_and_by_nobody_of_the_same_name() {
        let roll = Roll::default();
        roll.note(&worker("pool", &["simulate"], true));
        roll.note(&worker("pool", &["chat"], false));
        roll.note(&worker("gone", &["draw"], false));
        let pool_elsewhere = |in_process: bool, name: &str| !in_process && name == "pool";

        let served = ["simulate", "chat", "draw"].map(|kind| roll.serves(kind, pool_elsewhere));

        assert_eq!(served, [false, true, false]);
    }

    #[test]
    fn no_more_names_are_remembered_than_the_limit() {
        let roll = Roll::default();
        for number in 0..=NAMES_MAX {
            roll.note(&worker(&format!("w{number}"), &["draw"], false));
        }

        assert_eq!(roll.elsewhere.lock().len(), 1);
    }

    #[test]
    fn one_elsewhere_that_has_the_pool_s_name_is_another_worker() {
        let (own, other) = (worker("pool", &["simulate"], true), worker("pool", &["chat"], false));
        let holders = Holders::from([((true, "pool".to_owned()), 2), ((false, "pool".to_owned()), 1)]);

        let workers = gather([(&other, 1), (&own, 6)].into_iter(), holders, &Roll::default(), 9);

        let told: Vec<_> = workers.named.iter().map(|one| (one.in_process, one.jobs, one.free)).collect();
        assert_eq!(told, [(true, 2, 6), (false, 1, 1)]);
    }

    #[test]
    fn what_is_not_named_is_counted_and_its_kinds_are_told() {
        let all: Vec<Worker> =
            (0..5).map(|number| worker(&format!("w{number}"), &[&format!("k{number}")], false)).collect();

        let workers = gather(all.iter().map(|worker| (worker, 1)), Holders::new(), &Roll::default(), 2);

        let names: Vec<&str> = workers.named.iter().map(|one| one.name.as_str()).collect();
        assert_eq!((names, workers.more), (vec!["w0", "w1"], 3));
        assert_eq!(workers.kinds, set(&["k0", "k1", "k2", "k3", "k4"]));
    }
}
