//! Answers of a provider, asked for directly and by way of jobs: when the first text is there, and when the last.
//!
//! Either way a caller has one connection of HTTP/1.1, which stands before it asks, and reads events with the same code.

use crate::load::Load;
use crate::measure::{Run, folder};
use crate::provider::{INTERVAL, TOKEN};
use crate::report::{Report, Unit, median, time};
use crate::roles::{self, Server};
use anyhow::{Context as _, ensure};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

/// Answers at once.
const STREAMS: usize = 8;
/// Tokens of the answer that each caller gets before any counts, so that connections stand and nothing is met first.
const WARM_UP: u32 = 5;
const PROMPT: &str = "Describe the harbour at dawn.";

/// How an answer is asked for.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub enum Way {
    /// Of the provider itself.
    Directly,
    /// By a job, and a watch of it.
    ByJob,
}

/// So many answers at once.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Chats {
    pub address: SocketAddr,
    pub way: Way,
    pub streams: usize,
    pub tokens: u32,
}

/// When a caller had what of an answer, from its asking on.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Seen {
    /// The first text.
    pub first: Duration,
    /// All of it, and that it is all.
    pub whole: Duration,
}

/// Asks with all callers at once, and returns what each of them saw.
pub async fn run(order: Chats) -> anyhow::Result<Vec<Seen>> {
    let mut callers = Vec::with_capacity(order.streams);
    for _ in 0..order.streams {
        let stream = TcpStream::connect(order.address).await?;
        stream.set_nodelay(true)?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        callers.push(Caller { sender, way: order.way });
    }
    let mut seen = Vec::new();
    for tokens in [WARM_UP, order.tokens] {
        let mut asking = JoinSet::new();
        for mut caller in callers.drain(..) {
            asking.spawn(async move { anyhow::Ok((caller.ask(tokens).await?, caller)) });
        }
        seen.clear();
        while let Some(asked) = asking.join_next().await {
            let (answer, caller) = asked??;
            seen.push(answer);
            callers.push(caller);
        }
    }
    Ok(seen)
}

/// One caller, with a connection of its own.
struct Caller {
    sender: SendRequest<Full<Bytes>>,
    way: Way,
}

impl Caller {
    async fn ask(&mut self, tokens: u32) -> anyhow::Result<Seen> {
        let mut answer = Answer { asked: Instant::now(), bytes: 0, first: None, whole: None };
        match self.way {
            Way::Directly => {
                let messages = json!([{"role": "user", "content": PROMPT}]);
                let question = json!({
                    "messages": messages, "max_tokens": tokens, "stream": true, "stream_options": {"include_usage": true}
                });
                let request = post("/v1/chat/completions", &question)?;
                self.send(request, |event| answer.take_piece(event)).await?;
            }
            Way::ByJob => {
                let wish = json!({"kind": "chat", "input": {"prompt": PROMPT, "max_tokens": tokens}});
                let job = self.start(post("/v1/jobs", &wish)?).await?;
                let path = format!("/v1/jobs/{job}:watch?afterSequence=0");
                let request = Request::get(path).header("host", "localhost").body(Full::default())?;
                self.send(request, |event| answer.take_event(event)).await?;
            }
        }
        let expected = TOKEN.len() * tokens as usize;
        ensure!(answer.bytes == expected, "{} bytes have come of {expected}", answer.bytes);
        let (first, whole) = answer.first.zip(answer.whole).context("the answer broke off")?;
        Ok(Seen { first, whole })
    }

    /// Starts a job, and returns its ticket.
    async fn start(&mut self, request: Request<Full<Bytes>>) -> anyhow::Result<String> {
        self.sender.ready().await?;
        let response = self.sender.send_request(request).await?;
        ensure!(response.status().is_success(), "the server answered {}", response.status());
        let job: Value = serde_json::from_slice(&response.into_body().collect().await?.to_bytes())?;
        Ok(job["id"].as_str().context("a job has an id")?.to_owned())
    }

    /// Sends a request, and reads the events that answer it to their end.
    async fn send(
        &mut self,
        request: Request<Full<Bytes>>,
        mut take: impl FnMut(&str) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        self.sender.ready().await?;
        let response = self.sender.send_request(request).await?;
        ensure!(response.status().is_success(), "the server answered {}", response.status());
        let (mut body, mut rest) = (response.into_body(), Vec::new());
        while let Some(frame) = body.frame().await {
            rest.extend_from_slice(frame?.data_ref().context("events have no trailers")?);
            while let Some(end) = rest.windows(2).position(|end| end == b"\n\n") {
                let event: Vec<u8> = rest.drain(..end + 2).collect();
                let mut lines = std::str::from_utf8(&event)?.lines();
                if let Some(data) = lines.find_map(|line| line.strip_prefix("data: ")) {
                    take(data)?;
                }
            }
        }
        ensure!(rest.is_empty(), "the events broke off");
        Ok(())
    }
}

fn post(path: &str, body: &Value) -> anyhow::Result<Request<Full<Bytes>>> {
    let request = Request::post(path).header("host", "localhost").header("content-type", "application/json");
    Ok(request.body(Full::new(body.to_string().into()))?)
}

/// What has come of an answer.
struct Answer {
    asked: Instant,
    bytes: usize,
    first: Option<Duration>,
    whole: Option<Duration>,
}

impl Answer {
    /// A provider's event.
    fn take_piece(&mut self, event: &str) -> anyhow::Result<()> {
        if event == "[DONE]" {
            self.whole = Some(self.asked.elapsed());
            return Ok(());
        }
        let piece: Value = serde_json::from_str(event)?;
        if let Some(text) = piece["choices"][0]["delta"]["content"].as_str() {
            self.take_text(text.len());
        }
        Ok(())
    }

    /// An event of a job.
    fn take_event(&mut self, event: &str) -> anyhow::Result<()> {
        let event: Value = serde_json::from_str(event)?;
        if let Some(data) = event["output"]["data"].as_str() {
            self.take_text(BASE64_STANDARD.decode(data)?.len());
        }
        match event["stateChange"]["state"].as_str() {
            Some("SUCCEEDED") => self.whole = Some(self.asked.elapsed()),
            Some(state @ ("FAILED" | "RETRYING")) => anyhow::bail!("the job is {state}: {event}"),
            _ => {}
        }
        Ok(())
    }

    fn take_text(&mut self, bytes: usize) {
        self.first.get_or_insert_with(|| self.asked.elapsed());
        self.bytes += bytes;
    }
}

impl Run<'_> {
    /// Answers by jobs beside those that the same callers get from the provider itself, in turn.
    pub fn chat(&self, report: &mut Report) -> anyhow::Result<()> {
        let tokens = if self.options.quick { 100 } else { 500 };
        println!(
            "\n{STREAMS} answers of {tokens} tokens at once, one in {}, by jobs and directly",
            time(INTERVAL)
        );
        let folder = folder()?;
        let provider = Server::provider()?;
        let config = folder.path().join("longhaul.toml");
        let address = provider.address;
        std::fs::write(
            &config,
            format!("[chat.chat]\nurl = \"http://{address}/v1\"\nmax_concurrent = {STREAMS}\n"),
        )?;
        let config = config.to_str().context("a path in UTF-8")?.to_owned();
        let server = Server::longhaul_with(folder.path(), &["--config".to_owned(), config])?;
        let (mut directly, mut by_job) = (Vec::new(), Vec::new());
        for round in 1..=self.options.rounds {
            let seen = |address, way| {
                roles::load::<Vec<Seen>>(Load::Chats(Chats { address, way, streams: STREAMS, tokens }))
            };
            let bare = seen(provider.address, Way::Directly)?;
            let jobs = seen(server.address, Way::ByJob)?;
            println!("  round {round}: directly {} · by jobs {}", show(&bare), show(&jobs));
            directly.extend(bare);
            by_job.extend(jobs);
        }
        let later = |of: fn(&Seen) -> Duration| (middle(&by_job, of) - middle(&directly, of)).max(0.0);
        let whole = middle(&directly, |seen| seen.whole);
        report.at_most(
            "first text by a job, later than directly",
            later(|seen| seen.first),
            5e-3,
            Unit::Time,
        );
        report.at_most(
            "whole answer by a job, later than directly",
            later(|seen| seen.whole),
            0.02 * whole,
            Unit::Time,
        );
        report.beside("an answer by a job", show(&by_job));
        report.beside("an answer directly", show(&directly));
        Ok(())
    }
}

fn middle(seen: &[Seen], of: fn(&Seen) -> Duration) -> f64 {
    median(seen.iter().map(|seen| of(seen).as_secs_f64()))
}

fn show(seen: &[Seen]) -> String {
    let of = |part| Unit::Time.show(middle(seen, part));
    format!("first text {}, whole {}", of(|seen| seen.first), of(|seen| seen.whole))
}
