//! How many jobs of each kind are in each state, as a table.

use super::search::{Search, Show};
use super::words::label;
use crate::api::Counts;
use crate::job::State;
use maud::{Markup, html};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

/// How many kinds have a line of their own: more than anybody reads.
const KINDS_MAX: usize = 50;
/// How many kinds that nobody serves are named: more would bury what is below.
const NOTES_MAX: usize = 5;

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
}

impl Table {
    /// Of these counts.
    pub fn new(counts: &Counts) -> Self {
        let mut kinds: BTreeMap<&str, Line> = BTreeMap::new();
        let mut all = Line::default();
        for count in &counts.counts {
            kinds.entry(&count.kind).or_default()[count.state as usize] += count.jobs;
            all[count.state as usize] += count.jobs;
        }
        let mut lines: Vec<(&str, Line)> = kinds.into_iter().collect();
        let more = lines.len().saturating_sub(KINDS_MAX);
        // Those in which something goes on come before those in which much has ended.
        lines.sort_by_key(|(kind, line)| (Reverse(active(line)), Reverse(line.iter().sum::<u64>()), *kind));
        lines.truncate(KINDS_MAX);
        let kinds = lines.into_iter().map(|(kind, line)| (kind.to_owned(), line)).collect();
        Self { kinds, more, all, is_cut: counts.truncated }
    }

    /// The kinds that have a line.
    pub fn kinds(&self) -> impl Iterator<Item = &str> {
        self.kinds.keys().map(String::as_str)
    }

    /// The table, with a note where jobs wait because nobody serves their kind.
    pub fn markup(&self, served: &BTreeSet<String>) -> Markup {
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
                @else { (self.more) " more kinds are not listed; they are part of the sum." }
            }
            @let unserved: Vec<_> =
                self.kinds.iter().filter(|(kind, line)| waits(line) && !served.contains(*kind)).collect();
            div #unserved {
                @for (kind, line) in unserved.iter().take(NOTES_MAX) {
                    p.unserved data-kind=(kind) {
                        "No worker serves the kind " strong { (kind) } ": " span { (line[State::Pending as usize]) } " waiting."
                    }
                }
            }
            @let more = unserved.len().saturating_sub(NOTES_MAX);
            p.unserved #more-unserved hidden[more == 0] { "So it is with " (more) " more kinds." }
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

fn waits(line: &Line) -> bool {
    line[State::Pending as usize] > 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Count;
    use crate::http::pages::assets::constant;

    #[test]
    fn the_script_lists_as_much() {
        assert_eq!(constant("counts.js", "KINDS_MAX"), KINDS_MAX);
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

        let page = Table::new(&counts).markup(&["chat".to_owned()].into()).into_string();

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

        let table = Table::new(&counts(&all));

        assert!(table.kinds().any(|kind| kind == "busy"));
        assert_eq!((table.kinds().count(), table.more), (KINDS_MAX, 5));
        assert_eq!(table.all[State::Succeeded as usize], 100 * (KINDS_MAX as u64 + 4));
    }
}
