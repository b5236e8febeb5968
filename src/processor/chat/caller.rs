//! Asks one provider, no more at once than it takes, and leaves it alone for as long as it wants.

use super::answer::Answer;
use super::exchange::{Audience, Exchange};
use super::failure::{self, Trouble};
use super::input::Question;
use super::provider::Provider;
use crate::worker::Gate;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use tokio::sync::{Semaphore, SemaphorePermit};

/// The longest quiet that a job sits out; for a longer one it is given back, so that everybody sees why it waits.
pub const QUIET_MAX: Duration = Duration::from_secs(10);

/// Asks a provider.
#[derive(Debug)]
pub struct Caller {
    /// Whom it asks.
    pub provider: Arc<Provider>,
    client: reqwest::Client,
    gate: Gate,
    /// One for each request at once: a job has a slot, but a batch has more requests than that one.
    places: Semaphore,
    /// Refusals since the last answer.
    refusals: AtomicU32,
}

/// The right to one request.
pub struct Place<'a>(#[allow(dead_code, reason = "it is held")] SemaphorePermit<'a>);

impl Caller {
    /// Asks `provider`, and closes the gate while it wants no requests.
    pub fn new(provider: Arc<Provider>, gate: Gate) -> reqwest::Result<Self> {
        let client = provider.client()?;
        let places = Semaphore::new(provider.max_concurrent);
        Ok(Self { provider, client, gate, places, refusals: AtomicU32::new(0) })
    }

    /// Waits until one more request may be sent, in the order of asking; not where the provider wants quiet for longer than
    /// [`QUIET_MAX`]. Cancel safe.
    pub async fn place(&self) -> Result<Place<'_>, Trouble> {
        let place = Place(self.places.acquire().await.expect("nobody closes them"));
        while let Some(left) = self.gate.left() {
            if left > QUIET_MAX {
                let failure = failure::of(&self.provider, "PROVIDER_BUSY", "it wants no requests for now");
                return Err(Trouble::Busy(failure, Some(left)));
            }
            tokio::time::sleep(left).await;
        }
        Ok(place)
    }

    /// Asks, and returns the answer. Where it is dropped, the connection is closed, and with that the provider stops.
    pub async fn ask(
        &self,
        place: Place<'_>,
        question: Question,
        audience: &mut impl Audience,
    ) -> Result<Answer, Trouble> {
        let answer = Exchange::run(&self.client, &self.provider, question, audience).await;
        drop(place);
        if answer.is_ok() {
            self.refusals.store(0, Ordering::Relaxed);
        }
        answer
    }

    /// Leaves the provider alone for as long as it asked; where it did not say, for longer with each refusal in a row. Returns
    /// how long that is, and the number of this refusal. What was asked before the last refusal had come counts with that one.
    pub fn leave_alone(&self, delay: Option<Duration>, chance: u64) -> (Duration, u32) {
        let refusals = match self.gate.left() {
            Some(_) => self.refusals.load(Ordering::Relaxed).max(1),
            None => self.refusals.fetch_add(1, Ordering::Relaxed).saturating_add(1),
        };
        let delay = delay.unwrap_or_else(|| failure::backoff(refusals, chance));
        self.gate.close(delay);
        (delay, refusals)
    }
}
