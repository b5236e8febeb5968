//! How many jobs of each kind are in each state, as a table: the kinds that have most to do, and how many more there are.

use super::search::{Search, Show};
use super::words::{either, label};
use crate::api::Counts;
use crate::job::State;
use maud::{Markup, html};
use serde::{Serialize, Serializer};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

/// How many kinds have a line of their own: more than anybody reads.
const KINDS_MAX: usize = 50;
/// How many kinds that nobody serves are named: more would bury what is below.
const NOTES_MAX: usize = 5;
/// How many of them are known to a page, which says it of each of its jobs.
const UNSERVED_MAX: usize = 50;

/// The jobs of each state.
type Line = [u64; State::ALL.len()];

/// The counts of the kinds that have most to do.
#[derive(Debug, Default)]
pub struct Table {
    /// By kind.
    kinds: BTreeMap<String, Line>,
    /// How many more kinds there are.
    more: usize,
    all: Line,
    /// Even what is counted is not all.
    is_cut: bool,
    /// The kinds that nobody serves and how many of their jobs wait, most first.
    unserved: Vec<(String, u64)>,
    /// How many more such kinds there are.
    more_unserved: usize,
}

impl Table {
    /// Of these counts, where these kinds are served.
    pub fn new(counts: &Counts, served: &BTreeSet<String>) -> Self {
        let mut kinds: BTreeMap<&str, Line> = BTreeMap::new();
        let mut all = Line::default();
        for count in &counts.counts {
            kinds.entry(&count.kind).or_default()[count.state as usize] += count.jobs;
            all[count.state as usize] += count.jobs;
        }
        let waits = |(kind, line): &(&&str, &Line)| waiting(line) > 0 && !served.contains(**kind);
        let unserved = kinds.iter().filter(waits).map(|(kind, line)| (*kind, waiting(line)));
        let (unserved, more_unserved) = most(unserved.collect(), UNSERVED_MAX, |(_, waiting)| *waiting);
        // Those in which something goes on come before those in which much has ended.
        let busy = |(_, line): &(&str, Line)| (active(line), line.iter().sum::<u64>());
        let (lines, more) = most(kinds.into_iter().collect(), KINDS_MAX, busy);
        Self {
            kinds: lines.into_iter().map(|(kind, line)| (kind.to_owned(), line)).collect(),
            more,
            all,
            is_cut: counts.truncated,
            unserved: unserved.into_iter().map(|(kind, waiting)| (kind.to_owned(), waiting)).collect(),
            more_unserved,
        }
    }

    /// The kinds that have a line.
    pub fn kinds(&self) -> impl Iterator<Item = &str> {
        self.kinds.keys().map(String::as_str)
    }

    /// The table, with a note where jobs wait because nobody serves their kind.
    pub fn markup(&self) -> Markup {
        html! {
            div.wide tabindex="0" role="region" aria-label="Jobs by kind and state" {
                table #counts {
                    thead { tr {
                        th scope="col" { "Kind" }
                        @for state in State::ALL { th scope="col" data-state=(state) { (label(state)) } }
                    } }
                    tbody {
                        @for (kind, line) in &self.kinds {
                            tr data-kind=(kind) {
                                th scope="row" { a href=(of(Some(kind), None).address()) { (kind) } }
                                (cells(Some(kind), line))
                            }
                        }
                    }
                    tfoot {
                        tr { th scope="row" { "All" } (cells(None, &self.all)) }
                    }
                }
            }
            p #beyond hidden[self.more == 0 && !self.is_cut] {
                @if self.is_cut { "There are more kinds than can be counted here." }
                @else {
                    (self.more) " more " (either(self.more as u64, "kind is", "kinds are"))
                    " not listed; the sum has all."
                }
            }
            div #unserved {
                @for (kind, waiting) in self.unserved.iter().take(NOTES_MAX) {
                    p.unserved data-kind=(kind) {
                        "No worker serves the kind " strong { (kind) } ": " span { (waiting) } " waiting."
                    }
                }
            }
            @let more = (self.unserved.len() + self.more_unserved).saturating_sub(NOTES_MAX);
            p.unserved #more-unserved hidden[more == 0] {
                "So it is with " (more) " more " (either(more as u64, "kind", "kinds")) "."
            }
        }
    }
}

/// The cells of a line, each of which leads to its jobs.
fn cells(kind: Option<&str>, line: &Line) -> Markup {
    html! {
        @for state in State::ALL {
            @let count = line[state as usize];
            td data-state=(state) data-none[count == 0] {
                @if count == 0 { "0" } @else { a href=(of(kind, Some(state)).address()) { (count) } }
            }
        }
    }
}

fn of(kind: Option<&str>, state: Option<State>) -> Search {
    let show = if state.is_none() { Show::All } else { Show::default() };
    Search {
        show,
        kinds: kind.map(str::to_owned).into_iter().collect(),
        states: state.into_iter().collect(),
        ..Default::default()
    }
}

fn active(line: &Line) -> u64 {
    State::ALL.into_iter().filter(|state| !state.is_final()).map(|state| line[state as usize]).sum()
}

fn waiting(line: &Line) -> u64 {
    line[State::Pending as usize]
}

/// Those of which there is most, by name where it is the same, and how many more there are.
fn most<'a, T, K: Ord>(
    mut kinds: Vec<(&'a str, T)>,
    limit: usize,
    rank: impl Fn(&(&'a str, T)) -> K,
) -> (Vec<(&'a str, T)>, usize) {
    // What is of the same rank stays in the order of the names.
    kinds.sort_by_key(|kind| Reverse(rank(kind)));
    let more = kinds.len().saturating_sub(limit);
    kinds.truncate(limit);
    (kinds, more)
}

/// As the script reads it: numbers of jobs by state, without those that are zero.
impl Serialize for Table {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let kinds = self.kinds.iter().map(|(kind, line)| CountedKind { kind, jobs: by_state(line) });
        let unserved = self.unserved.iter().map(|(kind, waiting)| UnservedKind { kind, waiting: *waiting });
        let told = Told {
            kinds: kinds.collect(),
            more_kinds: self.more,
            all: by_state(&self.all),
            is_cut: self.is_cut,
            unserved: unserved.collect(),
            more_unserved: self.more_unserved,
        };
        told.serialize(serializer)
    }
}

fn by_state(line: &Line) -> BTreeMap<&'static str, u64> {
    let counted = State::ALL.into_iter().filter(|state| line[*state as usize] > 0);
    counted.map(|state| (state.name(), line[state as usize])).collect()
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Told<'a> {
    kinds: Vec<CountedKind<'a>>,
    more_kinds: usize,
    all: BTreeMap<&'static str, u64>,
    is_cut: bool,
    unserved: Vec<UnservedKind<'a>>,
    more_unserved: usize,
}

#[derive(Serialize)]
struct CountedKind<'a> {
    kind: &'a str,
    jobs: BTreeMap<&'static str, u64>,
}

#[derive(Serialize)]
struct UnservedKind<'a> {
    kind: &'a str,
    waiting: u64,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Count;
    use crate::http::pages::assets::constant;

    #[test]
    fn the_script_lists_as_much() {
        assert_eq!(constant("counts.js", "NOTES_MAX"), NOTES_MAX);
    }

    fn counts(counts: &[(&str, State, u64)]) -> Counts {
        let count = |(kind, state, jobs): &(&str, State, u64)| Count {
            kind: (*kind).to_owned(),
            state: *state,
            jobs: *jobs,
        };
        Counts { counts: counts.iter().map(count).collect(), truncated: false }
    }

    #[test]
    fn a_kind_that_waits_for_nobody_is_named() {
        let counts =
            counts(&[("chat", State::Pending, 3), ("draw", State::Pending, 2), ("old", State::Scheduled, 1)]);

        let page = Table::new(&counts, &["chat".to_owned()].into()).markup().into_string();

        let notes: Vec<&str> = page.split("class=\"unserved\" data-kind=\"").skip(1).collect();
        assert_eq!(notes.len(), 1, "{page}");
        assert!(notes[0].starts_with("draw\""), "{page}");
        assert!(page.contains("<a href=\"/?state=PENDING&amp;kind=chat\">3</a>"), "{page}");
    }

    #[test]
    fn of_many_kinds_those_are_listed_that_have_something_to_do() {
        let names: Vec<String> = (0..KINDS_MAX + 4).map(|number| format!("k{number}")).collect();
        let mut all: Vec<(&str, State, u64)> =
            names.iter().map(|name| (name.as_str(), State::Succeeded, 100)).collect();
        all.push(("busy", State::Running, 1));

        let table = Table::new(&counts(&all), &BTreeSet::new());

        assert!(table.kinds().any(|kind| kind == "busy"));
        assert_eq!((table.kinds().count(), table.more), (KINDS_MAX, 5));
        assert_eq!(table.all[State::Succeeded as usize], 100 * (KINDS_MAX as u64 + 4));
    }

    #[test]
    fn of_ten_thousand_kinds_a_page_loads_those_that_have_most_to_do() {
        // Names of a length that makes each of them count.
        let names: Vec<String> = (0..10_000).map(|number| format!("{number:064}")).collect();
        let count = |(jobs, kind): (u64, &String)| Count { kind: kind.clone(), state: State::Pending, jobs };
        let counts = Counts { counts: (1..).zip(&names).map(count).collect(), truncated: true };
        let served = names[9_990..].iter().cloned().collect();

        let table = Table::new(&counts, &served);
        let (text, page) = (serde_json::to_string(&table).unwrap(), table.markup().into_string());

        assert!(text.len() < 16 << 10, "{} bytes", text.len());
        let told: serde_json::Value = serde_json::from_str(&text).unwrap();
        let kinds: Vec<&str> =
            told["kinds"].as_array().unwrap().iter().map(|kind| kind["kind"].as_str().unwrap()).collect();
        assert_eq!(kinds, names[9_950..]);
        assert_eq!((&told["moreKinds"], &told["all"]["PENDING"]), (&9_950.into(), &50_005_000.into()));
        let first = serde_json::json!({"kind": names[9_989], "waiting": 9_990});
        assert_eq!((&told["unserved"][0], &told["moreUnserved"]), (&first, &9_940.into()));
        assert!(page.contains("So it is with 9985 more kinds."), "{page}");
    }
}
