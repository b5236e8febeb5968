//! The yardstick: tonic's own server with one service that does nothing but answer, and one stream from a channel.

use crate::handlers::{STAGE, TICK};
use crate::roles::announce;
use longhaul::clock::{Clock as _, SystemClock};
use longhaul::proto::{EncodedEvent, JobEvent, Progress, StartJobRequest, WatchJobRequest, job_event};
use prost::Message as _;
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;
use tokio_stream::Stream;
use tokio_util::sync::ReusableBoxFuture;
use tonic::body::Body;
use tonic::codegen::{BoxFuture, BoxStream};
use tonic::server::{Grpc, NamedService};
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;

/// The path of the method that answers with the request.
pub const ECHO: &str = "/bench.Bare/Echo";
/// The path of the method that tells what is newest in the channel.
pub const WATCH: &str = "/bench.Bare/Watch";
/// As many as longhaul takes on one connection.
const STREAMS_MAX: u32 = 1_000;

/// The bare service.
#[derive(Clone)]
struct Bare {
    newest: watch::Receiver<EncodedEvent>,
}

/// Serves until the process ends.
pub async fn serve() -> anyhow::Result<()> {
    let incoming = TcpIncoming::bind("127.0.0.1:0".parse()?)?.with_nodelay(Some(true));
    announce(incoming.local_addr()?);
    let (sender, newest) = watch::channel(EncodedEvent::default());
    tokio::spawn(tick(sender));
    let server = Server::builder().max_concurrent_streams(STREAMS_MAX).add_service(Bare { newest });
    Ok(server.serve_with_incoming(incoming).await?)
}

/// Says what a ticking job says, as often.
async fn tick(newest: watch::Sender<EncodedEvent>) {
    let clock = SystemClock::new();
    let job_id = format!("{:036}", 0);
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for completed in 0.. {
        ticks.tick().await;
        let micros = clock.now().as_micros();
        let nanos = (micros % 1_000_000) as i32 * 1_000;
        let time = Some(prost_types::Timestamp { seconds: micros / 1_000_000, nanos });
        let progress = Progress {
            fraction: Some(0.5),
            stage: STAGE.to_owned(),
            completed,
            report_time: time,
            ..Default::default()
        };
        let event = JobEvent {
            job_id: job_id.clone(),
            sequence: 2,
            attempt: 1,
            event_time: time,
            event: Some(job_event::Event::Progress(progress)),
        };
        newest.send_replace(EncodedEvent(event.encode_to_vec().into()));
    }
}

async fn echo(request: Request<StartJobRequest>) -> Result<Response<StartJobRequest>, Status> {
    Ok(Response::new(request.into_inner()))
}

/// What is newest in the channel, again and again.
struct Newest(ReusableBoxFuture<'static, (watch::Receiver<EncodedEvent>, bool)>);

impl Newest {
    fn new(receiver: watch::Receiver<EncodedEvent>) -> Self {
        Self(ReusableBoxFuture::new(changed(receiver)))
    }
}

async fn changed(mut receiver: watch::Receiver<EncodedEvent>) -> (watch::Receiver<EncodedEvent>, bool) {
    let is_open = receiver.changed().await.is_ok();
    (receiver, is_open)
}

impl Stream for Newest {
    type Item = Result<EncodedEvent, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let (mut receiver, is_open) = ready!(self.0.poll(context));
        let event = receiver.borrow_and_update().clone();
        self.0.set(changed(receiver));
        Poll::Ready(is_open.then_some(Ok(event)))
    }
}

impl NamedService for Bare {
    const NAME: &'static str = "bench.Bare";
}

impl tower::Service<http::Request<Body>> for Bare {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let newest = self.newest.clone();
        Box::pin(async move {
            if request.uri().path() == ECHO {
                let mut grpc = Grpc::new(ProstCodec::default());
                return Ok(grpc.unary(tower::service_fn(echo), request).await);
            }
            let watch = move |_: Request<WatchJobRequest>| {
                let stream: BoxStream<EncodedEvent> = Box::pin(Newest::new(newest.clone()));
                std::future::ready(Ok::<_, Status>(Response::new(stream)))
            };
            let mut grpc = Grpc::new(ProstCodec::default());
            Ok(grpc.server_streaming(tower::service_fn(watch), request).await)
        })
    }
}
