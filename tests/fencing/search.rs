//! An exhaustive search, breadth first: every state once, and the shortest way to whatever breaks a law.
//!
//! It knows nothing of jobs. States are compared whole, not by a fingerprint, so none is taken for another.

use std::collections::{BTreeSet, HashSet, VecDeque};
use std::fmt::Debug;
use std::hash::Hash;

/// A world to search.
pub trait Model: Sized {
    /// Something that may happen.
    type Action: Clone + Debug;
    /// What two worlds with the same future have in common.
    type Essence: Eq + Hash;
    /// Something that must never be broken.
    type Law: Copy + PartialEq + Debug;
    /// Something that must be seen, lest the search be of nothing.
    type Sight: Ord;

    fn essence(&self) -> Self::Essence;
    fn actions(&self) -> Vec<Self::Action>;
    fn after(&self, action: &Self::Action) -> Step<Self>;
}

/// What an action led to.
pub struct Step<M: Model> {
    pub world: M,
    pub broken: Vec<M::Law>,
    pub seen: Vec<M::Sight>,
}

/// What a search has found.
pub struct Found<M: Model> {
    /// Different worlds.
    pub states: usize,
    /// Actions tried.
    pub steps: usize,
    /// The most actions that a world is away from the first one.
    pub depth: usize,
    pub seen: BTreeSet<M::Sight>,
    /// The law that was broken, and the shortest way there.
    pub counterexample: Option<(M::Law, Vec<M::Action>)>,
}

/// How a world was first reached: from which one, and by what.
type Origin<M> = Option<(usize, <M as Model>::Action)>;

/// Tries everything that can happen from `first` on, until one of `laws` is broken or nothing is left to try.
pub fn search<M: Model>(first: M, laws: &[M::Law]) -> Found<M> {
    let mut known = HashSet::from([first.essence()]);
    let mut origins: Vec<Origin<M>> = vec![None];
    let mut open = VecDeque::from([(first, 0, 0)]);
    let mut found = Found { states: 1, steps: 0, depth: 0, seen: BTreeSet::new(), counterexample: None };
    while let Some((world, index, depth)) = open.pop_front() {
        found.depth = depth;
        for action in world.actions() {
            found.steps += 1;
            let Step { world: next, broken, seen } = world.after(&action);
            found.seen.extend(seen);
            if let Some(law) = broken.into_iter().find(|law| laws.contains(law)) {
                let mut way = way_to::<M>(&origins, index);
                way.push(action);
                found.counterexample = Some((law, way));
                return found;
            }
            if known.insert(next.essence()) {
                origins.push(Some((index, action)));
                open.push_back((next, origins.len() - 1, depth + 1));
                found.states += 1;
            }
        }
    }
    found
}

fn way_to<M: Model>(origins: &[Origin<M>], mut index: usize) -> Vec<M::Action> {
    let mut way = Vec::new();
    while let Some((before, action)) = &origins[index] {
        way.push(action.clone());
        index = *before;
    }
    way.reverse();
    way
}
