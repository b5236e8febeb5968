//! A job server for long-running AI work.

pub mod job;
pub mod proto;
pub mod store;
