//! Servers that are broken in one way each, so that each law is seen to be broken.
//!
//! What is broken is what `job::transition` is given and what is made of its answer, never the function itself.

use crate::world::World;
use longhaul::job::*;
use std::rc::Rc;

/// What a server does wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutant {
    /// Gives a job away that somebody has.
    LeasesWhatIsHeld,
    /// Takes every report for one of whoever holds the job.
    NoFencing,
    /// Takes back whatever lease there is, though another one was meant.
    NoFencingOfKeepers,
    /// Does not remember how a lease ended.
    ForgetsEndedLeases,
    /// Lets a job that is being cancelled go on as if it was not.
    CancelDoesNotWin,
    /// Cancels a job that has ended as if it still waited.
    CancelsWhatHasEnded,
    /// Leaves the output of an earlier attempt where it is.
    KeepsVoidOutput,
}

impl World {
    /// The job as the server takes it to be.
    pub fn believed_job(&self, command: &Command) -> Rc<Job> {
        let job = match (self.mutant, command) {
            (Some(Mutant::LeasesWhatIsHeld), Command::Lease { .. }) if self.job.lease.is_some() => {
                Job { state: State::Pending, lease: None, ..Job::clone(&self.job) }
            }
            (Some(Mutant::ForgetsEndedLeases), _) => Job { ended_lease: None, ..Job::clone(&self.job) },
            (Some(Mutant::CancelDoesNotWin), Command::Complete { .. })
                if self.job.state == State::Cancelling =>
            {
                Job { state: State::Running, ..Job::clone(&self.job) }
            }
            (Some(Mutant::CancelsWhatHasEnded), Command::Cancel { .. }) if self.job.state.is_final() => {
                Job { state: State::Pending, ..Job::clone(&self.job) }
            }
            _ => return Rc::clone(&self.job),
        };
        Rc::new(job)
    }

    /// The token that the server takes the report's for.
    pub fn believed_token(&self, epoch: u32) -> LeaseToken {
        let holder = self.job.lease_token().filter(|_| self.mutant == Some(Mutant::NoFencing));
        holder.unwrap_or_else(|| self.token(epoch))
    }

    /// The lease and the keeper that the server takes these for.
    pub fn believed_keeper(&self, epoch: u32, keeper: u64) -> (u32, Keeper) {
        match (&self.job.lease, self.mutant) {
            (Some(lease), Some(Mutant::NoFencingOfKeepers)) => (self.job.epoch, lease.keeper),
            _ => (epoch, Keeper(keeper)),
        }
    }

    /// What the server keeps of a step.
    pub fn kept_job(&self, mut job: Job) -> Job {
        if self.mutant == Some(Mutant::KeepsVoidOutput) && job.attempt > self.job.attempt {
            job.emitted.channels.clone_from(&self.job.emitted.channels);
        }
        job
    }
}
