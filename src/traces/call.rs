//! The record of one call that starts jobs.

use super::Shared;
use super::context::Context;
use super::span::Span;
use crate::job::{Snapshot, Trace};
use opentelemetry::KeyValue;
use std::fmt::Display;
use std::sync::Arc;

/// A call that starts jobs, from its arrival until this is dropped. Where nothing is recorded it only passes the trace on.
#[derive(Debug)]
#[must_use = "the call ends when this is dropped"]
pub struct Call {
    open: Option<Open>,
    trace: Option<Trace>,
}

impl Call {
    pub(super) fn new(open: Option<Open>, came: Option<Trace>) -> Self {
        let trace = open.as_ref().map(|open| open.span.context.told()).or(came);
        Self { open, trace }
    }

    /// What jobs are to be started with.
    pub fn trace(&self) -> Option<Trace> {
        self.trace.clone()
    }

    /// Waits for the commit of what the call has asked for.
    pub async fn commit<T, E: Display>(
        &mut self,
        committing: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        let mut commit = self.open.as_ref().map(Open::commit);
        let committed = committing.await;
        if let Err(error) = &committed {
            let opens = [commit.as_mut(), self.open.as_mut()].into_iter().flatten();
            opens.for_each(|open| open.span.error = Some(error.to_string().into()));
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
}

impl Open {
    pub(super) fn new(shared: Arc<Shared>, span: Span) -> Self {
        Self { shared, span }
    }

    fn commit(&self) -> Self {
        let (shared, parent) = (Arc::clone(&self.shared), &self.span.context);
        let Context { span, .. } = parent.by_chance((shared.chance)());
        let span = Span::below(parent, span, "commit", shared.clock.now());
        Self { shared, span }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        let span = Span { end: self.shared.clock.now(), ..self.span.clone() };
        self.shared.record([span]);
    }
}
