use super::*;
use crate::engine::Order;
use crate::worker::fake::{Fake, Said};
use crate::worker::{Pool, Registry};
use tokio::time::Instant;

/// What a run says, how it ends, and how long it takes.
struct Played {
    said: Vec<Said>,
    end: Said,
    time: Duration,
    /// The longest time without a word.
    silence: Duration,
}

impl Played {
    fn stages(&self) -> Vec<&str> {
        let mut stages = Vec::new();
        for said in &self.said {
            if let Said::Stage(name) = said {
                stages.push(name.as_str());
            }
        }
        stages
    }

    fn output(&self) -> String {
        let mut output = String::new();
        for said in &self.said {
            if let Said::Output(_, text) = said {
                output.push_str(text);
            }
        }
        output
    }
}

/// Plays an attempt on a clock that stands still while there is something to do.
async fn play(input: &str, attempt: u32) -> Played {
    let source = Fake::default();
    let _pool = Pool::start(source.clone(), Registry::default().with(KIND, Simulate), 1);
    let began = Instant::now();
    source.offer(KIND, input, attempt);
    let end = source.end().await;
    let times = source.times();
    let silence = times.iter().zip([began].iter().chain(&times)).map(|(time, before)| *time - *before).max();
    Played { said: source.said(), end, time: began.elapsed(), silence: silence.unwrap_or_default() }
}

fn failure(played: &Played) -> &Failure {
    match &played.end {
        Said::Failed(failure) => failure,
        other => panic!("it did not fail: {other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn without_chaos_it_always_succeeds_in_its_time() {
    for prompt in ["", "one", "one two  three\\n four", "ein Wörtchen 😀 mehr"] {
        for seconds in ["0", "0.5", "6", "60"] {
            for steps in [0, 1, 2, 3, 20, 1000] {
                let input = format!(r#"{{"prompt":"{prompt}","seconds":{seconds},"steps":{steps}}}"#);

                let played = play(&input, 1).await;

                let prompt: String = serde_json::from_str(&format!("\"{prompt}\"")).unwrap();
                let Said::Completed(result) = &played.end else { panic!("{input}: {:?}", played.end) };
                let result: serde_json::Value = serde_json::from_str(result).unwrap();
                let seconds: f64 = seconds.parse().unwrap();
                assert_eq!(result, json!({"text": format!("Processed: {prompt}"), "seconds": seconds}));
                assert_eq!(played.stages(), ["Starting", "Analyzing the prompt", "Done"], "{input}");
                assert_eq!(played.output(), prompt, "{input}");
                // Timers are only as fine as a millisecond.
                let late = played.time.as_secs_f64() - seconds;
                assert!((0.0..=0.002 * f64::from(steps + 2)).contains(&late), "{input}: {late} s late");
                assert!(played.silence < PROGRESS_TIMEOUT / 2, "{input}: silent for {:?}", played.silence);
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_prompt_is_analyzed_from_the_half_on() {
    let played = play(r#"{"prompt":"a b c d","seconds":10,"steps":10}"#, 1).await;

    let half = played.said.iter().position(|said| *said == Said::Stage("Analyzing the prompt".to_owned()));
    let fraction = |said: &Said| match said {
        Said::Progress(progress) => progress.fraction,
        _ => None,
    };
    let (before, after) = played.said.split_at(half.unwrap());
    assert!(before.iter().filter_map(fraction).all(|fraction| fraction < 0.5));
    assert!(after.iter().filter_map(fraction).all(|fraction| fraction >= 0.5));
}

#[tokio::test(start_paused = true)]
async fn it_need_not_write() {
    let played = play(r#"{"prompt":"a b c","seconds":1,"output":false}"#, 1).await;

    assert_eq!(played.output(), "");
}

#[tokio::test(start_paused = true)]
async fn the_seed_of_the_demo_fails_twice() {
    let input = format!(r#"{{"seconds":1,"chaos":{{"error":0.5}},"seed":{SEED_THAT_FAILS_TWICE}}}"#);

    for attempt in 1..=2 {
        let played = play(&input, attempt).await;
        let failure = failure(&played);
        assert_eq!((failure.reason.as_ref(), failure.permanent), (reason::HANDLER_ERROR, false));
    }
    assert!(matches!(play(&input, 3).await.end, Said::Completed(_)));
}

#[tokio::test(start_paused = true)]
async fn each_kind_of_chaos_does_what_it_is_called() {
    let error = play(r#"{"seconds":1,"chaos":{"error":1}}"#, 1).await;
    assert_eq!(failure(&error).message, "a simulated error");

    let panic = play(r#"{"seconds":1,"chaos":{"panic":1}}"#, 1).await;
    assert_eq!(failure(&panic).reason, reason::PANIC);

    let slow = play(r#"{"seconds":1,"chaos":{"slow_start":1}}"#, 1).await;
    assert!(matches!(slow.end, Said::Completed(_)));
    assert_eq!(slow.time.as_secs(), SLOW_START.as_secs() + 1);

    let hang =
        tokio::time::timeout(Duration::from_secs(3600), play(r#"{"seconds":1,"chaos":{"hang":1}}"#, 1)).await;
    assert!(hang.is_err(), "it hangs until it is ended");
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_run_stops_at_once() {
    let source = Fake::default();
    let _pool = Pool::start(source.clone(), Registry::default().with(KIND, Simulate), 1);
    let orders = source.offer(KIND, r#"{"seconds":1000}"#, 1);
    tokio::time::sleep(Duration::from_secs(3)).await;

    let began = Instant::now();
    orders.send(Order::Cancel { grace: Duration::from_secs(10) }).unwrap();

    assert_eq!(source.end().await, Said::Stopped);
    assert_eq!(began.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn what_is_wrong_with_the_input_is_named_and_not_tried_again() {
    for (named, input) in [
        ("seconds", r#"{"seconds":-1}"#),
        ("seconds", r#"{"seconds":86401}"#),
        ("steps", r#"{"steps":100001}"#),
        ("chaos.error", r#"{"chaos":{"error":1.5}}"#),
        ("chaos.panic", r#"{"chaos":{"panic":-0.1}}"#),
        ("chaos.hang", r#"{"chaos":{"hang":2}}"#),
        ("chaos.slow_start", r#"{"chaos":{"slow_start":2}}"#),
        ("promt", r#"{"promt":"a slip"}"#),
        ("string", r#"{"prompt":7}"#),
    ] {
        let played = play(input, 1).await;
        let failure = failure(&played);

        assert_eq!((failure.reason.as_ref(), failure.permanent), ("INVALID_INPUT", true), "{input}");
        assert!(failure.message.contains(named), "{input}: {}", failure.message);
    }
}

#[test]
fn a_seed_means_the_same_for_ever() {
    let chaos = Chaos { error: 0.5, panic: 0.5, hang: 0.5, slow_start: 0.5 };

    let fates: Vec<_> = (1..=4).map(|attempt| Fate::draw(chaos, 42, attempt)).collect();

    let struck: Vec<_> = fates
        .iter()
        .map(|fate| (fate.slow_start, fate.error.is_some(), fate.panic.is_some(), fate.hang.is_some()))
        .collect();
    assert_eq!(struck, PINNED);
}

/// Of seed 42: slow start, error, panic, hang, for each attempt.
const PINNED: [(bool, bool, bool, bool); 4] = [
    (true, true, false, false),
    (true, false, true, true),
    (true, false, true, true),
    (true, true, true, true),
];

#[test]
fn a_probability_is_how_often_it_strikes() {
    for probability in [0.0, 0.1, 0.5, 1.0] {
        let chaos = Chaos { error: probability, ..Default::default() };

        let struck = (0..10_000).filter(|seed| Fate::draw(chaos, *seed, 1).error.is_some()).count();

        let share = struck as f64 / 10_000.0;
        assert!((share - probability).abs() < 0.02, "{share} of {probability}");
    }
}

#[tokio::test(start_paused = true)]
async fn it_says_no_more_words_than_it_may() {
    for (max_tokens, said) in [(1, "one "), (2, "one two"), (7, "one two")] {
        let input =
            format!(r#"{{"prompt":"one two","seconds":1,"temperature":0.7,"max_tokens":{max_tokens}}}"#);

        let played = play(&input, 1).await;

        assert_eq!(played.output(), said);
        let Said::Completed(result) = &played.end else { panic!("{input}: {:?}", played.end) };
        assert!(result.contains(&format!("Processed: {said}\"")), "{result}");
    }
}
