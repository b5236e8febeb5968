//! The engine through its own door: over a store that fails on command, on a clock that is moved by hand.

mod commit;
mod hostile;
mod lab;
mod leases;
mod output;
mod recovery;
mod watch;
