//! A server elsewhere that says what a test tells it. Connections to it are in memory, so that the time can be paused.

use crate::engine::Order;
use crate::job::{JobId, LeaseToken, Timestamp};
use crate::proto::directive::Action;
use crate::proto::work_request::{Hello, Message};
use crate::proto::work_response::{Ack, Message as Answer, Welcome};
use crate::proto::worker_service_server::{WorkerService, WorkerServiceServer};
use crate::proto::*;
use crate::worker::remote::connection::{Channel, by_tonic};
use futures_util::{StreamExt, stream};
use hyper_util::rt::TokioIo;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Endpoint, Server};
use tonic::{Request, Response, Status, Streaming};

/// How often a worker gives a sign here.
pub const INTERVAL: Duration = Duration::from_secs(1);

/// The server.
pub struct Far {
    works: mpsc::Receiver<Work>,
    emits: mpsc::Receiver<Emit>,
    calls: Calls,
    away: Arc<AtomicBool>,
}

/// A stream: the number of its connection, what is heard on it, and what is said.
pub struct Side<Heard, Said> {
    pub connection: usize,
    pub heard: Streaming<Heard>,
    said: mpsc::Sender<Result<Said, Status>>,
}

pub type Work = Side<WorkRequest, WorkResponse>;
pub type Emit = Side<AppendOutputRequest, AppendOutputResponse>;

#[derive(Clone)]
struct Calls {
    connection: usize,
    works: mpsc::Sender<Work>,
    emits: mpsc::Sender<Emit>,
}

impl Far {
    pub fn new() -> Self {
        let ((work, works), (emit, emits)) = (mpsc::channel(64), mpsc::channel(64));
        let calls = Calls { connection: 0, works: work, emits: emit };
        Self { works, emits, calls, away: Arc::default() }
    }

    /// How it is reached.
    pub fn dial(&self) -> impl Fn() -> Channel + Send + Sync + use<> {
        let (calls, away, connections) =
            (self.calls.clone(), self.away.clone(), Arc::<AtomicUsize>::default());
        move || {
            let (calls, away, connections) = (calls.clone(), away.clone(), connections.clone());
            let connect = tower::service_fn(move |_| {
                let connection = connections.fetch_add(1, Ordering::SeqCst) + 1;
                let (calls, away) = (Calls { connection, ..calls.clone() }, away.load(Ordering::SeqCst));
                async move {
                    if away {
                        return Err(io::Error::from(io::ErrorKind::ConnectionRefused));
                    }
                    let (near, far) = tokio::io::duplex(1 << 20);
                    let incoming = stream::iter([io::Result::Ok(far)]).chain(stream::pending());
                    let server = Server::builder().add_service(WorkerServiceServer::new(calls));
                    tokio::spawn(server.serve_with_incoming(incoming));
                    Ok(TokioIo::new(near))
                }
            });
            by_tonic(Endpoint::from_static("http://far").connect_with_connector_lazy(connect))
        }
    }

    /// Takes no more connections.
    pub fn go_away(&self) {
        self.away.store(true, Ordering::SeqCst);
    }

    /// The next `Work` stream.
    pub async fn work(&mut self) -> Work {
        patiently(self.works.recv()).await.unwrap()
    }

    /// The same, with what it begins with, and greeted.
    pub async fn greeted(&mut self) -> (Work, Hello) {
        let mut work = self.work().await;
        let Message::Hello(hello) = work.message().await else { panic!("no hello") };
        work.greet().await;
        (work, hello)
    }

    /// The next `Emit` stream.
    pub async fn emit(&mut self) -> Emit {
        patiently(self.emits.recv()).await.unwrap()
    }
}

impl<Heard, Said> Side<Heard, Said> {
    pub async fn next(&mut self) -> Heard {
        patiently(self.heard.message()).await.unwrap().expect("the worker has ended the stream")
    }

    pub async fn say(&self, said: Said) {
        self.said.send(Ok(said)).await.unwrap();
    }

    /// Ends the stream as a server does that dies.
    pub async fn break_off(self) {
        self.said.send(Err(Status::unavailable("gone"))).await.unwrap();
    }
}

impl Work {
    pub async fn message(&mut self) -> Message {
        self.next().await.message.unwrap()
    }

    /// The next message that is of some kind.
    pub async fn until<T>(&mut self, pick: impl Fn(Message) -> Option<T>) -> T {
        loop {
            if let Some(picked) = pick(self.message().await) {
                return picked;
            }
        }
    }

    /// The next heartbeat of which something holds.
    pub async fn beat(&mut self, holds: impl Fn(&[Report]) -> bool) -> Vec<Report> {
        let reports = |message| match message {
            Message::Heartbeat(heartbeat) => Some(heartbeat.reports).filter(|reports| holds(reports)),
            _ => None,
        };
        self.until(reports).await
    }

    pub async fn answer(&self, answer: Answer) {
        self.say(WorkResponse { message: Some(answer) }).await;
    }

    pub async fn greet(&self) {
        let interval = prost_types::Duration { seconds: INTERVAL.as_secs() as i64, nanos: 0 };
        let terms = LeaseTerms { heartbeat_interval: Some(interval), ..Default::default() };
        self.answer(Answer::Welcome(Welcome { terms: Some(terms), directives: Vec::new() })).await;
    }

    pub async fn assign(&self, number: u32) -> LeaseToken {
        let token = LeaseToken { job: JobId::new(Timestamp::from_micros(1), 0, 7), epoch: number, secret: 7 };
        let job = Job { id: token.job.to_string(), kind: "work".into(), ..Default::default() };
        let assignment = Assignment {
            job: Some(job),
            lease_token: token.to_string(),
            input_json: "{}".into(),
            traceparent: "00-trace".into(),
            ..Default::default()
        };
        self.answer(Answer::Assignment(assignment)).await;
        token
    }

    /// Answers a heartbeat.
    pub async fn renew(&self, reports: &[Report]) {
        let renewed = |report: &Report| Directive {
            lease_token: report.lease_token.clone(),
            action: Action::Renewed.into(),
            lease_expire_time: Some(Default::default()),
            ..Default::default()
        };
        let directives = reports.iter().map(renewed).collect();
        self.answer(Answer::Directives(HeartbeatResponse { directives })).await;
    }

    pub async fn acknowledge(&self, token: &LeaseToken, refusal: &str) {
        let (lease_token, refusal) = (token.to_string(), refusal.to_owned());
        self.answer(Answer::Ack(Ack { lease_token, refusal, ..Default::default() })).await;
    }
}

impl Emit {
    pub async fn refuse(&self, token: &LeaseToken, refusal: &str) {
        let (lease_token, refusal) = (token.to_string(), refusal.to_owned());
        self.say(AppendOutputResponse { lease_token, refusal, ..Default::default() }).await;
    }

    pub async fn settle(&self, token: &LeaseToken, durable_bytes: i64) {
        let lease_token = token.to_string();
        self.say(AppendOutputResponse { lease_token, durable_bytes, ..Default::default() }).await;
    }
}

/// Far more than anything here takes, and no time at all while that is paused.
pub async fn patiently<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(600), future).await.expect("it does not come")
}

/// Whether a job is still worked on as far as its handler was told.
pub fn goes_on(orders: &tokio::sync::watch::Receiver<Order>) -> bool {
    *orders.borrow() == Order::Continue
}

impl Calls {
    fn unary<T>() -> Result<Response<T>, Status> {
        Err(Status::unimplemented("only streams"))
    }
}

#[tonic::async_trait]
impl WorkerService for Calls {
    type WorkStream = ReceiverStream<Result<WorkResponse, Status>>;
    type EmitStream = ReceiverStream<Result<AppendOutputResponse, Status>>;

    async fn work(
        &self,
        request: Request<Streaming<WorkRequest>>,
    ) -> Result<Response<Self::WorkStream>, Status> {
        let (said, answers) = mpsc::channel(64);
        let side = Side { connection: self.connection, heard: request.into_inner(), said };
        self.works.send(side).await.map_err(|_| Status::unavailable("the test is over"))?;
        Ok(Response::new(ReceiverStream::new(answers)))
    }

    async fn emit(
        &self,
        request: Request<Streaming<AppendOutputRequest>>,
    ) -> Result<Response<Self::EmitStream>, Status> {
        let (said, answers) = mpsc::channel(64);
        let side = Side { connection: self.connection, heard: request.into_inner(), said };
        self.emits.send(side).await.map_err(|_| Status::unavailable("the test is over"))?;
        Ok(Response::new(ReceiverStream::new(answers)))
    }

    async fn lease_jobs(&self, _: Request<LeaseJobsRequest>) -> Result<Response<LeaseJobsResponse>, Status> {
        Self::unary()
    }

    async fn heartbeat(&self, _: Request<HeartbeatRequest>) -> Result<Response<HeartbeatResponse>, Status> {
        Self::unary()
    }

    async fn append_output(
        &self,
        _: Request<AppendOutputRequest>,
    ) -> Result<Response<AppendOutputResponse>, Status> {
        Self::unary()
    }

    async fn complete_job(
        &self,
        _: Request<CompleteJobRequest>,
    ) -> Result<Response<CompleteJobResponse>, Status> {
        Self::unary()
    }

    async fn fail_job(&self, _: Request<FailJobRequest>) -> Result<Response<FailJobResponse>, Status> {
        Self::unary()
    }

    async fn release_job(
        &self,
        _: Request<ReleaseJobRequest>,
    ) -> Result<Response<ReleaseJobResponse>, Status> {
        Self::unary()
    }
}
