//! What the tests over the wire share: a server on a port of its own, and a handler that does what it is told.

#![allow(dead_code, reason = "not every test binary uses all of it")]

pub mod binary;
pub mod proxy;
pub mod puppet;

use longhaul::cli::serve::{self, Running};
use longhaul::cli::settings::{Options, Settings};
use longhaul::clock::{Clock, SystemClock};
use longhaul::processor;
use longhaul::proto::job::State;
use longhaul::proto::job_service_client::JobServiceClient;
use longhaul::proto::start_job_request::Payload;
use longhaul::proto::*;
use longhaul::worker::Registry;
use std::time::Duration;
use tempfile::TempDir;
use tonic::transport::Channel;
use tonic::{Code, Status, Streaming};
use tonic_types::{ErrorDetails, StatusExt};

pub type Client = JobServiceClient<Channel>;

/// Far more than anything here takes; a test that reaches it has failed.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// A server in this process.
pub struct Server {
    running: Option<Running>,
    options: Options,
    registry: Registry,
    folder: TempDir,
}

impl Server {
    /// With the built-in kinds.
    pub async fn start() -> Self {
        Self::with(processor::built_in(), |_| {}).await
    }

    pub async fn with(registry: Registry, set: impl FnOnce(&mut Options)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut options = Options {
            listen: Some("127.0.0.1:0".parse().unwrap()),
            data_dir: Some(folder.path().join("data")),
            slots: Some(4),
            ..Default::default()
        };
        set(&mut options);
        let mut server = Self { running: None, options, registry, folder };
        server.run().await;
        server
    }

    fn settings(&self) -> Settings {
        self.options.clone().settle().unwrap()
    }

    async fn run(&mut self) {
        self.running = Some(serve::start(self.settings(), self.registry.clone()).await.unwrap());
    }

    pub fn address(&self) -> std::net::SocketAddr {
        self.running.as_ref().unwrap().address()
    }

    /// What it says at `/metrics`.
    pub async fn figures(&self) -> String {
        self.running.as_ref().unwrap().figures().await.unwrap()
    }

    pub async fn stop(&mut self) {
        self.running.take().unwrap().shut_down().await;
    }

    /// Stops it in good order and starts it again, on the same port.
    pub async fn restart(&mut self) {
        self.options.listen = Some(self.address());
        self.stop().await;
        self.run().await;
    }

    pub async fn client(&self) -> Client {
        client(&self.url()).await
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address())
    }
}

pub async fn client(url: &str) -> Client {
    JobServiceClient::connect(url.to_owned()).await.unwrap().max_decoding_message_size(64 << 20)
}

/// A client that takes little in unless it reads: a server soon has to wait for it.
pub async fn narrow_client(url: &str) -> Client {
    let endpoint = Channel::from_shared(url.to_owned()).unwrap().initial_stream_window_size(16 << 10);
    JobServiceClient::new(endpoint.connect().await.unwrap()).max_decoding_message_size(64 << 20)
}

/// A request for a job of this kind with this input.
pub fn start(kind: &str, input: &str) -> StartJobRequest {
    StartJobRequest {
        kind: kind.to_owned(),
        payload: Some(Payload::InputJson(input.to_owned())),
        ..Default::default()
    }
}

/// That much later than now.
pub fn in_time(duration: Duration) -> Option<prost_types::Timestamp> {
    let micros = SystemClock::new().now().after(duration).as_micros();
    Some(prost_types::Timestamp { seconds: micros / 1_000_000, nanos: (micros % 1_000_000 * 1_000) as i32 })
}

/// A request for a simulated job that takes no time to speak of.
pub fn simulated(prompt: &str) -> StartJobRequest {
    start("simulate", &format!(r#"{{"prompt":"{prompt}","seconds":0.05,"steps":3}}"#))
}

pub fn get(job: &Job) -> GetStatusRequest {
    GetStatusRequest { job_id: job.id.clone(), ..Default::default() }
}

pub fn watch(job: &Job, after: impl Into<Option<i64>>) -> WatchJobRequest {
    WatchJobRequest { job_id: job.id.clone(), after_sequence: after.into(), ..Default::default() }
}

/// A call that must be answered.
pub async fn ok<T>(call: impl Future<Output = Result<tonic::Response<T>, Status>>) -> T {
    within(call).await.unwrap().into_inner()
}

/// A call that must be refused: its code, its stable reason, and its details.
pub async fn refused<T: std::fmt::Debug>(
    call: impl Future<Output = Result<tonic::Response<T>, Status>>,
) -> (Code, String, ErrorDetails) {
    explained(&within(call).await.unwrap_err())
}

/// What an error says, which must be something.
pub fn explained(status: &Status) -> (Code, String, ErrorDetails) {
    let details = status.get_error_details();
    let info = details.error_info().unwrap_or_else(|| panic!("no ErrorInfo: {status:?}"));
    assert_eq!(info.domain, "longhaul");
    (status.code(), info.reason.clone(), details.clone())
}

/// The paths of the fields that a refusal complains about.
pub fn fields(details: &ErrorDetails) -> Vec<String> {
    let request = details.bad_request().expect("a bad request");
    request.field_violations.iter().map(|violation| violation.field.clone()).collect()
}

pub async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("it takes far too long")
}

/// All messages of a watch, which must end well.
pub async fn to_the_end(mut stream: Streaming<JobEvent>) -> Vec<JobEvent> {
    let mut events = Vec::new();
    while let Some(event) = within(stream.message()).await.unwrap() {
        events.push(event);
    }
    events
}

/// The next message of a watch that is of some kind.
pub async fn next<T>(stream: &mut Streaming<JobEvent>, pick: impl Fn(&JobEvent) -> Option<T>) -> T {
    within(async {
        loop {
            let event = stream.message().await.unwrap().expect("the watch has ended");
            if let Some(picked) = pick(&event) {
                return picked;
            }
        }
    })
    .await
}

/// Waits until the job is in this state.
pub async fn reach(client: &mut Client, job: &Job, state: State) {
    let mut stream = ok(client.watch_job(watch(job, 0))).await;
    next(&mut stream, |event| match &event.event {
        Some(job_event::Event::StateChange(change)) => (change.state() == state).then_some(()),
        _ => None,
    })
    .await;
}

/// The kept events among the messages of a watch.
pub fn kept(events: &[JobEvent]) -> Vec<JobEvent> {
    let is_kept = |event: &&JobEvent| {
        matches!(
            event.event,
            Some(
                job_event::Event::StateChange(_)
                    | job_event::Event::Output(_)
                    | job_event::Event::OutputReset(_)
                    | job_event::Event::Log(_)
                    | job_event::Event::Stage(_)
            )
        )
    };
    events.iter().filter(is_kept).cloned().collect()
}

/// The states that a job went through.
pub fn states(events: &[JobEvent]) -> Vec<State> {
    let state = |event: &JobEvent| match &event.event {
        Some(job_event::Event::StateChange(change)) => Some(change.state()),
        _ => None,
    };
    events.iter().filter_map(state).collect()
}

/// The whole history of a job, page by page.
pub async fn history(client: &mut Client, job: &Job) -> Vec<JobEvent> {
    let mut request = ListJobEventsRequest { job_id: job.id.clone(), page_size: 7, ..Default::default() };
    let mut events = Vec::new();
    loop {
        let page = ok(client.list_job_events(request.clone())).await;
        events.extend(page.events);
        if page.next_after_sequence == 0 {
            return events;
        }
        request.after_sequence = page.next_after_sequence;
    }
}
