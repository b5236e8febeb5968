//! Clients of HTTP/2 that keep to none of its limits, as frames that a test has in its hand: each costs its own call or its own
//! connection, and nobody else notices.

mod support;

use longhaul::proto::Job;
use prost::Message;
use support::{Server, ok, simulated, within};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RESET: u8 = 3;
const SETTINGS: u8 = 4;
const GO_AWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const REFUSED_STREAM: u32 = 7;
const CANCEL: u32 = 8;
const ENHANCE_YOUR_CALM: u32 = 11;
/// A status of 431 as HPACK writes it: by the name of the eighth usual header, its digits in Huffman's code.
const STATUS_431: [u8; 5] = [0x48, 0x83, 0x69, 0x90, 0xff];

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u32).to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// The headers of a call, none of them compressed, in as many frames as they need.
fn call(stream: u32, more: &[(&str, &str)]) -> Vec<u8> {
    let usual = [
        (":method", "POST"),
        (":scheme", "http"),
        (":authority", "localhost"),
        (":path", "/longhaul.v1.JobService/StartJob"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    ];
    let mut block = Vec::new();
    for (name, value) in usual.iter().chain(more) {
        block.push(0);
        for text in [name, value] {
            // A length that does not fit into seven bits goes on in the next byte.
            match text.len() {
                length @ ..127 => block.push(length as u8),
                length => {
                    block.extend([127, ((length - 127) & 127) as u8 | 128, ((length - 127) >> 7) as u8]);
                }
            }
            block.extend(text.as_bytes());
        }
    }
    let parts: Vec<&[u8]> = block.chunks(16_000).collect();
    let last = parts.len() - 1;
    let part = |(n, part): (usize, &&[u8])| {
        let kind = if n == 0 { HEADERS } else { CONTINUATION };
        frame(kind, if n == last { END_HEADERS } else { 0 }, stream, part)
    };
    parts.iter().enumerate().flat_map(part).collect()
}

fn reset(stream: u32) -> Vec<u8> {
    frame(RESET, 0, stream, &CANCEL.to_be_bytes())
}

/// A connection, and the frames that come over it.
struct Raw(TcpStream);

/// A frame that came: its kind, its stream and what it carries.
type Came = (u8, u32, Vec<u8>);

impl Raw {
    async fn connect(server: &Server) -> Self {
        let mut stream = TcpStream::connect(server.address()).await.unwrap();
        stream.write_all(&[PREFACE, &frame(SETTINGS, 0, 0, &[])].concat()).await.unwrap();
        Self(stream)
    }

    async fn send(&mut self, frames: &[u8]) {
        self.0.write_all(frames).await.unwrap();
    }

    async fn next(&mut self) -> Came {
        let mut head = [0; 9];
        within(self.0.read_exact(&mut head)).await.unwrap();
        let [_, a, b, c, ..] = [&[0], &head[..]].concat()[..] else { unreachable!() };
        let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
        within(self.0.read_exact(&mut payload)).await.unwrap();
        (head[3], number(&head[5..]), payload)
    }

    /// The first frame of this kind.
    async fn first(&mut self, kind: u8) -> Came {
        loop {
            let came = self.next().await;
            assert!(came.0 != GO_AWAY || kind == GO_AWAY, "the connection ends: {came:?}");
            if came.0 == kind {
                return came;
            }
        }
    }
}

fn number(bytes: &[u8]) -> u32 {
    u32::from_be_bytes(bytes[..4].try_into().unwrap())
}

async fn serves_others(server: &Server) {
    let job: Job = ok(server.client().await.start_job(simulated("others"))).await;
    assert!(!job.id.is_empty());
}

#[tokio::test]
async fn a_client_is_told_the_limits_of_its_connection() {
    let server = Server::start().await;
    let mut raw = Raw::connect(&server).await;

    let (_, _, settings) = raw.first(SETTINGS).await;
    let (_, stream, more) = raw.first(WINDOW_UPDATE).await;

    let told = |id: u8| settings.chunks(6).find(|one| one[1] == id).map(|one| number(&one[2..]));
    // How many streams, what each may send ahead, and the bytes of its headers.
    assert_eq!([told(3), told(4), told(6)], [Some(1_000), Some(256 << 10), Some(16 << 10)]);
    // All of them together have 65,535 bytes to begin with.
    assert_eq!((stream, number(&more)), (0, (8 << 20) - 65_535));
}

#[tokio::test]
async fn one_call_too_many_on_a_connection_is_refused_and_the_others_go_on() {
    let server = Server::start().await;
    let mut raw = Raw::connect(&server).await;
    let stream = |n: u32| 2 * n + 1;

    raw.send(&(0..1_001).flat_map(|n| call(stream(n), &[])).collect::<Vec<_>>()).await;

    let (_, refused, code) = raw.first(RESET).await;
    assert_eq!((refused, number(&code)), (stream(1_000), REFUSED_STREAM));
    serves_others(&server).await;

    // Where one of them has ended there is room for another.
    let message = simulated("another").encode_to_vec();
    let message = [&[0][..], &(message.len() as u32).to_be_bytes(), &message].concat();
    let another = stream(1_001);
    raw.send(&[reset(1), call(another, &[]), frame(DATA, END_STREAM, another, &message)].concat()).await;
    assert_eq!(raw.first(HEADERS).await.1, another);
}

#[tokio::test]
async fn who_resets_what_it_opens_again_and_again_loses_its_connection() {
    let server = Server::start().await;
    let mut raw = Raw::connect(&server).await;

    raw.send(&(0..200).flat_map(|n| [call(2 * n + 1, &[]), reset(2 * n + 1)].concat()).collect::<Vec<_>>())
        .await;

    assert_eq!(number(&raw.first(GO_AWAY).await.2[4..]), ENHANCE_YOUR_CALM);
    serves_others(&server).await;
}

#[tokio::test]
async fn who_makes_one_mistake_after_the_other_loses_its_connection() {
    let server = Server::start().await;
    let mut raw = Raw::connect(&server).await;
    // A header that HTTP/2 forbids ends its stream alone, as often as a client may err.
    let wrong = |n: u32| call(2 * n + 1, &[("connection", "close")]);

    raw.send(&(0..1_000).flat_map(wrong).collect::<Vec<_>>()).await;
    for _ in 0..1_000 {
        raw.first(RESET).await;
    }
    raw.send(&(1_000..1_100).flat_map(wrong).collect::<Vec<_>>()).await;

    assert_eq!(number(&raw.first(GO_AWAY).await.2[4..]), ENHANCE_YOUR_CALM);
    serves_others(&server).await;
}

#[tokio::test]
async fn headers_of_no_end_cost_their_own_call() {
    let server = Server::start().await;
    let mut raw = Raw::connect(&server).await;
    let long = "x".repeat(9_000);

    raw.send(&call(1, &[("x-one", &long), ("x-two", &long)])).await;

    let (_, stream, block) = raw.first(HEADERS).await;
    assert_eq!(stream, 1);
    assert!(block.starts_with(&STATUS_431), "{block:?}");
    raw.send(&call(3, &[("x-one", &long)])).await;
    raw.send(&frame(DATA, END_STREAM, 3, &[])).await;
    assert_eq!(raw.first(HEADERS).await.1, 3, "the connection goes on");
}
