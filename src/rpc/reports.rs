//! What a worker reports of its leases, by whichever way it comes: the unary methods and the `Work` stream mean the same.

use crate::engine::{Engine, Error, Report};
use crate::job::{LeaseToken, State};
use crate::proto;
use crate::wire::{lease, report};
use futures_util::future::join_all;

/// How an attempt ends, as its worker tells it.
#[derive(Debug)]
pub enum Ending {
    /// It is done.
    Completed(report::Completion),
    /// It failed, or stopped as it was asked to.
    Failed(report::Failed),
    /// It was given back.
    Released(report::Release),
}

impl Ending {
    /// The lease that it is about.
    pub fn token(&self) -> LeaseToken {
        match self {
            Self::Completed(report::Completion { token, .. })
            | Self::Failed(report::Failed { token, .. })
            | Self::Released(report::Release { token, .. }) => *token,
        }
    }

    /// Records it; returns what became of the job.
    pub async fn record(self, engine: &Engine) -> Result<State, Error> {
        match self {
            Self::Completed(report::Completion { token, result, metrics, output_bytes }) => {
                engine.complete(&token, result, metrics, output_bytes).await
            }
            Self::Failed(report::Failed { token, failure, retry_delay }) => {
                engine.fail(&token, failure, retry_delay).await
            }
            Self::Released(report::Release { token, reason, delay }) => {
                engine.release(&token, reason, delay).await
            }
        }
    }
}

/// A lease after a heartbeat that named it.
#[derive(Debug)]
pub struct Renewed {
    token: LeaseToken,
    /// What of its report was not taken.
    reason: String,
    outcome: Result<(), Error>,
}

impl Renewed {
    /// What its worker is to do as of now; an error where that is not known.
    pub fn directive(self, engine: &Engine) -> Result<proto::Directive, Error> {
        let Self { token, reason, outcome } = self;
        let directive = lease::directive(&token, outcome.and_then(|()| engine.directive(&token)))?;
        Ok(match reason.is_empty() {
            true => directive,
            false => proto::Directive { reason, ..directive },
        })
    }
}

/// Renews the leases of a heartbeat, with what it reports of each. What is wrong with a report costs that report, and not the
/// lease.
///
/// What is to be done about them is read from each when the answer is made, and not before: a lease may have to wait for the
/// commit of another's report, and what its worker has been told meanwhile must not be taken back.
pub fn renew(
    engine: &Engine,
    renewals: Vec<report::Renewal>,
) -> impl Future<Output = Vec<Renewed>> + Send + use<> {
    let renewals = renewals.into_iter().map(|report::Renewal { report, refused }| {
        let (token, renewed) = (report.token, engine.renew(report));
        async move { Renewed { token, reason: refused, outcome: renewed.await } }
    });
    join_all(renewals.collect::<Vec<_>>())
}

/// Renews leases of which nothing is reported.
pub fn renew_bare(
    engine: &Engine,
    tokens: Vec<LeaseToken>,
) -> impl Future<Output = Vec<Renewed>> + Send + use<> {
    let bare = |token| Report { token, progress: None, metrics: Default::default() };
    let renewal = |token| report::Renewal { report: bare(token), refused: String::new() };
    renew(engine, tokens.into_iter().map(renewal).collect())
}
