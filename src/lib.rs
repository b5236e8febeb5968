//! A job server for long-running AI work.

pub mod clock;
pub mod engine;
pub mod job;
pub mod proto;
pub mod rpc;
pub mod store;
