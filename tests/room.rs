//! Requests that are sent and never end, by each door, until there is no room for more of them: what is large is told to come
//! again, and what is small goes on.
//!
//! Alone in its process, and one after the other: the room is one for all of it.

mod support;

use bytes::{BufMut, Bytes, BytesMut};
use futures_util::stream::{self, BoxStream, Stream, StreamExt};
use http::header::RETRY_AFTER;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use hyper::client::conn::http2::{Builder, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;
use rstest::rstest;
use std::collections::HashSet;
use std::convert::Infallible;
use std::time::Duration;
use support::{Server, ok, simulated, start, within};
use tokio::net::TcpStream;
use tokio::sync::{Mutex, mpsc, watch};
use tokio::task::JoinSet;
use tonic::{Code, Status};
use tonic_types::StatusExt;

/// Held by the test that fills the room.
static ALONE: Mutex<()> = Mutex::const_new(());

/// What there is for all of them.
const ROOM_BYTES: usize = 256 << 20;
const PIECE: usize = 64 << 10;
/// Each sends nearly as much as every door takes.
const PIECES: usize = 62;
const SENDERS: usize = 120;
/// So many of them may still have what they sent on their own side.
const SLACK: usize = 10;

type Pieces = StreamBody<BoxStream<'static, Result<Frame<Bytes>, Infallible>>>;

/// A way to send a request.
#[derive(Clone, Copy, Debug)]
struct Door {
    path: &'static str,
    content_type: &'static str,
    /// What stands before a message of this length.
    prefix: fn(usize) -> Option<Bytes>,
}

const GRPC: Door =
    Door { path: "/longhaul.v1.JobService/StartJob", content_type: "application/grpc", prefix };
const GRPC_WEB: Door = Door { content_type: "application/grpc-web+proto", ..GRPC };
const HTTP: Door = Door { path: "/v1/jobs", content_type: "application/json", prefix: |_| None };

fn prefix(length: usize) -> Option<Bytes> {
    let mut prefix = BytesMut::new();
    prefix.put_u8(0);
    prefix.put_u32(length as u32);
    Some(prefix.freeze())
}

/// A connection that keeps little of what it is to send.
async fn connect(server: &Server) -> SendRequest<Pieces> {
    let stream = TokioIo::new(TcpStream::connect(server.address()).await.unwrap());
    let mut builder = Builder::new(TokioExecutor::new());
    let (sender, connection) = builder.max_send_buf_size(PIECE).handshake(stream).await.unwrap();
    tokio::spawn(connection);
    sender
}

fn request(
    server: &Server,
    door: Door,
    pieces: impl Stream<Item = Bytes> + Send + 'static,
) -> Request<Pieces> {
    let frames = pieces.map(|piece| Ok(Frame::data(piece))).boxed();
    let request = Request::post(format!("{}{}", server.url(), door.path));
    let request = request.header("content-type", door.content_type).header("te", "trailers");
    request.body(StreamBody::new(frames)).unwrap()
}

/// Requests that have sent nearly all, and end when they are told to.
struct Hoard {
    requests: JoinSet<Answer>,
    end: watch::Sender<bool>,
}

impl Hoard {
    /// Comes back when each has sent what it has, or has been answered.
    async fn gather(server: &Server, door: Door) -> Self {
        let (end, ended) = watch::channel(false);
        let (settled, mut settling) = mpsc::unbounded_channel();
        let mut requests = JoinSet::new();
        let client = connect(server).await;
        for number in 0..SENDERS {
            let (mut ended, sent) = (ended.clone(), settled.clone());
            let last = stream::once(async move {
                sent.send(number).unwrap();
                ended.wait_for(|ended| *ended).await.unwrap();
                Bytes::from_static(&[0; 1])
            });
            let pieces = vec![Bytes::from_static(&[0; PIECE]); PIECES];
            let pieces =
                stream::iter((door.prefix)(PIECES * PIECE + 1)).chain(stream::iter(pieces)).chain(last);
            let (client, request) = (client.clone(), request(server, door, pieces));
            let answered = settled.clone();
            requests.spawn(async move {
                let answer = Answer::to(client, request).await;
                // Nobody counts any more once all have settled.
                let _ = answered.send(number);
                answer
            });
        }
        let mut numbers = HashSet::new();
        while numbers.len() < SENDERS {
            numbers.insert(within(settling.recv()).await.unwrap());
        }
        Self { requests, end }
    }

    /// Ends them, and returns how many of them were turned away for want of room.
    async fn end(self) -> usize {
        self.end.send(true).unwrap();
        let answers = within(self.requests.join_all()).await;
        for answer in &answers {
            // Those that were heard are no requests that anybody understands.
            assert!(answer.is_busy() || answer.code() == Code::InvalidArgument, "{answer:?}");
        }
        answers.iter().filter(|answer| answer.is_busy()).count()
    }
}

/// What a request is answered: its status, by gRPC where that is what it speaks.
#[derive(Debug)]
struct Answer {
    http: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

impl Answer {
    async fn to(mut client: SendRequest<Pieces>, request: Request<Pieces>) -> Self {
        let (mut head, body) = client.send_request(request).await.unwrap().into_parts();
        let body = body.collect().await.unwrap();
        head.headers.extend(body.trailers().cloned().unwrap_or_default());
        Self { http: head.status, headers: head.headers, body: body.to_bytes() }
    }

    fn status(&self) -> Option<Status> {
        Status::from_header_map(&self.headers)
    }

    fn code(&self) -> Code {
        match (self.status(), self.http) {
            (Some(status), _) => status.code(),
            (None, StatusCode::BAD_REQUEST) => Code::InvalidArgument,
            (None, _) => Code::Unknown,
        }
    }

    /// It says that there is no room, and when to come again.
    fn is_busy(&self) -> bool {
        match self.status() {
            Some(status) => {
                let details = status.get_error_details();
                let reason = details.error_info().map(|info| info.reason.as_str());
                let delay = details.retry_info().and_then(|retry| retry.retry_delay);
                (status.code(), reason, delay)
                    == (Code::Unavailable, Some("BUSY"), Some(Duration::from_secs(1)))
            }
            None => {
                let problem = String::from_utf8_lossy(&self.body);
                let seconds = self.headers.get(RETRY_AFTER).map(|value| value.as_bytes());
                self.http == StatusCode::SERVICE_UNAVAILABLE
                    && problem.contains(r#""reason":"BUSY""#)
                    && seconds == Some(b"1")
            }
        }
    }

    fn is_good(&self) -> bool {
        self.http.is_success() && self.status().is_none_or(|status| status.code() == Code::Ok)
    }
}

#[rstest]
#[case::grpc(GRPC)]
#[case::grpc_web(GRPC_WEB)]
#[case::http(HTTP)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_sent_and_never_ends_is_bounded_and_holds_up_nothing_small(#[case] door: Door) {
    let _alone = ALONE.lock().await;
    let server = Server::start().await;
    let mut client = server.client().await;

    let hoard = Hoard::gather(&server, door).await;

    // Whatever door it comes by.
    for (door, body) in [(GRPC, small()), (GRPC_WEB, small()), (HTTP, r#"{"kind": "simulate"}"#.into())] {
        let answer = Answer::to(connect(&server).await, request(&server, door, stream::iter([body])));
        let answer = within(answer).await;
        assert!(answer.is_good(), "{door:?}: {answer:?}");
    }
    let heard = SENDERS - hoard.end().await;
    let all = ROOM_BYTES / (PIECES * PIECE);
    assert!((all / 2..=all + SLACK).contains(&heard), "{heard} of {SENDERS} were heard");

    // With those that sent nothing more their room is free again.
    let large = start("nobody-does-this", &format!(r#"{{"text":"{}"}}"#, "x".repeat(1_000_000)));
    assert!(!ok(client.start_job(large)).await.id.is_empty());
}

fn small() -> Bytes {
    let message = simulated("small").encode_to_vec();
    [&prefix(message.len()).unwrap()[..], &message].concat().into()
}
