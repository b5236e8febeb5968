//! What a watcher or a history shows, in a form to compare.

use crate::bench::{at_once, within};
use longhaul::engine::{Message, SharedBody, SharedEvent, Watch};
use longhaul::job::*;
use std::sync::Arc;

/// All that there is to see without waiting for something to happen.
pub async fn drain(watch: &mut Watch) -> Vec<Arc<SharedEvent>> {
    let mut seen = Vec::new();
    while let Some(Some(message)) = at_once(watch.next()).await {
        if let Message::Shared(event) = message.unwrap() {
            seen.push(event);
        }
    }
    seen
}

/// All that there is to see up to the end.
pub async fn to_the_end(mut watch: Watch) -> Vec<Arc<SharedEvent>> {
    let mut seen = Vec::new();
    while let Some(message) = within(watch.next()).await {
        if let Message::Shared(event) = message.unwrap() {
            seen.push(event);
        }
    }
    seen
}

/// The kept ones among what was seen, as a history has them.
pub fn kept(seen: &[Arc<SharedEvent>]) -> Vec<Event> {
    let kept = |event: &Arc<SharedEvent>| match &event.body {
        SharedBody::Kept(body) => Some(Event {
            sequence: event.sequence,
            attempt: event.attempt,
            time: event.time,
            body: body.clone(),
        }),
        SharedBody::Progress(_) | SharedBody::Metrics(_) | SharedBody::Queue { .. } => None,
    };
    seen.iter().filter_map(kept).collect()
}

/// The attempts and fractions among what was seen.
pub fn fractions(seen: &[Arc<SharedEvent>]) -> Vec<(u32, f64)> {
    let fraction = |event: &Arc<SharedEvent>| match &event.body {
        SharedBody::Progress(progress) => progress.fraction.map(|fraction| (event.attempt, fraction)),
        SharedBody::Kept(_) | SharedBody::Metrics(_) | SharedBody::Queue { .. } => None,
    };
    seen.iter().filter_map(fraction).collect()
}

pub fn reasons(events: &[Event]) -> Vec<String> {
    let reason = |event: &Event| match &event.body {
        Body::StateChanged(change) => Some(change.reason.to_string()),
        Body::StageEntered { .. }
        | Body::OutputAppended { .. }
        | Body::OutputReset { .. }
        | Body::Logged(_) => None,
    };
    events.iter().filter_map(reason).collect()
}

/// The output of a channel as the events tell it.
pub fn pieces(events: &[Event], wanted: &str) -> Vec<String> {
    let piece = |event: &Event| match &event.body {
        Body::OutputAppended { channel, data, .. } if channel == wanted => {
            Some(String::from_utf8(data.to_vec()).expect("a piece is text"))
        }
        _ => None,
    };
    events.iter().filter_map(piece).collect()
}
