//! A job server for long-running AI work.

pub mod proto;
pub mod rpc;
