//! How a lease is shown to its worker: the job with it, what to do, and the terms.

use super::reply::{self, duration, timestamp};
use crate::engine::{Directive, Error, LeaseTerms, Leased, Order};
use crate::job::{LeaseToken, Snapshot, Timestamp};
use crate::proto;
use proto::directive::Action;

/// A job for a worker. `now` is when an attempt would begin that begins at once.
pub fn assignment(leased: Leased, now: Timestamp) -> proto::Assignment {
    let Leased { snapshot, token, checkpoint, expire_time, .. } = leased;
    let Snapshot { input, trace, .. } = &snapshot;
    let input = input.clone().unwrap_or_default();
    let trace = trace.clone().unwrap_or_default();
    let output_offset = snapshot.job.checkpoint().unwrap_or(0) as i64;
    let deadline = snapshot.job.deadline_from(now);
    let job = reply::job(&Snapshot { input: None, ..snapshot });
    proto::Assignment {
        job: Some(job),
        lease_token: token.to_string(),
        lease_expire_time: Some(timestamp(expire_time)),
        attempt_deadline: deadline.map(timestamp),
        output_offset,
        traceparent: trace.parent,
        tracestate: trace.state,
        input_json: String::from_utf8_lossy(&input).into_owned(),
        checkpoint,
    }
}

/// What the holder of a lease is to do; an error where that is not known.
pub fn directive(token: &LeaseToken, renewed: Result<Directive, Error>) -> Result<proto::Directive, Error> {
    match renewed {
        Ok(Directive { order: Order::Lost, .. }) | Err(Error::Refused(_) | Error::NotFound) => {
            Ok(lost(token))
        }
        Ok(Directive { order, expire_time }) => Ok(proto::Directive {
            lease_expire_time: Some(timestamp(expire_time)),
            ..self::order(token, order)
        }),
        Err(error) => Err(error),
    }
}

/// Tells the holder of a lease what to do, unasked.
pub fn order(token: &LeaseToken, order: Order) -> proto::Directive {
    let (action, grace, reason) = match order {
        Order::Continue => (Action::Renewed, None, ""),
        Order::Cancel { grace } => (Action::Cancel, Some(duration(grace)), "the job is to be cancelled"),
        Order::Lost => return lost(token),
    };
    proto::Directive {
        lease_token: token.to_string(),
        action: action.into(),
        grace,
        reason: reason.to_owned(),
        ..Default::default()
    }
}

/// Tells that a lease is lost.
pub fn lost(token: &LeaseToken) -> proto::Directive {
    proto::Directive {
        lease_token: token.to_string(),
        action: Action::LeaseLost.into(),
        reason: "the lease has ended".to_owned(),
        ..Default::default()
    }
}

/// The terms of leases.
pub fn terms(terms: &LeaseTerms) -> proto::LeaseTerms {
    proto::LeaseTerms {
        heartbeat_interval: Some(duration(terms.heartbeat_interval)),
        lease_duration: Some(duration(terms.lease_duration)),
        accept_timeout: Some(duration(terms.accept_timeout)),
    }
}
