//! A span, in the words of this house.

use super::context::Context;
use crate::job::Timestamp;
use opentelemetry::trace::{SpanContext, SpanId, SpanKind, Status, TraceState};
use opentelemetry::{InstrumentationScope, KeyValue};
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanLinks};
use std::borrow::Cow;
use std::sync::LazyLock;
use std::time::{Duration, SystemTime};

/// Who has made the spans.
static SCOPE: LazyLock<InstrumentationScope> = LazyLock::new(|| {
    InstrumentationScope::builder("longhaul").with_version(env!("CARGO_PKG_VERSION")).build()
});

/// A part of a trace, once its end is known.
#[derive(Clone, Debug)]
pub struct Span {
    /// Which it is.
    pub context: Context,
    /// What it is a part of; none for the first of a trace.
    pub parent: Option<SpanId>,
    /// That is somebody else's.
    pub is_remote: bool,
    /// What it is to others.
    pub kind: SpanKind,
    /// What was done.
    pub name: Cow<'static, str>,
    /// When it began.
    pub start: Timestamp,
    /// When it ended.
    pub end: Timestamp,
    /// More about it.
    pub attributes: Vec<KeyValue>,
    /// Why it failed; none where it did not.
    pub error: Option<Cow<'static, str>>,
}

impl Span {
    /// Something that began then and has not ended.
    pub fn new(context: Context, name: impl Into<Cow<'static, str>>, start: Timestamp) -> Self {
        Self {
            context,
            parent: None,
            is_remote: false,
            kind: SpanKind::Internal,
            name: name.into(),
            start,
            end: start,
            attributes: Vec::new(),
            error: None,
        }
    }

    /// A part of the span that `parent` names.
    pub fn below(
        parent: &Context,
        span: SpanId,
        name: impl Into<Cow<'static, str>>,
        start: Timestamp,
    ) -> Self {
        Self { parent: Some(parent.span), ..Self::new(parent.with(span), name, start) }
    }

    /// As the SDK knows it.
    pub fn data(self) -> SpanData {
        let Context { trace, span, flags, state } = self.context;
        // Handed on as it came; what is not well-formed is not exported.
        let state: TraceState = state.parse().unwrap_or_default();
        SpanData {
            span_context: SpanContext::new(trace, span, flags, false, state),
            parent_span_id: self.parent.unwrap_or(SpanId::INVALID),
            parent_span_is_remote: self.is_remote && self.parent.is_some(),
            span_kind: self.kind,
            name: self.name,
            start_time: moment(self.start),
            // A clock that another process read may be behind.
            end_time: moment(self.end.max(self.start)),
            attributes: self.attributes,
            dropped_attributes_count: 0,
            events: SpanEvents::default(),
            links: SpanLinks::default(),
            status: self.error.map_or(Status::Unset, |description| Status::Error { description }),
            instrumentation_scope: SCOPE.clone(),
        }
    }
}

fn moment(time: Timestamp) -> SystemTime {
    let micros = u64::try_from(time.as_micros()).unwrap_or_default();
    SystemTime::UNIX_EPOCH + Duration::from_micros(micros)
}
