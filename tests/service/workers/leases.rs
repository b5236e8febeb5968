//! Leases by the unary methods: waking, acceptance, terms, fencing, races, fair shares.

use super::*;

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
