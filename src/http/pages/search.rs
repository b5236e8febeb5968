//! Which jobs the address of the dashboard asks for, and the addresses of other such lists.
//!
//! It is strict: what an address has that is not known, or not valid, is named, so that no list says less than it seems to.

use crate::http::json::{invalid, pairs};
use crate::job::{JobId, State, check_kind, check_labels};
use crate::proto::{JobFilter, ListJobsRequest};
use crate::wire::filter::KINDS_MAX;
use crate::wire::reply;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use tonic::Status;

/// How many jobs a page has: what is read without a script, and what is there before the script has more.
pub const PAGE_SIZE: i32 = 40;
/// How many jobs a script shows.
const LIVE_JOBS_MAX: usize = 250;
/// What need not be encoded in a query.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Which jobs are shown where no state is named.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Show {
    /// Those that go on.
    #[default]
    Active,
    /// Those that have ended.
    Ended,
    /// All.
    All,
}

impl Show {
    /// Each of them.
    pub const ALL: [Self; 3] = [Self::Active, Self::Ended, Self::All];

    /// As it stands in an address.
    pub fn name(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Ended => "ended",
            Self::All => "all",
        }
    }

    fn states(self) -> Vec<State> {
        match self {
            Self::Active => State::ALL.into_iter().filter(|state| !state.is_final()).collect(),
            Self::Ended => State::ALL.into_iter().filter(|state| state.is_final()).collect(),
            Self::All => Vec::new(),
        }
    }
}

/// Which jobs are asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Search {
    /// In which states, where none is named.
    pub show: Show,
    /// In one of these states.
    pub states: Vec<State>,
    /// Of one of these kinds.
    pub kinds: Vec<String>,
    /// With all of these labels.
    pub labels: BTreeMap<String, String>,
    /// Where the list goes on; empty for its beginning.
    pub page_token: String,
    /// What was typed and means nothing.
    pub unknown: Option<String>,
}

/// What an address asks for.
#[derive(Debug, PartialEq, Eq)]
pub enum Asked {
    /// A list of jobs.
    List(Search),
    /// What is at another address: a search's own, or that of a job.
    Elsewhere(String),
}

/// Reads the query of an address.
pub fn parse(query: &str) -> Result<Asked, Status> {
    let mut search = Search::default();
    let (mut show, mut sought) = (None, None);
    for pair in pairs(query) {
        let (name, value) = pair?;
        // What a form was sent without.
        if value.is_empty()
            && matches!(name.as_str(), "show" | "state" | "kind" | "label" | "q" | "pageToken")
        {
            continue;
        }
        match name.as_str() {
            "show" => set(&mut show, &name, value)?,
            "q" => set(&mut sought, &name, value)?,
            "pageToken" if search.page_token.is_empty() => search.page_token = value,
            "pageToken" => return Err(invalid(&name, "it is there twice")),
            "state" => {
                let state = State::ALL.into_iter().find(|state| state.name() == value);
                search.add_state(state.ok_or_else(|| invalid(&name, &format!("{value} is no state")))?);
            }
            "kind" => search.add_kind(value, &name)?,
            "label" => search.add_label(&value, &name)?,
            _ => return Err(invalid(&name, "there is no such parameter")),
        }
    }
    if let Some(show) = show {
        let known = Show::ALL.into_iter().find(|known| known.name() == show);
        search.show = known
            .ok_or_else(|| invalid("show", &format!("it is {show}; it must be active, ended or all")))?;
    }
    match sought {
        Some(sought) => search.seek(sought.trim()),
        None => Ok(Asked::List(search)),
    }
}

fn set(known: &mut Option<String>, name: &str, value: String) -> Result<(), Status> {
    match known.replace(value) {
        Some(_) => Err(invalid(name, "it is there twice")),
        None => Ok(()),
    }
}

impl Search {
    /// These jobs, and the next page of them.
    pub fn request(&self) -> ListJobsRequest {
        let filter = JobFilter {
            states: self.in_states().into_iter().map(|state| reply::state(state) as i32).collect(),
            kinds: self.kinds.clone(),
            labels: self.labels.clone().into_iter().collect(),
            ..Default::default()
        };
        ListJobsRequest {
            filter: Some(filter),
            page_size: PAGE_SIZE,
            page_token: self.page_token.clone(),
            ..Default::default()
        }
    }

    /// Where a script follows these jobs; only the newest are followed.
    pub fn watch(&self) -> Option<String> {
        if !self.page_token.is_empty() {
            return None;
        }
        let mut address = format!("/v1/jobs:watch?initialJobs={LIVE_JOBS_MAX}");
        self.in_states().iter().for_each(|state| add(&mut address, "filter.states", state.name()));
        self.kinds.iter().for_each(|kind| add(&mut address, "filter.kinds", kind));
        for (key, value) in &self.labels {
            add(&mut address, &format!("filter.labels.{}", encoded(key)), value);
        }
        Some(address)
    }

    /// Where this list is.
    pub fn address(&self) -> String {
        let mut query = String::new();
        if self.show != Show::default() && self.states.is_empty() {
            add(&mut query, "show", self.show.name());
        }
        self.states.iter().for_each(|state| add(&mut query, "state", state.name()));
        self.kinds.iter().for_each(|kind| add(&mut query, "kind", kind));
        for (key, value) in &self.labels {
            add(&mut query, "label", &format!("{key}={value}"));
        }
        if !self.page_token.is_empty() {
            add(&mut query, "pageToken", &self.page_token);
        }
        // The first `&` of a query is a question mark.
        query.replacen('&', "/?", 1) + if query.is_empty() { "/" } else { "" }
    }

    /// Whether some of the jobs are left out by more than whether they go on.
    pub fn is_narrow(&self) -> bool {
        !(self.states.is_empty() && self.kinds.is_empty() && self.labels.is_empty())
    }

    /// The same jobs, whether they go on or not.
    pub fn showing(&self, show: Show) -> Self {
        Self { show, states: Vec::new(), page_token: String::new(), ..self.clone() }
    }

    /// Without one of its states.
    pub fn without_state(&self, state: State) -> Self {
        let mut search = self.newest();
        search.states.retain(|other| *other != state);
        search
    }

    /// Without one of its kinds.
    pub fn without_kind(&self, kind: &str) -> Self {
        let mut search = self.newest();
        search.kinds.retain(|other| other != kind);
        search
    }

    /// Without one of its labels.
    pub fn without_label(&self, key: &str) -> Self {
        let mut search = self.newest();
        search.labels.remove(key);
        search
    }

    /// The page that follows.
    pub fn older(&self, page_token: &str) -> Self {
        Self { page_token: page_token.to_owned(), ..self.clone() }
    }

    /// The first page.
    pub fn newest(&self) -> Self {
        self.older("")
    }

    fn in_states(&self) -> Vec<State> {
        if self.states.is_empty() { self.show.states() } else { self.states.clone() }
    }

    fn add_state(&mut self, state: State) {
        self.states.push(state);
        // In one order, however they were named, since a page's token belongs to it.
        self.states.sort_unstable_by_key(|state| *state as usize);
        self.states.dedup();
    }

    fn add_kind(&mut self, kind: String, field: &str) -> Result<(), Status> {
        if let Err(violations) = check_kind(&kind) {
            return Err(invalid(field, &described(&violations)));
        }
        self.kinds.push(kind);
        self.kinds.sort_unstable();
        self.kinds.dedup();
        match self.kinds.len() > KINDS_MAX {
            true => Err(invalid(field, &format!("there are more than {KINDS_MAX} kinds"))),
            false => Ok(()),
        }
    }

    fn add_label(&mut self, text: &str, field: &str) -> Result<(), Status> {
        let Some((key, value)) = text.split_once('=') else {
            return Err(invalid(field, "it is not of the form key=value"));
        };
        if let Some(known) =
            self.labels.insert(key.to_owned(), value.to_owned()).filter(|known| known != value)
        {
            return Err(invalid(field, &format!("{key} cannot be both {known} and {value}")));
        }
        check_labels(&self.labels).map_err(|violations| invalid(field, &described(&violations)))
    }

    /// What that is which somebody has typed: a ticket, a label, a state or a kind. People mistype, and are told so on the page.
    fn seek(self, text: &str) -> Result<Asked, Status> {
        let mut search = self.newest();
        if let Ok(ticket) = text.parse::<JobId>() {
            return Ok(Asked::Elsewhere(format!("/jobs/{ticket}")));
        }
        if text.contains('=') {
            search.add_label(text, "q")?;
        } else if let Some(state) =
            State::ALL.into_iter().find(|state| state.name().eq_ignore_ascii_case(text))
        {
            search.add_state(state);
        } else if check_kind(text).is_ok() {
            search.add_kind(text.to_owned(), "q")?;
        } else if !text.is_empty() {
            return Ok(Asked::List(Self { unknown: Some(text.to_owned()), ..search }));
        }
        Ok(Asked::Elsewhere(search.address()))
    }
}

fn add(address: &mut String, name: &str, value: &str) {
    let _ = write!(address, "&{name}={}", encoded(value));
}

fn encoded(text: &str) -> impl std::fmt::Display + '_ {
    utf8_percent_encode(text, ENCODED)
}

fn described(violations: &[crate::job::Violation]) -> String {
    violations.first().map(|violation| violation.description.clone()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn list(query: &str) -> Search {
        match parse(query).unwrap() {
            Asked::List(search) => search,
            Asked::Elsewhere(address) => panic!("{query} leads to {address}"),
        }
    }

    #[test]
    fn the_script_lists_as_many_jobs() {
        assert_eq!(crate::http::pages::assets::constant("list.js", "ROWS_MAX"), LIVE_JOBS_MAX);
    }

    #[rstest]
    #[case("", "/")]
    #[case("show=&q=&kind=&state=&label=&pageToken=", "/")]
    #[case("show=active", "/")]
    #[case("show=ended&kind=b&kind=a&kind=a", "/?show=ended&kind=a&kind=b")]
    #[case("state=FAILED&state=RUNNING&show=all", "/?state=RUNNING&state=FAILED")]
    #[case("label=team=a%26b%3Dc&pageToken=7.8", "/?label=team%3Da%26b%3Dc&pageToken=7.8")]
    fn a_list_has_one_address(#[case] query: &str, #[case] address: &str) {
        let search = list(query);

        assert_eq!(search.address(), address);
        assert_eq!(list(address.trim_start_matches("/?").trim_start_matches('/')).address(), address);
    }

    #[rstest]
    #[case("q=01a20ae3-4357-7000-8014-923e230ccf98&kind=a", "/jobs/01a20ae3-4357-7000-8014-923e230ccf98")]
    #[case("q=team%3Dvoice+one&show=all", "/?show=all&label=team%3Dvoice%20one")]
    #[case("q=failed", "/?state=FAILED")]
    #[case("q=+chat+&kind=draw&pageToken=1.2", "/?kind=chat&kind=draw")]
    fn what_is_typed_leads_to_what_it_means(#[case] query: &str, #[case] address: &str) {
        assert_eq!(parse(query).unwrap(), Asked::Elsewhere(address.to_owned()));
    }

    #[rstest]
    #[case("colour=red", "colour")]
    #[case("show=some", "show")]
    #[case("show=all&show=all", "show")]
    #[case("state=running", "state")]
    #[case("kind=Chat", "kind")]
    #[case("label=team", "label")]
    #[case("label=%3Dvoice", "label")]
    #[case("label=team=a&label=team=b", "label")]
    #[case("pageToken=1.2&pageToken=1.2", "pageToken")]
    #[case("q=%3Dvoice", "q")]
    fn what_is_wrong_is_named(#[case] query: &str, #[case] field: &str) {
        let status = parse(query).unwrap_err();

        assert!(status.message().starts_with(&format!("{field}: ")), "{status:?}");
    }

    #[test]
    fn what_is_typed_and_means_nothing_is_said_to() {
        let search = list("q=%3Cimg+src%3E&kind=a");

        assert_eq!((search.unknown.as_deref(), search.kinds.len()), (Some("<img src>"), 1));
        assert_eq!(search.address(), "/?kind=a");
    }

    #[test]
    fn a_script_follows_what_the_page_shows() {
        let search = list("kind=a.b&label=t%C3%BC=1%261");

        let labels = "filter.kinds=a.b&filter.labels.t%C3%BC=1%261";
        let states = ["SCHEDULED", "PENDING", "RUNNING", "RETRYING", "CANCELLING"]
            .map(|state| format!("filter.states={state}&"))
            .concat();
        assert_eq!(search.watch().unwrap(), format!("/v1/jobs:watch?initialJobs=250&{states}{labels}"));
        assert_eq!(search.older("1.2").watch(), None);
        assert_eq!(search.request().filter.unwrap().states, [1, 2, 3, 4, 5]);
    }
}
