//! No statement of the SQLite store looks at rows that it does not need: each is explained by SQLite itself.

use crate::bench::{KEEPER, QUEUE_MAX};
use longhaul::store::{Settings, SqliteStore};
use rusqlite::Connection;
use std::path::Path;

/// Statements about tables that have a row for each kind and state, not for each job.
const SMALL: [&str; 2] =
    ["SELECT tenant, kind, state, jobs FROM counters", "SELECT total(jobs) FROM counters"];

/// The statements that the store's source has in it, but for those that make, bring over or look through whole stores.
fn statements() -> Vec<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/store/sqlite");
    let mut statements = Vec::new();
    for file in std::fs::read_dir(folder).unwrap() {
        let file = file.unwrap().path();
        if ["migrate.rs", "schema.rs"].iter().any(|name| file.ends_with(name)) {
            continue;
        }
        let source = std::fs::read_to_string(&file).unwrap();
        let statement = |text: &&str| {
            ["SELECT ", "INSERT ", "UPDATE ", "DELETE "].iter().any(|word| text.starts_with(word))
        };
        let is_about_all = |text: &str| file.ends_with("audit.rs") && !text.contains("?1");
        // What stands between two quotation marks; none of the statements has one in it.
        statements.extend(
            source
                .split('"')
                .filter(|text| statement(text) && !is_about_all(text))
                .map(|text| text.replace("\\\n", " ")),
        );
    }
    statements
}

/// What SQLite would do.
fn plan(connection: &Connection, statement: &str) -> Vec<String> {
    let explain = format!("EXPLAIN QUERY PLAN {statement}");
    let mut explained = connection.prepare(&explain).unwrap_or_else(|error| panic!("{statement}: {error}"));
    let mut steps = explained.raw_query();
    let mut plan = Vec::new();
    while let Some(step) = steps.next().unwrap() {
        plan.push(step.get(3).unwrap());
    }
    plan
}

/// Looks at every row of a table or an index without a limit, or sorts what it has found.
fn is_wasteful(statement: &str, step: &str) -> bool {
    let is_first_of_an_index = step.contains(" USING ") && statement.contains("LIMIT");
    (step.starts_with("SCAN") && !is_first_of_an_index) || step.contains("TEMP B-TREE")
}

#[test]
fn no_statement_looks_at_every_row_or_sorts() {
    let folder = tempfile::tempdir().unwrap();
    let settings = Settings { queue_max: QUEUE_MAX, free_bytes_min: 0, readers: 1, keeper: KEEPER.0 };
    drop(SqliteStore::open(folder.path(), settings).unwrap());
    let connection = Connection::open(folder.path().join("store/longhaul.db")).unwrap();

    let statements = statements();
    assert!(statements.len() > 40, "only {} statements were found", statements.len());
    for statement in statements.iter().filter(|statement| !SMALL.contains(&statement.as_str())) {
        let plan = plan(&connection, statement);
        assert!(!plan.iter().any(|step| is_wasteful(statement, step)), "{statement}\n{plan:#?}");
    }
    // It would be noticed.
    for statement in [
        "SELECT * FROM jobs WHERE kind = ?1",
        "SELECT ordinal FROM jobs WHERE kind = ?1",
        "SELECT count(*) FROM jobs",
        "SELECT ordinal FROM jobs ORDER BY kind",
    ] {
        assert!(plan(&connection, statement).iter().any(|step| is_wasteful(statement, step)), "{statement}");
    }
}
