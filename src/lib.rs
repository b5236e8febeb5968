//! A job server for long-running AI work: durable tickets, live progress, one binary, one port.
//!
//! The way of a job, in the names of the rooms:
//!
//! 1. [`rpc`] takes a request, [`wire`] turns it into a [`job::Wish`], and that into a checked [`job::Spec`];
//! 2. [`engine`] hands it to the thread that commits, with all that waits beside it;
//! 3. [`store`] lets [`job::transition`] decide inside one transaction, and makes it durable;
//! 4. only then is it answered, watchers' doorbells ring, and idle workers wake;
//! 5. a [`worker`] leases the job and runs its handler, one of those in [`processor`] or somebody else's;
//! 6. what it reports goes the same way: command, transition, commit, event;
//! 7. whoever watches reads the events after a cursor, in order, for as long as the job is kept.
//!
//! Beside them: [`clock`], the only reader of the time; [`proto`], the only door to generated code; [`metrics`], what all of
//! it comes to in figures, and [`traces`], which tells a collector where the time of a job went; [`cli`], the door for people.
//! Which room may import which is told in ARCHITECTURE.md and held by `tests/architecture.rs`.

pub mod api;
pub mod cli;
pub mod clock;
pub mod edge;
pub mod engine;
pub mod http;
pub mod job;
pub mod metrics;
pub mod mutants;
pub mod processor;
pub mod proto;
pub mod rpc;
pub mod store;
pub mod traces;
pub mod wire;
pub mod worker;
