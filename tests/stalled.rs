//! Watchers that stop reading cost a cursor each, and nobody else notices.
//!
//! Alone in its process, since it looks at the memory of all of it.

mod support;

use longhaul::job::Failure;
use longhaul::proto::job_event;
use longhaul::worker::{Context, Handler, Registry};
use std::sync::Arc;
use support::{Client, Server, ok, start, watch, within};
use tokio::sync::Notify;
use tonic::transport::Endpoint;

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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn watchers_that_stop_reading_hold_up_nobody_and_take_no_memory() {
    let ready = Arc::new(Notify::new());
    let server = Server::with(Registry::default().with("flood", Flood(Arc::clone(&ready))), |_| {}).await;
    let mut client = server.client().await;
    let job = ok(client.start_job(start("flood", "{}"))).await;
    let mut stalled = Vec::new();
    for _ in 0..STALLED {
        let mut client = impatient(&server).await;
        let mut stream = ok(client.watch_job(watch(&job, 0))).await;
        within(stream.message()).await.unwrap().expect("the snapshot");
        stalled.push((client, stream));
    }
    let before = memory();

    let mut fast = ok(client.watch_job(watch(&job, 0))).await;
    ready.notify_one();
    let (mut bytes, mut peak) = (0, before);
    while let Some(event) = within(fast.message()).await.unwrap() {
        if let Some(job_event::Event::Output(output)) = event.event {
            bytes += output.data.len();
        }
        peak = peak.max(memory());
    }

    assert_eq!(bytes, OUTPUT, "the fast watcher has it all");
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
