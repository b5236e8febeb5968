//! The page of all jobs, as things stand when it is asked for. Its scripts go on from there.

use super::counts::Table;
use super::document::Document;
use super::forms::Blank;
use super::overview::{Overview, WORKER_KINDS_MAX};
use super::search::{Search, Show};
use super::words::{either, label, lasted};
use crate::http::body::Answer;
use crate::job::Timestamp;
use crate::metrics::{SLICE, SLICES, Slice};
use http::StatusCode;
use maud::{Markup, html};
use std::collections::BTreeSet;
use std::sync::Arc;

/// How often a page without a script loads itself anew: seldom enough to fill in the form.
const REFRESH_SECONDS: u32 = 60;
/// Kinds whose input the page knows: there they are to be tried out.
const SIMULATE: &str = "simulate";
const SUMMARIZE: &str = "summarize";
/// How many kinds can be chosen to be started.
const CHOICES_MAX: usize = 200;

/// What the page shows.
#[derive(Debug)]
pub struct View {
    /// Which jobs were asked for.
    pub search: Search,
    /// Their lines.
    pub jobs: Vec<Markup>,
    /// The token of the next page; empty where there is none.
    pub older: String,
    /// Who is there, and what happened.
    pub overview: Arc<Overview>,
    /// How many jobs there are.
    pub counts: Table,
    /// What time it is for them.
    pub now: Timestamp,
}

impl View {
    /// The page.
    pub fn page(&self, blank: &Blank) -> Answer {
        let main = html! {
            h1.unseen { "Jobs" }
            section { (self.counts.markup()) }
            (self.charts())
            div.columns {
                (self.list())
                aside aria-label="Start a job, and workers" {
                    (self.start(blank))
                    (self.workers())
                }
            }
        };
        let title = "Jobs · longhaul";
        let refresh = Some(REFRESH_SECONDS);
        Document { title, name: "dashboard", job: None, refresh, now: Some(self.now), main }
            .answer(StatusCode::OK)
    }

    /// The last minutes in words; the script draws them.
    fn charts(&self) -> Markup {
        let all = &self.overview.minutes.all;
        let chart = |name: &str, title: &str, value: String, words: String| {
            html! {
                figure data-chart=(name) {
                    figcaption {
                        h2 { (title) }
                        strong.value { (value) }
                        span.words { (words) }
                    }
                }
            }
        };
        let minutes = SLICE.as_secs() as usize * SLICES / 60;
        // What was before its start the process has not seen.
        let when = match self.overview.start > all.time {
            true => "since the server's start".to_owned(),
            false => format!("in {minutes} min"),
        };
        html! {
            section #charts aria-label={ "The last " (minutes) " minutes" } {
                (chart("throughput", "Throughput", ended(all).to_string(), throughput(all, &when)))
                (chart("latency", "Time to result", all.p50.map(lasted).unwrap_or("–".to_owned()), latency(all, &when)))
                (chart("failures", "Failures", failed(all).to_string(), failures(all, &when)))
            }
        }
    }

    fn list(&self) -> Markup {
        let search = &self.search;
        html! {
            section #list {
                div.bar {
                    nav aria-label="Which jobs" {
                        @for show in Show::ALL {
                            @let is_shown = search.states.is_empty() && search.show == show;
                            a href=(search.showing(show).address()) aria-current=[is_shown.then_some("page")] { (title(show)) }
                        }
                    }
                    (self.filter())
                }
                (self.chosen())
                div #reading {
                    div.above {
                        button #newer type="button" hidden {}
                        @if !search.page_token.is_empty() {
                            a href=(search.newest().address()) { "Newest" }
                        }
                    }
                    ol #jobs aria-label="Jobs" data-watch=[search.watch()] {
                        @for job in &self.jobs { (job) }
                    }
                }
                p #none hidden[!self.jobs.is_empty()] {
                    @if search.is_narrow() { "No job matches." }
                    @else if search.show == Show::Active { "Nothing goes on just now." }
                    @else { "There are no jobs." }
                }
                @if !self.older.is_empty() {
                    p { a #older href=(search.older(&self.older).address()) { "Older jobs" } }
                }
            }
        }
    }

    fn filter(&self) -> Markup {
        let search = &self.search;
        html! {
            form #filter method="get" action="/" role="search" {
                @if search.states.is_empty() && search.show != Show::default() {
                    input type="hidden" name="show" value=(search.show.name());
                }
                @for state in &search.states { input type="hidden" name="state" value=(state); }
                @for kind in &search.kinds { input type="hidden" name="kind" value=(kind); }
                @for (key, value) in &search.labels {
                    input type="hidden" name="label" value={ (key) "=" (value) };
                }
                input type="search" name="q" aria-label="Search by ticket, kind, state or label"
                    placeholder="kind, state, key=value or ticket" autocomplete="off" maxlength="400"
                    value=[search.unknown.as_deref()];
                button { "Search" }
            }
        }
    }

    /// What the list is narrowed by, each with the way to be rid of it.
    fn chosen(&self) -> Markup {
        let search = &self.search;
        let chip = |what: &str, without: Search| {
            html! {
                li { (what) " " a href=(without.address()) aria-label={ "Without " (what) } { "×" } }
            }
        };
        html! {
            @if let Some(unknown) = &search.unknown {
                p.unknown role="status" {
                    "“" (unknown) "” is no ticket, no state, no label (key=value), and cannot be a kind."
                }
            }
            @if search.is_narrow() {
                ul.chips aria-label="Only jobs with" {
                    @for state in &search.states { (chip(label(*state), search.without_state(*state))) }
                    @for kind in &search.kinds { (chip(kind, search.without_kind(kind))) }
                    @for (key, value) in &search.labels {
                        (chip(&format!("{key}={value}"), search.without_label(key)))
                    }
                }
            }
        }
    }

    fn start(&self, blank: &Blank) -> Markup {
        let served = self.overview.workers.kinds.iter().map(String::as_str);
        let known: BTreeSet<&str> =
            served.chain(self.counts.kinds()).chain(self.search.kinds.iter().map(String::as_str)).collect();
        let wanted = self.search.kinds.first().map_or(SIMULATE, String::as_str);
        html! {
            section {
                h2 { "Start a job" }
                form #start method="post" action="/jobs" {
                    (blank.fields())
                    label {
                        "Kind"
                        @if known.is_empty() {
                            input name="kind" required maxlength="64" autocomplete="off";
                        } @else {
                            select name="kind" {
                                @for kind in known.iter().take(CHOICES_MAX) {
                                    option value=(kind) selected[*kind == wanted] { (kind) }
                                }
                            }
                        }
                    }
                    // Filled by the script, for kinds whose input it knows.
                    div #fields {}
                    details #as-json open {
                        summary { "Input as JSON" }
                        textarea name="input" rows="5" spellcheck="false" autocomplete="off" aria-label="Input as JSON" {
                            (example(wanted))
                        }
                    }
                    p #started role="status" {}
                    button { "Start" }
                }
            }
        }
    }

    fn workers(&self) -> Markup {
        let workers = &self.overview.workers;
        html! {
            section {
                h2 { "Workers" }
                ul #workers {
                    @for worker in &workers.named {
                        li data-worker=(worker.name) data-in-process[worker.in_process] {
                            strong { (worker.name) } " "
                            span.slots { (worker.jobs) " running, " (worker.free) " free" }
                            @if worker.in_process { " " span.own { "in the server" } }
                            div.kinds {
                                @for kind in worker.kinds.iter().take(WORKER_KINDS_MAX) { span.kind { (kind) } " " }
                                @if worker.kinds.len() > WORKER_KINDS_MAX {
                                    "and " (worker.kinds.len() - WORKER_KINDS_MAX) " more"
                                }
                            }
                        }
                    }
                }
                p #more-workers hidden[workers.more == 0] {
                    (workers.more) " more " (either(workers.more as u64, "is", "are")) " not listed."
                }
                p #no-workers hidden[!workers.named.is_empty()] { "No worker is here." }
            }
        }
    }
}

fn title(show: Show) -> &'static str {
    match show {
        Show::Active => "Active",
        Show::Ended => "Ended",
        Show::All => "All",
    }
}

/// An input that does something, where one is known.
fn example(kind: &str) -> &'static str {
    match kind {
        SIMULATE => "{\"prompt\": \"Hello there\", \"seconds\": 10}",
        SUMMARIZE => "{\"text\": \"\", \"sentences\": 3}",
        _ => "{}",
    }
}

fn ended(all: &Slice) -> u64 {
    all.succeeded + all.failed + all.cancelled + all.expired
}

fn failed(all: &Slice) -> u64 {
    all.failed + all.expired
}

fn throughput(all: &Slice, when: &str) -> String {
    let (jobs, were) = (either(ended(all), "job", "jobs"), either(all.created, "was", "were"));
    format!("{jobs} ended {when}; {} {were} started", all.created)
}

fn latency(all: &Slice, when: &str) -> String {
    match all.p95 {
        Some(p95) => format!("half took that at most, 95\u{a0}% {}", lasted(p95)),
        None => format!("no job succeeded {when}"),
    }
}

fn failures(all: &Slice, when: &str) -> String {
    let Slice { retried, cancelled, .. } = *all;
    let jobs = either(failed(all), "job", "jobs");
    let attempts = either(retried, "attempt is", "attempts are");
    let were = either(cancelled, "job was", "jobs were");
    format!("{jobs} failed {when}; {retried} {attempts} repeated, {cancelled} {were} cancelled")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::Counts;
    use crate::engine::{Count, Present, Workers};
    use crate::http::fake::at;
    use crate::http::pages::forms::Token;
    use crate::http::pages::search::{Asked, parse};
    use crate::job::State;
    use crate::metrics::Recent;
    use http_body_util::BodyExt;

    const HOSTILE: &str = "<img src=x onerror=alert(1)>\"'&";

    async fn page(query: &str, workers: Workers, counts: Vec<Count>) -> String {
        let Asked::List(search) = parse(query).unwrap() else { panic!("{query} is no list") };
        let counts = Table::new(&Counts::new(counts), &workers.kinds);
        let overview = Overview::new(workers, &counts, Recent::default().minutes(at(0.0)), at(0.0), at(0.0));
        let view = View {
            search,
            jobs: Vec::new(),
            older: "1.2".to_owned(),
            overview: Arc::new(overview),
            counts,
            now: Timestamp::default(),
        };
        let body =
            view.page(&Token::new([1, 2]).blank([3, 4])).into_body().collect().await.unwrap().to_bytes();
        String::from_utf8(body.to_vec()).unwrap()
    }

    #[tokio::test]
    async fn nothing_that_a_worker_or_an_address_says_becomes_markup() {
        let named =
            Present { name: HOSTILE.to_owned(), kinds: [HOSTILE.to_owned()].into(), ..Default::default() };
        let workers = Workers { named: vec![named], more: 1, kinds: [HOSTILE.to_owned()].into() };
        let query = "label=a=%3Cimg+src%3Dx+onerror%3Dalert(1)%3E&q=%3Cimg+src%3E";

        let page = page(query, workers, Vec::new()).await;

        assert!(!page.contains("<img"), "{page}");
        assert!(page.matches("&lt;img src").count() >= 6, "{page}");
    }

    #[tokio::test]
    async fn the_ways_from_a_list_keep_what_it_is_narrowed_by() {
        let page = page("kind=chat&label=team=voice", Workers::default(), Vec::new()).await;

        for address in [
            "/?show=ended&amp;kind=chat&amp;label=team%3Dvoice",
            "/?label=team%3Dvoice",
            "/?kind=chat",
            "/?kind=chat&amp;label=team%3Dvoice&amp;pageToken=1.2",
        ] {
            assert!(page.contains(&format!("href=\"{address}\"")), "{address} is not in {page}");
        }
        assert!(page.contains("<input type=\"hidden\" name=\"label\" value=\"team=voice\">"), "{page}");
    }

    #[test]
    fn one_job_is_spoken_of_as_one() {
        let one = Slice { failed: 1, retried: 1, cancelled: 1, created: 1, ..Slice::default() };
        let more = Slice { failed: 1, expired: 1, retried: 2, cancelled: 3, created: 4, ..Slice::default() };

        assert_eq!(failures(&one, "today"), "job failed today; 1 attempt is repeated, 1 job was cancelled");
        assert_eq!(
            failures(&more, "today"),
            "jobs failed today; 2 attempts are repeated, 3 jobs were cancelled"
        );
        assert_eq!(throughput(&one, "today"), "jobs ended today; 1 was started");
        assert_eq!(throughput(&more, "today"), "jobs ended today; 4 were started");
    }

    #[tokio::test]
    async fn every_kind_that_is_known_can_be_started() {
        let workers = Workers { kinds: ["draw".to_owned()].into(), ..Default::default() };
        let counts = vec![Count { kind: "chat".to_owned(), state: State::Pending, jobs: 1 }];

        let page = page("kind=chat", workers, counts).await;

        assert!(
            page.contains("<option value=\"chat\" selected>chat</option><option value=\"draw\">"),
            "{page}"
        );
    }
}
