//! The bounds of one job, each with its reason. What a server may set differently is in its settings instead.

/// Characters of a kind: a name, not a text.
pub const KIND_CHARACTERS_MAX: usize = 64;
/// Bytes of an input, unless the server's settings say otherwise; larger things belong into a store of objects.
pub const INPUT_BYTES_MAX: usize = 1 << 20;
/// Levels of an input, the object itself included; what protobuf's own JSON parsers take without a setting.
pub const INPUT_DEPTH_MAX: usize = 30;
/// Bytes of a result.
pub const RESULT_BYTES_MAX: usize = 1 << 20;
/// Labels of a job.
pub const LABELS_MAX: usize = 32;
/// Characters of a label's key.
pub const LABEL_KEY_CHARACTERS_MAX: usize = 63;
/// Characters of a label's value.
pub const LABEL_VALUE_CHARACTERS_MAX: usize = 255;
/// Characters of a request id.
pub const REQUEST_ID_CHARACTERS_MAX: usize = 128;
/// Characters of a concurrency key.
pub const CONCURRENCY_KEY_CHARACTERS_MAX: usize = 128;
/// Jobs of one concurrency key that may run at once; more is no limit any more.
pub const CONCURRENCY_LIMIT_MAX: u32 = 100_000;
/// Characters of a reason that a person gives.
pub const MESSAGE_CHARACTERS_MAX: usize = 255;
/// Characters of a worker's name.
pub const WORKER_ID_CHARACTERS_MAX: usize = 128;
/// Attempts that a policy may ask for.
pub const ATTEMPTS_MAX: u32 = 1_000;
/// The largest growth of a wait; beyond it a policy is surely a mistake.
pub const BACKOFF_COEFFICIENT_MAX: f64 = 1_000.0;
/// Seconds of any duration or delay in the options: ten years.
pub const DURATION_SECONDS_MAX: u64 = 10 * 366 * 24 * 3600;
/// Seconds that a worker may take to let go after a cancellation.
pub const GRACE_SECONDS_MAX: u64 = 600;
/// Bytes of a job's valid output, all channels together.
pub const OUTPUT_BYTES_MAX: u64 = 64 << 20;
/// Bytes of a job's output with all that was voided, so that an attempt that starts over and over has an end.
pub const OUTPUT_HISTORY_BYTES_MAX: u64 = 256 << 20;
/// Bytes of one output event; a reader that stalls holds up to one of them in its stream.
pub const OUTPUT_EVENT_BYTES_MAX: usize = 64 << 10;
/// Bytes of one frame of output as a worker sends it.
pub const OUTPUT_FRAME_BYTES_MAX: usize = 256 << 10;
/// Bytes of a checkpoint: where an attempt is, and not what it has made, which is output. One more lies in each answer with a job.
pub const CHECKPOINT_BYTES_MAX: usize = 256 << 10;
/// Bytes of output that a job takes over from the one that it repeats: they are written in one commit, like an input.
pub const RESUMED_BYTES_MAX: u64 = 1 << 20;
/// Channels of a job's output.
pub const CHANNELS_MAX: usize = 8;
/// Characters of a channel's name.
pub const CHANNEL_CHARACTERS_MAX: usize = 64;
/// Characters of a stage.
pub const STAGE_CHARACTERS_MAX: usize = 128;
/// Stages of a job that are kept.
pub const STAGES_MAX: u32 = 1_000;
/// Bytes of a line in a job's log.
pub const LOG_LINE_BYTES_MAX: usize = 8 << 10;
/// Lines of a job's log.
pub const LOG_LINES_MAX: u32 = 10_000;
/// Measurements of an attempt.
pub const METRICS_MAX: usize = 64;
/// Characters of a measurement's name, a unit, or a failure's reason.
pub const NAME_CHARACTERS_MAX: usize = 64;
/// Bytes of a failure's message.
pub const FAILURE_MESSAGE_BYTES_MAX: usize = 8 << 10;
/// Bytes of a failure's details, as JSON.
pub const FAILURE_DETAILS_BYTES_MAX: usize = 16 << 10;
/// Attempts that only a stop of the server ended; a job that sees more of them may well be what stops it.
pub const RESTARTS_MAX: u32 = 10;
/// Claims in a row that no worker accepted in time: a job that sees more of them may well be what kills its workers.
pub const UNACCEPTED_MAX: u32 = 100;
/// Attempts that were given back.
pub const RELEASES_MAX: u32 = 1_000;
