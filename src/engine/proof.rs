//! Whether something can be written, for all who ask: at the cost of a small commit a second, and of none where commits go on
//! anyway.

use super::error::Error;
use crate::job::Timestamp;
use parking_lot::Mutex;
use std::time::Duration;
use tokio::sync::watch;

/// How long an answer is good. Probers come every few seconds, and to each of them a store that failed a second ago is one that
/// fails.
const PROOF_LASTS: Duration = Duration::from_secs(1);

/// What is known. Its lock is held for a moment only, also by the thread that commits.
#[derive(Debug, Default)]
pub struct Proof(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    last: Option<(Timestamp, Result<(), Error>)>,
    /// The probe under way, or one whose thread has gone.
    probe: Option<watch::Receiver<Told>>,
}

/// What a probe has come to; none before that.
type Told = Option<Result<(), Error>>;

/// How an answer is come by.
#[derive(Debug)]
pub enum Way {
    /// It is there.
    Known(Result<(), Error>),
    /// By a probe under way.
    Wait(Waiting),
    /// By a probe that is to be made, whose outcome goes to [`told`](Proof::told) with this.
    Probe(Probe, Waiting),
}

/// A probe; dropped where nothing comes of it.
#[derive(Debug)]
pub struct Probe(watch::Sender<Told>);

/// Waits for a probe.
#[derive(Debug)]
pub struct Waiting(watch::Receiver<Told>);

impl Waiting {
    /// What it comes to; none where nothing is written any more.
    pub async fn answer(mut self) -> Option<Result<(), Error>> {
        self.0.wait_for(Option::is_some).await.ok()?.clone()
    }
}

impl Proof {
    /// How somebody who asks at `now` gets an answer. There is one probe at a time, whether those who wait for it stay or not.
    pub fn ask(&self, now: Timestamp) -> Way {
        let mut known = self.0.lock();
        if let Some((_, answer)) = known.last.as_ref().filter(|(time, _)| now < time.after(PROOF_LASTS)) {
            return Way::Known(answer.clone());
        }
        if let Some(probe) = &known.probe {
            return Way::Wait(Waiting(probe.clone()));
        }
        let (sender, receiver) = watch::channel(None);
        known.probe = Some(receiver.clone());
        Way::Probe(Probe(sender), Waiting(receiver))
    }

    /// A probe has come to this.
    pub fn told(&self, probe: Probe, answer: Result<(), Error>, now: Timestamp) {
        let mut known = self.0.lock();
        known.last = Some((now, answer.clone()));
        known.probe = None;
        // Those who asked may be gone.
        let _ = probe.0.send(Some(answer));
    }

    /// Something was written, which proves as much as a probe.
    pub fn written(&self, now: Timestamp) {
        self.0.lock().last = Some((now, Ok(())));
    }

    /// Something could not be written: what was proved before is void.
    pub fn failed(&self) {
        self.0.lock().last = None;
    }
}
