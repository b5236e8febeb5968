//! The network edge from outside: a real port, tonic's client, and raw bytes where no client would send them.

use http::Request;
use http::uri::PathAndQuery;
use hyper::body::Incoming;
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::{TokioExecutor, TokioIo};
use longhaul::edge::{self, Options};
use longhaul::rpc::{Sent, Services};
use longhaul::wire::status::DOMAIN;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_stream::StreamExt;
use tokio_util::sync::CancellationToken;
use tonic::body::Body;
use tonic::codegen::{BoxFuture, BoxStream};
use tonic::server::NamedService;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Response, Status, Streaming};
use tonic_health::ServingStatus;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tonic_prost::ProstCodec;
use tonic_types::StatusExt;

/// Far more than anything here takes; a test that reaches it has failed.
const PATIENCE: Duration = Duration::from_secs(20);

type Codec = ProstCodec<String, String>;

/// A service of five methods that behave as their names say.
#[derive(Clone)]
struct Probe;

impl NamedService for Probe {
    const NAME: &'static str = "test.Probe";
}

impl tower::Service<Request<Sent>> for Probe {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Sent>) -> Self::Future {
        Box::pin(async move {
            let mut grpc = tonic::server::Grpc::new(Codec::default());
            let method = request.uri().path().rsplit('/').next().unwrap().to_owned();
            Ok(match method.as_str() {
                "Stream" | "StreamPanics" => grpc.server_streaming(tower::service_fn(stream), request).await,
                _ => grpc.unary(tower::service_fn(move |r| unary(method.clone(), r)), request).await,
            })
        })
    }
}

async fn unary(method: String, request: tonic::Request<String>) -> Result<Response<String>, Status> {
    match method.as_str() {
        "Echo" => Ok(Response::new(request.into_inner())),
        "Panics" => panic!("on purpose"),
        "Hangs" => std::future::pending().await,
        _ => Err(Status::unimplemented("")),
    }
}

async fn stream(request: tonic::Request<String>) -> Result<Response<BoxStream<String>>, Status> {
    let panics = request.into_inner() == "panic";
    let more = tokio_stream::iter([()]).then(move |()| async move {
        // tonic sends what it has once the stream pauses.
        tokio::task::yield_now().await;
        assert!(!panics, "on purpose");
        std::future::pending().await
    });
    Ok(Response::new(Box::pin(tokio_stream::once(Ok("first".to_owned())).chain(more))))
}

/// A client's connection without anything around it.
struct Direct(SendRequest<Body>);

impl tower::Service<Request<Body>> for Direct {
    type Response = http::Response<Incoming>;
    type Error = hyper::Error;
    type Future = BoxFuture<Self::Response, hyper::Error>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), hyper::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        Box::pin(self.0.send_request(request))
    }
}

/// What answers all that is not gRPC.
fn nothing() -> impl hyper::service::Service<
    Request<Incoming>,
    Response = http::Response<Body>,
    Error = Infallible,
    Future: Send + 'static,
> + Send
+ Sync
+ 'static {
    hyper::service::service_fn(async |_| {
        let mut response = http::Response::new(Body::empty());
        *response.status_mut() = http::StatusCode::NOT_FOUND;
        Ok(response)
    })
}

struct Served {
    address: SocketAddr,
    shutdown: CancellationToken,
    task: JoinHandle<std::io::Result<()>>,
}

impl Served {
    async fn new(options: Options) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shutdown = CancellationToken::new();
        let services = Services::new().service(Probe);
        let health = services.health();
        health.serving().await;
        let closed = {
            let shutdown = shutdown.clone();
            async move {
                shutdown.cancelled().await;
                health.end().await;
            }
        };
        let task =
            tokio::spawn(edge::serve(listener, options, services.beside(nothing()), |_| {}, |_| {}, closed));
        Self { address, shutdown, task }
    }

    async fn channel(&self) -> Channel {
        Endpoint::from_shared(format!("http://{}", self.address)).unwrap().connect().await.unwrap()
    }

    async fn call(&self, method: &str, message: String) -> Result<String, Status> {
        self.call_with(method, tonic::Request::new(message)).await
    }

    async fn call_with(&self, method: &str, request: tonic::Request<String>) -> Result<String, Status> {
        let mut grpc = self.direct().await;
        grpc.unary(request, path(method), Codec::default()).await.map(Response::into_inner)
    }

    async fn stream(&self, request: tonic::Request<String>) -> Streaming<String> {
        let mut grpc = self.direct().await;
        grpc.server_streaming(request, path("Stream"), Codec::default()).await.unwrap().into_inner()
    }

    // tonic's channel keeps deadlines itself, so that it would never see the server keep one.
    async fn direct(&self) -> tonic::client::Grpc<Direct> {
        let stream = TokioIo::new(TcpStream::connect(self.address).await.unwrap());
        let (sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), stream).await.unwrap();
        tokio::spawn(connection);
        let origin = format!("http://{}", self.address).parse().unwrap();
        tonic::client::Grpc::with_origin(Direct(sender), origin)
    }

    async fn http(&self, request: &str) -> String {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        within(stream.read_to_string(&mut answer)).await.unwrap();
        answer
    }

    async fn ends(self) {
        within(self.task).await.unwrap().unwrap();
    }
}

fn path(method: &str) -> PathAndQuery {
    format!("/test.Probe/{method}").parse().unwrap()
}

async fn within<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(PATIENCE, future).await.expect("it ends long before")
}

#[track_caller]
fn assert_error(status: Status, code: Code, reason: &str) {
    let found = status.get_details_error_info().map(|info| (info.domain, info.reason));
    assert_eq!((status.code(), found), (code, Some((DOMAIN.into(), reason.into()))), "{status}");
}

#[tokio::test]
async fn calls_are_answered_and_the_server_is_healthy() {
    let served = Served::new(Options::default()).await;
    let mut health = HealthClient::new(served.channel().await);

    assert_eq!(served.call("Echo", "hello".into()).await.unwrap(), "hello");
    for service in ["", Probe::NAME] {
        let check = HealthCheckRequest { service: service.into() };
        let status = health.check(check).await.unwrap().into_inner().status;
        assert_eq!(status, ServingStatus::Serving as i32);
    }
}

#[tokio::test]
async fn every_error_has_its_code_and_reason() {
    let served = Served::new(Options::default()).await;
    let soon = |method| {
        let mut request = tonic::Request::new(String::new());
        request.metadata_mut().insert("grpc-timeout", "20m".parse().unwrap());
        served.call_with(method, request)
    };

    assert_error(
        served.call("Nothing", String::new()).await.unwrap_err(),
        Code::Unimplemented,
        "METHOD_UNKNOWN",
    );
    assert_error(served.call("Panics", String::new()).await.unwrap_err(), Code::Internal, "INTERNAL");
    assert_error(within(soon("Hangs")).await.unwrap_err(), Code::DeadlineExceeded, "DEADLINE_EXCEEDED");
    assert_error(
        served.call("Echo", "x".repeat(5 << 20)).await.unwrap_err(),
        Code::ResourceExhausted,
        "MESSAGE_TOO_LARGE",
    );

    let mut grpc = served.direct().await;
    let nowhere = PathAndQuery::from_static("/test.Nowhere/Echo");
    let answer = grpc.unary(tonic::Request::new(String::new()), nowhere, Codec::default()).await;
    assert_error(answer.unwrap_err(), Code::Unimplemented, "METHOD_UNKNOWN");
}

#[tokio::test]
async fn a_stream_that_breaks_ends_with_an_error() {
    let served = Served::new(Options::default()).await;

    let mut panics = served.stream(tonic::Request::new("panic".into())).await;
    assert_eq!(panics.message().await.unwrap().unwrap(), "first");
    assert_error(within(panics.message()).await.unwrap_err(), Code::Internal, "INTERNAL");

    let mut request = tonic::Request::new(String::new());
    request.metadata_mut().insert("grpc-timeout", "100m".parse().unwrap());
    let mut late = served.stream(request).await;
    assert_eq!(late.message().await.unwrap().unwrap(), "first");
    assert_error(within(late.message()).await.unwrap_err(), Code::DeadlineExceeded, "DEADLINE_EXCEEDED");
}

#[tokio::test]
async fn what_is_no_call_for_this_server_is_refused_in_plain_http() {
    let served =
        Served::new(Options { allowed_hosts: vec!["jobs.example.org".into()], ..Options::default() }).await;
    let request = |method: &str, path: &str, host: &str| {
        format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
    };

    let cases = [
        (request("POST", "/test.Probe/Echo", "localhost"), "415", "content-type"),
        (request("POST", "/test.Probe/Echo", "jobs.example.org"), "415", "content-type"),
        (request("POST", "/test.Probe/Echo", "evil.example"), "403", "allowed_hosts"),
        (request("GET", "/test.Probe/Echo", "localhost:3000"), "405", "allow: POST"),
        (request("GET", "/index.html", "127.0.0.1"), "404", "content-length: 0"),
    ];
    for (request, status, text) in cases {
        let answer = served.http(&request).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
        assert!(answer.contains(text), "{answer}");
    }
}

#[tokio::test]
async fn a_connection_that_says_nothing_is_closed() {
    let first_byte_timeout = Duration::from_millis(50);
    let served = Served::new(Options { first_byte_timeout, ..Options::default() }).await;

    assert_eq!(served.http("").await, "");
    assert_eq!(served.http("PRI * HTTP/2.0\r\n").await, "");
}

#[tokio::test]
async fn one_connection_over_the_cap_is_closed_until_another_has_ended() {
    let served = Served::new(Options { connections_max: 1, ..Options::default() }).await;
    let first = served.channel().await;
    let check = HealthCheckRequest::default();
    HealthClient::new(first.clone()).check(check.clone()).await.unwrap();

    assert_eq!(served.http("").await, "");

    drop(first);
    let again = async {
        loop {
            let endpoint = Endpoint::from_shared(format!("http://{}", served.address)).unwrap();
            let Ok(channel) = endpoint.connect().await else { continue };
            if HealthClient::new(channel).check(check.clone()).await.is_ok() {
                break;
            }
        }
    };
    within(again).await;
}

#[tokio::test]
async fn idle_connections_and_health_watches_do_not_hold_up_the_shutdown() {
    let served = Served::new(Options { drain_timeout: PATIENCE * 2, ..Options::default() }).await;
    let _idle = TcpStream::connect(served.address).await.unwrap();
    let mut health = HealthClient::new(served.channel().await);
    let mut watch = health.watch(HealthCheckRequest::default()).await.unwrap().into_inner();
    assert_eq!(watch.message().await.unwrap().unwrap().status, ServingStatus::Serving as i32);

    served.shutdown.cancel();

    assert_eq!(watch.message().await.unwrap().unwrap().status, ServingStatus::NotServing as i32);
    assert!(within(watch.message()).await.unwrap().is_none());
    served.ends().await;
}

#[tokio::test]
async fn a_stream_that_outlasts_the_drain_time_is_cut_and_never_ends_well() {
    let drain_timeout = Duration::from_millis(50);
    let served = Served::new(Options { drain_timeout, ..Options::default() }).await;
    let mut stream = served.stream(tonic::Request::new(String::new())).await;
    assert_eq!(stream.message().await.unwrap().unwrap(), "first");

    served.shutdown.cancel();

    assert!(within(stream.message()).await.is_err());
    served.ends().await;
}

#[tokio::test]
async fn a_call_that_hangs_holds_up_no_other_on_its_connection() {
    let served = Served::new(Options::default()).await;
    let channel = served.channel().await;
    let call = |method: &'static str| {
        let mut grpc = tonic::client::Grpc::new(channel.clone());
        async move {
            grpc.ready().await.unwrap();
            grpc.unary(tonic::Request::new("hello".to_owned()), path(method), Codec::default()).await
        }
    };

    let hanging: Vec<_> = (0..50).map(|_| tokio::spawn(call("Hangs"))).collect();
    for _ in 0..50 {
        let answer: String = within(call("Echo")).await.unwrap().into_inner();
        assert_eq!(answer, "hello");
    }

    assert!(hanging.iter().all(|call| !call.is_finished()));
    // One that panics takes none of the others with it.
    assert_error(within(call("Panics")).await.unwrap_err(), Code::Internal, "INTERNAL");
    assert!(within(call("Echo")).await.is_ok());
    assert!(hanging.iter().all(|call| !call.is_finished()));
}
