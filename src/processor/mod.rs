//! The handlers that come with the server.

pub mod chat;
pub mod exec;
pub mod simulate;
pub mod summarize;

use crate::worker::Registry;

/// All of them, under their names.
pub fn built_in() -> Registry {
    Registry::default().with(simulate::KIND, simulate::Simulate).with(summarize::KIND, summarize::Summarize)
}
