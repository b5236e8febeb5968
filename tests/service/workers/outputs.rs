//! Output, lines of the log, and a success that waits for them.

use super::*;

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
