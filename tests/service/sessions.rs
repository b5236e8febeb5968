//! What a worker elsewhere hears, and when: of cancellations while it reports, of leases whose report is bad, of a server that
//! stops; and that no flood of its small messages costs it the connection.
//!
//! What broke: a report in flight took its lease off the list of those that are told of, for good. One bad report in a unary
//! heartbeat renewed no lease at all. GoAway promised thirty seconds, and the stream ended at once. And h2 counts small messages
//! that nobody has read yet, and ended the connection for a burst of them.

use crate::stalled_store::StalledServer;
use crate::support::*;
use crate::workers::*;
use bytes::Bytes;
use longhaul::proto::job::State;
use longhaul::proto::*;
use std::collections::HashSet;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;
use work_request::Message as Ask;
use work_response::Message as Answer;

/// How many slots a worker may have.
const SLOTS: usize = 10_000;

fn cancel(job: &Job) -> CancelJobRequest {
    CancelJobRequest { job_id: job.id.clone(), ..Default::default() }
}

fn accept(token: &str) -> Ask {
    Ask::Accept(work_request::Accept { lease_token: token.to_owned() })
}

/// A report that is refused before anything else is done, so its answer says that all before it were taken.
async fn echo(stream: &mut Stream) {
    let outcome = Some(complete_job_request::Outcome::ResultJson("{".into()));
    let token = "01981f9e-0000-7000-8000-000000000000.1.0000000000000001".to_owned();
    stream.ask(Ask::Complete(CompleteJobRequest { lease_token: token, outcome, ..Default::default() })).await;
    assert_eq!(stream.ack().await.refusal, "INVALID_REQUEST");
}

/// Lets each message be a DATA frame of its own, as other clients send them.
fn one_by_one<T>(messages: impl tokio_stream::Stream<Item = T>) -> impl tokio_stream::Stream<Item = T> {
    messages.then(async |message| {
        tokio::task::yield_now().await;
        message
    })
}

#[tokio::test]
async fn a_cancellation_is_told_while_a_completion_waits_for_output() {
    let server = patient_server().await;
    let (mut client, mut workers) = (server.client().await, workers(&server.url()).await);
    let job = ok(client.start_job(start(KIND, "{}"))).await;
    let (mut stream, _) = Stream::open(&mut workers, "test", &[]).await;
    stream.credit(1, 0).await;
    let token = stream.assignment().await.lease_token;
    stream.ask(accept(&token)).await;
    stream.ask(Ask::Complete(complete(&token, Some(10)))).await;
    reach(&mut client, &job, State::Running).await;
    echo(&mut stream).await;

    ok(client.cancel_job(cancel(&job))).await;

    // The order of these two is nobody's.
    let (mut told, mut refusals) = (Vec::new(), Vec::new());
    while told.is_empty() || refusals.is_empty() {
        match stream.next().await {
            Answer::Directives(answer) => told.extend(answer.directives),
            Answer::Ack(ack) => refusals.push(ack.refusal),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(told[0].action(), directive::Action::Cancel);
    assert_eq!(refusals, ["JOB_CANCELLED"]);
    stream.ask(Ask::Fail(FailJobRequest { lease_token: token, ..Default::default() })).await;
    assert_eq!(stream.ack().await.state(), State::Cancelled);
}

#[tokio::test]
async fn a_lease_whose_report_was_refused_is_told_of_as_before() {
    let server = patient_server().await;
    let (mut client, mut workers) = (server.client().await, workers(&server.url()).await);
    let job = ok(client.start_job(start(KIND, "{}"))).await;
    let (mut stream, _) = Stream::open(&mut workers, "test", &[]).await;
    stream.credit(1, 0).await;
    let token = stream.assignment().await.lease_token;
    stream.ask(accept(&token)).await;
    stream.ask(Ask::Fail(FailJobRequest { lease_token: token.clone(), ..Default::default() })).await;
    assert_eq!(stream.ack().await.refusal, "NOTHING_TO_STOP");

    ok(client.cancel_job(cancel(&job))).await;
    assert_eq!(stream.directive().await.action(), directive::Action::Cancel);
    let stopped = FailJobRequest { lease_token: token, ..Default::default() };
    ok(workers.fail_job(stopped)).await;

    assert_eq!(stream.directive().await.action(), directive::Action::LeaseLost);
}

#[tokio::test]
async fn a_lease_that_was_lost_while_its_report_waited_is_told_of() {
    let server = StalledServer::start().await;
    let (mut client, mut workers) = (client(&server.url()).await, workers(&server.url()).await);
    let job = ok(client.start_job(start(KIND, "{}"))).await;
    let (mut stream, _) = Stream::open(&mut workers, "test", &[]).await;
    stream.credit(1, 0).await;
    let token = stream.assignment().await.lease_token;
    stream.ask(accept(&token)).await;
    reach(&mut client, &job, State::Running).await;

    server.store.block();
    let releasing = tokio::spawn({
        let (engine, token) = (server.engine.clone(), token.parse().unwrap());
        async move { engine.release(&token, String::new(), Duration::ZERO).await }
    });
    server.held_up().await;
    stream.credit(0, 1).await;
    stream.ask(Ask::Complete(complete(&token, None))).await;
    echo(&mut stream).await;
    echo(&mut stream).await;
    server.store.unblock();
    within(releasing).await.unwrap().unwrap();

    assert_eq!(stream.ack().await.refusal, "LEASE_LOST");
    assert_eq!(stream.directive().await.action(), directive::Action::LeaseLost);
}

#[tokio::test]
async fn what_a_heartbeat_is_answered_takes_no_cancellation_back() {
    let server = StalledServer::start().await;
    let (mut client, mut workers) = (client(&server.url()).await, workers(&server.url()).await);
    let (mut stream, _) = Stream::open(&mut workers, "test", &[]).await;
    let jobs = [ok(client.start_job(start(KIND, "{}"))).await, ok(client.start_job(start(KIND, "{}"))).await];
    stream.credit(2, 0).await;
    let (mut one, mut other) = (stream.assignment().await, stream.assignment().await);
    for token in [&one.lease_token, &other.lease_token] {
        stream.ask(accept(token)).await;
    }
    for job in &jobs {
        reach(&mut client, job, State::Running).await;
    }
    if one.job.as_ref().unwrap().id != jobs[0].id {
        std::mem::swap(&mut one, &mut other);
    }

    // The cancellation is committed first, then the other job's stage, for which the heartbeat waits.
    server.store.block();
    let cancelling = tokio::spawn({
        let (mut client, request) = (client.clone(), cancel(&jobs[0]));
        async move { client.cancel_job(request).await }
    });
    server.held_up().await;
    let bare = Report { lease_token: one.lease_token.clone(), ..Default::default() };
    let progress = Some(Progress { stage: "next".into(), ..Default::default() });
    let staged = Report { lease_token: other.lease_token, progress, ..Default::default() };
    stream.ask(Ask::Heartbeat(HeartbeatRequest { reports: vec![bare, staged] })).await;
    echo(&mut stream).await;
    echo(&mut stream).await;
    server.store.unblock();
    within(cancelling).await.unwrap().unwrap();

    let mut told = Vec::new();
    while told.len() < 2 {
        let Answer::Directives(answer) = stream.next().await else { panic!("nothing else is expected") };
        let directives = answer.directives.into_iter();
        told.extend(
            directives.filter(|one_of| one_of.lease_token == one.lease_token).map(|one| one.action()),
        );
    }
    assert_eq!(told, [directive::Action::Cancel; 2]);
}

#[tokio::test]
async fn a_bad_report_in_a_heartbeat_costs_itself_and_no_lease() {
    let server = server(Duration::from_secs(2), Duration::from_secs(10)).await;
    let (mut client, mut workers) = (server.client().await, workers(&server.url()).await);
    let jobs = [ok(client.start_job(start(KIND, "{}"))).await, ok(client.start_job(start(KIND, "{}"))).await];
    let tokens = [lease(&mut workers).await.lease_token, lease(&mut workers).await.lease_token];

    let good = Report { lease_token: tokens[0].clone(), ..Default::default() };
    let metrics = [("speed".to_owned(), f64::NAN)].into();
    let bad = Report { lease_token: tokens[1].clone(), metrics, ..Default::default() };
    let reports = vec![good.clone(), bad];
    let answer = ok(workers.heartbeat(HeartbeatRequest { reports })).await;
    let nobody = Report { lease_token: "x".into(), ..Default::default() };
    let (code, _, details) =
        refused(workers.heartbeat(HeartbeatRequest { reports: vec![good, nobody] })).await;

    let told: Vec<_> = answer.directives.iter().map(|one| (one.action(), one.reason.as_str())).collect();
    assert_eq!(told[0], (directive::Action::Renewed, ""));
    assert_eq!(told[1], (directive::Action::Renewed, "metrics: speed is NaN, which is no number"));
    assert_eq!((code, fields(&details)), (Code::InvalidArgument, vec!["reports[1].lease_token".to_owned()]));
    for job in &jobs {
        assert_eq!(ok(client.get_status(get(job))).await.state(), State::Running);
    }
}

#[tokio::test]
async fn a_server_that_stops_waits_for_the_streams_that_it_sends_away() {
    let mut server = patient_server().await;
    let mut workers = workers(&server.url()).await;
    let (mut stream, _) = Stream::open(&mut workers, "test", &[]).await;

    let stopping = tokio::spawn(async move { server.stop().await });
    let Answer::GoAway(away) = stream.next().await else { panic!("it is told first") };
    echo(&mut stream).await;
    drop(stream.asks);
    let end = within(stream.answers.message()).await;
    within(stopping).await.unwrap();

    assert!(Duration::try_from(away.grace.unwrap()).unwrap() >= Duration::from_secs(1));
    assert!(matches!(end, Ok(None)), "{end:?}");
}

#[tokio::test]
async fn every_channel_of_a_lease_that_is_lost_is_told_of() {
    let server = StalledServer::start().await;
    let (mut client, mut workers) = (client(&server.url()).await, workers(&server.url()).await);
    ok(client.start_job(start(KIND, "{}"))).await;
    let token = lease(&mut workers).await.lease_token;
    ok(workers.heartbeat(heartbeat(&token))).await;

    server.store.block();
    let releasing = tokio::spawn({
        let (engine, token) = (server.engine.clone(), token.parse().unwrap());
        async move { engine.release(&token, String::new(), Duration::ZERO).await }
    });
    server.held_up().await;
    let (frames, requests) = mpsc::channel(10);
    for channel in ["a", "b", "c"] {
        let one = AppendOutputRequest { channel: channel.into(), ..frame(&token, 0, "x") };
        frames.send(one).await.unwrap();
    }
    // It is answered at once, so those before it were taken.
    frames.send(AppendOutputRequest { offset: -1, ..frame(&token, 0, "x") }).await.unwrap();
    let mut answers = ok(workers.emit(ReceiverStream::new(requests))).await;
    let echo = within(answers.message()).await.unwrap().unwrap();
    assert_eq!(echo.refusal, "INVALID_REQUEST");
    server.store.unblock();
    within(releasing).await.unwrap().unwrap();

    let mut told = HashSet::new();
    while told.len() < 3 {
        let answer = within(answers.message()).await.unwrap().unwrap();
        assert_eq!(answer.refusal, "LEASE_LOST");
        told.insert(answer.channel);
    }
}

#[tokio::test]
async fn ten_thousand_jobs_are_accepted_and_completed_at_once() {
    let server = patient_server().await;
    let (mut client, mut workers) = (server.client().await, workers(&server.url()).await);
    for _ in 0..SLOTS / 500 {
        let requests = vec![start(KIND, "{}"); 500];
        ok(client.batch_start_jobs(BatchStartJobsRequest { requests })).await;
    }
    let (asks, requests) = mpsc::unbounded_channel();
    let ask = |message| asks.send(WorkRequest { message: Some(message) }).unwrap();
    let kinds = vec![KIND.to_owned()];
    ask(Ask::Hello(work_request::Hello { worker_id: "large".into(), kinds, ..Default::default() }));
    ask(Ask::Credit(work_request::Credit { free_slots: SLOTS as i32, received: 0 }));
    let requests = one_by_one(tokio_stream::wrappers::UnboundedReceiverStream::new(requests));
    let mut answers = ok(workers.work(requests)).await;
    let mut tokens = Vec::with_capacity(SLOTS);
    while tokens.len() < SLOTS {
        if let Some(Answer::Assignment(assignment)) =
            within(answers.message()).await.unwrap().unwrap().message
        {
            tokens.push(assignment.lease_token);
        }
    }

    tokens.iter().for_each(|token| ask(accept(token)));
    tokens.iter().for_each(|token| ask(Ask::Complete(complete(token, None))));

    let mut acked = 0;
    while acked < SLOTS {
        if let Some(Answer::Ack(ack)) = within(answers.message()).await.unwrap().unwrap().message {
            assert_eq!(ack.state(), State::Succeeded, "{}", ack.message);
            acked += 1;
        }
    }
}

#[tokio::test]
async fn a_burst_of_tokens_during_a_slow_commit_costs_nobody_the_connection() {
    let server = StalledServer::start().await;
    let (mut client, mut workers) = (client(&server.url()).await, workers(&server.url()).await);
    ok(client.start_job(start(KIND, "{}"))).await;
    let token = lease(&mut workers).await.lease_token;
    ok(workers.append_output(frame(&token, 0, "tok "))).await;
    let (mut idle, _) = Stream::open(&mut workers, "idle", &[]).await;

    // The first is compared with what is durable, and so waits for what is about to be.
    server.store.block();
    let (engine, lease) = (server.engine.clone(), token.parse().unwrap());
    within(engine.append_output(&lease, "", "tok ".into())).await.unwrap();
    server.held_up().await;
    let sent = 20_000;
    let (counting, mut count) = tokio::sync::watch::channel(0);
    let frames = (0..sent).map({
        let token = token.clone();
        move |n| {
            counting.send_replace(n);
            AppendOutputRequest { data: Bytes::from_static(b"tok "), ..frame(&token, n * 4, "") }
        }
    });
    let mut answers = ok(workers.emit(one_by_one(tokio_stream::iter(frames)))).await;
    // As many as the stream's window takes of them.
    within(count.wait_for(|sent| *sent > 3_400)).await.unwrap();
    echo(&mut idle).await;
    server.store.unblock();

    let mut durable = 0;
    while let Some(answer) = within(answers.message()).await.unwrap() {
        assert_eq!(answer.refusal, "", "{}", answer.message);
        durable = answer.durable_bytes;
    }
    assert_eq!(durable, 4 * sent as i64);
    echo(&mut idle).await;
}
