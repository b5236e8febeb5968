//! What a handler can close for a while so that no job is leased for it: whoever it depends on has asked for quiet.

use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;

/// Open, or closed until some time. Clones are the same one.
#[derive(Clone, Debug)]
pub struct Gate(Arc<watch::Sender<Option<Instant>>>);

impl Default for Gate {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(None)))
    }
}

impl Gate {
    /// Closes it for so long from now on; where it is closed for longer already, it stays so.
    pub fn close(&self, time: Duration) {
        let until = Some(Instant::now() + time);
        self.0.send_if_modified(|closed| {
            let is_later = *closed < until;
            if is_later {
                *closed = until;
            }
            is_later
        });
    }

    /// How long it is still closed; nothing where it is open.
    pub fn left(&self) -> Option<Duration> {
        let left = self.0.borrow().map(|until| until.saturating_duration_since(Instant::now()));
        left.filter(|left| !left.is_zero())
    }

    /// Waits until it is open.
    pub async fn opened(&self) {
        while let Some(left) = self.left() {
            tokio::time::sleep(left).await;
        }
    }

    /// Waits until it is closed.
    pub async fn closed(&self) {
        let mut changes = self.0.subscribe();
        let is_closed = |until: &Option<Instant>| until.is_some_and(|until| until > Instant::now());
        // The sender is ours, so that it cannot be gone.
        let _ = changes.wait_for(is_closed).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_shorter_pause_does_not_end_a_longer_one() {
        let (gate, start) = (Gate::default(), Instant::now());

        gate.close(Duration::from_secs(30));
        gate.close(Duration::from_secs(5));
        gate.closed().await;
        gate.opened().await;

        assert_eq!(start.elapsed(), Duration::from_secs(30));
    }

    #[tokio::test(start_paused = true)]
    async fn a_pause_that_grows_while_its_end_is_waited_for_is_waited_for_whole() {
        let (gate, start) = (Gate::default(), Instant::now());
        gate.opened().await;

        gate.close(Duration::from_secs(10));
        let longer = async {
            tokio::time::sleep(Duration::from_secs(5)).await;
            gate.clone().close(Duration::from_secs(20));
        };
        tokio::join!(gate.opened(), longer);

        assert_eq!(start.elapsed(), Duration::from_secs(25));
    }

    #[tokio::test(start_paused = true)]
    async fn a_pause_that_is_over_is_none_and_the_next_one_is() {
        let (gate, start) = (Gate::default(), Instant::now());
        gate.close(Duration::from_secs(1));
        tokio::time::sleep(Duration::from_secs(2)).await;

        let again = async {
            tokio::time::sleep(Duration::from_secs(3)).await;
            gate.close(Duration::from_secs(1));
        };
        tokio::join!(gate.closed(), again);

        assert_eq!(start.elapsed(), Duration::from_secs(5));
    }
}
