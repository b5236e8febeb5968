//! What a new job has from one that ended and that it repeats: the checkpoint, and the output that this keeps.

use super::work::piece_length;
use super::{Step, Transition};
use crate::job::*;

/// Lets a new job go on where another has left off, which had `output` and left `checkpoint`.
pub fn resume(job: &Job, mut output: Bytes, checkpoint: Bytes) -> Transition {
    let bytes = output.len() as u64;
    let now = job.create_time;
    let mut step =
        Step { job: job.clone(), events: Vec::new(), result: None, live: None, checkpoint: None, now };
    let mut offset = 0;
    while !output.is_empty() {
        let data = output.split_to(piece_length(&output));
        let length = data.len() as u64;
        step.emit(Body::OutputAppended { channel: String::new(), offset, data });
        offset += length;
    }
    let emitted = &mut step.job.emitted;
    emitted.channels = vec![Channel { name: String::new(), bytes }];
    emitted.history_bytes = bytes;
    emitted.checkpoint = Some(LastCheckpoint { number: 0, output_bytes: Some(bytes) });
    let Step { job, events, .. } = step;
    let answer = job.state;
    Transition { job, events, result: None, live: None, checkpoint: Some(checkpoint), answer }
}
