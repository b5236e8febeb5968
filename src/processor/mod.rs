//! The handlers that come with the server.

pub mod simulate;

use crate::worker::Registry;

/// All of them, under their names.
pub fn built_in() -> Registry {
    Registry::default().with(simulate::KIND, simulate::Simulate)
}
