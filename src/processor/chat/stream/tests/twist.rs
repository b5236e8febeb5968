//! What may become of a stream on its way, or in the hands of whoever sends it.

use crate::processor::chat::stream::EVENT_BYTES_MAX;
use crate::processor::chat::tests::SECRET;
use rand::RngExt as _;
use rand::rngs::StdRng;
use rand::seq::{IndexedMutRandom as _, IndexedRandom as _};
use serde_json::{Value, json};
use std::ops::Range;

/// What means something somewhere.
const MARKS: &[&str] = &[
    "\n",
    "\r",
    "\r\n",
    "\n\n",
    ":",
    " ",
    "data",
    "data:",
    "data: ",
    "error: ",
    "id: 1\n",
    ": alive\n\n",
    "\u{feff}",
    "\0",
    "[DONE]",
    "{",
    "}",
    "\"",
    "\\",
    "\\ud83d",
    "null",
    "1e999",
    SECRET,
];
/// Parts of characters.
const SHARDS: &[&[u8]] = &[b"\xff", b"\xf0\x9f", b"\xef\xbb", b"\xbf", b"\xc0\x80"];
const NAMES: &[&str] = &[
    "error",
    "usage",
    "choices",
    "delta",
    "message",
    "content",
    "reasoning",
    "reasoning_content",
    "refusal",
    "finish_reason",
    "model",
    "prompt_progress",
    "total",
    "processed",
    "prompt_tokens",
    "completion_tokens",
    "prompt_tokens_details",
    "cached_tokens",
    "code",
    "type",
    "status",
];

/// One of the streams, with a few things done to it.
pub fn twisted(chance: &mut StdRng, streams: &[Vec<u8>]) -> Vec<u8> {
    let one_of = |chance: &mut StdRng| streams.choose(chance).expect("there are streams").clone();
    let mut bytes = one_of(chance);
    for _ in 0..chance.random_range(0..6) {
        let range = range(chance, bytes.len());
        match chance.random_range(0..12) {
            0 => bytes.iter_mut().skip(range.start).take(1).for_each(|byte| *byte ^= 1 << (range.end % 8)),
            1 => bytes.iter_mut().skip(range.start).take(1).for_each(|byte| *byte = range.end as u8),
            2 => insert(&mut bytes, range.start, SHARDS.choose(chance).expect("there are shards")),
            3..5 => {
                insert(&mut bytes, range.start, MARKS.choose(chance).expect("there are marks").as_bytes())
            }
            5 => drop(bytes.drain(range)),
            6 => {
                let more = bytes[range.clone()].repeat(chance.random_range(1..4));
                insert(&mut bytes, range.start, &more);
            }
            7 => {
                let other = one_of(chance);
                let part = self::range(chance, other.len());
                bytes.splice(range, other[part].iter().copied());
            }
            8 => bytes.truncate(range.start),
            9 => bytes = lines(&bytes, chance),
            _ => bytes = values(&bytes, chance),
        }
    }
    // Rare, since it takes as long as a thousand others.
    if chance.random_ratio(1, 1_000) {
        let length = EVENT_BYTES_MAX - chance.random_range(0..10);
        let at = range(chance, bytes.len()).start;
        let mark = MARKS.choose(chance).expect("there are marks");
        let long: Vec<u8> = mark.bytes().cycle().take(length).collect();
        insert(&mut bytes, at, &long);
    }
    bytes
}

/// Such a length or a part of it cut into pieces, some of them void.
pub fn split<'a>(bytes: &'a [u8], chance: &mut StdRng) -> Vec<&'a [u8]> {
    let count = chance.random_range(1..20);
    let mut ends: Vec<usize> = (0..count).map(|_| chance.random_range(0..=bytes.len())).collect();
    ends.sort_unstable();
    ends.push(bytes.len());
    let begins = std::iter::once(0).chain(ends.clone());
    begins.zip(ends).map(|(begin, end)| &bytes[begin..end]).collect()
}

/// Mostly a short one.
fn range(chance: &mut StdRng, length: usize) -> Range<usize> {
    let start = chance.random_range(0..=length);
    let most = if chance.random_bool(0.8) { 16 } else { length };
    start..(start + chance.random_range(0..=most)).min(length)
}

fn insert(bytes: &mut Vec<u8>, at: usize, more: &[u8]) {
    bytes.splice(at..at, more.iter().copied());
}

/// With a line twice, without it, in another's place, with something before it, or with other ends.
fn lines(bytes: &[u8], chance: &mut StdRng) -> Vec<u8> {
    let mut lines: Vec<&[u8]> = bytes.split(|byte| *byte == b'\n').collect();
    let (one, other) = (chance.random_range(0..lines.len()), chance.random_range(0..lines.len()));
    let marked = [MARKS.choose(chance).expect("there are marks").as_bytes(), lines[one]].concat();
    match chance.random_range(0..6) {
        0 => lines.insert(other, lines[one]),
        1 => drop(lines.remove(one)),
        2 => lines.swap(one, other),
        3 => lines[one] = &marked,
        4 => return lines.join(&b"\r\n"[..]),
        _ => return lines.join(&b"\r"[..]),
    }
    lines.join(&b"\n"[..])
}

/// With something else in one of its objects.
fn values(bytes: &[u8], chance: &mut StdRng) -> Vec<u8> {
    let mut lines: Vec<Vec<u8>> = bytes.split(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect();
    let line = lines.choose_mut(chance).expect("there is one at least");
    let data = line.strip_prefix(b"data:").unwrap_or(line);
    if let Ok(mut value) = serde_json::from_slice::<Value>(data) {
        alter(&mut value, chance);
        *line = format!("data: {value}").into_bytes();
    }
    lines.join(&b'\n')
}

fn alter(value: &mut Value, chance: &mut StdRng) {
    let goes_on = chance.random_bool(0.8);
    match value {
        Value::Object(fields) if goes_on => {
            let count = fields.len().max(1);
            match fields.values_mut().nth(chance.random_range(0..count)) {
                Some(field) if chance.random_bool(0.8) => alter(field, chance),
                _ => {
                    let name = NAMES.choose(chance).expect("there are names");
                    fields.insert((*name).to_owned(), odd(chance));
                }
            }
        }
        Value::Array(values) if goes_on && !values.is_empty() => {
            let count = values.len();
            alter(&mut values[chance.random_range(0..count)], chance);
        }
        _ => *value = odd(chance),
    }
}

/// Something that is not expected everywhere.
fn odd(chance: &mut StdRng) -> Value {
    let name = *NAMES.choose(chance).expect("there are names");
    match chance.random_range(0..16) {
        0 => Value::Null,
        1 => json!(true),
        2 => json!(0),
        3 => json!(-1),
        4 => json!(u64::MAX),
        5 => json!(1e300),
        6 => json!(chance.random_range(390..610)),
        7 => json!(chance.random_range(390..610).to_string()),
        8 => json!(""),
        9 => json!(["stop", "length", "error", "content_filter"].choose(chance)),
        10 => json!(["insufficient_quota", "rate_limit_error", "overloaded_error"].choose(chance)),
        11 => json!(format!("so {SECRET} it is")),
        12 => json!([]),
        13 => json!([odd(chance)]),
        14 => json!({}),
        _ => json!({name: odd(chance)}),
    }
}
