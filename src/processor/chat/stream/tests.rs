//! The reader, and the same whatever becomes of its bytes on their way.

mod answers;
mod plain;
mod trials;
mod twist;

use super::*;
use rstest::rstest;

fn read(chunks: &[&[u8]]) -> Vec<String> {
    let (mut reader, mut events) = (Reader::default(), Vec::new());
    for chunk in chunks {
        reader.read(chunk, &mut events).unwrap();
    }
    events.extend(reader.finish().unwrap());
    events.into_iter().map(|event| String::from_utf8_lossy(&event).into_owned()).collect()
}

#[rstest]
#[case("data: a\n\ndata: b\n\n", &["a", "b"])]
#[case("data: a\r\n\r\ndata: b\r\n\r\n", &["a", "b"])]
#[case("data: a\r\rdata: b\r\r", &["a", "b"])]
#[case(": comment\n\n:\n\ndata:a\n\n", &["a"])]
#[case("\u{feff}data: a\n\n", &["a"])]
#[case("data: {\ndata: }\n\n", &["{\n}"])]
#[case("data: {\r\ndata: }\r\n\r\n", &["{\n}"])]
#[case("data: [DONE]", &["[DONE]"])]
#[case("data: a\n", &["a"])]
#[case("event: x\nid: 1\nretry: 5\nunknown\ndata: a\n\n", &["a"])]
#[case("error: {}\n\n", &["{\"error\":{}}"])]
#[case("data:\n\ndata: \n\ndata\n\ndata: a\n\ndata:\t\n\ndata:", &["a"])]
#[case("data:  two\n\n", &[" two"])]
#[case("data: 日本語 🦀\n\n", &["日本語 🦀"])]
#[case("\n\n\n", &[])]
#[case("", &[])]
fn events_are_read_however_their_bytes_are_split(#[case] text: &str, #[case] expected: &[&str]) {
    let bytes = text.as_bytes();

    for end in 0..=bytes.len() {
        for middle in 0..=end {
            let chunks = [&bytes[..middle], &bytes[middle..end], &bytes[end..]];
            assert_eq!(read(&chunks), expected, "split at {middle} and {end}");
        }
    }
}

#[test]
fn a_line_without_an_end_and_an_event_without_an_end_are_refused() {
    let long = vec![b'x'; EVENT_BYTES_MAX + 1];
    let lines =
        "data: xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\n".repeat(1 << 16);

    for bytes in [long.as_slice(), lines.as_bytes()] {
        assert_eq!(Reader::default().read(bytes, &mut Vec::new()), Err(TooLong));
    }
}
