//! Between the contract and `job`: what a request asks for, how a job is shown, and the one table of errors.

pub mod canonical;
mod check;
pub mod filter;
pub mod json;
pub mod lease;
pub mod raw;
pub mod refusals;
pub mod reply;
pub mod report;
pub mod request;
pub mod status;
pub mod trace;
