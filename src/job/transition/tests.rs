//! Tests of the state machine: every state × command as one table.

mod table;
