//! Who wants work, and whose turn it is. It knows no jobs: which one is next is decided by the store.
//!
//! Workers of the same kinds are a group, and a group claims for all of them at once: the best job goes to the one that
//! holds the fewest, then to the one that has waited longest. A group with news of ready jobs claims; one without leaves the
//! store alone, so that workers that wait cost nothing. A hint that is lost costs a moment, since everybody looks again
//! every few seconds.

use parking_lot::Mutex;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

/// How many jobs one claim asks for; what is beyond it goes into the next.
const CLAIM_MAX: usize = 256;
/// How many groups are remembered with nobody in them. What is forgotten costs one claim that may find nothing.
const EMPTY_GROUPS_MAX: usize = 100;
/// News that say nothing but that there may be any number of jobs.
const MANY: usize = usize::MAX;

/// The kinds that a group can run.
type Kinds = Arc<[String]>;

/// Those that want work.
#[derive(Debug)]
pub struct Dispatch<W>(Mutex<Book<W>>);

#[derive(Debug)]
struct Book<W> {
    takers: HashMap<u64, Taker<W>>,
    groups: HashMap<Kinds, Group>,
    by_kind: HashMap<String, Vec<Kinds>>,
    /// Numbers takers, and their turns.
    last: u64,
}

#[derive(Debug, Default)]
struct Group {
    enlisted: usize,
    waiting: BTreeSet<Turn>,
    /// How many jobs may be ready, as far as is known.
    news: usize,
    /// How many became so since the claim that is under way began.
    fresh: usize,
    claiming: bool,
}

/// The place of a taker among those of its group that can take a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Turn {
    /// How many it holds, or is about to.
    held: usize,
    since: u64,
    taker: u64,
}

#[derive(Debug)]
struct Taker<W> {
    kinds: Kinds,
    worker: Arc<W>,
    /// How many jobs it holds, as it said last.
    held: usize,
    /// How many more it can take, as it said last.
    wanted: usize,
    /// How many of these were claimed for it, or are being so.
    coming: usize,
    turn: Option<Turn>,
}

/// A claim to be made for a group.
#[derive(Debug)]
pub struct Round<W> {
    /// What may be claimed.
    pub kinds: Kinds,
    /// For whom: the first job is for the first of these.
    pub slots: Vec<(u64, Arc<W>)>,
}

impl<W> Default for Dispatch<W> {
    fn default() -> Self {
        let book = Book { takers: HashMap::new(), groups: HashMap::new(), by_kind: HashMap::new(), last: 0 };
        Self(Mutex::new(book))
    }
}

impl<W> Dispatch<W> {
    /// Takes in a worker of these kinds; it gets nothing before it [offers](Self::offer) a slot.
    pub fn enlist(&self, kinds: &Kinds, worker: W) -> u64 {
        let mut book = self.0.lock();
        book.last += 1;
        let id = book.last;
        book.group(kinds).enlisted += 1;
        let taker = Taker {
            kinds: Arc::clone(kinds),
            worker: Arc::new(worker),
            held: 0,
            wanted: 0,
            coming: 0,
            turn: None,
        };
        book.takers.insert(id, taker);
        id
    }

    /// A worker that holds `held` jobs can take `free` more than it has taken so far; what it offered before is void.
    pub fn offer(&self, taker: u64, free: usize, held: usize) -> Option<Round<W>> {
        let mut book = self.0.lock();
        let known = book.takers.get_mut(&taker)?;
        known.wanted = free;
        known.held = held;
        let kinds = Arc::clone(&known.kinds);
        book.place(taker);
        book.deal(&kinds)
    }

    /// A worker has taken jobs that were claimed for it.
    pub fn taken(&self, taker: u64, jobs: usize) {
        if let Some(taker) = self.0.lock().takers.get_mut(&taker) {
            taker.coming -= jobs;
            taker.wanted = taker.wanted.saturating_sub(jobs);
            taker.held += jobs;
        }
    }

    /// A worker wants nothing any more.
    pub fn leave(&self, taker: u64) {
        self.0.lock().leave(taker);
    }

    /// A job of this kind is ready.
    pub fn hint(&self, kind: &str) -> Option<Round<W>> {
        let mut book = self.0.lock();
        let Book { groups, by_kind, .. } = &mut *book;
        let mut best: Option<(Turn, &Kinds)> = None;
        for kinds in by_kind.get(kind)? {
            let Some(group) = groups.get_mut(kinds) else { continue };
            group.news = group.news.saturating_add(1);
            group.fresh += 1;
            if let Some(first) = group.waiting.first().filter(|_| !group.claiming)
                && best.is_none_or(|(turn, _)| *first < turn)
            {
                best = Some((*first, kinds));
            }
        }
        // Where every group with a free slot has a claim under way, the news wait for its end.
        let kinds = Arc::clone(best?.1);
        book.deal(&kinds)
    }

    /// Nobody knows what is ready: everybody looks.
    pub fn look(&self) -> Vec<Round<W>> {
        let mut book = self.0.lock();
        let groups: Vec<Kinds> = book.groups.keys().cloned().collect();
        groups.iter().filter_map(|kinds| book.look(kinds)).collect()
    }

    /// A claim is over: `claimed` are the takers that got a job, in the order of the slots. Returns the claims that are to
    /// follow.
    pub fn settle(&self, round: &Round<W>, claimed: &[u64], exhausted: bool) -> Vec<Round<W>> {
        let mut book = self.0.lock();
        let mut claimed = claimed.iter().peekable();
        let unused = round.slots.iter().filter(|(taker, _)| claimed.next_if_eq(&taker).is_none());
        book.give_back(unused);
        let Some(group) = book.groups.get_mut(&round.kinds) else { return Vec::new() };
        group.claiming = false;
        if exhausted {
            group.news = group.fresh;
        }
        let rest = group.news > 0 && group.waiting.is_empty();
        match rest {
            false => book.deal(&round.kinds).into_iter().collect(),
            // What is left may be for others that can run some of these kinds.
            true => book.sharing(&round.kinds).iter().filter_map(|kinds| book.look(kinds)).collect(),
        }
    }

    /// A claim has failed. Its group makes no other before [`resume`](Self::resume).
    pub fn fail(&self, round: &Round<W>) {
        self.0.lock().give_back(round.slots.iter());
    }

    /// A group whose claim has failed may claim again.
    pub fn resume(&self, round: &Round<W>) -> Option<Round<W>> {
        let mut book = self.0.lock();
        book.groups.get_mut(&round.kinds)?.claiming = false;
        book.look(&round.kinds)
    }
}

impl<W> Book<W> {
    fn group(&mut self, kinds: &Kinds) -> &mut Group {
        if !self.groups.contains_key(kinds) {
            self.forget_groups();
            for kind in kinds.iter() {
                self.by_kind.entry(kind.clone()).or_default().push(Arc::clone(kinds));
            }
        }
        let new = || Group { news: MANY, ..Default::default() };
        self.groups.entry(Arc::clone(kinds)).or_insert_with(new)
    }

    fn forget_groups(&mut self) {
        let is_empty = |group: &Group| group.enlisted == 0 && !group.claiming;
        if self.groups.values().filter(|group| is_empty(group)).count() <= EMPTY_GROUPS_MAX {
            return;
        }
        self.groups.retain(|_, group| !is_empty(group));
        self.by_kind.retain(|_, groups| {
            groups.retain(|kinds| self.groups.contains_key(kinds));
            !groups.is_empty()
        });
    }

    /// Puts a taker where it belongs among those that wait.
    fn place(&mut self, id: u64) {
        let Some(taker) = self.takers.get_mut(&id) else { return };
        let Some(group) = self.groups.get_mut(&taker.kinds) else { return };
        let since = match taker.turn.take() {
            Some(turn) => {
                group.waiting.remove(&turn);
                turn.since
            }
            None => {
                self.last += 1;
                self.last
            }
        };
        if taker.wanted > taker.coming {
            let turn = Turn { held: taker.held + taker.coming, since, taker: id };
            group.waiting.insert(turn);
            taker.turn = Some(turn);
        }
    }

    fn leave(&mut self, id: u64) {
        let Some(taker) = self.takers.remove(&id) else { return };
        if let Some(group) = self.groups.get_mut(&taker.kinds) {
            group.enlisted -= 1;
            if let Some(turn) = taker.turn {
                group.waiting.remove(&turn);
            }
        }
    }

    /// The next claim of a group that has news and somebody who waits.
    fn deal(&mut self, kinds: &Kinds) -> Option<Round<W>> {
        let group = self.groups.get_mut(kinds)?;
        if group.claiming || group.news == 0 || group.waiting.is_empty() {
            return None;
        }
        let most = group.news.min(CLAIM_MAX);
        let mut slots = Vec::new();
        while slots.len() < most
            && let Some(turn) = group.waiting.pop_first()
        {
            let Some(taker) = self.takers.get_mut(&turn.taker) else { continue };
            slots.push((turn.taker, Arc::clone(&taker.worker)));
            taker.coming += 1;
            self.last += 1;
            let turn = Turn { held: turn.held + 1, since: self.last, ..turn };
            taker.turn = (taker.wanted > taker.coming).then_some(turn);
            group.waiting.extend(taker.turn);
        }
        if group.news != MANY {
            group.news -= slots.len();
        }
        group.fresh = 0;
        group.claiming = true;
        Some(Round { kinds: Arc::clone(kinds), slots })
    }

    fn look(&mut self, kinds: &Kinds) -> Option<Round<W>> {
        self.groups.get_mut(kinds)?.news = MANY;
        self.deal(kinds)
    }

    fn give_back<'a>(&mut self, slots: impl Iterator<Item = &'a (u64, Arc<W>)>)
    where
        W: 'a,
    {
        for (id, _) in slots {
            if let Some(taker) = self.takers.get_mut(id) {
                taker.coming -= 1;
                self.place(*id);
            }
        }
    }

    /// The other groups that can run some of these kinds.
    fn sharing(&self, kinds: &Kinds) -> Vec<Kinds> {
        let mut sharing: Vec<Kinds> =
            kinds.iter().filter_map(|kind| self.by_kind.get(kind)).flatten().cloned().collect();
        sharing.sort_unstable();
        sharing.dedup();
        sharing.retain(|other| other != kinds);
        sharing
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kinds(names: &[&str]) -> Kinds {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    /// Enlists workers of these kinds with so many free slots each, and lets them find out that nothing is ready.
    fn idle(dispatch: &Dispatch<()>, names: &[&str], free: usize, workers: usize) -> Vec<u64> {
        let ids: Vec<u64> = (0..workers).map(|_| dispatch.enlist(&kinds(names), ())).collect();
        for id in &ids {
            if let Some(round) = dispatch.offer(*id, free, 0) {
                assert!(dispatch.settle(&round, &[], true).is_empty());
            }
        }
        ids
    }

    /// How many of the slots are whose.
    fn dealt(round: &Round<()>, ids: &[u64]) -> Vec<usize> {
        ids.iter().map(|id| round.slots.iter().filter(|(taker, _)| taker == id).count()).collect()
    }

    #[test]
    fn a_burst_is_dealt_evenly() {
        let dispatch = Dispatch::default();
        let ids = idle(&dispatch, &["a"], 16, 4);

        let first = dispatch.hint("a").unwrap();
        (0..9).for_each(|_| assert!(dispatch.hint("a").is_none(), "a claim is under way"));
        let rest = dispatch.settle(&first, &ids[..1], false).remove(0);

        assert_eq!(dealt(&first, &ids), [1, 0, 0, 0]);
        assert_eq!(dealt(&rest, &ids), [2, 3, 2, 2]);
    }

    #[test]
    fn the_one_that_holds_fewer_comes_first() {
        let dispatch = Dispatch::default();
        let ids = idle(&dispatch, &["a"], 4, 2);
        assert!(dispatch.offer(ids[0], 4, 3).is_none());

        let round = dispatch.hint("a").unwrap();

        assert_eq!(dealt(&round, &ids), [0, 1]);
    }

    #[test]
    fn without_news_nobody_claims_and_after_them_once() {
        let dispatch = Dispatch::default();
        let ids = idle(&dispatch, &["a"], 1, 3);

        assert!(ids.iter().all(|id| dispatch.offer(*id, 1, 0).is_none()));
        let round = dispatch.hint("a").unwrap();
        let after = dispatch.settle(&round, &ids[..1], false);

        assert_eq!((round.slots.len(), after.len()), (1, 0));
    }

    #[test]
    fn what_one_group_cannot_take_another_gets() {
        let dispatch = Dispatch::default();
        let few = idle(&dispatch, &["a"], 1, 1);
        let others = idle(&dispatch, &["a", "b"], 1, 1);

        let first = dispatch.hint("a").unwrap();
        let second = dispatch.hint("a").unwrap();
        let third = dispatch.hint("a");

        assert_eq!((dealt(&first, &few), dealt(&second, &others)), (vec![1], vec![1]));
        assert!(third.is_none());
        dispatch.offer(others[0], 2, 0);
        let next = dispatch.settle(&first, &few, false);
        assert!(next.is_empty(), "the other's claim is under way: {next:?}");
        assert_eq!(dispatch.settle(&second, &others, false).len(), 1, "the third job is still there");
    }

    #[test]
    fn an_offer_counts_what_is_on_its_way() {
        let dispatch = Dispatch::default();
        let ids = idle(&dispatch, &["a"], 4, 1);
        let round = dispatch.hint("a").unwrap();

        dispatch.offer(ids[0], 1, 3);
        dispatch.settle(&round, &ids, false);
        assert!(dispatch.hint("a").is_none(), "its one slot is taken");

        dispatch.taken(ids[0], 1);
        assert!(dispatch.offer(ids[0], 1, 3).is_some());
    }

    #[test]
    fn who_wants_no_more_meanwhile_is_not_offered_what_a_claim_left_over() {
        let dispatch = Dispatch::default();
        let ids = idle(&dispatch, &["a"], 3, 1);
        let round = dispatch.hint("a").unwrap();

        dispatch.offer(ids[0], 0, 0);
        dispatch.settle(&round, &[], true);

        assert!(dispatch.hint("a").is_none());
    }

    #[test]
    fn who_has_left_gets_nothing_and_is_forgotten() {
        let dispatch = Dispatch::default();
        let ids = idle(&dispatch, &["a"], 1, 2);

        dispatch.leave(ids[0]);
        let round = dispatch.hint("a").unwrap();
        dispatch.leave(ids[1]);
        dispatch.settle(&round, &[], true);

        assert_eq!(dealt(&round, &ids), [0, 1]);
        assert!(dispatch.hint("a").is_none() && dispatch.0.lock().takers.is_empty());
    }

    #[test]
    fn a_claim_that_failed_is_made_again_only_when_told() {
        let dispatch = Dispatch::default();
        idle(&dispatch, &["a"], 1, 1);
        let round = dispatch.hint("a").unwrap();

        dispatch.fail(&round);

        assert!(dispatch.hint("a").is_none());
        assert!(dispatch.resume(&round).is_some());
    }
}
