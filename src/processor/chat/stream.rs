//! Server-sent events as providers really send them: bytes in, the data of events out.
//!
//! Pure, and bounded in every dimension. Names, ids and retry times of events are skipped, since nothing here depends on them.

/// Bytes of one line, and of one event's data: no token is as long, and an answer that is sent whole fits.
pub const EVENT_BYTES_MAX: usize = 4 << 20;

const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();

/// An event is longer than anything that makes sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an event is more than {EVENT_BYTES_MAX} bytes")]
pub struct TooLong;

/// Takes a stream of events apart.
#[derive(Debug, Default)]
pub struct Reader {
    /// What has come of a line.
    line: Vec<u8>,
    /// What has come of an event.
    data: Option<Vec<u8>>,
    /// The last line ended with a carriage return, and a line feed right behind it belongs to that.
    returned: bool,
    /// A line has been read, so that no byte order mark may come any more.
    begun: bool,
}

impl Reader {
    /// Reads on, and adds the data of each event that is whole to `events`.
    pub fn read(&mut self, mut bytes: &[u8], events: &mut Vec<Vec<u8>>) -> Result<(), TooLong> {
        while let Some(first) = bytes.first() {
            if std::mem::take(&mut self.returned) && *first == b'\n' {
                bytes = &bytes[1..];
                continue;
            }
            let end = bytes.iter().position(|byte| matches!(byte, b'\n' | b'\r'));
            let part = &bytes[..end.unwrap_or(bytes.len())];
            if self.line.len() + part.len() > EVENT_BYTES_MAX {
                return Err(TooLong);
            }
            self.line.extend_from_slice(part);
            let Some(end) = end else { return Ok(()) };
            self.returned = bytes[end] == b'\r';
            bytes = &bytes[end + 1..];
            events.extend(self.end_line()?);
        }
        Ok(())
    }

    /// The data of an event that was never ended, where the stream is over: some servers leave its last newlines out.
    pub fn finish(mut self) -> Result<Option<Vec<u8>>, TooLong> {
        let whole = self.end_line()?;
        Ok(whole.or(self.data).filter(|data| !data.is_empty()))
    }

    /// Takes the line into account; returns the data of the event that it ends.
    fn end_line(&mut self) -> Result<Option<Vec<u8>>, TooLong> {
        let line = std::mem::take(&mut self.line);
        let begins = !std::mem::replace(&mut self.begun, true);
        let line = match line.strip_prefix(BYTE_ORDER_MARK) {
            Some(rest) if begins => rest,
            _ => &line,
        };
        if line.is_empty() {
            return Ok(self.data.take());
        }
        let colon = line.iter().position(|byte| *byte == b':');
        let (name, value) = match colon {
            Some(colon) => (&line[..colon], &line[colon + 1..]),
            None => (line, &[][..]),
        };
        let value = value.strip_prefix(b" ").unwrap_or(value);
        // Some servers tell an error in a field of that name, which no standard knows.
        if matches!(name, b"data" | b"error") {
            let length = self.data.as_ref().map_or(0, Vec::len);
            if length + value.len() >= EVENT_BYTES_MAX {
                return Err(TooLong);
            }
            match &mut self.data {
                Some(data) => {
                    data.push(b'\n');
                    data.extend_from_slice(value);
                }
                None => self.data = Some(value.to_vec()),
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
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
    #[case("data: [DONE]", &["[DONE]"])]
    #[case("data: a\n", &["a"])]
    #[case("event: x\nid: 1\nretry: 5\nunknown\ndata: a\n\n", &["a"])]
    #[case("error: {}\n\n", &["{}"])]
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

    proptest! {
        #[test]
        fn any_bytes_mean_the_same_in_one_piece_and_in_many(
            bytes in prop::collection::vec(prop_oneof![
                Just(b'\n'), Just(b'\r'), Just(b':'), Just(b' '), Just(b'd'), Just(b'a'), Just(b't'), any::<u8>()
            ], 0..200),
            size in 1usize..9,
        ) {
            let pieces: Vec<&[u8]> = bytes.chunks(size).collect();

            prop_assert_eq!(read(&[&bytes]), read(&pieces));
        }
    }
}
