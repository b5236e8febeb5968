//! What is committed of an attempt's output: a command for each piece, which can be repeated.

use super::checkpoints::Admitted;
use crate::job::{Command, LeaseToken, LogLine};
use bytes::Bytes;

/// What a line of the log counts beside its text, and a reset or a checkpoint altogether.
pub const RECORD_BYTES: usize = 32;

/// What is committed as one command.
#[derive(Debug)]
pub enum Piece {
    /// More of a channel.
    Data { index: usize, channel: String, offset: u64, data: Bytes },
    /// The end of what a channel had beyond `kept`.
    Reset { index: usize, channel: String, kept: u64 },
    /// More of the log.
    Lines { offset: u64, lines: Vec<LogLine> },
    /// Where the attempt is, and how much this counts.
    Checkpoint(Admitted, usize),
}

impl Piece {
    /// The command that records it. Repeated after an unknown outcome, it and what was sent behind it do nothing more, but
    /// that a reset voids what was recorded behind it, which is then recorded again.
    pub fn command(&self, token: &LeaseToken) -> Command {
        let lease = *token;
        match self {
            Self::Data { channel, offset, data, .. } => Command::AppendOutput {
                lease,
                channel: channel.clone(),
                reset_to: None,
                offset: *offset,
                data: data.clone(),
            },
            Self::Reset { channel, kept, .. } => Command::AppendOutput {
                lease,
                channel: channel.clone(),
                reset_to: Some(*kept),
                offset: *kept,
                data: Bytes::new(),
            },
            Self::Lines { offset, lines } => {
                Command::AppendLog { lease, offset: *offset, lines: lines.clone() }
            }
            Self::Checkpoint(Admitted { number, output_bytes, data }, _) => Command::Checkpoint {
                lease,
                number: *number,
                output_bytes: *output_bytes,
                data: data.clone(),
            },
        }
    }

    /// How much it counts.
    pub fn bytes(&self) -> usize {
        match self {
            Self::Data { data, .. } => data.len(),
            Self::Reset { .. } => RECORD_BYTES,
            Self::Lines { lines, .. } => bytes_of(lines),
            Self::Checkpoint(_, counted) => *counted,
        }
    }
}

/// How much lines of the log count.
pub fn bytes_of(lines: &[LogLine]) -> usize {
    lines.iter().map(|line| line.message.len() + RECORD_BYTES).sum()
}
