//! How much of everything there is now, for those who keep figures.

use super::Engine;
use std::sync::Arc;

/// How much there is now of what lives in memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Figures {
    /// Watches of one job each.
    pub watches: usize,
    /// Events of watched jobs that are at hand, so that their watchers need not read them.
    pub events_at_hand: usize,
    /// Watches of many jobs.
    pub watches_of_many: usize,
    /// Leases that are kept here, those that are not accepted yet included.
    pub leases: usize,
    /// How many workers elsewhere there are of each set of kinds; one without a stream or a call for work is not known.
    pub workers: Vec<(Arc<[String]>, usize)>,
}

impl Engine {
    /// How much there is now.
    pub fn figures(&self) -> Figures {
        let shared = self.shared();
        Figures {
            watches: shared.hub.seats(),
            events_at_hand: shared.hub.events_at_hand(),
            watches_of_many: shared.changes.readers(),
            leases: shared.leases.count(),
            workers: shared.dispatch.elsewhere(),
        }
    }
}
