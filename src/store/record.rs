//! The stored form of what is in a store: a version, the value in postcard's encoding, and a CRC.
//!
//! The CRC covers the place where a record lies as well, so that one which turns up elsewhere is found out. To change the
//! form of a value, give it the next version and keep a decoder of the one before.

use super::Error;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// The version of every record that is written now.
const VERSION: u8 = 4;
/// What each version since the first has added to some of them is one field at the end, whose empty form is this byte. What
/// is behind the end of a record is not looked at.
const EMPTY: u8 = 0;
const CRC_BYTES: usize = 4;
/// Room for nearly every record, so that it need not move while it grows.
const TYPICAL_BYTES: usize = 256;

/// Where a record lies: its table's own tag, the job's ordinal, a number within the job.
#[derive(Clone, Copy, Debug)]
pub struct Position {
    /// What kind of record it is, for people.
    pub what: &'static str,
    /// The job's number.
    pub ordinal: i64,
    /// Its number among those of the job.
    pub number: u64,
}

impl Position {
    /// The only record of its kind that the job has.
    pub const fn of(what: &'static str, ordinal: i64) -> Self {
        Self { what, ordinal, number: 0 }
    }

    fn crc(&self, columns: &[&[u8]], payload: &[u8]) -> u32 {
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(self.what.as_bytes());
        hasher.update(&self.ordinal.to_le_bytes());
        hasher.update(&self.number.to_le_bytes());
        for column in columns {
            hasher.update(&(column.len() as u64).to_le_bytes());
            hasher.update(column);
        }
        hasher.update(payload);
        hasher.finalize()
    }

    fn damaged(&self, why: impl std::fmt::Display) -> Error {
        Error::Damaged { what: self.what, why: format!("{why} (job number {})", self.ordinal) }
    }
}

/// Encodes `value`; the CRC also covers `columns`, which lie beside the record.
pub fn encode<T: Serialize>(position: Position, columns: &[&[u8]], value: &T) -> Vec<u8> {
    let mut record = Vec::with_capacity(TYPICAL_BYTES);
    record.push(VERSION);
    let mut record = postcard::to_extend(value, record).expect("a Vec takes any value of these types");
    let crc = position.crc(columns, &record);
    record.extend_from_slice(&crc.to_le_bytes());
    record
}

/// Decodes what [`encode`] made at the same place beside the same columns.
pub fn decode<T: DeserializeOwned>(position: Position, columns: &[&[u8]], record: &[u8]) -> Result<T, Error> {
    let split = record.len().checked_sub(CRC_BYTES).ok_or_else(|| position.damaged("it is too short"))?;
    let (payload, crc) = record.split_at(split);
    if position.crc(columns, payload).to_le_bytes() != crc {
        return Err(position.damaged("its checksum does not match"));
    }
    match payload.split_first() {
        Some((&VERSION, value)) => postcard::from_bytes(value).map_err(|error| position.damaged(error)),
        Some((version @ 1..VERSION, value)) => {
            let added = vec![EMPTY; usize::from(VERSION - version)];
            postcard::from_bytes(&[value, &added].concat()).map_err(|error| position.damaged(error))
        }
        Some((version, _)) => Err(position.damaged(format_args!("its version is {version}"))),
        None => Err(position.damaged("it is empty")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_flipped_bit_is_found() {
        let position = Position::of("test", 7);
        let record = encode(position, &[b"column"], &("a text".to_owned(), 12_345u32));

        for bit in 0..record.len() * 8 {
            let mut flipped = record.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(decode::<(String, u32)>(position, &[b"column"], &flipped).is_err(), "bit {bit}");
        }
        assert!(decode::<(String, u32)>(Position::of("test", 8), &[b"column"], &record).is_err());
        assert!(decode::<(String, u32)>(position, &[b"colum", b"n"], &record).is_err());
        assert_eq!(decode(position, &[b"column"], &record).ok(), Some(("a text".to_owned(), 12_345u32)));
    }
}
