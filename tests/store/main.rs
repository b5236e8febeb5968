//! The conformance suite: whatever passes it is a store.
//!
//! The cases are listed once, in `suite`, and run on every store here. `mutants` shows that
//! they find broken ones.

mod bench;
mod builders;
mod damage;
mod disk;
mod migrate;
mod mutants;
mod plans;
mod random;

mod suite;

use bench::{MemoryFixture, SqliteFixture};

suite::cases!(conformance memory MemoryFixture);
suite::cases!(conformance sqlite SqliteFixture);
