//! What is made once for all who ask within a moment.

use crate::engine::{Engine, Error};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Mutex;
use tokio::time::Instant;

/// How long it is handed out. Who comes every few seconds takes no harm from what was so a second ago; who comes oftener costs
/// no more than the sending.
const LASTS: Duration = Duration::from_secs(1);

/// Something that lasts for a moment.
#[derive(Clone, Debug)]
pub struct Lasting<T>(Arc<Mutex<Option<(Instant, T)>>>);

impl<T> Default for Lasting<T> {
    fn default() -> Self {
        // Whoever has the lock makes it; the others wait for it.
        Self(Arc::default())
    }
}

impl<T: Clone + Send + 'static> Lasting<T> {
    /// As it is about now. One is made at a time, on a thread that may block.
    pub async fn get(
        &self,
        engine: &Engine,
        make: impl FnOnce(&Engine) -> T + Send + 'static,
    ) -> Result<T, Error> {
        let mut last = Arc::clone(&self.0).lock_owned().await;
        if let Some((_, made)) = last.as_ref().filter(|(when, _)| when.elapsed() < LASTS) {
            return Ok(made.clone());
        }
        // The lock goes along: who asks and goes away at once must not have several made side by side.
        let made = engine.aside(move |engine| {
            let made = make(engine);
            *last = Some((Instant::now(), made.clone()));
            made
        });
        made.await
    }
}
