//! The addresses of the JSON API, as they are answered and as `/openapi.json` describes them.
//!
//! Each is a method of JobService, named as AIP-131 to 136 name such. The message that it takes is the contract's: its fields
//! come from the address, and the others from the body of a POST or from the query.

use super::problem::Problem;
use http::Method;

/// What an address of the API is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// `StartJob`.
    Start,
    /// `BatchStartJobs`.
    StartBatch,
    /// `GetStatus`.
    Status,
    /// `WatchJob`.
    Watch,
    /// `WatchJobs`.
    WatchAll,
    /// `ListJobs`.
    List,
    /// `CountJobs`.
    Count,
    /// `ListJobEvents`.
    History,
    /// `CancelJob`.
    Cancel,
    /// `RetryJob`.
    Retry,
    /// `DeleteJob`.
    Delete,
}

/// An address and a method.
#[derive(Debug)]
pub struct Route<C = Call> {
    /// The method.
    pub method: Method,
    /// The path, in which `{jobId}` is the ticket.
    pub path: &'static str,
    /// What is asked for.
    pub call: C,
    /// Its name, in JobService where that has it.
    pub name: &'static str,
}

/// One of them.
pub const fn route<C: Copy>(method: Method, path: &'static str, call: C, name: &'static str) -> Route<C> {
    Route { method, path, call, name }
}

/// All of them.
pub const ROUTES: &[Route] = &[
    route(Method::POST, "/v1/jobs", Call::Start, "StartJob"),
    route(Method::GET, "/v1/jobs", Call::List, "ListJobs"),
    route(Method::POST, "/v1/jobs:batchStart", Call::StartBatch, "BatchStartJobs"),
    route(Method::GET, "/v1/jobs:count", Call::Count, "CountJobs"),
    route(Method::GET, "/v1/jobs:watch", Call::WatchAll, "WatchJobs"),
    route(Method::GET, "/v1/jobs/{jobId}", Call::Status, "GetStatus"),
    route(Method::DELETE, "/v1/jobs/{jobId}", Call::Delete, "DeleteJob"),
    route(Method::GET, "/v1/jobs/{jobId}:watch", Call::Watch, "WatchJob"),
    route(Method::POST, "/v1/jobs/{jobId}:cancel", Call::Cancel, "CancelJob"),
    route(Method::POST, "/v1/jobs/{jobId}:retry", Call::Retry, "RetryJob"),
    route(Method::GET, "/v1/jobs/{jobId}/events", Call::History, "ListJobEvents"),
];

/// The parameter of a path.
pub const JOB_ID: &str = "{jobId}";

impl<C: Copy> Route<C> {
    /// The ticket that a path of this form names, empty where the form has none; nothing for a path of another form.
    pub fn matches<'a>(&self, path: &'a str) -> Option<&'a str> {
        match self.path.split_once(JOB_ID) {
            None => (path == self.path).then_some(""),
            Some((before, after)) => {
                let ticket = path.strip_prefix(before)?.strip_suffix(after)?;
                (!ticket.is_empty() && !ticket.contains(['/', ':'])).then_some(ticket)
            }
        }
    }
}

/// What an address of these is asked for, and the ticket that it names; nothing for an address that is none of them.
pub fn find<'a, C: Copy>(
    routes: &[Route<C>],
    method: &Method,
    path: &'a str,
) -> Result<Option<(C, &'a str)>, Problem> {
    // What a HEAD has of a body is left out by the protocol below.
    let method = if method == Method::HEAD { &Method::GET } else { method };
    let mut allowed = Vec::new();
    for route in routes {
        match route.matches(path) {
            Some(ticket) if route.method == *method => return Ok(Some((route.call, ticket))),
            Some(_) => allowed.push(route.method.as_str()),
            None => {}
        }
    }
    if allowed.contains(&"GET") {
        allowed.push("HEAD");
    }
    match allowed.is_empty() {
        true => Ok(None),
        false => Err(Problem::method(allowed.join(", "))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn calls(path: &str) -> Vec<(Call, &str)> {
        ROUTES.iter().filter_map(|route| Some((route.call, route.matches(path)?))).collect()
    }

    #[test]
    fn a_path_leads_where_it_says() {
        assert_eq!(calls("/v1/jobs"), [(Call::Start, ""), (Call::List, "")]);
        assert_eq!(calls("/v1/jobs/7"), [(Call::Status, "7"), (Call::Delete, "7")]);
        assert_eq!(calls("/v1/jobs/7:watch"), [(Call::Watch, "7")]);
        assert_eq!(calls("/v1/jobs/7/events"), [(Call::History, "7")]);
        assert_eq!(calls("/v1/jobs:count"), [(Call::Count, "")]);
    }

    #[test]
    fn a_path_that_only_looks_like_one_leads_nowhere() {
        for path in [
            "/v1/jobs/",
            "/v1/jobs//events",
            "/v1//jobs",
            "/v1/jobs/7/",
            "/v1/jobs/7:fly",
            "/v1/jobs/:watch",
            "/V1/jobs",
            "/v1/jobs/7/../8",
            "/v1/jobs/7:watch:cancel",
            "/v1/jobs:",
            "//v1/jobs",
            "/v1/jobs/7/events/",
            "",
        ] {
            assert_eq!(calls(path), [], "{path}");
        }
    }
}
