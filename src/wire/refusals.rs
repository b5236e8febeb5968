//! Who is told the reason of each refusal that leaves the server, for figures.

use std::fmt;
use std::sync::Arc;

/// Is told each refusal's reason; by default nobody is. A copy costs a reference count.
#[derive(Clone, Default)]
pub struct Refusals(Option<Arc<Told>>);

type Told = dyn Fn(&str) + Send + Sync;

impl Refusals {
    /// Has `told` called with the reason of each. It must be short.
    pub fn to(told: impl Fn(&str) + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(told)))
    }

    /// Tells of one.
    pub fn tell(&self, reason: &str) {
        if let Some(told) = &self.0 {
            told(reason);
        }
    }
}

impl fmt::Debug for Refusals {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Refusals")
    }
}
