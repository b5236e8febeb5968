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
    /// The call is valid. What its jobs are to be started with is [`Call::trace`]: where nothing is recorded, what came.
    pub fn begin(self) -> Call {
        let Self { shared, name, came, time } = self;
        let Some(shared) = shared else { return Call { open: None, trace: came } };
        let open = shared.begin(name, came.as_ref(), time);
        let trace = match &open {
            Some(open) => Some(open.span.context.told()),
            None => came.map(|came| shared.passed_on(came)),
        };
        Call { open, trace }
    }
}

/// A call that starts jobs, from its arrival until this is dropped. Where nothing is recorded it only passes the trace on.
#[derive(Debug)]
#[must_use = "the call ends when this is dropped"]
pub struct Call {
    open: Option<Open>,
    trace: Option<Trace>,
}

impl Call {
    /// What jobs are to be started with.
    pub fn trace(&self) -> Option<Trace> {
        self.trace.clone()
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
                self.open.iter().for_each(|open| open.shared.give_back());
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

    /// Says how many jobs it has started.
    pub fn has_started_all(&mut self, jobs: usize) {
        let Some(open) = &mut self.open else { return };
        open.span.attributes.push(KeyValue::new("jobs", i64::try_from(jobs).unwrap_or(i64::MAX)));
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
