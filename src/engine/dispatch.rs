//! Who wants work, and whose turn it is. It knows no jobs: which one is next is decided by the store.
//!
//! Workers of the same kinds are a group, and a group claims for all of them at once: the best job goes to the one that
//! holds the fewest, then to the one that has waited longest. Of each kind it is known how many jobs may be ready; a group
//! for which there are none leaves the store alone, so that workers that wait cost nothing. A hint that is lost costs a
//! moment, since everybody looks again every few seconds.

mod news;

use news::News;
use parking_lot::Mutex;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

/// How many jobs one claim asks for; what is beyond it goes into the next.
const CLAIM_MAX: usize = 256;
/// How many groups are remembered with nobody in them. What is forgotten costs one claim that may find nothing.
const EMPTY_GROUPS_MAX: usize = 100;
/// Who has been dealt so many bytes and has not taken them gets no more: it may not be able to read as much as it wants.
const UNREAD_BYTES_MAX: usize = 512 << 10;

/// The kinds that a group can run.
type Kinds = Arc<[String]>;

/// Those that want work.
#[derive(Debug)]
pub struct Dispatch<W>(Mutex<Book<W>>);

#[derive(Debug)]
struct Book<W> {
    takers: HashMap<u64, Taker<W>>,
    groups: HashMap<u64, Group>,
    by_kinds: HashMap<Kinds, u64>,
    news: News,
    /// How many groups have somebody in them.
    occupied: usize,
    /// Numbers takers, groups, and turns.
    last: u64,
}

#[derive(Debug)]
struct Group {
    kinds: Kinds,
    enlisted: usize,
    /// How many of them are in other processes.
    elsewhere: usize,
    waiting: BTreeSet<Turn>,
    claiming: bool,
    /// Where it is listed among those that are idle.
    listed: Option<Turn>,
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
    group: u64,
    worker: Arc<W>,
    elsewhere: bool,
    /// How many jobs it holds, as it said last.
    held: usize,
    /// How many more it can take, as it said last.
    wanted: usize,
    /// How many of these were claimed for it, or are being so.
    coming: usize,
    /// How many bytes were dealt to it that it has not taken.
    unread: usize,
    turn: Option<Turn>,
}

impl<W> Taker<W> {
    fn waits(&self) -> bool {
        self.wanted > self.coming && self.unread < UNREAD_BYTES_MAX
    }
}

/// A claim to be made for a group.
#[derive(Debug)]
pub struct Round<W> {
    group: u64,
    /// What may be claimed.
    pub kinds: Kinds,
    /// For whom: the first job is for the first of these.
    pub slots: Vec<(u64, Arc<W>)>,
    /// How many jobs of each kind had become ready when it began.
    hints: Vec<u64>,
}

/// A job that a claim has brought.
#[derive(Clone, Copy, Debug)]
pub struct Given<'a> {
    /// Who gets it; nobody, where its lease is over already.
    pub taker: Option<u64>,
    /// What it is.
    pub kind: &'a str,
    /// How much memory it takes until it is [taken](Dispatch::taken).
    pub bytes: usize,
}

impl<W> Default for Dispatch<W> {
    fn default() -> Self {
        Self(Mutex::new(Book {
            takers: HashMap::new(),
            groups: HashMap::new(),
            by_kinds: HashMap::new(),
            news: News::default(),
            occupied: 0,
            last: 0,
        }))
    }
}

impl<W> Dispatch<W> {
    /// Takes in a worker of these kinds; it gets nothing before it [offers](Self::offer) a slot.
    pub fn enlist(&self, kinds: &Kinds, worker: W, elsewhere: bool) -> u64 {
        let mut book = self.0.lock();
        let group = book.enter(kinds, elsewhere);
        let id = book.next_number();
        let worker = Arc::new(worker);
        let taker = Taker { group, worker, elsewhere, held: 0, wanted: 0, coming: 0, unread: 0, turn: None };
        book.takers.insert(id, taker);
        id
    }

    /// Whether there is a worker that can run jobs of this kind.
    pub fn serves(&self, kind: &str) -> bool {
        let book = self.0.lock();
        book.groups.values().any(|group| group.enlisted > 0 && group.kinds.iter().any(|known| known == kind))
    }

    /// A worker that holds `held` jobs can take `free` more than it has taken so far; what it offered before is void.
    pub fn offer(&self, taker: u64, free: usize, held: usize) -> Option<Round<W>> {
        let mut book = self.0.lock();
        let known = book.takers.get_mut(&taker)?;
        known.wanted = free;
        known.held = held;
        book.place_and_deal(taker)
    }

    /// A worker has taken a job that was claimed for it, of so many bytes.
    pub fn taken(&self, taker: u64, bytes: usize) -> Option<Round<W>> {
        let mut book = self.0.lock();
        let known = book.takers.get_mut(&taker)?;
        known.coming -= 1;
        known.wanted = known.wanted.saturating_sub(1);
        known.held += 1;
        let was_full = known.unread >= UNREAD_BYTES_MAX;
        known.unread -= bytes;
        (was_full && known.waits()).then(|| book.place_and_deal(taker)).flatten()
    }

    /// A worker wants nothing any more.
    pub fn leave(&self, taker: u64) {
        self.0.lock().leave(taker);
    }

    /// Whoever is in another process gets nothing before it offers anew.
    pub fn turn_away(&self) {
        let mut book = self.0.lock();
        let elsewhere = book.takers.iter_mut().filter(|(_, taker)| taker.elsewhere);
        let mut turned_away: Vec<(u64, u64)> = elsewhere
            .map(|(id, taker)| {
                taker.wanted = 0;
                (*id, taker.group)
            })
            .collect();
        turned_away.sort_unstable();
        for (taker, group) in turned_away {
            book.place(taker);
            book.list(group);
        }
    }

    /// A job of this kind is ready.
    pub fn hint(&self, kind: &str) -> Option<Round<W>> {
        let mut book = self.0.lock();
        book.news.hint(kind);
        // Where every group with a free slot has a claim under way, the news wait for its end.
        let group = book.news.first_idle(kind)?;
        book.deal(group)
    }

    /// Nobody knows what is ready: everybody looks.
    pub fn look(&self) -> Vec<Round<W>> {
        let mut book = self.0.lock();
        book.news.doubt_all();
        let mut groups: Vec<u64> = book.groups.keys().copied().collect();
        groups.sort_unstable();
        groups.into_iter().filter_map(|group| book.deal(group)).collect()
    }

    /// How many from elsewhere are in each group that one of them is in, by its kinds.
    pub fn elsewhere(&self) -> Vec<(Kinds, usize)> {
        let book = self.0.lock();
        let occupied = book.groups.values().filter(|group| group.elsewhere > 0);
        occupied.map(|group| (Arc::clone(&group.kinds), group.elsewhere)).collect()
    }

    /// Everybody, each with how many more jobs it can take than are on their way to it.
    pub fn present(&self) -> Vec<(Arc<W>, usize)> {
        let book = self.0.lock();
        let free = |taker: &Taker<W>| taker.wanted.saturating_sub(taker.coming);
        book.takers.values().map(|taker| (Arc::clone(&taker.worker), free(taker))).collect()
    }

    /// A claim is over: `given` is what it has brought, in the order of the slots. Returns the claims that are to follow.
    pub fn settle(&self, round: &Round<W>, given: &[Given<'_>], exhausted: bool) -> Vec<Round<W>> {
        let mut book = self.0.lock();
        let mut takers = given.iter().filter_map(|given| given.taker).peekable();
        let unused = round.slots.iter().filter(|(taker, _)| takers.next_if_eq(taker).is_none());
        book.give_back(unused);
        for Given { taker, kind, bytes } in given {
            book.news.claimed(kind);
            let Some(id) = taker else { continue };
            if let Some(taker) = book.takers.get_mut(id) {
                taker.unread += bytes;
                if !taker.waits() {
                    book.place(*id);
                }
            }
        }
        if exhausted {
            book.news.exhausted(&round.kinds, &round.hints);
        }
        book.go_on(round)
    }

    /// A claim has failed. Its group makes no other before [`resume`](Self::resume).
    pub fn fail(&self, round: &Round<W>) {
        self.0.lock().give_back(round.slots.iter());
    }

    /// A group whose claim has failed may claim again.
    pub fn resume(&self, round: &Round<W>) -> Vec<Round<W>> {
        let mut book = self.0.lock();
        book.news.doubt(&round.kinds);
        book.go_on(round)
    }
}

impl<W> Book<W> {
    fn next_number(&mut self) -> u64 {
        self.last += 1;
        self.last
    }

    /// One more is in the group of these kinds.
    fn enter(&mut self, kinds: &Kinds, elsewhere: bool) -> u64 {
        let id = match self.by_kinds.get(kinds) {
            Some(id) => *id,
            None => {
                self.forget_groups();
                let id = self.next_number();
                self.news.add_group(kinds);
                self.by_kinds.insert(Arc::clone(kinds), id);
                let kinds = Arc::clone(kinds);
                let group = Group {
                    kinds,
                    enlisted: 0,
                    elsewhere: 0,
                    waiting: BTreeSet::new(),
                    claiming: false,
                    listed: None,
                };
                self.groups.insert(id, group);
                id
            }
        };
        if let Some(group) = self.groups.get_mut(&id) {
            group.enlisted += 1;
            group.elsewhere += usize::from(elsewhere);
            self.occupied += usize::from(group.enlisted == 1);
        }
        id
    }

    /// All at once when there are many, so that what it costs is shared by many that come and go.
    fn forget_groups(&mut self) {
        if self.groups.len() - self.occupied <= EMPTY_GROUPS_MAX {
            return;
        }
        let Self { groups, by_kinds, news, .. } = self;
        groups.retain(|_, group| {
            let stays = group.enlisted > 0 || group.claiming;
            if !stays {
                by_kinds.remove(&group.kinds);
                news.remove_group(&group.kinds);
            }
            stays
        });
    }

    /// Puts a taker where it belongs among those that wait.
    fn place(&mut self, id: u64) {
        let Some(taker) = self.takers.get_mut(&id) else { return };
        let Some(group) = self.groups.get_mut(&taker.group) else { return };
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
        if taker.waits() {
            let turn = Turn { held: taker.held + taker.coming, since, taker: id };
            group.waiting.insert(turn);
            taker.turn = Some(turn);
        }
    }

    fn place_and_deal(&mut self, taker: u64) -> Option<Round<W>> {
        self.place(taker);
        let group = self.takers.get(&taker)?.group;
        let round = self.deal(group);
        self.list(group);
        round
    }

    fn leave(&mut self, id: u64) {
        let Some(taker) = self.takers.remove(&id) else { return };
        if let Some(group) = self.groups.get_mut(&taker.group) {
            group.enlisted -= 1;
            group.elsewhere -= usize::from(taker.elsewhere);
            self.occupied -= usize::from(group.enlisted == 0);
            if let Some(turn) = taker.turn {
                group.waiting.remove(&turn);
            }
        }
        self.list(taker.group);
    }

    /// Lists a group among those that are idle, or no more.
    fn list(&mut self, id: u64) {
        let Some(group) = self.groups.get_mut(&id) else { return };
        let now = group.waiting.first().filter(|_| !group.claiming).copied();
        if now != group.listed {
            self.news.list(id, &group.kinds, group.listed, now);
            group.listed = now;
        }
    }

    /// The next claim of a group for which something may be ready and in which somebody waits.
    fn deal(&mut self, id: u64) -> Option<Round<W>> {
        let group = self.groups.get_mut(&id)?;
        if group.claiming || group.waiting.is_empty() {
            return None;
        }
        let most = self.news.ready(&group.kinds).min(CLAIM_MAX);
        if most == 0 {
            return None;
        }
        let mut slots = Vec::new();
        while slots.len() < most
            && let Some(turn) = group.waiting.pop_first()
        {
            let Some(taker) = self.takers.get_mut(&turn.taker) else { continue };
            slots.push((turn.taker, Arc::clone(&taker.worker)));
            taker.coming += 1;
            self.last += 1;
            let turn = Turn { held: turn.held + 1, since: self.last, ..turn };
            taker.turn = taker.waits().then_some(turn);
            group.waiting.extend(taker.turn);
        }
        group.claiming = true;
        let kinds = Arc::clone(&group.kinds);
        self.list(id);
        Some(Round { group: id, hints: self.news.hints(&kinds), kinds, slots })
    }

    /// What follows on a claim: the next one of its group, and where that does not take all that may be ready, those of
    /// others that can run some of it. One for each kind is enough: what is left then is passed on by the end of that claim.
    fn go_on(&mut self, round: &Round<W>) -> Vec<Round<W>> {
        if let Some(group) = self.groups.get_mut(&round.group) {
            group.claiming = false;
        }
        let mut next: Vec<Round<W>> = self.deal(round.group).into_iter().collect();
        self.list(round.group);
        let dealt = next.iter().map(|round| round.slots.len()).sum();
        if self.news.ready(&round.kinds) <= dealt {
            return next;
        }
        for kind in round.kinds.iter() {
            if let Some(other) = self.news.first_idle(kind) {
                next.extend(self.deal(other));
            }
        }
        next
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
}

#[cfg(test)]
mod tests;
