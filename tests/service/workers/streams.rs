//! The streams Work and Emit: credit, orders, what is no message, silence and the end.

use super::*;

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
