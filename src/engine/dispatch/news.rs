//! What may be ready, by kind, and which groups could claim it now.
//!
//! All of it is found by kind, so that what a job costs does not grow with the groups that wait for others.

use super::{Kinds, Turn};
use std::collections::{BTreeSet, HashMap};

/// Nobody knows how many, so it may be any number.
const MANY: usize = usize::MAX;

/// What is known of each kind that somebody can run.
#[derive(Debug, Default)]
pub struct News(HashMap<String, Kind>);

#[derive(Debug)]
struct Kind {
    /// How many of its jobs are ready at most.
    ready: usize,
    /// How many have become ready so far; a claim that finds nothing says nothing of those that came after it had begun.
    hints: u64,
    groups: usize,
    /// The groups that can run it and have a slot and no claim under way.
    idle: BTreeSet<(Turn, u64)>,
}

impl News {
    /// There is another group that can run these.
    pub fn add_group(&mut self, kinds: &Kinds) {
        for kind in kinds.iter() {
            let new = || Kind { ready: MANY, hints: 0, groups: 0, idle: BTreeSet::new() };
            self.0.entry(kind.clone()).or_insert_with(new).groups += 1;
        }
    }

    /// A group that is not idle is gone.
    pub fn remove_group(&mut self, kinds: &Kinds) {
        for kind in kinds.iter() {
            if let Some(known) = self.0.get_mut(kind) {
                known.groups -= 1;
                if known.groups == 0 {
                    self.0.remove(kind);
                }
            }
        }
    }

    /// A group has another place among those that are idle, or is not among them.
    pub fn list(&mut self, group: u64, kinds: &Kinds, before: Option<Turn>, now: Option<Turn>) {
        for kind in kinds.iter() {
            let Some(known) = self.0.get_mut(kind) else { continue };
            if let Some(turn) = before {
                known.idle.remove(&(turn, group));
            }
            known.idle.extend(now.map(|turn| (turn, group)));
        }
    }

    /// Which group is to claim, where a job of this kind may be ready and somebody could.
    pub fn first_idle(&self, kind: &str) -> Option<u64> {
        let known = self.0.get(kind).filter(|known| known.ready > 0)?;
        known.idle.first().map(|(_, group)| *group)
    }

    /// A job of this kind is ready.
    pub fn hint(&mut self, kind: &str) {
        if let Some(known) = self.0.get_mut(kind) {
            known.ready = known.ready.saturating_add(1);
            known.hints += 1;
        }
    }

    /// Any number of jobs of these kinds may be ready.
    pub fn doubt(&mut self, kinds: &Kinds) {
        for kind in kinds.iter() {
            if let Some(known) = self.0.get_mut(kind) {
                known.ready = MANY;
            }
        }
    }

    /// Any number of jobs of any kind may be ready.
    pub fn doubt_all(&mut self) {
        self.0.values_mut().for_each(|known| known.ready = MANY);
    }

    /// How many jobs of these kinds are ready at most.
    pub fn ready(&self, kinds: &Kinds) -> usize {
        let of = |kind| self.0.get(kind).map_or(0, |known: &Kind| known.ready);
        kinds.iter().map(of).fold(0, usize::saturating_add)
    }

    /// How many jobs of each of these kinds have become ready so far.
    pub fn hints(&self, kinds: &Kinds) -> Vec<u64> {
        kinds.iter().map(|kind| self.0.get(kind).map_or(0, |known| known.hints)).collect()
    }

    /// A job of this kind has been claimed.
    pub fn claimed(&mut self, kind: &str) {
        if let Some(known) = self.0.get_mut(kind)
            && known.ready != MANY
        {
            known.ready = known.ready.saturating_sub(1);
        }
    }

    /// A claim has left no job of these kinds, but for those that became ready after there had been so many.
    pub fn exhausted(&mut self, kinds: &Kinds, before: &[u64]) {
        for (kind, before) in kinds.iter().zip(before) {
            if let Some(known) = self.0.get_mut(kind) {
                let since = usize::try_from(known.hints - before).unwrap_or(MANY);
                known.ready = known.ready.min(since);
            }
        }
    }
}
