//! The figures, made once for all who ask within a moment.

use crate::engine::{Engine, Error};
use crate::metrics::Metrics;
use bytes::Bytes;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Mutex;
use tokio::time::Instant;

/// How long a text is handed out. Scrapers come every few seconds and take no harm from figures of a second ago; who comes
/// oftener costs no more than the sending.
const TEXT_LASTS: Duration = Duration::from_secs(1);

/// The text of the figures, for all who ask.
#[derive(Clone, Debug)]
pub struct Scrapes {
    engine: Engine,
    metrics: Arc<Metrics>,
    /// Whoever has this makes the text; the others wait for it.
    last: Arc<Mutex<Option<Scrape>>>,
}

#[derive(Debug)]
struct Scrape {
    made: Instant,
    text: Bytes,
}

impl Scrapes {
    /// Of these figures, and of what there is in this engine.
    pub fn new(engine: Engine, metrics: Arc<Metrics>) -> Self {
        Self { engine, metrics, last: Arc::default() }
    }

    /// The figures as of about now. One text is made at a time, on a thread that may block.
    pub async fn text(&self) -> Result<Bytes, Error> {
        let mut last = Arc::clone(&self.last).lock_owned().await;
        if let Some(scrape) = last.as_ref().filter(|scrape| scrape.made.elapsed() < TEXT_LASTS) {
            return Ok(scrape.text.clone());
        }
        let metrics = Arc::clone(&self.metrics);
        // The lock goes along: who asks and goes away at once must not have several made side by side.
        let made = self.engine.aside(move |engine| {
            let text = Bytes::from(metrics.text(engine));
            *last = Some(Scrape { made: Instant::now(), text: text.clone() });
            text
        });
        made.await
    }
}
