//! Output: where a piece belongs, what a new attempt voids, and how much there may be.

use crate::job::transition::tests::life::*;
use crate::job::*;
use bytes::Bytes;
use std::time::Duration;

const MIB: u64 = 1 << 20;

fn output(channel: &str, offset: u64, data: impl Into<Bytes>) -> Body {
    Body::OutputAppended { channel: channel.into(), offset, data: data.into() }
}

fn reset(channel: &str, kept_bytes: u64) -> Body {
    Body::OutputReset { channel: channel.into(), kept_bytes }
}

/// What happened after the first `events`.
fn since(life: &Life, events: usize) -> Vec<Body> {
    life.events[events..].iter().map(|event| event.body.clone()).collect()
}

/// What a reader has of the channel that follows the history.
fn read(life: &Life, wanted: &str) -> Vec<u8> {
    let mut text = Vec::new();
    for event in &life.events {
        match &event.body {
            Body::OutputAppended { channel, offset, data } if channel == wanted => {
                assert_eq!(*offset, text.len() as u64, "a piece goes on where the text ends");
                text.extend_from_slice(data);
            }
            Body::OutputReset { channel, kept_bytes } if channel == wanted => {
                text.truncate(*kept_bytes as usize);
            }
            _ => {}
        }
    }
    text
}

#[test]
fn a_repeated_piece_is_skipped_and_one_that_overlaps_is_cut() {
    let mut life = Life::running(options());

    life.outputs("", None, 0, "hello").unwrap();
    life.outputs("", None, 0, "hello").unwrap();
    life.outputs("", None, 2, "ll").unwrap();
    life.outputs("", None, 3, "lo, world").unwrap();

    assert_eq!(since(&life, 2), [output("", 0, "hello"), output("", 5, ", world")]);
}

#[test]
fn a_gap_is_refused_and_the_worker_told_where_to_go_on() {
    let mut life = Life::running(options());
    life.outputs("", None, 0, "hello").unwrap();

    assert_eq!(life.outputs("", None, 6, "x"), Err(Refusal::OutputGap { expected: 5 }));
    assert_eq!(life.outputs("other", None, 1, "x"), Err(Refusal::OutputGap { expected: 0 }));
    assert_eq!(life.outputs("", Some(6), 6, "x"), Err(Refusal::OutputGap { expected: 5 }));
    assert_eq!(life.events.len(), 3);
}

#[test]
fn a_channel_has_offsets_of_its_own() {
    let mut life = Life::running(options());

    life.outputs("", None, 0, "answer").unwrap();
    life.outputs("reasoning", None, 0, "hm").unwrap();
    life.outputs("", None, 6, "!").unwrap();

    assert_eq!(since(&life, 2), [output("", 0, "answer"), output("reasoning", 0, "hm"), output("", 6, "!")]);
}

#[test]
fn an_attempt_may_take_output_back() {
    let mut life = Life::running(options());
    life.outputs("", None, 0, "hello").unwrap();

    life.outputs("", Some(2), 2, "y").unwrap();

    assert_eq!(since(&life, 3), [reset("", 2), output("", 2, "y")]);
    assert_eq!(read(&life, ""), b"hey");
}

#[test]
fn a_reset_to_the_end_voids_nothing_and_is_not_recorded() {
    let mut life = Life::running(options());
    life.outputs("", None, 0, "hello").unwrap();

    life.outputs("", Some(5), 5, "").unwrap();

    assert_eq!(life.events.len(), 3);
}

#[test]
fn a_new_attempt_voids_what_the_earlier_one_left_in_the_step_that_begins_it() {
    let mut life = Life::running(options());
    life.outputs("", None, 0, "hello").unwrap();
    life.outputs("reasoning", None, 0, "hm").unwrap();
    life.outputs("empty", None, 0, "").unwrap();
    life.ends(LeaseEnd::Expired).unwrap();
    let before = life.events.len();

    life.begin();

    assert!(matches!(&since(&life, before)[0], Body::StateChanged(change) if change.state == State::Running));
    assert_eq!(since(&life, before + 1), [reset("", 0), reset("reasoning", 0)]);
    assert!(life.events[before..].iter().all(|event| event.attempt == 2));
    life.outputs("", None, 0, "bye").unwrap();
    assert_eq!(read(&life, ""), b"bye");
    assert_eq!(read(&life, "reasoning"), b"");
}

#[test]
fn an_attempt_without_output_voids_nothing() {
    let mut life = Life::running(options());
    life.ends(LeaseEnd::Expired).unwrap();
    life.begin();

    assert!(life.events.iter().all(|event| matches!(event.body, Body::StateChanged(_))));
}

#[test]
fn an_earlier_attempt_can_add_nothing() {
    let mut life = Life::running(options());
    let earlier = life.token();
    life.ends(LeaseEnd::Expired).unwrap();
    life.begin();
    let data = Bytes::from_static(b"late");

    let command =
        Command::AppendOutput { lease: earlier, channel: "".into(), reset_to: None, offset: 0, data };

    assert_eq!(life.does(command), Err(Refusal::LeaseLost));
}

#[test]
fn a_large_piece_becomes_events_of_64_kib_that_split_no_character() {
    let mut life = Life::running(options());
    let text = "a€🦀".repeat(20_000);

    life.outputs("", None, 0, text.clone()).unwrap();

    assert_eq!(read(&life, ""), text.as_bytes());
    for body in since(&life, 2) {
        let Body::OutputAppended { data, .. } = body else { panic!("{body:?} is no output") };
        assert!(data.len() <= 64 << 10);
        assert!(std::str::from_utf8(&data).is_ok());
    }
}

#[test]
fn bytes_that_are_no_text_are_split_anywhere() {
    let mut life = Life::running(options());

    life.outputs("", None, 0, vec![0x80; 200_000]).unwrap();

    assert_eq!(read(&life, ""), vec![0x80; 200_000]);
    assert_eq!(since(&life, 2).len(), 4);
}

#[test]
fn valid_output_ends_at_64_mib_over_all_channels() {
    let mut life = Life::running(options());
    let half = Bytes::from(vec![b'x'; 32 << 20]);
    life.outputs("", None, 0, half.clone()).unwrap();
    life.outputs("other", None, 0, half).unwrap();

    assert_eq!(life.outputs("", None, 32 * MIB, "x"), Err(Refusal::OutputLimit { limit: 64 * MIB }));
    assert_eq!(life.outputs("", Some(0), 0, "x"), Ok(State::Running));
}

#[test]
fn voided_output_counts_until_256_mib() {
    let mut life = Life::running(options());
    let all = Bytes::from(vec![b'x'; 64 << 20]);
    for _ in 0..4 {
        life.outputs("", Some(0), 0, all.clone()).unwrap();
    }

    assert_eq!(life.outputs("", Some(0), 0, "x"), Err(Refusal::OutputLimit { limit: 256 * MIB }));
}

#[test]
fn a_ninth_channel_is_refused() {
    let mut life = Life::running(options());
    for channel in 1..=8 {
        life.outputs(&channel.to_string(), None, 0, "x").unwrap();
    }

    assert_eq!(life.outputs("9", None, 0, "x"), Err(Refusal::ChannelLimit));
    assert_eq!(life.outputs("8", None, 1, "x"), Ok(State::Running));
}

#[test]
fn a_completion_waits_for_all_the_output_that_was_announced() {
    let mut life = Life::running(options());
    life.outputs("", None, 0, "hello").unwrap();
    life.outputs("reasoning", None, 0, "hm").unwrap();

    assert_eq!(life.completes_with(Some(8)), Err(Refusal::OutputMissing { present: 7, announced: 8 }));
    assert_eq!(life.completes_with(Some(7)), Ok(State::Succeeded));
}

#[test]
fn a_job_given_back_starts_its_output_over() {
    let mut life = Life::running(options());
    life.outputs("", None, 0, "hello").unwrap();
    life.releases(Duration::ZERO).unwrap();
    life.begin();

    assert_eq!(read(&life, ""), b"");
    assert_eq!(life.outputs("", None, 5, "x"), Err(Refusal::OutputGap { expected: 0 }));
}
