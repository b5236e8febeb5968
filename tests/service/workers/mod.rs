//! WorkerService as a worker elsewhere sees it: leases, fencing, output, the streams. What a foreign client makes of it is in
//! `tests/interop`.

mod leases;
mod outputs;
mod streams;

use crate::support::proxy::Proxy;
use crate::support::*;
use bytes::Bytes;
use longhaul::cli::times::Time;
use longhaul::processor;
use longhaul::proto::job::State;
use longhaul::proto::worker_service_client::WorkerServiceClient;
use longhaul::proto::*;
use std::collections::HashMap;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Code, Streaming};
use work_request::Message as Ask;
use work_response::Message as Answer;

pub type Workers = WorkerServiceClient<Channel>;

pub const KIND: &str = "elsewhere";
pub const MILLISECOND: Duration = Duration::from_millis(1);

pub async fn server(lease: Duration, accept: Duration) -> Server {
    Server::with(processor::built_in(), |options| {
        options.slots = Some(0);
        options.lease_duration = Some(Time(lease));
        options.accept_timeout = Some(Time(accept));
    })
    .await
}

pub async fn patient_server() -> Server {
    server(Duration::from_secs(30), Duration::from_secs(10)).await
}

pub async fn workers(url: &str) -> Workers {
    WorkerServiceClient::connect(url.to_owned()).await.unwrap().max_decoding_message_size(64 << 20)
}

pub fn call(max_jobs: i32, wait: Duration) -> LeaseJobsRequest {
    LeaseJobsRequest {
        worker_id: "test".into(),
        kinds: vec![KIND.into()],
        max_jobs,
        wait: Some(wait.try_into().unwrap()),
        lease_duration: None,
    }
}

pub async fn lease(workers: &mut Workers) -> Assignment {
    ok(workers.lease_jobs(call(1, PATIENCE))).await.assignments.remove(0)
}

pub fn frame(token: &str, offset: usize, data: &str) -> AppendOutputRequest {
    AppendOutputRequest {
        lease_token: token.to_owned(),
        offset: offset as i64,
        data: Bytes::copy_from_slice(data.as_bytes()),
        ..Default::default()
    }
}

pub fn complete(token: &str, output_bytes: Option<i64>) -> CompleteJobRequest {
    CompleteJobRequest { lease_token: token.to_owned(), output_bytes, ..Default::default() }
}

pub fn heartbeat(token: &str) -> HeartbeatRequest {
    HeartbeatRequest { reports: vec![Report { lease_token: token.to_owned(), ..Default::default() }] }
}

/// The valid output of a history, and how often something of it was voided.
pub fn output(history: &[JobEvent]) -> (String, usize) {
    let (mut text, mut resets) = (Vec::new(), 0);
    for event in history {
        match &event.event {
            Some(job_event::Event::Output(piece)) => {
                assert_eq!(piece.offset as usize, text.len());
                text.extend_from_slice(&piece.data);
            }
            Some(job_event::Event::OutputReset(reset)) => {
                text.truncate(reset.kept_bytes as usize);
                resets += 1;
            }
            _ => {}
        }
    }
    (String::from_utf8(text).unwrap(), resets)
}

/// One `Work` stream, by hand.
pub struct Stream {
    pub asks: mpsc::Sender<WorkRequest>,
    pub answers: Streaming<WorkResponse>,
}

impl Stream {
    pub async fn open(
        workers: &mut Workers,
        name: &str,
        lease_tokens: &[&str],
    ) -> (Self, work_response::Welcome) {
        let (asks, requests) = mpsc::channel(4_096);
        let hello = work_request::Hello {
            worker_id: name.to_owned(),
            kinds: vec![KIND.into()],
            lease_tokens: lease_tokens.iter().map(|token| (*token).to_owned()).collect(),
            ..Default::default()
        };
        asks.send(WorkRequest { message: Some(Ask::Hello(hello)) }).await.unwrap();
        let answers = ok(workers.work(ReceiverStream::new(requests))).await;
        let mut stream = Self { asks, answers };
        let Answer::Welcome(welcome) = stream.next().await else { panic!("no welcome") };
        (stream, welcome)
    }

    pub async fn ask(&self, message: Ask) {
        self.asks.send(WorkRequest { message: Some(message) }).await.unwrap();
    }

    pub async fn credit(&self, free_slots: i32, received: i64) {
        self.ask(Ask::Credit(work_request::Credit { free_slots, received })).await;
    }

    pub async fn next(&mut self) -> Answer {
        within(self.answers.message()).await.unwrap().expect("the stream has ended").message.unwrap()
    }

    pub async fn assignment(&mut self) -> Assignment {
        loop {
            if let Answer::Assignment(assignment) = self.next().await {
                return assignment;
            }
        }
    }

    pub async fn ack(&mut self) -> work_response::Ack {
        loop {
            if let Answer::Ack(ack) = self.next().await {
                return ack;
            }
        }
    }

    pub async fn directive(&mut self) -> Directive {
        loop {
            if let Answer::Directives(answer) = self.next().await
                && let Some(directive) = answer.directives.into_iter().next()
            {
                return directive;
            }
        }
    }
}
