//! The rules of the contract, one test each. What is expected is in the contract's words and figures, written out here.

mod retry;
mod timeouts;
