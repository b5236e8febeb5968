//! What comes of what is sent: which commits, in which order, and what counts as durable meanwhile.

use super::*;
use crate::job::{DEFAULT_TENANT, Job, JobId, LogLevel, Terms, Timestamp, Wish};

/// Takes a checkpoint, which the next attempt is given.
fn record(sent: &mut Sent, output_bytes: u64) {
    let checkpoint = SentCheckpoint { number: None, output_bytes, data: "c".into() };
    let admitted = sent.admit(checkpoint, sent.next("").0).unwrap().unwrap();
    sent.push_checkpoint(admitted);
}

fn names(pieces: &[Piece]) -> String {
    let piece = |piece: &Piece| match piece {
        Piece::Data { offset, data, .. } => format!("{offset}:{}", data.len()),
        Piece::Reset { kept, .. } => format!("reset {kept}"),
        Piece::Checkpoint(checkpoint, _) => format!("checkpoint {}", checkpoint.number),
        Piece::Lines { offset, lines } => format!("lines {offset}:{}", lines.len()),
    };
    pieces.iter().map(piece).collect::<Vec<_>>().join(", ")
}

/// The pieces of so many commits.
fn commits(sent: &mut Sent, count: usize) -> Vec<String> {
    (0..count).map(|_| names(&sent.pieces())).collect()
}

/// All of a commit is durable.
fn settle(sent: &mut Sent, pieces: &[Piece]) {
    let wish = Wish { kind: "k".into(), input: "{}".into(), ..Wish::default() };
    let spec = wish.into_spec(DEFAULT_TENANT, &Terms::default()).expect("the wish is sound");
    let job = Job::new(JobId::new(Timestamp::default(), 0, 1), &spec, Timestamp::default());
    let answer = job.state;
    let step = Transition { job, events: Vec::new(), result: None, live: None, checkpoint: None, answer };
    sent.settle(pieces, &vec![step; pieces.len()]);
}

#[test]
fn what_the_transition_would_refuse_is_refused_here_and_costs_nothing() {
    let mut sent = Sent::new(&Begun { history: OUTPUT_HISTORY_BYTES_MAX - 10, ..Default::default() });
    let refused = |limit| Err(Error::Refused(Refusal::OutputLimit { limit }));

    assert_eq!(sent.room("", None, 11), refused(OUTPUT_HISTORY_BYTES_MAX));
    let index = sent.room("", None, 10).unwrap();
    sent.push(index, b"0123456789");

    assert_eq!(sent.room("", None, 1), refused(OUTPUT_HISTORY_BYTES_MAX));
    assert_eq!(sent.room("", Some(0), 0), Ok(index));
}

#[test]
fn of_what_a_reset_voids_nothing_counts_as_durable_any_more() {
    let begun = Begun { channels: vec![(String::new(), 1_000)], ..Default::default() };
    let mut sent = Sent::new(&begun);

    sent.reset(0, 100);

    assert_eq!(sent.next("").0, 100);
    assert_eq!(sent.durable(""), (Durable { bytes: 100, ..Default::default() }, false));
}

#[test]
fn a_checkpoint_takes_along_all_that_came_before_it_and_half_a_character_waits_for_none() {
    for (is_recorded, committed) in [(true, "0:4, checkpoint 1"), (false, "0:3")] {
        let mut sent = Sent::new(&Begun::default());
        let index = sent.room("", None, 4).unwrap();
        sent.push(index, &"abc€".as_bytes()[..4]);
        if is_recorded {
            record(&mut sent, 4);
        }

        assert_eq!(commits(&mut sent, 1), [committed]);
    }
}

#[test]
fn nothing_passes_a_checkpoint() {
    let mut sent = Sent::new(&Begun::default());
    let index = sent.room("", None, 4).unwrap();
    sent.push(index, b"ab");
    sent.reset(index, 1);
    sent.push(index, b"c");
    record(&mut sent, 2);
    sent.push(index, b"d");

    assert_eq!(commits(&mut sent, 4), ["0:2", "reset 1, 1:1", "checkpoint 1, 2:1", ""]);
}

#[test]
fn of_checkpoints_that_wait_for_one_commit_the_last_is_recorded_and_counts_for_all() {
    let mut sent = Sent::new(&Begun::default());
    let (main, notes) = (sent.room("", None, 4).unwrap(), sent.room("notes", None, 1).unwrap());
    sent.push(main, b"ab");
    record(&mut sent, 1);
    let first = sent.hurry();
    sent.push(notes, b"n");
    sent.push(main, b"c");
    sent.push_lines(vec![LogLine { level: LogLevel::Info, message: "line".into() }]);
    record(&mut sent, 2);
    sent.push(main, b"d");
    record(&mut sent, 4);

    let pieces = sent.pieces();

    // What is behind a line stays there, and all else is joined as if there had been no checkpoint between.
    assert_eq!(names(&pieces), "0:3, 0:1, lines 0:1, 3:1, checkpoint 3");
    assert_eq!(sent.durable("").0.checkpoints, 0);
    assert!(!sent.is_settled(first));
    settle(&mut sent, &pieces);
    assert_eq!(
        (sent.durable(""), sent.pending()),
        ((Durable { bytes: 4, lines: 1, checkpoints: 3 }, true), 0)
    );
}

#[test]
fn checkpoints_on_both_sides_of_a_reset_are_both_recorded_and_a_third_has_to_wait() {
    let mut sent = Sent::new(&Begun::default());
    let index = sent.room("", None, 2).unwrap();
    sent.push(index, b"ab");
    record(&mut sent, 2);
    assert!(sent.has_room_for_a_checkpoint());
    sent.reset(index, 1);
    assert!(!sent.has_room_for_a_checkpoint());
    record(&mut sent, 1);
    assert!(!sent.has_room_for_a_checkpoint());

    assert_eq!(commits(&mut sent, 1), ["0:2, checkpoint 1"]);

    assert!(sent.has_room_for_a_checkpoint());
    record(&mut sent, 1);
    assert_eq!(commits(&mut sent, 3), ["reset 1", "checkpoint 3", ""]);
}

#[test]
fn a_reset_begins_a_commit_of_its_own() {
    let mut sent = Sent::new(&Begun::default());
    let index = sent.room("", None, 6).unwrap();
    sent.push(index, b"abc");
    sent.reset(index, 1);
    sent.push(index, b"de");
    sent.reset(index, 2);

    assert_eq!(commits(&mut sent, 4), ["0:3", "reset 1, 1:2", "reset 2", ""]);
}
