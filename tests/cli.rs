//! The commands as a person or a script calls them: the real binary, a real server, real kills.

mod support;

use serde_json::Value;
use std::io::{BufRead, BufReader, Read};
use std::process::{Output, Stdio};
use support::binary::{Process, longhaul, run};
use tempfile::TempDir;

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

fn lines(output: &Output) -> Vec<&str> {
    text(&output.stdout).lines().collect()
}

/// A server, and its address as the argument of a client.
fn serve(folder: &TempDir) -> (Process, String) {
    let server = Process::serve(folder.path(), "127.0.0.1:0", &["--slots", "2"]);
    let argument = format!("--server={}", server.address);
    (server, argument)
}

#[test]
fn a_started_job_is_found_and_watched_to_its_end() {
    let folder = tempfile::tempdir().unwrap();
    let (_server, at) = serve(&folder);

    let started = run(&["start", "simulate", &at, "--prompt", "one two", "--input", r#"{"seconds":0.3}"#]);
    let ticket = text(&started.stdout).trim().to_owned();
    let watched = run(&["watch", &at, &ticket]);
    let status = run(&["status", &at, &ticket]);

    assert_eq!(started.status.code(), Some(0), "{}", text(&started.stderr));
    assert_eq!(watched.status.code(), Some(0), "{}", text(&watched.stderr));
    let watched = lines(&watched);
    assert!(watched[0].ends_with("CREATED") && watched[0].contains("PENDING"), "{watched:?}");
    assert!(watched.iter().any(|line| line.contains("stage       Analyzing the prompt")), "{watched:?}");
    assert!(watched.last().unwrap().contains(r#""text":"Processed: one two""#), "{watched:?}");
    assert!(lines(&status).contains(&"state     SUCCEEDED"), "{:?}", lines(&status));
}

#[test]
fn json_is_canonical_and_one_message_a_line() {
    let folder = tempfile::tempdir().unwrap();
    let (_server, at) = serve(&folder);
    let input = r#"{"prompt":"one two","seconds":0.2}"#;

    let watched = run(&["start", "simulate", &at, "--json", "--watch", "--input", input]);
    let events: Vec<Value> =
        lines(&watched).into_iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    let ticket = events[0]["jobId"].as_str().unwrap();
    let status = run(&["status", &at, "--json", ticket]);
    let status: Value = serde_json::from_slice(&status.stdout).unwrap();

    assert_eq!(events[0]["snapshot"]["job"]["kind"], "simulate");
    assert_eq!(events.last().unwrap()["stateChange"]["state"], "SUCCEEDED");
    assert_eq!(status["sequence"], events.last().unwrap()["sequence"]);
    assert_eq!(status["result"]["text"], "Processed: one two");
    assert_eq!(status["createTime"].as_str().unwrap().chars().last(), Some('Z'));
}

#[test]
fn the_exit_code_says_how_it_ended() {
    let folder = tempfile::tempdir().unwrap();
    let (mut server, at) = serve(&folder);
    let fails = r#"{"seconds":0,"chaos":{"error":1}}"#;

    let failed = run(&["start", "simulate", &at, "--watch", "--attempts", "1", "--input", fails]);
    let unknown = run(&["watch", &at, "0199a6d0-3c6a-7c5e-9d1b-5a8f0f6f2c11"]);
    let slip = run(&["start", "Not A Kind", &at]);
    let usage = run(&["start"]);
    server.kill();
    let nobody = run(&["status", &at, "0199a6d0-3c6a-7c5e-9d1b-5a8f0f6f2c11"]);

    assert_eq!(failed.status.code(), Some(1));
    assert!(
        text(&failed.stdout).contains("FAILED      attempt 1 by pool, HANDLER_ERROR: a simulated error"),
        "{}",
        text(&failed.stdout)
    );
    assert_eq!(unknown.status.code(), Some(2));
    assert_eq!(slip.status.code(), Some(2));
    assert!(text(&slip.stderr).starts_with("longhaul: kind: "), "{}", text(&slip.stderr));
    assert_eq!(usage.status.code(), Some(2));
    assert_eq!(nobody.status.code(), Some(3));
    assert!(text(&nobody.stderr).contains("longhaul serve"), "{}", text(&nobody.stderr));
}

/// Every line that a command prints, as JSON.
fn json(arguments: &[&str]) -> Vec<Value> {
    let output = run(&[arguments, &["--json"]].concat());
    assert_eq!(output.status.code(), Some(0), "{arguments:?}: {}", text(&output.stderr));
    lines(&output).into_iter().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn every_command_has_its_messages_as_json() {
    let folder = tempfile::tempdir().unwrap();
    let (_server, at) = serve(&folder);
    let waiting = json(&["start", "nobody", &at, "--label", "team=voice"]);
    let waiting = waiting[0]["id"].as_str().unwrap();
    let watched = json(&["start", "simulate", &at, "--watch", "--input", r#"{"seconds":0}"#]);
    let done = watched[0]["jobId"].as_str().unwrap();

    let listed = json(&["list", &at]);
    let labelled = json(&["list", &at, "--label", "team=voice", "--state", "pending"]);
    let history = json(&["history", &at, done]);
    let cancelled = json(&["cancel", &at, waiting]);
    let retried = json(&["retry", &at, waiting]);
    let deleted = json(&["delete", &at, done, waiting]);

    assert_eq!(listed.iter().map(|job| &job["id"]).collect::<Vec<_>>(), [done, waiting]);
    assert_eq!(labelled.iter().map(|job| &job["id"]).collect::<Vec<_>>(), [waiting]);
    let sequences: Vec<&str> = history.iter().map(|event| event["sequence"].as_str().unwrap()).collect();
    assert!(sequences.len() > 3 && sequences[0] == "1", "{history:?}");
    assert_eq!(cancelled[0]["state"], "CANCELLED");
    assert_eq!((&retried[0]["retryOf"], &retried[0]["labels"]["team"]), (&waiting.into(), &"voice".into()));
    assert_eq!(deleted, [serde_json::json!({}), serde_json::json!({})]);
    assert_eq!(json(&["list", &at]).len(), 1);
}

#[test]
fn what_cannot_be_done_to_a_job_is_told_with_its_ticket() {
    let folder = tempfile::tempdir().unwrap();
    let (_server, at) = serve(&folder);
    let unknown = "0199a6d0-3c6a-7c5e-9d1b-5a8f0f6f2c11";
    let started = run(&["start", "nobody", &at]);
    let active = text(&started.stdout).trim();

    for (arguments, code, words) in [
        (vec!["cancel", unknown], 2, "no such job"),
        (vec!["delete", unknown], 2, "no such job"),
        (vec!["retry", unknown], 2, "no such job"),
        (vec!["history", unknown], 2, "no such job"),
        (vec!["history", "not a ticket"], 2, "job_id"),
        (vec!["delete", active], 1, "has not ended"),
        (vec!["retry", active], 1, "has not ended"),
        (vec!["list", "--limit", "0"], 2, "limit"),
        (vec!["list", "--state", "done"], 2, "possible values"),
        (vec!["list", "--label", "team"], 2, "key=value"),
    ] {
        let output = run(&[&arguments[..], &[&at]].concat());
        let said = text(&output.stderr).to_lowercase();
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {said}");
        assert!(said.contains(words), "{arguments:?}: {said}");
        assert_eq!(text(&output.stdout), "", "{arguments:?}");
    }
}

#[test]
fn whoever_reads_may_stop_at_any_line() {
    let folder = tempfile::tempdir().unwrap();
    let (_server, at) = serve(&folder);
    run(&["start", "nobody", &at]);

    for command in [&["list", &at][..], &["list", "--json", &at], &["man"], &["completions", "bash"]] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = longhaul().args(command).stdout(writer).stderr(Stdio::piped()).spawn().unwrap();
        let output = output.wait_with_output().unwrap();

        assert_eq!((output.status.code(), text(&output.stderr)), (Some(0), ""), "{command:?}");
    }
}

#[test]
fn a_watch_goes_on_where_it_was_when_its_server_was_killed() {
    let folder = tempfile::tempdir().unwrap();
    let (mut server, at) = serve(&folder);
    let input = r#"{"prompt":"one two three four","seconds":3,"steps":30}"#;
    let started = run(&["start", "simulate", &at, "--input", input]);
    let ticket = text(&started.stdout).trim().to_owned();

    let mut watch =
        longhaul().args(["watch", &at, "--json", &ticket]).stdout(Stdio::piped()).spawn().unwrap();
    let mut seen = BufReader::new(watch.stdout.take().unwrap()).lines().map(|line| {
        let event: Value = serde_json::from_str(&line.unwrap()).unwrap();
        event
    });
    let mut events = Vec::new();
    while !events.iter().any(|event: &Value| event.get("output").is_some()) {
        events.push(seen.next().expect("the watch goes on"));
    }
    server.kill();
    let _again = Process::serve(folder.path(), &server.address, &["--slots", "2"]);
    events.extend(seen);
    let ended = watch.wait().unwrap();

    assert_eq!(ended.code(), Some(0));
    let kept: Vec<i64> = events
        .iter()
        .filter(|event| {
            ["stateChange", "stage", "output", "outputReset", "log"]
                .iter()
                .any(|kind| event.get(kind).is_some())
        })
        .map(|event| event["sequence"].as_str().unwrap().parse().unwrap())
        .collect();
    assert_eq!(kept, (1..=kept.len() as i64).collect::<Vec<_>>());
    let reason = |event: &Value| event["stateChange"]["reason"] == "SERVER_RESTART";
    assert!(events.iter().any(reason), "the kill is part of the history");
    assert_eq!(events.last().unwrap()["stateChange"]["state"], "SUCCEEDED");
}

#[test]
fn a_watch_gives_up_when_its_patience_ends() {
    let folder = tempfile::tempdir().unwrap();
    let (mut server, at) = serve(&folder);
    let started = run(&["start", "nobody-serves-this", &at]);
    let ticket = text(&started.stdout).trim().to_owned();

    let mut watch = longhaul()
        .args(["watch", &at, "--patience", "300ms", &ticket])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut first = String::new();
    BufReader::new(watch.stdout.as_mut().unwrap()).read_line(&mut first).unwrap();
    server.kill();

    assert_eq!(watch.wait().unwrap().code(), Some(3));
    let mut said = String::new();
    watch.stderr.unwrap().read_to_string(&mut said).unwrap();
    assert!(said.contains("reconnecting"), "{said}");
}

#[test]
fn the_demo_shows_four_jobs_of_which_one_fails_twice() {
    let demo = run(&["demo", "--exit", "--listen", "127.0.0.1:0"]);

    let shown = text(&demo.stdout);
    let count = |what: &str| shown.lines().filter(|line| line.contains(what)).count();
    assert_eq!(demo.status.code(), Some(0), "{}", text(&demo.stderr));
    assert_eq!((count("SUCCEEDED"), count("RETRYING")), (4, 2), "{shown}");
    assert_eq!(count("unlucky    SUCCEEDED   attempt 3"), 1, "{shown}");
}

#[test]
fn a_second_server_on_the_same_folder_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (_server, _) = serve(&folder);

    let second = longhaul()
        .args(["serve", "--listen", "127.0.0.1:0", "--data-dir"])
        .arg(folder.path())
        .output()
        .unwrap();

    assert_eq!(second.status.code(), Some(1));
    assert!(text(&second.stderr).contains("another server"), "{}", text(&second.stderr));
}

#[test]
fn an_address_that_others_can_reach_needs_a_word() {
    let folder = tempfile::tempdir().unwrap();

    let refused = longhaul()
        .args(["serve", "--listen", "0.0.0.0:0", "--data-dir"])
        .arg(folder.path())
        .output()
        .unwrap();

    assert_eq!(refused.status.code(), Some(2), "{}", text(&refused.stderr));
    assert!(text(&refused.stderr).contains("--insecure"), "{}", text(&refused.stderr));
}

#[test]
fn a_server_that_is_told_to_stop_stops_well() {
    for signal in ["TERM", "INT"] {
        let folder = tempfile::tempdir().unwrap();
        let (mut server, _) = serve(&folder);

        server.signal(signal);

        assert_eq!(server.wait().code(), Some(0), "SIG{signal}");
    }
}

#[test]
fn a_setting_has_three_spellings_and_the_first_that_is_given_wins() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("longhaul.toml");
    let data = folder.path().join("data");
    std::fs::write(&file, format!("listen = \"127.0.0.3:0\"\ndata_dir = {data:?}\nslots = 1\n")).unwrap();
    let serve = || {
        let mut command = longhaul();
        command.args(["serve", "--log", "off", "--config"]).arg(&file);
        command
    };
    let host = |process: &Process| process.address.split(':').next().unwrap().to_owned();

    assert_eq!(host(&Process::spawn(&mut serve())), "127.0.0.3");
    assert_eq!(host(&Process::spawn(serve().env("LONGHAUL_LISTEN", "127.0.0.2:0"))), "127.0.0.2");
    let both =
        Process::spawn(serve().env("LONGHAUL_LISTEN", "127.0.0.2:0").args(["--listen", "127.0.0.1:0"]));
    assert_eq!(host(&both), "127.0.0.1");
    assert!(data.join("store").exists());
}

#[test]
fn logs_tell_what_happens_and_never_what_a_job_is_about() {
    for format in ["text", "json"] {
        let folder = tempfile::tempdir().unwrap();
        let arguments =
            ["serve", "--listen", "127.0.0.1:0", "--log", "trace", "--log-format", format, "--data-dir"];
        let mut server = Process::spawn(longhaul().args(arguments).arg(folder.path()).stderr(Stdio::piped()));
        let at = format!("--server={}", server.address);
        // Whoever writes logs must not wait for who reads them.
        let said = std::thread::scope(|scope| {
            let id = server.id().to_string();
            let said = scope.spawn(|| server.said());
            for chaos in [r#"{"error":1}"#, r#"{"panic":1}"#, "{}"] {
                let input = format!(r#"{{"prompt":"a-secret of mine","seconds":0,"chaos":{chaos}}}"#);
                run(&["start", "simulate", &at, "--watch", "--attempts", "1", "--input", &input]);
            }
            run(&["start", "simulate", &at, "--watch", "--input", r#"{"a-secret":1}"#]);
            assert!(std::process::Command::new("kill").args(["-s", "TERM", &id]).status().unwrap().success());
            said.join().unwrap()
        });

        assert!(said.contains("serving") && said.contains("stopped"), "{said}");
        assert!(
            !said.contains("a-secret"),
            "{}",
            said.lines().find(|line| line.contains("a-secret")).unwrap()
        );
        if format == "json" {
            for line in said.lines() {
                assert!(serde_json::from_str::<Value>(line).is_ok(), "{line}");
            }
        }
    }
}

#[test]
fn a_server_that_runs_out_of_files_rests_and_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let serve = "ulimit -n 64; exec \"$0\" serve --listen 127.0.0.1:0 --log warn --data-dir \"$1\"";
    let mut shell = std::process::Command::new("sh");
    shell.args(["-c", serve, env!("CARGO_BIN_EXE_longhaul")]).arg(folder.path()).stderr(Stdio::piped());
    let mut server = Process::spawn(&mut shell);
    let at = format!("--server={}", server.address);
    let ticket = run(&["start", "nobody-serves-this", &at]);

    let many: Vec<_> = (0..100).map(|_| std::net::TcpStream::connect(&server.address).unwrap()).collect();
    // Those that were accepted are closed by whoever opened them; the next call finds a file.
    drop(many);
    let status = run(&["status", &at, text(&ticket.stdout).trim()]);
    server.signal("TERM");

    assert_eq!(status.status.code(), Some(0), "{}", text(&status.stderr));
    let said = server.said();
    assert!(said.contains("fewer files may be open than connections_max needs"), "{said}");
    assert_eq!(said.matches("cannot accept connections").count(), 1, "once, not for each try: {said}");
    assert_eq!(server.wait().code(), Some(0));
}
