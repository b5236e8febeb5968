//! The rules of the contract, one test each. What is expected is in the contract's words and figures.

mod cancel;
mod checkpoint;
mod claims;
mod history;
mod output;
mod retry;
mod timeouts;
