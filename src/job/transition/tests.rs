//! Tests of the state machine: every state × command as one table, random lives, and the contract's rules by name.

mod life;
mod properties;
mod rules;
mod script;
mod table;
