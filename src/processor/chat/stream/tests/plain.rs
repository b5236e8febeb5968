//! What a stream says to somebody who has all of it at once: the plainest reader there can be, and one that is not ours.

use crate::processor::chat::stream::{EVENT_BYTES_MAX, TooLong};
use bytes::Bytes;
use futures_util::{FutureExt as _, StreamExt as _, stream};
use sse_stream::SseByteStream;
use std::convert::Infallible;

/// The events of a stream, and how it ended.
#[derive(Debug, PartialEq)]
pub struct Told {
    pub events: Vec<Bytes>,
    pub end: Result<(), TooLong>,
}

/// Reads a whole stream.
pub fn read(bytes: &[u8]) -> Told {
    let lines: Vec<&[u8]> = lines(bytes).collect();
    let mut events = Vec::new();
    for block in lines.split(|line| line.is_empty()) {
        match data(block) {
            Ok(data) if data.trim_ascii().is_empty() => {}
            Ok(data) => events.push(data.into()),
            Err(end) => return Told { events, end: Err(end) },
        }
    }
    Told { events, end: Ok(()) }
}

/// The lines, without what ends them and without a mark before the first.
fn lines(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    let marked = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let mut returned = false;
    marked.split_inclusive(|byte| matches!(byte, b'\r' | b'\n')).filter_map(move |line| {
        let is_rest = std::mem::replace(&mut returned, line.ends_with(b"\r")) && line == b"\n";
        let text = line.strip_suffix(b"\n").or(line.strip_suffix(b"\r")).unwrap_or(line);
        (!is_rest).then_some(text)
    })
}

/// The data of an event that these lines are.
fn data(lines: &[&[u8]]) -> Result<Vec<u8>, TooLong> {
    let mut parts: Vec<Vec<u8>> = Vec::new();
    for line in lines {
        let (name, value) = field(line);
        let part = match name {
            b"data" => value.to_vec(),
            b"error" => [b"{\"error\":", value, b"}"].concat(),
            _ => Vec::new(),
        };
        let length = (parts.iter().map(|part| part.len() + 1).sum::<usize>()).saturating_sub(1);
        if line.len() > EVENT_BYTES_MAX || length + part.len() >= EVENT_BYTES_MAX {
            return Err(TooLong);
        }
        if matches!(name, b"data" | b"error") {
            parts.push(part);
        }
    }
    Ok(parts.join(&b'\n'))
}

fn field(line: &[u8]) -> (&[u8], &[u8]) {
    let mut parts = line.splitn(2, |byte| *byte == b':');
    let (name, value) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    (name, value.strip_prefix(b" ").unwrap_or(value))
}

/// The same, as a reader has it that knows the standard alone. None, where ours goes beyond that.
pub fn by_the_standard(bytes: &[u8]) -> Option<Vec<Bytes>> {
    if std::str::from_utf8(bytes).is_err() || lines(bytes).any(|line| field(line).0 == b"error") {
        return None;
    }
    // It leaves out an event that was never ended.
    let ended = Bytes::from([bytes, b"\n\n"].concat());
    let read: Vec<_> = SseByteStream::new(stream::iter([Ok::<_, Infallible>(ended)]))
        .collect()
        .now_or_never()
        .expect("all of it is there");
    let data = read.into_iter().filter_map(|event| event.expect("it is text").data);
    Some(data.filter(|data| !data.as_bytes().trim_ascii().is_empty()).map(Bytes::from).collect())
}
