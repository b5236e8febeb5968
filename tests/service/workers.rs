//! WorkerService as a worker elsewhere sees it: leases, fencing, output, the streams. What a foreign client makes of it is in
//! `tests/interop`.

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

#[tokio::test]
async fn a_call_wakes_when_a_job_starts_and_brings_all_that_its_worker_needs() {
    let server = patient_server().await;
    let (mut client, mut workers) = (server.client().await, workers(&server.url()).await);
    let waiting = {
        let mut workers = workers.clone();
        tokio::spawn(async move { lease(&mut workers).await })
    };
    let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let mut request = tonic::Request::new(start(KIND, r#"{"n": 9007199254740993}"#));
    request.metadata_mut().insert("traceparent", parent.parse().unwrap());
    request.metadata_mut().insert("tracestate", "a=1".parse().unwrap());

    // That it wakes at once is shown in `tests/engine`, where time stands still.
    let job = ok(client.start_job(request)).await;
    let assignment = within(waiting).await.unwrap();

    let leased = assignment.job.unwrap();
    assert_eq!((&leased.id, leased.state(), leased.attempt), (&job.id, State::Pending, 0));
    assert!(leased.input.is_none());
    assert_eq!(assignment.input_json, r#"{"n": 9007199254740993}"#);
    assert_eq!((assignment.traceparent.as_str(), assignment.tracestate.as_str()), (parent, "a=1"));
    assert_eq!(ok(workers.lease_jobs(call(1, Duration::ZERO))).await.assignments, []);
}

#[tokio::test]
async fn an_answer_ends_at_a_mebibyte_and_the_rest_is_free_at_once() {
    let server = patient_server().await;
    let (mut client, mut workers) = (server.client().await, workers(&server.url()).await);
    for _ in 0..5 {
        let input = format!(r#"{{"text":"{}"}}"#, "x".repeat(400 << 10));
        ok(client.start_job(start(KIND, &input))).await;
    }

    let mut sizes = Vec::new();
    while sizes.iter().sum::<usize>() < 5 {
        sizes.push(ok(workers.lease_jobs(call(100, PATIENCE))).await.assignments.len());
    }

    assert!(sizes.iter().all(|size| *size <= 2), "{sizes:?}");
}

#[tokio::test]
async fn a_claim_that_is_not_accepted_is_free_again_and_leaves_no_trace() {
    let server = server(Duration::from_secs(30), 300 * MILLISECOND).await;
    let (mut client, mut workers) = (server.client().await, workers(&server.url()).await);
    let job = ok(client.start_job(start(KIND, "{}"))).await;

    let first = lease(&mut workers).await;
    let second = lease(&mut workers).await;
    let late = ok(workers.heartbeat(heartbeat(&first.lease_token))).await;
    ok(workers.complete_job(complete(&second.lease_token, None))).await;

    assert_eq!(late.directives[0].action(), directive::Action::LeaseLost);
    assert_eq!(states(&history(&mut client, &job).await), [State::Pending, State::Running, State::Succeeded]);
}

#[tokio::test]
async fn a_long_lease_outlives_a_restart_of_the_server_and_its_own_short_term() {
    let mut server = server(Duration::from_secs(1), Duration::from_secs(1)).await;
    let (mut client, mut before) = (server.client().await, workers(&server.url()).await);
    let job = ok(client.start_job(start(KIND, "{}"))).await;
    let long = LeaseJobsRequest {
        lease_duration: Some(Duration::from_secs(60).try_into().unwrap()),
        ..call(1, PATIENCE)
    };
    let token = ok(before.lease_jobs(long)).await.assignments.remove(0).lease_token;
    ok(before.append_output(frame(&token, 0, "one "))).await;

    server.restart().await;
    let (mut client, mut after) = (server.client().await, workers(&server.url()).await);
    // Three terms of the server's own.
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(ok(after.append_output(frame(&token, 0, "one "))).await.durable_bytes, 4);
    assert_eq!(ok(after.append_output(frame(&token, 4, "two"))).await.durable_bytes, 7);
    ok(after.complete_job(complete(&token, Some(7)))).await;

    let history = history(&mut client, &job).await;
    assert_eq!(output(&history), ("one two".into(), 0));
    assert_eq!(ok(client.get_status(get(&job))).await.attempt, 1);
}

#[tokio::test]
async fn output_goes_where_it_says_and_nowhere_else() {
    let mut server = patient_server().await;
    let (mut client, mut writer) = (server.client().await, workers(&server.url()).await);
    let job = ok(client.start_job(start(KIND, "{}"))).await;
    let token = lease(&mut writer).await.lease_token;
    let long = "0123456789abcdef".repeat(4_096);
    let mut written = 0;
    for _ in 0..30 {
        written = ok(writer.append_output(frame(&token, written, &long))).await.durable_bytes as usize;
    }
    assert_eq!(written, 30 * long.len());

    for round in 0..2 {
        // Again, a part of it and more, something else, and beyond the end.
        assert_eq!(
            ok(writer.append_output(frame(&token, 16, &long[16..]))).await.durable_bytes as usize,
            written
        );
        let more = format!("{}more", &long[..32]);
        let durable = ok(writer.append_output(frame(&token, written - 32, &more.replace("more", "")))).await;
        assert_eq!(durable.durable_bytes as usize, written);
        let (code, reason, _) = refused(writer.append_output(frame(&token, 160, "other"))).await;
        assert_eq!((code, reason.as_str()), (Code::FailedPrecondition, "OUTPUT_CONFLICT"));
        let (code, reason, details) = refused(writer.append_output(frame(&token, written + 1, "x"))).await;
        assert_eq!((code, reason.as_str()), (Code::OutOfRange, "OUTPUT_GAP"));
        assert_eq!(details.error_info().unwrap().metadata["expected"], written.to_string());
        if round == 0 {
            // What is only in memory is gone then.
            server.restart().await;
            (client, writer) = (server.client().await, workers(&server.url()).await);
        }
    }
    let cut = AppendOutputRequest { reset_to: Some(5), ..frame(&token, 5, "END") };
    assert_eq!(ok(writer.append_output(cut.clone())).await.durable_bytes, 8);
    assert_eq!(ok(writer.append_output(cut)).await.durable_bytes, 8);
    for channel in 1..8 {
        let one = AppendOutputRequest { channel: format!("c{channel}"), ..frame(&token, 0, "x") };
        ok(writer.append_output(one)).await;
    }
    let ninth = AppendOutputRequest { channel: "ninth".into(), ..frame(&token, 0, "x") };
    assert_eq!(refused(writer.append_output(ninth)).await.1, "CHANNEL_LIMIT");
    let (_, reason, _) = refused(writer.complete_job(complete(&token, Some(14)))).await;
    assert_eq!(reason, "OUTPUT_CONFLICT", "more has come than was announced");
    ok(writer.complete_job(complete(&token, Some(15)))).await;

    let history = history(&mut client, &job).await;
    let main: Vec<JobEvent> = history
        .into_iter()
        .filter(|event| !matches!(&event.event, Some(job_event::Event::Output(piece)) if !piece.channel.is_empty()))
        .collect();
    assert_eq!(output(&main), ("01234END".into(), 1));
}

#[tokio::test]
async fn lines_of_the_log_are_kept_once_and_without_a_gap() {
    let server = patient_server().await;
    let (mut client, mut workers) = (server.client().await, workers(&server.url()).await);
    let job = ok(client.start_job(start(KIND, "{}"))).await;
    let token = lease(&mut workers).await.lease_token;
    let lines = |log_offset, lines: &[&str]| {
        let line = |text: &&str| LogLine { level: log_line::Level::Info as i32, message: (*text).to_owned() };
        AppendOutputRequest { log_offset, logs: lines.iter().map(line).collect(), ..frame(&token, 0, "") }
    };

    assert_eq!(ok(workers.append_output(lines(0, &["a", "b"]))).await.durable_logs, 2);
    assert_eq!(ok(workers.append_output(lines(1, &["b", "c"]))).await.durable_logs, 3);
    assert_eq!(refused(workers.append_output(lines(4, &["e"]))).await.1, "LOG_GAP");

    let logged: Vec<String> = history(&mut client, &job)
        .await
        .into_iter()
        .filter_map(|event| match event.event {
            Some(job_event::Event::Log(line)) => Some(line.message),
            _ => None,
        })
        .collect();
    assert_eq!(logged, ["a", "b", "c"]);
}

#[tokio::test]
async fn tiny_frames_are_joined_and_each_refusal_is_its_own() {
    let server = patient_server().await;
    let (mut client, mut workers) = (server.client().await, workers(&server.url()).await);
    let jobs = [ok(client.start_job(start(KIND, "{}"))).await, ok(client.start_job(start(KIND, "{}"))).await];
    let tokens = [lease(&mut workers).await.lease_token, lease(&mut workers).await.lease_token];
    let text = "é€😀x".repeat(1_000);
    let bytes = text.as_bytes();
    let mut frames: Vec<AppendOutputRequest> = (0..bytes.len())
        .map(|at| AppendOutputRequest {
            data: Bytes::copy_from_slice(&bytes[at..=at]),
            ..frame(&tokens[0], at, "")
        })
        .collect();
    frames.insert(100, frame(&tokens[1], 7, "gap"));
    frames.insert(200, frame(&tokens[1].replacen('.', ".f", 1), 0, "nobody's"));
    frames.push(frame(&tokens[1], 0, "fine"));

    let mut answers = ok(workers.emit(tokio_stream::iter(frames))).await;
    let (mut refusals, mut durable) = (Vec::new(), HashMap::new());
    while let Some(answer) = within(answers.message()).await.unwrap() {
        match answer.refusal.is_empty() {
            false => refusals.push(answer.refusal),
            true => drop(durable.insert(answer.lease_token, answer.durable_bytes as usize)),
        }
    }
    for token in &tokens {
        ok(workers.complete_job(complete(token, None))).await;
    }

    refusals.sort();
    assert_eq!(refusals, ["LEASE_LOST", "OUTPUT_GAP"]);
    assert_eq!((durable[&tokens[0]], durable[&tokens[1]]), (bytes.len(), 4));
    let history = history(&mut client, &jobs[0]).await;
    let pieces = history.iter().filter_map(|event| match &event.event {
        Some(job_event::Event::Output(piece)) => Some(piece.data.clone()),
        _ => None,
    });
    let pieces: Vec<Bytes> = pieces.collect();
    assert!(pieces.len() < bytes.len() / 20, "{} events", pieces.len());
    assert!(pieces.iter().all(|piece| std::str::from_utf8(piece).is_ok()), "a character was split");
    assert_eq!(output(&history).0, text);
}

#[tokio::test]
async fn a_success_is_never_cut_short_by_frames_that_are_late() {
    let server = patient_server().await;
    let proxy = Proxy::start(server.address()).await;
    let mut client = server.client().await;
    let (mut direct, mut late) = (workers(&server.url()).await, workers(&proxy.url()).await);
    for _ in 0..5 {
        let job = ok(client.start_job(start(KIND, "{}"))).await;
        let token = lease(&mut direct).await.lease_token;
        let (frames, requests) = mpsc::channel(100);
        let mut answers = ok(late.emit(ReceiverStream::new(requests))).await;
        frames.send(frame(&token, 0, "first ")).await.unwrap();
        within(answers.message()).await.unwrap();

        proxy.hold();
        frames.send(frame(&token, 6, "second ")).await.unwrap();
        frames.send(frame(&token, 13, "third")).await.unwrap();
        let completing = {
            let (mut direct, request) = (direct.clone(), complete(&token, Some(18)));
            tokio::spawn(async move { direct.complete_job(request).await })
        };
        tokio::time::sleep(200 * MILLISECOND).await;
        assert!(!completing.is_finished());
        assert_eq!(ok(client.get_status(get(&job))).await.state(), State::Running);
        proxy.let_go();
        within(completing).await.unwrap().unwrap();

        assert_eq!(output(&history(&mut client, &job).await).0, "first second third");
    }
}

#[tokio::test]
async fn a_success_whose_output_never_comes_is_refused() {
    let server = patient_server().await;
    let (mut client, mut workers) = (server.client().await, workers(&server.url()).await);
    let job = ok(client.start_job(start(KIND, "{}"))).await;
    let token = lease(&mut workers).await.lease_token;

    let (code, reason, _) = refused(workers.complete_job(complete(&token, Some(1)))).await;

    assert_eq!((code, reason.as_str()), (Code::FailedPrecondition, "OUTPUT_MISSING"));
    assert!(!ok(client.get_status(get(&job))).await.state().as_str_name().contains("SUCCEEDED"));
}

#[tokio::test]
async fn the_token_of_an_earlier_lease_can_do_nothing() {
    let server = server(300 * MILLISECOND * 4, 300 * MILLISECOND).await;
    let (mut client, mut workers) = (server.client().await, workers(&server.url()).await);
    let job = ok(client.start_job(start(KIND, "{}"))).await;
    let old = lease(&mut workers).await.lease_token;
    ok(workers.append_output(frame(&old, 0, "void"))).await;
    let new = lease(&mut workers).await.lease_token;
    ok(workers.heartbeat(heartbeat(&new))).await;
    let before = history(&mut client, &job).await;

    let lost = (Code::FailedPrecondition, "LEASE_LOST".to_owned());
    let answer = |(code, reason, _)| (code, reason);
    let failure = Some(Failure::default());
    assert_eq!(answer(refused(workers.append_output(frame(&old, 4, "x"))).await), lost);
    assert_eq!(answer(refused(workers.complete_job(complete(&old, None))).await), lost);
    let fail = FailJobRequest { lease_token: old.clone(), failure, retry_delay: None };
    assert_eq!(answer(refused(workers.fail_job(fail)).await), lost);
    let release = ReleaseJobRequest { lease_token: old.clone(), ..Default::default() };
    assert_eq!(answer(refused(workers.release_job(release)).await), lost);
    let (mut stream, welcome) = Stream::open(&mut workers, "zombie", &[&old, &new]).await;
    let actions: Vec<_> = welcome.directives.iter().map(Directive::action).collect();
    assert_eq!(actions, [directive::Action::LeaseLost, directive::Action::Renewed]);
    stream.ask(Ask::Complete(complete(&old, None))).await;
    assert_eq!(stream.ack().await.refusal, "LEASE_LOST");

    assert_eq!(history(&mut client, &job).await, before);
    ok(workers.complete_job(complete(&new, None))).await;
}

#[tokio::test]
async fn cancels_and_completions_that_race_agree_with_what_became_of_the_job() {
    let server = patient_server().await;
    let (client, workers) = (server.client().await, workers(&server.url()).await);
    let mut ended = HashMap::new();
    for round in 0..1_000_u64 {
        let (mut client, mut workers) = (client.clone(), workers.clone());
        let job = ok(client.start_job(start(KIND, "{}"))).await;
        let token = lease(&mut workers).await.lease_token;
        ok(workers.heartbeat(heartbeat(&token))).await;
        // Up to two milliseconds apart, one first or the other.
        let (first, second) = (round * 7 % 41, round * 11 % 41);
        let cancel = async {
            tokio::time::sleep(Duration::from_micros(first * 50)).await;
            client.cancel_job(CancelJobRequest { job_id: job.id.clone(), ..Default::default() }).await
        };
        let complete = async {
            tokio::time::sleep(Duration::from_micros(second * 50)).await;
            workers.clone().complete_job(complete(&token, None)).await
        };
        let (cancelled, completed) = within(async { tokio::join!(cancel, complete) }).await;
        let told = cancelled.unwrap().into_inner().state();
        let succeeded = match completed {
            Ok(_) => true,
            Err(status) => {
                assert_eq!(explained(&status).1, "JOB_CANCELLED");
                let stopped = FailJobRequest { lease_token: token, ..Default::default() };
                assert_eq!(ok(workers.fail_job(stopped)).await.state(), State::Cancelled);
                false
            }
        };
        let last = ok(server.client().await.get_status(get(&job))).await.state();
        let expected = if succeeded {
            (State::Succeeded, State::Succeeded)
        } else {
            (State::Cancelling, State::Cancelled)
        };
        assert_eq!((told, last), expected, "round {round}");
        *ended.entry(last.as_str_name()).or_insert(0) += 1;
    }

    println!("{ended:?}");
    assert!(ended.len() == 2 && ended.values().all(|count| *count > 100), "no race: {ended:?}");
}

#[tokio::test]
async fn jobs_are_dealt_evenly_among_workers_of_any_size_that_come_back_for_more() {
    const SLOTS: [usize; 4] = [3, 8, 8, 16];
    let server = patient_server().await;
    let mut client = server.client().await;
    let (told, mut heard) = mpsc::channel(100);
    let mut asks = Vec::new();
    for number in 0..SLOTS.len() {
        let mut workers = workers(&server.url()).await;
        let (mut stream, _) = Stream::open(&mut workers, &format!("worker-{number}"), &[]).await;
        asks.push(stream.asks.clone());
        let told = told.clone();
        tokio::spawn(async move { while told.send((number, stream.next().await)).await.is_ok() {} });
    }
    let mut held: [Vec<String>; 4] = Default::default();
    let mut received = [0; 4];
    let mut seed = 7_u64;
    let mut random = move |below: usize| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (seed >> 33) as usize % below
    };
    let ask = async |number: usize, message| {
        asks[number].send(WorkRequest { message: Some(message) }).await.unwrap();
    };
    for (number, slots) in SLOTS.into_iter().enumerate() {
        ask(number, Ask::Credit(work_request::Credit { free_slots: slots as i32, received: 0 })).await;
        // Requests are taken in their order: an answer to this one means that the credit is known.
        ask(number, Ask::Heartbeat(HeartbeatRequest::default())).await;
        assert!(matches!(within(heard.recv()).await, Some((_, Answer::Directives(_)))));
    }

    for round in 0..40 {
        let free = SLOTS.iter().sum::<usize>() - held.iter().map(Vec::len).sum::<usize>();
        let jobs = if round == 0 { 17 } else { 1 + random(free.min(9)) };
        let requests = vec![start(KIND, "{}"); jobs];
        ok(client.batch_start_jobs(BatchStartJobsRequest { requests })).await;
        let mut dealt = [0; 4];
        for _ in 0..jobs {
            let Some((number, Answer::Assignment(assignment))) = within(heard.recv()).await else {
                panic!("something else came");
            };
            held[number].push(assignment.lease_token);
            received[number] += 1;
            dealt[number] += 1;
        }
        let counts = held.each_ref().map(Vec::len);
        for (one, other) in (0..4).flat_map(|one| (0..4).map(move |other| (one, other))) {
            let fair = dealt[one] == 0 || counts[other] == SLOTS[other] || counts[one] <= counts[other] + 2;
            assert!(fair, "round {round}: {dealt:?} of {jobs} jobs were dealt, so that {counts:?} are held");
        }

        for _ in 0..=random(counts.iter().sum()) {
            let number = random(4);
            let Some(token) = held[number].pop() else { continue };
            ask(number, Ask::Complete(complete(&token, None))).await;
            assert!(matches!(within(heard.recv()).await, Some((_, Answer::Ack(_)))));
            let free_slots = (SLOTS[number] - held[number].len()) as i32;
            ask(number, Ask::Credit(work_request::Credit { free_slots, received: received[number] })).await;
            ask(number, Ask::Heartbeat(HeartbeatRequest::default())).await;
            assert!(matches!(within(heard.recv()).await, Some((_, Answer::Directives(_)))));
        }
    }
}

#[tokio::test]
async fn credit_is_a_number_and_not_a_change_of_it() {
    let server = patient_server().await;
    let (mut client, mut workers) = (server.client().await, workers(&server.url()).await);
    for _ in 0..10 {
        ok(client.start_job(start(KIND, "{}"))).await;
    }
    let (mut stream, _) = Stream::open(&mut workers, "test", &[]).await;

    stream.credit(3, 0).await;
    let mut tokens = Vec::new();
    for _ in 0..3 {
        tokens.push(stream.assignment().await.lease_token);
    }
    // Counted before these had come: nothing more.
    stream.credit(3, 0).await;
    stream.ask(Ask::Complete(complete(&tokens[0], None))).await;
    assert!(matches!(stream.next().await, Answer::Ack(ack) if ack.state() == State::Succeeded));
    stream.credit(1, 3).await;
    stream.assignment().await;
    stream.ask(Ask::Drain(work_request::Drain {})).await;
    stream.credit(5, 4).await;
    stream.ask(Ask::Complete(complete(&tokens[1], None))).await;
    assert!(matches!(stream.next().await, Answer::Ack(_)), "nothing is assigned after a drain");
}

#[tokio::test]
async fn a_worker_is_told_at_once_and_a_bad_report_costs_itself_only() {
    let server = patient_server().await;
    let (mut client, mut workers) = (server.client().await, workers(&server.url()).await);
    let job = ok(client.start_job(start(KIND, "{}"))).await;
    let (mut stream, _) = Stream::open(&mut workers, "test", &[]).await;
    stream.credit(1, 0).await;
    let token = stream.assignment().await.lease_token;

    let progress = Some(Progress { stage: "x".repeat(129), ..Default::default() });
    let bad = Report { lease_token: token.clone(), progress, ..Default::default() };
    stream.ask(Ask::Heartbeat(HeartbeatRequest { reports: vec![bad] })).await;
    let renewed = stream.directive().await;
    let outcome = Some(complete_job_request::Outcome::ResultJson("{".into()));
    stream.ask(Ask::Complete(CompleteJobRequest { outcome, ..complete(&token, None) })).await;
    let ack = stream.ack().await;
    ok(client.cancel_job(CancelJobRequest { job_id: job.id.clone(), ..Default::default() })).await;
    let cancel = stream.directive().await;
    stream.ask(Ask::Fail(FailJobRequest { lease_token: token.clone(), ..Default::default() })).await;

    assert_eq!(renewed.action(), directive::Action::Renewed);
    assert!(renewed.reason.contains("progress.stage"), "{}", renewed.reason);
    assert_eq!(ack.refusal, "INVALID_REQUEST");
    assert!(ack.message.contains("result_json"), "{}", ack.message);
    assert_eq!(cancel.action(), directive::Action::Cancel);
    assert!(cancel.grace.is_some());
    assert_eq!(stream.ack().await.state(), State::Cancelled);
}

#[tokio::test]
async fn a_worker_may_run_a_hundred_kinds() {
    let server = patient_server().await;
    let (mut client, mut workers) = (server.client().await, workers(&server.url()).await);
    let kinds = |count| (1..count).map(|number| format!("kind-{number}")).chain([KIND.into()]).collect();
    let job = ok(client.start_job(start(KIND, "{}"))).await;

    let call = |count| LeaseJobsRequest { kinds: kinds(count), ..call(1, Duration::ZERO) };
    let (code, _, details) = refused(workers.lease_jobs(call(101))).await;
    let leased = ok(workers.lease_jobs(call(100))).await.assignments;

    assert_eq!((code, fields(&details)), (Code::InvalidArgument, vec!["kinds".to_owned()]));
    assert_eq!(leased[0].job.as_ref().unwrap().id, job.id);
}

#[tokio::test]
async fn what_is_no_message_of_the_protocol_ends_the_stream() {
    let server = patient_server().await;
    let mut workers = workers(&server.url()).await;
    let hello = || {
        Ask::Hello(work_request::Hello {
            worker_id: "test".into(),
            kinds: vec![KIND.into()],
            ..Default::default()
        })
    };
    let credit = |free_slots, received| Ask::Credit(work_request::Credit { free_slots, received });
    let nobody = Ask::Hello(work_request::Hello { kinds: vec!["Not a kind".into()], ..Default::default() });
    for (messages, field) in [
        (vec![credit(1, 0)], "message"),
        (vec![hello(), hello()], "message"),
        (vec![hello(), credit(-1, 0)], "credit.free_slots"),
        (vec![hello(), credit(1, 1)], "credit.received"),
        (vec![hello(), Ask::Accept(work_request::Accept { lease_token: "x".into() })], "accept.lease_token"),
        (vec![nobody], "worker_id"),
    ] {
        let requests = messages.into_iter().map(|message| WorkRequest { message: Some(message) });
        let open = tokio_stream::iter(requests).chain(tokio_stream::pending());
        let mut answers = ok(workers.work(open)).await;
        let status = loop {
            match within(answers.message()).await {
                Ok(Some(_)) => {}
                Ok(None) => panic!("{field}: the stream ended well"),
                Err(status) => break status,
            }
        };

        let (code, _, details) = explained(&status);
        assert_eq!(code, Code::InvalidArgument);
        assert!(fields(&details).contains(&field.to_owned()), "{field}: {details:?}");
    }
}

#[tokio::test]
async fn a_server_that_stops_says_so_and_takes_reports_until_the_end() {
    let mut server = patient_server().await;
    let (mut client, mut workers) = (server.client().await, workers(&server.url()).await);
    let job = ok(client.start_job(start(KIND, "{}"))).await;
    let (mut stream, _) = Stream::open(&mut workers, "test", &[]).await;
    stream.credit(2, 0).await;
    let token = stream.assignment().await.lease_token;
    stream.ask(Ask::Accept(work_request::Accept { lease_token: token.clone() })).await;
    reach(&mut client, &job, State::Running).await;

    let restarting = tokio::spawn(async move {
        server.restart().await;
        server
    });
    assert!(matches!(stream.next().await, Answer::GoAway(_)));
    let end = within(stream.answers.message()).await.unwrap_err();
    let server = within(restarting).await.unwrap();

    assert_eq!(end.code(), Code::Unavailable);
    let (mut client, mut workers) = (server.client().await, self::workers(&server.url()).await);
    let (_, welcome) = Stream::open(&mut workers, "test", &[&token]).await;
    assert_eq!(welcome.directives[0].action(), directive::Action::Renewed);
    ok(workers.complete_job(complete(&token, None))).await;
    assert_eq!(ok(client.get_status(get(&job))).await.attempt, 1);
}

#[tokio::test]
async fn a_stream_that_does_not_say_whose_it_is_ends() {
    let server = patient_server().await;
    let mut answers = ok(workers(&server.url()).await.work(tokio_stream::pending())).await;

    // From here on whoever waits is at once where he waits for.
    tokio::time::pause();
    let status = answers.message().await.unwrap_err();

    assert_eq!(status.code(), Code::DeadlineExceeded);
    assert!(status.message().contains("10 s"), "{status}");
}

#[tokio::test]
async fn a_silent_worker_gets_nothing_and_is_cut_off_in_the_end() {
    let server = server(Duration::from_millis(1_500), 300 * MILLISECOND).await;
    let (mut client, mut workers) = (server.client().await, workers(&server.url()).await);
    let (mut stream, _) = Stream::open(&mut workers, "silent", &[]).await;
    stream.credit(5, 0).await;

    let end = within(stream.answers.message()).await.unwrap_err();
    let job = ok(client.start_job(start(KIND, "{}"))).await;

    assert_eq!(end.code(), Code::DeadlineExceeded);
    assert_eq!(lease(&mut workers).await.job.unwrap().id, job.id);
}
