//! The figures, made once for all who ask within a moment.

use super::lasting::Lasting;
use crate::engine::{Engine, Error};
use crate::metrics::Metrics;
use bytes::Bytes;
use std::sync::Arc;

/// The text of the figures, for all who ask.
#[derive(Clone, Debug)]
pub struct Scrapes {
    engine: Engine,
    metrics: Arc<Metrics>,
    last: Lasting<Bytes>,
}

impl Scrapes {
    /// Of these figures, and of what there is in this engine.
    pub fn new(engine: Engine, metrics: Arc<Metrics>) -> Self {
        Self { engine, metrics, last: Lasting::default() }
    }

    /// The figures as of about now.
    pub async fn text(&self) -> Result<Bytes, Error> {
        let metrics = Arc::clone(&self.metrics);
        self.last.get(&self.engine, move |engine| Bytes::from(metrics.text(engine))).await
    }
}
