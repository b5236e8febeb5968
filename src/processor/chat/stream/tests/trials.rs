//! Recorded streams, split in every way and twisted by lot: whatever becomes of their bytes, the reader says what a plain one
//! does that has them all at once, and keeps no more than has come.
//!
//! A failure names the seed that repeats it. `LONGHAUL_SEED` plays another one, `LONGHAUL_MINUTES` goes on for so long.

use super::plain::{self, Told};
use super::twist::{split, twisted};
use crate::processor::chat::answer::Piece;
use crate::processor::chat::failure::{of_error, of_status};
use crate::processor::chat::stream::{EVENT_BYTES_MAX, Reader};
use crate::processor::chat::tests::{SECRET, provider};
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use reqwest::StatusCode;
use rstest::rstest;
use std::time::{Duration, Instant};

/// How many seeds are played unless somebody says otherwise.
const SEEDS: u64 = 1_000;
/// Within how many of them a fault must be found.
const FAULT_SEEDS: u64 = 500;

/// What is wrong with a reader: done to it before each chunk.
type Fault = fn(&mut Reader);

fn sound(_: &mut Reader) {}

/// The streams of tests/chat, with their names.
pub fn recorded() -> Vec<(String, Vec<u8>)> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/chat/streams");
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let files = files.filter(|path| path.extension().is_some_and(|extension| extension == "sse"));
    let name = |path: &std::path::Path| path.file_stem().unwrap().to_str().unwrap().to_owned();
    let mut streams: Vec<_> = files.map(|path| (name(&path), std::fs::read(&path).unwrap())).collect();
    streams.sort();
    assert!(streams.len() > 30, "{folder} has {} streams", streams.len());
    streams
}

/// The seeds to play: one that is asked for, those of so many minutes, or some that are always the same and others that never
/// are.
pub fn seeds(count: u64) -> Box<dyn Iterator<Item = u64>> {
    let asked = |name: &str| std::env::var(name).ok().map(|number| number.parse::<u64>().unwrap());
    let first = rand::random::<u32>().into();
    if let Some(seed) = asked("LONGHAUL_SEED") {
        return Box::new(std::iter::once(seed));
    }
    match asked("LONGHAUL_MINUTES") {
        Some(minutes) => {
            let (began, time) = (Instant::now(), Duration::from_secs(60 * minutes));
            Box::new((first..).take_while(move |_| began.elapsed() < time))
        }
        None => Box::new((0..count / 2).chain(first..first + count / 2)),
    }
}

/// What a reader says of a stream that comes in these chunks.
fn read(chunks: &[&[u8]], fault: Fault) -> Result<Told, String> {
    let (mut reader, mut events, mut come) = (Reader::default(), Vec::new(), 0);
    let told = |events: Vec<Vec<u8>>, end| Told { events: events.into_iter().map(Into::into).collect(), end };
    for chunk in chunks {
        fault(&mut reader);
        come += chunk.len();
        if let Err(end) = reader.read(chunk, &mut events) {
            return Ok(told(events, Err(end)));
        }
        // An error gets an object around it, and a buffer may be twice what is in it.
        let (line, data) = (&reader.line, reader.data.as_deref().unwrap_or_default());
        let room = line.capacity() + reader.data.as_ref().map_or(0, Vec::capacity);
        if line.len().max(data.len()) > EVENT_BYTES_MAX || room > 2 * (3 * come + 16) {
            return Err(format!("{room} bytes are held of {come}"));
        }
    }
    match reader.finish() {
        Ok(last) => {
            events.extend(last);
            Ok(told(events, Ok(())))
        }
        Err(end) => Ok(told(events, Err(end))),
    }
}

/// What is wrong about a reader of these bytes.
fn judge(bytes: &[u8], ways: &[Vec<&[u8]>], fault: Fault) -> Result<Told, String> {
    let expected = plain::read(bytes);
    for way in ways {
        let found = read(way, fault)?;
        if found != expected {
            let sizes: Vec<usize> = way.iter().map(|chunk| chunk.len()).collect();
            return Err(format!("in chunks of {sizes:?}: {found:?}; expected was {expected:?}"));
        }
    }
    match plain::by_the_standard(bytes) {
        Some(events) if expected.end.is_ok() && events != expected.events => {
            Err(format!("the standard says {events:?}, and the plain reader {:?}", expected.events))
        }
        _ => Ok(expected),
    }
}

/// What is wrong about a reader of what comes of a seed.
fn trial(seed: u64, streams: &[Vec<u8>], fault: Fault) -> Result<Told, String> {
    let mut chance = StdRng::seed_from_u64(seed);
    let bytes = twisted(&mut chance, streams);
    let single: Vec<&[u8]> =
        if bytes.len() < EVENT_BYTES_MAX / 2 { bytes.chunks(1).collect() } else { Vec::new() };
    let ways = [vec![&bytes[..]], single, split(&bytes, &mut chance), split(&bytes, &mut chance)];
    let ways: Vec<_> = ways.into_iter().filter(|way| !way.is_empty()).collect();
    judge(&bytes, &ways, fault)
        .map_err(|what| format!("LONGHAUL_SEED={seed}: {}: {what}", bytes.escape_ascii()))
}

/// Understands an event, as far as that needs nobody else.
fn understand(event: &[u8]) {
    let provider = provider("http://127.0.0.1:1");
    let troubles = match serde_json::from_slice::<Piece>(event) {
        Err(_) => return,
        Ok(piece) => {
            let texts = piece.choices.unwrap_or_default();
            for text in texts.into_iter().filter_map(|choice| choice.delta.or(choice.message)) {
                assert!(text.said().is_none_or(|said| !said.is_empty()));
                assert!(text.thought().is_none_or(|thought| !thought.is_empty()));
            }
            let _ = piece.usage.map(|usage| usage.tokens());
            piece.error.map(|error| of_error(&provider, &error))
        }
    };
    let status = StatusCode::from_u16(400 + event.len() as u16 % 200).unwrap();
    let answered = of_status(&provider, status, &Default::default(), event, Default::default());
    assert!(!format!("{troubles:?}{answered:?}").contains(SECRET), "{}", event.escape_ascii());
}

#[test]
fn a_recorded_stream_says_the_same_wherever_it_is_split() {
    for (name, bytes) in recorded() {
        let pairs = (0..=bytes.len()).map(|middle| vec![&bytes[..middle], &bytes[middle..]]);
        let mut ways: Vec<_> = pairs.collect();
        ways.push(bytes.chunks(1).collect());

        if let Err(what) = judge(&bytes, &ways, sound) {
            panic!("{name}: {what}");
        }
    }
}

#[test]
fn a_stream_says_the_same_however_it_is_twisted_and_split() {
    let streams: Vec<_> = recorded().into_iter().map(|(_, bytes)| bytes).collect();
    let began = Instant::now();

    let mut count = 0;
    for seed in seeds(SEEDS) {
        match trial(seed, &streams, sound) {
            Ok(told) => told.events.iter().for_each(|event| understand(event)),
            Err(what) => panic!("{what}"),
        }
        count += 1;
    }

    println!("{count} streams in {:?}", began.elapsed());
}

#[rstest]
#[case::a_line(|reader: &mut Reader| reader.line.clear())]
#[case::that_a_line_has_ended(|reader: &mut Reader| reader.returned = false)]
#[case::an_event(|reader: &mut Reader| reader.data = None)]
#[case::that_a_mark_may_come(|reader: &mut Reader| reader.begun = true)]
#[case::that_no_mark_may_come_any_more(|reader: &mut Reader| reader.begun = false)]
fn a_reader_that_forgets_something_between_two_chunks_is_found(#[case] forget: Fault) {
    let streams: Vec<_> = recorded().into_iter().map(|(_, bytes)| bytes).collect();

    let found = (0..FAULT_SEEDS).find(|seed| trial(*seed, &streams, forget).is_err());

    assert!(found.is_some(), "{FAULT_SEEDS} seeds have not found it");
}
