//! Bytes that two readers could take for different requests: each is refused, or read in the one way that is safe.
//!
//! A proxy before this server may see one request where the server sees two, and the second was never checked. So every
//! case ends with a request that must only be seen where nothing before it is in doubt.

use bytes::Bytes;
use http::{Request, Response, StatusCode, Version};
use http_body_util::{BodyExt, Empty, Full};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use longhaul::edge::{self, Options};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Far more than anything here takes; a test that reaches it has failed.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long a connection stays open for another request: short, since every case waits for its end.
const IDLE: Duration = Duration::from_millis(100);
/// What a second request looks like.
const SECOND: &str = "GET /second HTTP/1.1\r\nHost: localhost\r\n\r\n";
const HEAD: &str = "POST /first HTTP/1.1\r\nHost: localhost\r\n";

/// A server behind the edge which keeps what has come through it.
struct Served {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<String>>>,
}

impl Served {
    async fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, seen) = (listener.local_addr().unwrap(), Arc::<Mutex<Vec<String>>>::default());
        let service = {
            let seen = Arc::clone(&seen);
            hyper::service::service_fn(move |request| answer(Arc::clone(&seen), request))
        };
        let options = Options { first_byte_timeout: IDLE, idle_timeout: IDLE, ..Options::default() };
        tokio::spawn(edge::serve(listener, options, service, |_| {}, |_| {}, std::future::pending()));
        Self { address, seen }
    }

    /// Sends bytes, and returns the status of each answer and what the service has seen, once the connection has ended.
    async fn send(&self, bytes: &[u8]) -> (Vec<u16>, Vec<String>) {
        self.seen.lock().unwrap().clear();
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        // Either may fail where the server has closed the connection before it has read all.
        let _ = stream.write_all(bytes).await;
        let mut answers = Vec::new();
        let ended = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answers)).await;
        assert!(ended.is_ok(), "the connection ends");
        let answers = String::from_utf8_lossy(&answers).into_owned();
        let status = |line: &str| line.strip_prefix("HTTP/1.")?.get(2..5)?.parse().ok();
        (answers.lines().filter_map(status).collect(), self.seen.lock().unwrap().clone())
    }
}

async fn answer(
    seen: Arc<Mutex<Vec<String>>>,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let line = format!("{} {}", request.method(), request.uri().path());
    let mut response = Response::new(Full::from("answered\n"));
    match request.into_body().collect().await {
        Ok(body) => seen.lock().unwrap().push(format!("{line} {:?}", body.to_bytes())),
        Err(_) => *response.status_mut() = StatusCode::UNPROCESSABLE_ENTITY,
    }
    Ok(response)
}

/// A request, and the statuses that the connection is answered with.
type Case = (String, &'static [u16]);

fn request(headers_and_body: &str) -> String {
    format!("{HEAD}{headers_and_body}")
}

#[tokio::test]
async fn what_is_ambiguous_is_refused_and_nothing_behind_it_is_read() {
    let served = Served::new().await;
    let many = (0..101).map(|n| format!("X-{n}: 1\r\n")).collect::<String>();
    let long = "x".repeat(17 << 10);

    let cases: Vec<Case> = vec![
        // Where the body ends.
        (request("Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello"), &[400]),
        (request("Content-Length: 5, 5\r\n\r\nhello"), &[400]),
        (request("Content-Length: +5\r\n\r\nhello"), &[400]),
        (request("Content-Length: -1\r\n\r\nhello"), &[400]),
        (request("Content-Length: 0x5\r\n\r\nhello"), &[400]),
        (request("Content-Length:\r\n\r\nhello"), &[400]),
        (request("Content-Length: 99999999999999999999\r\n\r\nhello"), &[400]),
        (request("Transfer-Encoding: identity\r\n\r\n"), &[400]),
        (request("Transfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n"), &[400]),
        (request("Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"), &[400]),
        (request("Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n"), &[400]),
        (request("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"), &[400]),
        (request("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n"), &[400]),
        (request("Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n"), &[400]),
        (request("Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n"), &[400]),
        (
            "POST /first HTTP/1.0\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n".into(),
            &[400],
        ),
        // A body that is no row of chunks is the service's to refuse, which sees it break.
        (request("Transfer-Encoding: chunked\r\n\r\nFFFFFFFFFFFFFFFFF\r\nhello\r\n0\r\n\r\n"), &[422]),
        (request("Transfer-Encoding: chunked\r\n\r\n0x5\r\nhello\r\n0\r\n\r\n"), &[422]),
        (request("Transfer-Encoding: chunked\r\n\r\n+5\r\nhello\r\n0\r\n\r\n"), &[422]),
        (request("Transfer-Encoding: chunked\r\n\r\n5\r\nhello!\r\n0\r\n\r\n"), &[422]),
        (request("Transfer-Encoding: chunked\r\n\r\n5;a\nb\r\nhello\r\n0\r\n\r\n"), &[422]),
        (request("Transfer-Encoding: chunked\r\n\r\n5\nhello\r\n0\r\n\r\n"), &[422]),
        // What a header is.
        (request("X: one\r\n two\r\n\r\n"), &[400]),
        (request("X : one\r\n\r\n"), &[400]),
        (request("no header\r\n\r\n"), &[400]),
        (request("X: one\rY: two\r\n\r\n"), &[400]),
        (request("X: one\0two\r\n\r\n"), &[400]),
        (format!("POST /first HTTP/1.1\r\n Host: localhost\r\n\r\n{SECOND}"), &[400]),
        (request(&format!("{many}\r\n")), &[431]),
        (request(&format!("X: {long}\r\n\r\n")), &[431]),
        (format!("GET /{long} HTTP/1.1\r\nHost: localhost\r\n\r\n"), &[431]),
        // Whom it is for.
        (request("Host: localhost\r\n\r\n"), &[400]),
        (request("Host: evil.example\r\n\r\n"), &[400]),
        ("GET /first HTTP/1.1\r\n\r\n".into(), &[400]),
        ("GET /first HTTP/1.0\r\n\r\n".into(), &[400]),
        ("GET /first HTTP/1.1\r\nHost:\r\n\r\n".into(), &[400]),
        ("GET /first HTTP/1.1\r\nHost: evil.example@localhost\r\n\r\n".into(), &[400]),
        ("GET /first HTTP/1.1\r\nHost: localhost, evil.example\r\n\r\n".into(), &[400]),
        ("GET http://evil.example/first HTTP/1.1\r\nHost: localhost\r\n\r\n".into(), &[400]),
        ("GET http://localhost/first HTTP/1.1\r\nHost: evil.example\r\n\r\n".into(), &[400]),
        ("GET http://localhost/first HTTP/1.1\r\n\r\n".into(), &[400]),
        ("GET http://localhost@evil.example/first HTTP/1.1\r\nHost: localhost\r\n\r\n".into(), &[400]),
        ("GET file://localhost/first HTTP/1.1\r\nHost: localhost\r\n\r\n".into(), &[400]),
        ("GET localhost:3000 HTTP/1.1\r\nHost: localhost:3000\r\n\r\n".into(), &[400]),
        ("CONNECT localhost:3000 HTTP/1.1\r\nHost: localhost:3000\r\n\r\n".into(), &[400]),
        ("GET * HTTP/1.1\r\nHost: localhost\r\n\r\n".into(), &[400]),
        // What a request line is.
        ("GE\tT /first HTTP/1.1\r\nHost: localhost\r\n\r\n".into(), &[400]),
        ("GET /fi\0rst HTTP/1.1\r\nHost: localhost\r\n\r\n".into(), &[400]),
        ("GET /first second HTTP/1.1\r\nHost: localhost\r\n\r\n".into(), &[400]),
        ("GET /first HTTP/2.0\r\nHost: localhost\r\n\r\n".into(), &[400]),
        ("GET /first\r\nHost: localhost\r\n\r\n".into(), &[400]),
        ("PRI * HTTP/2.0\r\n\r\nSN\r\n\r\n".into(), &[400]),
        ("\x16\x03\x01\x02\x00\x01\x00\x01\x7c\x03\x03 a greeting of TLS".into(), &[400]),
        // HTTP/2's preface, and then something else.
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nGET / HTTP/1.1\r\n".into(), &[]),
    ];
    let mut wrong = Vec::new();
    for (first, expected) in cases {
        let (statuses, seen) = served.send(format!("{first}{SECOND}").as_bytes()).await;
        let (next, _) = served.send(SECOND.as_bytes()).await;

        if statuses != expected || !seen.is_empty() || next != [200] {
            let shown = &first[..first.len().min(200)];
            wrong.push(format!("{shown:?}: {statuses:?}, {seen:?}, the next connection {next:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test]
async fn a_length_beside_chunks_is_not_believed_and_ends_the_connection() {
    let served = Served::new().await;

    for headers in [
        "Content-Length: 4\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nContent-Length: 400",
    ] {
        let first = request(&format!("{headers}\r\n\r\n5\r\nhello\r\n0\r\n\r\n"));
        let (statuses, seen) = served.send(format!("{first}{SECOND}").as_bytes()).await;

        assert_eq!(statuses, [200], "{headers}");
        assert_eq!(seen, [r#"POST /first b"hello""#], "{headers}");
    }
}

#[tokio::test]
async fn what_has_one_meaning_is_answered_and_so_is_what_follows() {
    let served = Served::new().await;
    let hello = r#"POST /first b"hello""#;

    let cases = [
        (request("Content-Length: 5\r\n\r\nhello"), hello),
        (request("Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello"), hello),
        (
            request("Transfer-Encoding: Chunked\r\n\r\n2;a=b\r\nhe\r\n3\r\nllo\r\n0\r\nHost: evil\r\n\r\n"),
            hello,
        ),
        ("POST /first HTTP/1.1\nHost: localhost\nContent-Length: 5\n\nhello".into(), hello),
        ("GET http://localhost/first HTTP/1.1\r\nHost: localhost\r\n\r\n".into(), r#"GET /first b"""#),
        ("OPTIONS * HTTP/1.1\r\nHost: localhost\r\n\r\n".into(), r#"OPTIONS * b"""#),
        (
            "GET /first HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade, HTTP2-Settings\r\n\
             Upgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n"
                .into(),
            r#"GET /first b"""#,
        ),
    ];
    for (first, expected) in cases {
        let (statuses, seen) = served.send(format!("{first}{SECOND}").as_bytes()).await;

        assert_eq!(statuses, [200, 200], "{first:?}");
        assert_eq!(seen, [expected, r#"GET /second b"""#], "{first:?}");
    }
}

#[tokio::test]
async fn a_body_that_ends_too_early_is_no_request() {
    let served = Served::new().await;

    for half in ["Content-Length: 10\r\n\r\nhello", "Transfer-Encoding: chunked\r\n\r\n5\r\nhel"] {
        let mut stream = TcpStream::connect(served.address).await.unwrap();
        stream.write_all(request(half).as_bytes()).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut answer = String::new();
        tokio::time::timeout(PATIENCE, stream.read_to_string(&mut answer)).await.unwrap().unwrap();

        assert!(!answer.contains("HTTP/1.1 200"), "{half:?}: {answer}");
        assert!(served.seen.lock().unwrap().is_empty(), "{half:?}");
    }
}

#[tokio::test]
async fn http2_names_one_host_as_well() {
    let served = Served::new().await;
    let stream = TokioIo::new(TcpStream::connect(served.address).await.unwrap());
    let (mut client, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), stream).await.unwrap();
    tokio::spawn(connection);

    for (authority, host, expected) in [
        ("localhost", None, 200),
        ("localhost", Some("localhost"), 200),
        ("localhost", Some("evil.example"), 400),
        ("evil.example", Some("localhost"), 400),
        ("localhost", Some("localhost, evil.example"), 400),
        ("evil.example", None, 403),
        ("localhost@evil.example", None, 400),
    ] {
        let mut request =
            Request::builder().version(Version::HTTP_2).uri(format!("http://{authority}/first"));
        if let Some(host) = host {
            request = request.header("host", host);
        }
        let request = request.body(Empty::<Bytes>::new()).unwrap();
        let answer = tokio::time::timeout(PATIENCE, client.send_request(request)).await.unwrap().unwrap();

        assert_eq!(answer.status(), expected, "{authority} {host:?}");
    }
}
