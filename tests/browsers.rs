//! What pages may do: those of this server and of allowed origins everything, over gRPC-Web; all others nothing.

mod support;

use bytes::{BufMut, Bytes, BytesMut};
use http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, CONTENT_TYPE, VARY, X_CONTENT_TYPE_OPTIONS,
};
use http::{HeaderMap, Request, Response, Version};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use longhaul::processor;
use longhaul::proto::job_event::Event;
use longhaul::proto::*;
use longhaul::wire::status::DOMAIN;
use prost::Message;
use support::{Server, ok, simulated, start, within};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tonic::{Code, Status};
use tonic_types::StatusExt;

const VERSIONS: [Version; 2] = [Version::HTTP_11, Version::HTTP_2];
const ALLOWED: &str = "https://app.example";
const START: &str = "/longhaul.v1.JobService/StartJob";
const WEB: &str = "application/grpc-web+proto";
/// What the last frame of a body is known by.
const TRAILERS: u8 = 0x80;

async fn server() -> Server {
    let allowed = vec![ALLOWED.to_owned(), "http://[::1]:5173".to_owned()];
    Server::with(processor::built_in(), |options| options.allowed_origins = Some(allowed)).await
}

/// Sends one request over a connection of its own.
async fn send(server: &Server, version: Version, request: Request<Full<Bytes>>) -> Response<Incoming> {
    let stream = TokioIo::new(TcpStream::connect(server.address()).await.unwrap());
    let (mut head, body) = request.into_parts();
    head.version = version;
    if version == Version::HTTP_2 {
        let path = head.uri.path_and_query().unwrap().as_str();
        head.uri = format!("{}{path}", server.url()).parse().unwrap();
        let (mut client, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), stream).await.unwrap();
        tokio::spawn(connection);
        within(client.send_request(Request::from_parts(head, body))).await.unwrap()
    } else {
        head.headers.insert("host", server.address().to_string().parse().unwrap());
        let (mut client, connection) = hyper::client::conn::http1::handshake(stream).await.unwrap();
        tokio::spawn(connection);
        within(client.send_request(Request::from_parts(head, body))).await.unwrap()
    }
}

fn request(method: &str, path: &str, headers: &[(&str, &str)], body: Bytes) -> Request<Full<Bytes>> {
    let mut request = Request::builder().method(method).uri(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(Full::new(body)).unwrap()
}

fn frame(message: &impl Message) -> Bytes {
    let mut frame = BytesMut::new();
    frame.put_u8(0);
    frame.put_u32(message.encoded_len() as u32);
    message.encode(&mut frame).unwrap();
    frame.freeze()
}

/// What a call of gRPC-Web came to: the messages, and the status that stands in the last frame or in the headers.
struct Answer {
    headers: HeaderMap,
    messages: Vec<Bytes>,
    status: Status,
}

impl Answer {
    async fn read(response: Response<Incoming>) -> Self {
        let (head, body) = response.into_parts();
        let mut body = within(body.collect()).await.unwrap().to_bytes();
        let (mut messages, mut status) = (Vec::new(), Status::from_header_map(&head.headers));
        while !body.is_empty() {
            let prefix = body.split_to(5);
            let length = u32::from_be_bytes(prefix[1..].try_into().unwrap()) as usize;
            let content = body.split_to(length);
            if prefix[0] == TRAILERS {
                assert!(body.is_empty(), "the trailers are the end");
                status = Status::from_header_map(&trailers(&content));
            } else {
                messages.push(content);
            }
        }
        Self { headers: head.headers, messages, status: status.expect("a call has a status") }
    }

    #[track_caller]
    fn refused(&self, code: Code, reason: &str) {
        let info = self.status.get_details_error_info().unwrap();
        assert_eq!((self.status.code(), info.reason.as_str()), (code, reason), "{}", self.status);
        assert_eq!(info.domain, DOMAIN);
    }
}

fn trailers(text: &[u8]) -> HeaderMap {
    let lines = std::str::from_utf8(text).unwrap().lines();
    let header = |line: &str| {
        let (name, value) = line.split_once(':').unwrap();
        (name.parse::<http::HeaderName>().unwrap(), value.trim().parse::<http::HeaderValue>().unwrap())
    };
    lines.map(header).collect()
}

async fn call(server: &Server, version: Version, method: &str, message: &impl Message) -> Answer {
    let path = format!("/longhaul.v1.JobService/{method}");
    Answer::read(
        send(server, version, request("POST", &path, &[("content-type", WEB)], frame(message))).await,
    )
    .await
}

async fn jobs(server: &Server) -> Vec<Job> {
    ok(server.client().await.list_jobs(ListJobsRequest::default())).await.jobs
}

#[tokio::test]
async fn a_page_starts_watches_and_cancels_over_either_version_of_http() {
    let server = server().await;
    for version in VERSIONS {
        let started = call(&server, version, "StartJob", &simulated("to be")).await;
        assert_eq!(started.status.code(), Code::Ok, "{version:?}");
        assert_eq!(started.headers[CONTENT_TYPE], WEB);
        assert_eq!(started.headers[X_CONTENT_TYPE_OPTIONS], "nosniff");
        let job = Job::decode(started.messages[0].clone()).unwrap();

        let watch = WatchJobRequest { job_id: job.id, after_sequence: Some(0), ..Default::default() };
        let watched = call(&server, version, "WatchJob", &watch).await;
        assert_eq!(watched.status.code(), Code::Ok, "{version:?}");
        let events = watched.messages.into_iter().map(|message| JobEvent::decode(message).unwrap());
        let states = events.filter_map(|event| match event.event {
            Some(Event::StateChange(change)) => Some(change.state()),
            _ => None,
        });
        let expected = [job::State::Pending, job::State::Running, job::State::Succeeded];
        assert_eq!(states.collect::<Vec<_>>(), expected, "{version:?}");

        let later = StartJobRequest { kind: "nobody-serves-it".to_owned(), ..Default::default() };
        let started = call(&server, version, "StartJob", &later).await;
        let job = Job::decode(started.messages[0].clone()).unwrap();
        let cancel = CancelJobRequest { job_id: job.id, ..Default::default() };
        let cancelled = call(&server, version, "CancelJob", &cancel).await;
        let job = Job::decode(cancelled.messages[0].clone()).unwrap();
        assert_eq!(job.state(), job::State::Cancelled, "{version:?}");
    }
}

#[tokio::test]
async fn every_error_of_a_page_has_its_code_and_reason() {
    let server = server().await;
    for version in VERSIONS {
        let nothing = call(&server, version, "StartJob", &StartJobRequest::default()).await;
        nothing.refused(Code::InvalidArgument, "INVALID_REQUEST");
        let missing = GetStatusRequest { job_id: uuid::Uuid::now_v7().to_string(), ..Default::default() };
        call(&server, version, "GetStatus", &missing).await.refused(Code::NotFound, "JOB_NOT_FOUND");
        call(&server, version, "WatchJob", &WatchJobRequest::default())
            .await
            .refused(Code::InvalidArgument, "INVALID_REQUEST");
        call(&server, version, "Nothing", &()).await.refused(Code::Unimplemented, "METHOD_UNKNOWN");
        // A client that still sends hears it as well.
        let large = start("simulate", &"x".repeat(20 << 20));
        call(&server, version, "StartJob", &large)
            .await
            .refused(Code::ResourceExhausted, "MESSAGE_TOO_LARGE");

        let to = |path: &str, headers: &[(&str, &str)], body: &'static [u8]| {
            let request = request("POST", path, headers, Bytes::from_static(body));
            let response = send(&server, version, request);
            async { Answer::read(response.await).await }
        };
        let web = ("content-type", WEB);
        to("/longhaul.v1.WorkerService/LeaseJobs", &[web], &[0; 5])
            .await
            .refused(Code::Unimplemented, "METHOD_UNKNOWN");
        to(START, &[web], b"").await.refused(Code::InvalidArgument, "MALFORMED_REQUEST");
        to(START, &[web], &[0, 0, 0, 0, 1, 0xff]).await.refused(Code::InvalidArgument, "MALFORMED_REQUEST");
        to(START, &[("content-type", "application/grpc-web-text")], b"no base64!")
            .await
            .refused(Code::InvalidArgument, "MALFORMED_REQUEST");
        to(START, &[web, ("grpc-timeout", "soon")], &[0; 5])
            .await
            .refused(Code::InvalidArgument, "MALFORMED_REQUEST");
        to("/longhaul.v1.JobService/WatchJobs", &[web, ("grpc-timeout", "50m")], &[0; 5])
            .await
            .refused(Code::DeadlineExceeded, "DEADLINE_EXCEEDED");
    }
    assert!(jobs(&server).await.is_empty());
}

#[tokio::test]
async fn a_body_that_comes_too_slowly_is_cut() {
    let server = server().await;
    let mut stream = TcpStream::connect(server.address()).await.unwrap();
    let head = format!(
        "POST {START} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {WEB}\r\nContent-Length: 100\r\nExpect: 100-continue\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    // By that the server says that it reads the body now.
    let mut asked = [0; 25];
    within(stream.read_exact(&mut asked)).await.unwrap();
    assert_eq!(&asked, b"HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(&[0; 9]).await.unwrap();

    // From here on whoever waits is at once where he waits for.
    tokio::time::pause();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();

    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert!(answer.contains("grpc-status: 4\r\n"), "{answer}");
}

/// Everything that a page can send to another server without asking, and what it can send if it did not need to ask.
fn attacks() -> Vec<(&'static str, &'static str, Bytes)> {
    let json = r#"{"kind": "simulate", "input": {}}"#;
    let call = frame(&simulated("from afar"));
    vec![
        (START, "text/plain", json.into()),
        (START, "text/plain", call.clone()),
        (START, "application/x-www-form-urlencoded", r#"{"kind":"simulate","x=":""}"#.into()),
        (
            START,
            "multipart/form-data; boundary=x",
            "--x\r\nContent-Disposition: form-data\r\n\r\n1\r\n--x--".into(),
        ),
        (START, "application/json", json.into()),
        (START, "application/grpc", call.clone()),
        (START, WEB, call.clone()),
        (START, "application/grpc-web", call.clone()),
        (START, "application/grpc-web-text", "AAAAAAoKCHNpbXVsYXRl".into()),
        (START, "", call),
        ("/v1/jobs", "text/plain", json.into()),
        ("/v1/jobs", "text/plain; application/json", json.into()),
        ("/v1/jobs", "application/x-www-form-urlencoded", json.into()),
        ("/v1/jobs", "multipart/form-data; boundary=x", json.into()),
        ("/v1/jobs", "application/json", json.into()),
        ("/v1/jobs", "", json.into()),
        ("/ai/start", "text/plain", json.into()),
        ("/ai/start", "application/json", r#"{"prompt": "from afar"}"#.into()),
    ]
}

#[tokio::test]
async fn a_page_of_another_origin_can_start_nothing() {
    let server = server().await;
    let pages: [&[(&str, &str)]; 8] = [
        &[("origin", "http://evil.example"), ("sec-fetch-site", "cross-site")],
        &[("origin", "http://evil.example")],
        &[("origin", "null")],
        &[("origin", "null"), ("sec-fetch-site", "same-origin")],
        &[("origin", "http://localhost:1"), ("sec-fetch-site", "same-site")],
        &[("origin", "http://app.example")],
        &[("sec-fetch-site", "cross-site")],
        &[("sec-fetch-site", "same-site")],
    ];
    for version in VERSIONS {
        for page in pages {
            for (path, content_type, body) in attacks() {
                for method in ["POST", "PUT", "DELETE", "PATCH"] {
                    let mut headers = page.to_vec();
                    headers.extend((!content_type.is_empty()).then_some(("content-type", content_type)));
                    let answer = send(&server, version, request(method, path, &headers, body.clone())).await;

                    assert_eq!(answer.status(), 403, "{version:?} {method} {path} {headers:?}");
                    assert!(!answer.headers().contains_key(ACCESS_CONTROL_ALLOW_ORIGIN));
                    assert_eq!(answer.headers()[X_CONTENT_TYPE_OPTIONS], "nosniff");
                    let text = answer.into_body().collect().await.unwrap().to_bytes();
                    assert!(String::from_utf8_lossy(&text).contains("allowed_origins"), "{text:?}");
                }
            }
            // Nor can it ask whether it may.
            let mut headers = page.to_vec();
            headers.push(("access-control-request-method", "POST"));
            let answer = send(&server, version, request("OPTIONS", START, &headers, Bytes::new())).await;
            assert!(!answer.headers().contains_key(ACCESS_CONTROL_ALLOW_ORIGIN));
            assert!(answer.status().is_client_error(), "{headers:?}");
        }
    }
    assert!(jobs(&server).await.is_empty());
}

#[tokio::test]
async fn what_a_page_sends_without_being_asked_is_no_call_even_from_here() {
    let server = server().await;
    let own = server.url();
    let is_call = |path: &str, content_type: &str| match path {
        START => content_type.starts_with("application/grpc"),
        _ => content_type == "application/json",
    };
    for (path, content_type, body) in attacks().into_iter().filter(|(path, ty, _)| !is_call(path, ty)) {
        let mut headers = vec![("origin", own.as_str())];
        headers.extend((!content_type.is_empty()).then_some(("content-type", content_type)));
        let answer = send(&server, Version::HTTP_11, request("POST", path, &headers, body)).await;

        assert_eq!(answer.status(), 415, "{path} {content_type}");
    }
    assert!(jobs(&server).await.is_empty());
}

#[tokio::test]
async fn pages_of_this_server_and_of_allowed_origins_can_start_jobs() {
    let server = server().await;
    let own = server.url();
    let pages: [&[(&str, &str)]; 5] = [
        &[],
        &[("origin", &own), ("sec-fetch-site", "same-origin")],
        &[("origin", ALLOWED), ("sec-fetch-site", "cross-site")],
        &[("origin", "http://[0:0::1]:5173"), ("sec-fetch-site", "same-site")],
        &[("sec-fetch-site", "none")],
    ];
    for version in VERSIONS {
        for page in pages {
            let mut headers = page.to_vec();
            headers.push(("content-type", WEB));
            let response =
                send(&server, version, request("POST", START, &headers, frame(&simulated("from near"))))
                    .await;
            let answer = Answer::read(response).await;

            assert_eq!((answer.status.code(), answer.messages.len()), (Code::Ok, 1), "{headers:?}");

            let mut headers = page.to_vec();
            headers.push(("content-type", "application/json"));
            let json = r#"{"kind": "simulate", "input": {"seconds": 1}}"#;
            let answer = send(&server, version, request("POST", "/v1/jobs", &headers, json.into())).await;
            assert!(answer.status().is_success(), "{headers:?}");
        }
    }
    assert_eq!(jobs(&server).await.len(), 20);
}

#[tokio::test]
async fn a_browser_is_told_what_an_allowed_page_may_send_and_read() {
    let server = server().await;
    for version in VERSIONS {
        let ask = [("origin", ALLOWED), ("access-control-request-method", "POST")];
        let answer = send(&server, version, request("OPTIONS", START, &ask, Bytes::new())).await;

        assert_eq!(answer.status(), 204);
        let headers = answer.headers();
        assert_eq!(headers[ACCESS_CONTROL_ALLOW_ORIGIN], ALLOWED);
        assert_eq!(headers[VARY], "origin");
        assert!(headers[ACCESS_CONTROL_ALLOW_METHODS].to_str().unwrap().contains("POST"));
        let sent = headers[ACCESS_CONTROL_ALLOW_HEADERS].to_str().unwrap();
        for name in
            ["content-type", "x-grpc-web", "x-user-agent", "grpc-timeout", "idempotency-key", "last-event-id"]
        {
            assert!(sent.split(", ").any(|header| header == name), "{name}");
        }

        let page = [("origin", ALLOWED), ("content-type", WEB)];
        let answer = send(&server, version, request("POST", START, &page, Bytes::new())).await;
        assert_eq!(answer.headers()[ACCESS_CONTROL_ALLOW_ORIGIN], ALLOWED);
        assert_eq!(answer.headers()[VARY], "origin");
        let told = answer.headers()[ACCESS_CONTROL_EXPOSE_HEADERS].to_str().unwrap();
        assert!(told.contains("grpc-status") && told.contains("grpc-status-details-bin"), "{told}");

        // Another page may load what it likes, but read nothing of it.
        let foreign = [("origin", "http://evil.example")];
        let answer = send(&server, version, request("GET", "/v1/jobs", &foreign, Bytes::new())).await;
        assert!(!answer.headers().contains_key(ACCESS_CONTROL_ALLOW_ORIGIN));
        assert_eq!(answer.headers()[VARY], "origin");
        assert_eq!(answer.headers()[X_CONTENT_TYPE_OPTIONS], "nosniff");
    }
}

#[tokio::test]
async fn no_spelling_of_a_path_leads_anywhere_else() {
    let server = server().await;
    for version in VERSIONS {
        for path in [
            "//longhaul.v1.JobService/StartJob",
            "/./longhaul.v1.JobService/StartJob",
            "/x/../longhaul.v1.JobService/StartJob",
            "/longhaul.v1.WorkerService/../longhaul.v1.JobService/StartJob",
            "/longhaul.v1.JobService/x/../StartJob",
            "/longhaul.v1.JobService/StartJob/",
            "/longhaul.v1.JobService//StartJob",
            "/longhaul.v1.JobService/%53tartJob",
            "/longhaul.v1.JobService%2fStartJob",
            "/longhaul.v1.JobService/StartJob%00",
            "/LONGHAUL.V1.JobService/StartJob",
            "/longhaul.v1.JobService/startjob",
            "/longhaul.v1.JobService;x/StartJob",
        ] {
            let body = frame(&simulated("astray"));
            let response =
                send(&server, version, request("POST", path, &[("content-type", WEB)], body)).await;
            Answer::read(response).await.refused(Code::Unimplemented, "METHOD_UNKNOWN");
        }
    }
    assert!(jobs(&server).await.is_empty());
}
