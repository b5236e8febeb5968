//! Server-sent events as providers really send them: bytes in, the data of events out.
//!
//! Pure, and bounded in every dimension. Names, ids and retry times of events are skipped, since nothing here depends on them,
//! and so are events that say nothing: some servers show by them that they are there.

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
        Ok(whole.or(self.data).filter(|data| says_something(data)))
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
            return Ok(self.data.take().filter(|data| says_something(data)));
        }
        let colon = line.iter().position(|byte| *byte == b':');
        let (name, value) = match colon {
            Some(colon) => (&line[..colon], &line[colon + 1..]),
            None => (line, &[][..]),
        };
        let value = value.strip_prefix(b" ").unwrap_or(value);
        match name {
            b"data" => self.add(value)?,
            // Some servers tell an error in a field of that name, which no standard knows, and not in an object of its own.
            b"error" => self.add(&[b"{\"error\":", value, b"}"].concat())?,
            _ => {}
        }
        Ok(None)
    }

    /// Adds a line to the data of the event.
    fn add(&mut self, value: &[u8]) -> Result<(), TooLong> {
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
        Ok(())
    }
}

fn says_something(data: &[u8]) -> bool {
    !data.trim_ascii().is_empty()
}

#[cfg(test)]
mod tests;
