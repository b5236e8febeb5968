//! The record of one call that starts jobs.

use super::Shared;
use super::context::Context;
use super::span::Span;
use crate::job::{Snapshot, Timestamp, Trace};
use opentelemetry::KeyValue;
use std::sync::Arc;

/// A call that has come and is still to be looked at. Where it is not valid, it is dropped: that leaves nothing and costs nothing.
#[derive(Debug)]
#[must_use = "the call is recorded once it has begun"]
pub struct Arrival {
    pub(super) shared: Option<Arc<Shared>>,
    pub(super) name: &'static str,
    pub(super) came: Option<Trace>,
    pub(super) time: Timestamp,
}

impl Arrival {
    /// The call is valid, and starts so many jobs. Each of them that is recorded costs a token: where there are too few, the
    /// first jobs are recorded and for the others it is as if the call were not.
    pub fn begin(self, jobs: usize) -> Call {
        let Self { shared, name, came, time } = self;
        let Some(shared) = shared else { return Call { open: None, recorded: 0, came } };
        let (open, recorded) = shared.begin(name, came.as_ref(), time, jobs).unzip();
        Call { open, recorded: recorded.unwrap_or_default(), came: came.map(|came| shared.passed_on(came)) }
    }
}

/// A call that starts jobs, from its arrival until this is dropped. Where nothing is recorded it only passes the trace on.
#[derive(Debug)]
#[must_use = "the call ends when this is dropped"]
pub struct Call {
    open: Option<Open>,
    /// How many of its jobs are recorded.
    recorded: usize,
    came: Option<Trace>,
}

impl Call {
    /// What its job with this index is to be started with: where that is not recorded, what came.
    pub fn trace(&self, index: usize) -> Option<Trace> {
        match &self.open {
            Some(open) if index < self.recorded => Some(open.span.context.told()),
            _ => self.came.clone(),
        }
    }

    /// Waits for the commit of what the call has asked for. An error is recorded by its stable reason, where `fault` has one;
    /// where it has none, the call itself could not be granted, which is as if it had not been valid: it leaves and costs nothing.
    pub async fn commit<T, E>(
        &mut self,
        committing: impl Future<Output = Result<T, E>>,
        fault: impl FnOnce(&E) -> Option<&'static str>,
    ) -> Result<T, E> {
        let mut commit = self.open.as_ref().map(Open::commit);
        let committed = committing.await;
        let opens = [commit.as_mut(), self.open.as_mut()].into_iter().flatten();
        match committed.as_ref().err().map(fault) {
            None => {}
            Some(Some(reason)) => opens.for_each(|open| open.span.error = Some(reason.into())),
            Some(None) => {
                opens.for_each(|open| open.is_void = true);
                self.open.iter().for_each(|open| open.shared.give_back(self.recorded));
            }
        }
        committed
    }

    /// Says which job it has started, or had started before.
    pub fn has_started(&mut self, snapshot: &Snapshot, repeated: bool) {
        let Some(open) = &mut self.open else { return };
        open.span.attributes.extend([
            KeyValue::new("job.id", snapshot.job.id.to_string()),
            KeyValue::new("job.kind", snapshot.job.kind.clone()),
            KeyValue::new("job.repeated", repeated),
        ]);
    }

    /// Says how many jobs it has started, and how many of these are recorded, where that is not all.
    pub fn has_started_all(&mut self, jobs: usize) {
        let Some(open) = &mut self.open else { return };
        let count = |key, jobs| KeyValue::new(key, i64::try_from(jobs).unwrap_or(i64::MAX));
        open.span.attributes.push(count("jobs", jobs));
        if self.recorded < jobs {
            open.span.attributes.push(count("jobs.recorded", self.recorded));
        }
    }
}

/// A span that ends when it is dropped, as it is when its caller has gone away.
#[derive(Debug)]
pub(super) struct Open {
    shared: Arc<Shared>,
    span: Span,
    /// It is not to be recorded after all.
    is_void: bool,
}

impl Open {
    pub(super) fn new(shared: Arc<Shared>, span: Span) -> Self {
        Self { shared, span, is_void: false }
    }

    fn commit(&self) -> Self {
        let (shared, parent) = (Arc::clone(&self.shared), &self.span.context);
        let Context { span, .. } = parent.by_chance((shared.chance)());
        let span = Span::below(parent, span, "commit", shared.clock.now());
        Self::new(shared, span)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        if !self.is_void {
            let span = Span { end: self.shared.clock.now(), ..self.span.clone() };
            self.shared.record([span]);
        }
    }
}
