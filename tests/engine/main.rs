//! The engine through its public interface: what callers, workers and watchers may rely on, over a store that works and
//! over one that fails.

mod bench;
mod commit;
mod hostile;
mod recovery;
mod unknown;
