//! Watchers that stop reading cost a cursor each, and nobody else notices: over gRPC, and of server-sent events over HTTP/1.1.
//!
//! Alone in its process, since it looks at the memory of all of it.

mod support;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use longhaul::job::Failure;
use longhaul::proto::{Job, job_event};
use longhaul::worker::{Context, Handler, Registry};
use std::sync::Arc;
use support::{Client, Server, ok, start, watch, within};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::{Mutex, Notify};
use tonic::Streaming;
use tonic::transport::Endpoint;

/// Held by the test that looks at the memory.
static ALONE: Mutex<()> = Mutex::const_new(());

const STALLED: usize = 50;
/// The smallest that HTTP/2 begins with.
const WINDOW: u32 = 65_535;
const PIECE: usize = 64 << 10;
const OUTPUT: usize = 30 << 20;
/// What the memory may rise by; what the stalled ones were not sent is far more.
const RISE_MAX: usize = 64 << 20;

/// Writes much as fast as it may, once its watchers are there.
struct Flood(Arc<Notify>);

#[async_trait::async_trait]
impl Handler for Flood {
    async fn run(&self, context: &Context) -> Result<bytes::Bytes, Failure> {
        self.0.notified().await;
        for n in 0..OUTPUT / PIECE {
            context.output(vec![b'a' + (n % 26) as u8; PIECE]).await?;
        }
        Ok("{}".into())
    }
}

/// The resident memory of this process, in bytes.
fn memory() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() << 10
}

/// A client on a connection of its own that takes in little of what it does not read: what it buffers itself is not the
/// server's memory.
async fn impatient(server: &Server) -> Client {
    let endpoint = Endpoint::from_shared(format!("http://{}", server.address())).unwrap();
    let endpoint = endpoint.initial_stream_window_size(WINDOW).initial_connection_window_size(WINDOW);
    Client::new(endpoint.connect().await.unwrap())
}

/// A server with a job that waits until it is told to write.
async fn flood() -> (Server, Client, Job, Arc<Notify>) {
    let ready = Arc::new(Notify::new());
    let server = Server::with(Registry::default().with("flood", Flood(Arc::clone(&ready))), |_| {}).await;
    let mut client = server.client().await;
    let job = ok(client.start_job(start("flood", "{}"))).await;
    (server, client, job, ready)
}

/// Lets the job write, reads all of it, and returns the most memory that was seen.
async fn read(mut fast: Streaming<longhaul::proto::JobEvent>, ready: &Notify) -> usize {
    ready.notify_one();
    let (mut bytes, mut peak) = (0, memory());
    while let Some(event) = within(fast.message()).await.unwrap() {
        if let Some(job_event::Event::Output(output)) = event.event {
            bytes += output.data.len();
        }
        peak = peak.max(memory());
    }
    assert_eq!(bytes, OUTPUT, "the fast watcher has it all");
    peak
}

/// A reader of server-sent events whose kernel takes little in, once the answer has begun.
async fn listener(server: &Server, job: &Job) -> BufReader<TcpStream> {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(WINDOW).unwrap();
    let mut stream = socket.connect(server.address()).await.unwrap();
    let request =
        format!("GET /v1/jobs/{}:watch?afterSequence=0 HTTP/1.1\r\nhost: localhost\r\n\r\n", job.id);
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut stream = BufReader::with_capacity(1 << 10, stream);
    let mut line = String::new();
    while !line.starts_with("event: snapshot") {
        line.clear();
        assert!(within(stream.read_line(&mut line)).await.unwrap() > 0, "the answer goes on");
    }
    stream
}

/// How many bytes of output are in the rest of an answer, to the last of its chunks.
async fn rest(mut stream: BufReader<TcpStream>) -> usize {
    let mut text = Vec::new();
    while !text.ends_with(b"\r\n0\r\n\r\n") {
        assert!(within(stream.read_buf(&mut text)).await.unwrap() > 0, "the answer comes to its end");
    }
    // Each event is a chunk, so that no line is in two.
    let lines = std::str::from_utf8(&text).unwrap().lines();
    let outputs = lines.filter_map(|line| {
        let event: serde_json::Value = serde_json::from_str(line.strip_prefix("data: ")?).unwrap();
        let data = event.get("output")?.get("data")?.as_str().unwrap();
        Some(BASE64_STANDARD.decode(data).unwrap().len())
    });
    outputs.sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_of_events_that_stop_hold_up_nobody_and_take_no_memory() {
    let _alone = ALONE.lock().await;
    let (server, mut client, job, ready) = flood().await;
    let mut stalled = Vec::new();
    for _ in 0..STALLED {
        stalled.push(listener(&server, &job).await);
    }
    let before = memory();

    let fast = ok(client.watch_job(watch(&job, 0))).await;
    let peak = read(fast, &ready).await;

    let rise = peak - before;
    println!("{STALLED} stalled readers, {OUTPUT} bytes of output: memory rose by {rise} bytes");
    assert!(rise < RISE_MAX, "memory rose by {rise} bytes");
    assert_eq!(rest(stalled.pop().unwrap()).await, OUTPUT, "who reads on later has it all");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn watchers_that_stop_reading_hold_up_nobody_and_take_no_memory() {
    let _alone = ALONE.lock().await;
    let (server, mut client, job, ready) = flood().await;
    let mut stalled = Vec::new();
    for _ in 0..STALLED {
        let mut client = impatient(&server).await;
        let mut stream = ok(client.watch_job(watch(&job, 0))).await;
        within(stream.message()).await.unwrap().expect("the snapshot");
        stalled.push((client, stream));
    }
    let before = memory();

    let fast = ok(client.watch_job(watch(&job, 0))).await;
    let peak = read(fast, &ready).await;

    let rise = peak - before;
    println!("{STALLED} stalled watchers, {OUTPUT} bytes of output: memory rose by {rise} bytes");
    assert!(rise < RISE_MAX, "memory rose by {rise} bytes");
    // Who reads on later misses nothing.
    let (_, mut late) = stalled.pop().unwrap();
    let mut bytes = 0;
    while let Some(event) = within(late.message()).await.unwrap() {
        if let Some(job_event::Event::Output(output)) = event.event {
            bytes += output.data.len();
        }
    }
    assert_eq!(bytes, OUTPUT, "the late watcher has it all");
}
