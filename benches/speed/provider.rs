//! A provider whose model writes a token at each tick of a clock of its own, whoever reads them and however fast.

use crate::roles::announce;
use bytes::Bytes;
use futures_util::stream;
use http::{Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use std::convert::Infallible;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::time::{Instant, sleep_until};

/// From one token to the next, and from the question to the first.
pub const INTERVAL: Duration = Duration::from_millis(10);
/// Each token of an answer.
pub const TOKEN: &str = "harbour ";

/// What is read of a question.
#[derive(Deserialize)]
struct Question {
    max_tokens: u32,
}

/// Answers until the process ends.
pub async fn serve() -> anyhow::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    announce(listener.local_addr()?);
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service_fn(answer));
        tokio::spawn(connection);
    }
}

/// As many tokens as are asked for. Each has its time from the beginning, so that a late one makes none of the others late.
async fn answer(
    request: Request<Incoming>,
) -> anyhow::Result<Response<impl http_body::Body<Data = Bytes, Error = Infallible>>> {
    let question = request.into_body().collect().await?.to_bytes();
    let asked = Instant::now();
    let tokens = serde_json::from_slice::<Question>(&question)?.max_tokens;
    let frames = stream::unfold(1, move |count| async move {
        if count > tokens + 1 {
            return None;
        }
        let text = if count <= tokens {
            sleep_until(asked + INTERVAL * count).await;
            piece(&format!(r#"{{"content":"{TOKEN}"}},"finish_reason":null"#))
        } else {
            let end = piece(r#"{},"finish_reason":"length""#);
            let usage = format!(
                r#"data: {{"choices":[],"usage":{{"prompt_tokens":12,"completion_tokens":{tokens}}}}}"#
            );
            format!("{end}{usage}\n\ndata: [DONE]\n\n")
        };
        Some((Ok(Frame::data(Bytes::from(text))), count + 1))
    });
    Ok(Response::builder().header("content-type", "text/event-stream").body(StreamBody::new(frames))?)
}

/// An event with this delta, and what follows it.
fn piece(delta: &str) -> String {
    format!(
        "data: {{\"id\":\"chatcmpl-1\",\"object\":\"chat.completion.chunk\",\"created\":1764374400,\"model\":\"bench\",\
         \"choices\":[{{\"index\":0,\"delta\":{delta}}}]}}\n\n"
    )
}
