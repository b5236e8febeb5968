//! Faults that can be put into the server by name, one at a time, to see that the simulation finds them.
//!
//! Without the feature `mutants` nothing of them is in a build: [`is`] is then a constant.

/// A fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutant {
    /// Every report is taken for one of whoever holds the job.
    FencingOff,
    /// A report is answered before what it led to is committed.
    AnswerBeforeCommit,
    /// What a report led to is shown to watchers before it is committed.
    EventBeforeCommit,
    /// A commit rings no doorbell.
    DoorbellLost,
    /// An attempt begins without voiding what an earlier one has sent.
    OutputResetLeftOut,
    /// A watch goes on one event behind where it began.
    CursorTooFar,
    /// An attempt that does not count leaves its number to the next.
    AttemptNumberReused,
    /// A cancelled job gives its place of a concurrency key up at once, and again when its worker has let go.
    KeyReleasedTwice,
    /// A job that waits for another attempt is not due.
    TimerForgotten,
    /// The events at hand of a watched job are never cut.
    TailUnbounded,
    /// A pool that has got jobs leaves its place, and what was claimed for it behind them.
    PlaceLeft,
    /// The end of an attempt takes its checkpoint along.
    CheckpointLost,
    /// An attempt that goes on from a checkpoint voids the output that this keeps.
    KeptOutputVoid,
    /// Of two checkpoints that wait for one commit the earlier is recorded, under the number of the later.
    EarlierCheckpointKept,
}

impl Mutant {
    /// All of them, with their names.
    pub const ALL: [(Self, &str); 14] = [
        (Self::FencingOff, "fencing off"),
        (Self::AnswerBeforeCommit, "answer before the commit"),
        (Self::EventBeforeCommit, "event before the commit"),
        (Self::DoorbellLost, "doorbell lost"),
        (Self::OutputResetLeftOut, "output reset left out"),
        (Self::CursorTooFar, "cursor too far"),
        (Self::AttemptNumberReused, "attempt number reused"),
        (Self::KeyReleasedTwice, "key released twice"),
        (Self::TimerForgotten, "timer forgotten"),
        (Self::TailUnbounded, "tail unbounded"),
        (Self::PlaceLeft, "place left"),
        (Self::CheckpointLost, "checkpoint lost"),
        (Self::KeptOutputVoid, "kept output void"),
        (Self::EarlierCheckpointKept, "earlier checkpoint kept"),
    ];
}

#[cfg(feature = "mutants")]
mod switch {
    use super::Mutant;
    use std::sync::atomic::{AtomicUsize, Ordering};

    /// The number of the one that is in, from 1.
    static CURRENT: AtomicUsize = AtomicUsize::new(0);

    /// Puts a fault in, in place of the last one, for the whole process.
    pub fn put_in(mutant: Option<Mutant>) {
        CURRENT.store(mutant.map_or(0, |mutant| mutant as usize + 1), Ordering::SeqCst);
    }

    /// Whether this fault is in.
    pub fn is(mutant: Mutant) -> bool {
        CURRENT.load(Ordering::Relaxed) == mutant as usize + 1
    }
}

#[cfg(feature = "mutants")]
pub use switch::{is, put_in};

/// Whether this fault is in, which it is not.
#[cfg(not(feature = "mutants"))]
pub const fn is(_: Mutant) -> bool {
    false
}
