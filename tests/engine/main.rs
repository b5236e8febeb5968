//! The engine through its public interface: what callers, workers and watchers may rely on, over a store that works and
//! over one that fails.

mod beats;
mod bench;
mod builders;
mod checkpoints;
mod commit;
mod dispatch;
mod figures;
mod frames;
mod hostile;
mod leases;
mod live;
mod output;
mod random;
mod ready;
mod recovery;
mod rests;
mod seen;
mod stopped;
mod unknown;
mod watch;
mod watch_jobs;
