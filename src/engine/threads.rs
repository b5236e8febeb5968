//! Where that is done which would hold others up.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// Whether an engine has threads beside those of its runtime.
#[derive(Clone, Default)]
pub enum Threads {
    /// Commits have one of their own, and what may be long is done by those of tokio that may block.
    #[default]
    Own,
    /// There are none: each thing has its turn in the caller's runtime. Where that has one thread and a paused clock, and chance
    /// comes from a seed, everything happens in the same order each time. For simulations: a commit waits as long as this says, in
    /// tokio's time, before it is made, and then holds everybody up.
    None(Arc<dyn Fn() -> Duration + Send + Sync>),
}

impl fmt::Debug for Threads {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Own => "Own",
            Self::None(_) => "None",
        })
    }
}
