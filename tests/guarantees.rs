//! GUARANTEES.md is true to the letter: each test that it names is there, each bound is the one in the code, and each has a
//! test or says that it has none.

use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn document() -> String {
    fs::read_to_string(root().join("GUARANTEES.md")).unwrap()
}

/// What stands between backticks.
fn spans(text: &str) -> impl Iterator<Item = String> {
    text.split('`').skip(1).step_by(2).map(|span| span.split_whitespace().collect::<Vec<_>>().join(" "))
}

/// The tests that are named: each with its file.
fn tests(text: &str) -> Vec<(String, String)> {
    let named = spans(text).filter_map(|span| {
        let (path, names) = span.split_once(": ")?;
        let is_source = path.ends_with(".rs") || path.ends_with(".py");
        is_source
            .then(|| names.split(", ").map(|name| (path.to_owned(), name.to_owned())).collect::<Vec<_>>())
    });
    named.flatten().collect()
}

/// What is wrong with the tests that a text names.
fn missing(text: &str) -> Vec<String> {
    let is_there = |(path, name): &(String, String)| {
        let source = fs::read_to_string(root().join(path)).unwrap_or_default();
        let word = if path.ends_with(".py") { "def" } else { "fn" };
        ["(", "<"].iter().any(|next| source.contains(&format!("{word} {name}{next}")))
    };
    tests(text)
        .into_iter()
        .filter(|test| !is_there(test))
        .map(|(path, name)| format!("{path} has no {name}"))
        .collect()
}

/// A row of a table of bounds, as the text that it is.
struct Bound<'a> {
    cells: Vec<&'a str>,
    /// The file and the name that its number has in the code.
    source: Option<(PathBuf, String)>,
}

/// The bounds that a text tells of.
fn bounds(text: &str) -> Vec<Bound<'_>> {
    let rows = text.lines().filter(|line| line.starts_with("| ") && !line.ends_with("| source |"));
    let cells = rows.map(|row| row.trim_matches(['|', ' ']).split(" | ").map(str::trim).collect::<Vec<_>>());
    let bounds = cells.map(|cells| {
        let source = cells.iter().flat_map(|cell| spans(cell)).find_map(|span| {
            let (file, name) = span.split_once(' ')?;
            let file = if file == "settings" { "cli/settings" } else { file };
            let path = root().join("src").join(file).with_extension("rs");
            path.exists().then(|| (path, name.to_owned()))
        });
        Bound { cells, source }
    });
    bounds.filter(|bound| bound.cells.len() > 2 && bound.cells[0] != "bound").collect()
}

/// The number that a cell begins with; times are milliseconds.
fn told(cell: &str) -> u64 {
    let mut words = cell.split_whitespace();
    let number: u64 = words.next().unwrap_or_default().replace(',', "").parse().unwrap_or_default();
    number
        * match words.next().unwrap_or_default().trim_matches(',') {
            "KiB" => 1 << 10,
            "MiB" => 1 << 20,
            "s" => 1_000,
            "h" => 3_600_000,
            "days" => 24 * 3_600_000,
            _ => 1,
        }
}

/// What a name stands for in a source: a constant, or a field that has its default there.
fn meant(path: &Path, name: &str) -> Option<u64> {
    let source = fs::read_to_string(path).unwrap();
    let factor = if name.contains("SECONDS") { 1_000 } else { 1 };
    if let Some((_, rest)) = source.split_once(&format!("const {name}: ")) {
        let (_, expression) = rest.split_once(';')?.0.split_once("= ")?;
        return Some(factor * value(path, expression));
    }
    let line = source.lines().map(str::trim).find(|line| {
        line.starts_with(&format!("{name}: ")) && line.contains(|letter: char| letter.is_ascii_digit())
    })?;
    let given = line.split_once(": ")?.1.trim_end_matches(',');
    let inner = |prefix: String| given.strip_prefix(&prefix)?.strip_suffix(')');
    if let Some(seconds) = inner(format!("time(self.{name}, ")) {
        return Some(1_000 * value(path, seconds));
    }
    Some(value(path, inner(format!("self.{name}.unwrap_or(")).unwrap_or(given)))
}

/// The value of an expression of numbers, constants, sums, products, shifts and durations.
fn value(path: &Path, expression: &str) -> u64 {
    let expression = expression.trim();
    for (operator, apply) in
        [(" << ", (|a, b| a << b) as fn(u64, u64) -> u64), (" + ", |a, b| a + b), (" * ", |a, b| a * b)]
    {
        if let Some(at) = outside(expression, operator) {
            return apply(value(path, &expression[..at]), value(path, &expression[at + operator.len()..]));
        }
    }
    let inner = |prefix: &str| expression.strip_prefix(prefix)?.strip_suffix(')');
    if let Some(inner) = inner("(").or_else(|| inner("Duration::from_millis(")) {
        return value(path, inner);
    }
    if let Some(seconds) = inner("Duration::from_secs(") {
        return 1_000 * value(path, seconds);
    }
    if let Ok(number) = expression.replace('_', "").parse::<f64>() {
        return number as u64;
    }
    let limits = root().join("src/job/limits.rs");
    let meant = [path, &limits].into_iter().find_map(|path| meant(path, expression));
    meant.unwrap_or_else(|| panic!("{}: what is `{expression}`?", path.display()))
}

/// Where an operator stands for the last time outside of all parentheses.
fn outside(expression: &str, operator: &str) -> Option<usize> {
    let places = expression.match_indices(operator).map(|(at, _)| at);
    let depth = |at: &usize| {
        let before = &expression[..*at];
        before.matches('(').count() - before.matches(')').count()
    };
    places.filter(|at| depth(at) == 0).last()
}

/// What is wrong with the bounds that a text tells of.
fn wrong(text: &str) -> Vec<String> {
    let wrong = bounds(text).into_iter().filter_map(|Bound { cells, source }| {
        let (path, name) = source?;
        let (told, meant) = (told(cells[1]), meant(&path, &name));
        (meant != Some(told)).then(|| format!("{}: {told} is told, {name} is {meant:?}", cells[0]))
    });
    wrong.collect()
}

#[test]
fn every_test_that_is_named_is_there() {
    assert!(tests(&document()).len() > 150);
    assert_eq!(missing(&document()), [""; 0]);
}

#[test]
fn every_bound_is_the_one_in_the_code() {
    let text = document();
    let (_, text) = text.split_once("## The bounds").unwrap();

    assert!(bounds(text).iter().filter(|bound| bound.source.is_some()).count() > 75);
    assert_eq!(wrong(text), [""; 0]);
}

#[test]
fn every_bound_has_a_test_or_says_that_it_has_none() {
    let text = document();
    let (_, text) = text.split_once("### Fields of what clients send").unwrap();
    let (clients, text) = text.split_once("### Fields of what workers send").unwrap();
    let (workers, text) = text.split_once("### One job").unwrap();

    for (fields, suite) in [(clients, "test_bad_input.py"), (workers, "test_bad_reports.py")] {
        let rows = fs::read_to_string(root().join("tests/interop").join(suite)).unwrap();
        for bound in bounds(fields) {
            // What has no name of its own belongs to the row before.
            let Some(field) = spans(bound.cells[0]).next() else { continue };
            assert!(rows.contains(&format!("\"{field}\": ")), "{field}");
        }
    }
    for bound in bounds(text) {
        let last = bound.cells.last().unwrap();
        assert!(!tests(last).is_empty() || last.starts_with("not tested"), "{}", bound.cells[0]);
    }
}

#[test]
fn what_is_not_true_is_found() {
    let here = "`tests/guarantees.rs: what_is_not_true_is_found, what_nobody_wrote`";
    assert_eq!(missing(here), ["tests/guarantees.rs has no what_nobody_wrote"]);
    assert_eq!(missing("`tests/nowhere.py: test_a`").len(), 1);

    let row = |told: &str, source: &str| format!("| a bound | {told} | `{source}` |");
    for (told, source) in [
        ("8 KiB", "job/limits LOG_LINE_BYTES_MAX"),
        ("8 MiB", "edge/listen CONNECTION_WINDOW_BYTES"),
        ("7 days", "settings retention"),
        ("10 s", "edge/listen first_byte_timeout"),
    ] {
        assert_eq!(wrong(&row(told, source)), [""; 0]);
        assert_eq!(wrong(&row("9", source)).len(), 1, "{source}");
    }
    assert_eq!(wrong(&row("8 KiB", "job/limits NO_SUCH_NAME")).len(), 1);
}
