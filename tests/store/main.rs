//! The conformance suite: whatever passes it is a store.
//!
//! The cases are listed once, in `suite`, and run on every store here.

mod bench;
mod builders;
mod suite;

use bench::{MemoryFixture, SqliteFixture};

suite::cases!(conformance memory MemoryFixture);
suite::cases!(conformance sqlite SqliteFixture);
