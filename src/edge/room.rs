//! Room for requests: how much of all that have not been answered yet may lie in memory.
//!
//! It is one for the whole server, since a connection may have a thousand requests, and there are many connections. What is
//! small needs no room, so whoever fills it holds up what is large and nothing else.

use tokio::sync::{Semaphore, SemaphorePermit};

/// How much of all requests together may lie here: sixty of the largest, and a part of what a small machine has.
const ROOM_BYTES: usize = 256 << 20;

/// What each request may have without room: as much as its headers, which have none either.
pub const FREE_BYTES: usize = 16 << 10;

/// The parts in which it is given out.
const PART_BYTES: usize = 4 << 10;

static ROOM: Semaphore = Semaphore::const_new(ROOM_BYTES / PART_BYTES);

/// A request's part of the room, none at first, which is given back when it is dropped.
#[derive(Debug)]
pub struct Place {
    room: &'static Semaphore,
    parts: Option<SemaphorePermit<'static>>,
}

/// Other requests take all the room that there is.
#[derive(Debug)]
pub struct Full;

impl Default for Place {
    fn default() -> Self {
        Self { room: &ROOM, parts: None }
    }
}

impl Place {
    /// Makes it as large as so many bytes need, or leaves it as it is.
    pub fn fit(&mut self, bytes: usize) -> Result<(), Full> {
        let needed = bytes.saturating_sub(FREE_BYTES).div_ceil(PART_BYTES);
        let held = self.parts.as_ref().map_or(0, SemaphorePermit::num_permits);
        if needed > held {
            let more = self.room.try_acquire_many((needed - held) as u32).map_err(|_| Full)?;
            match &mut self.parts {
                Some(parts) => parts.merge(more),
                none => *none = Some(more),
            }
        } else if needed < held {
            drop(self.parts.as_mut().and_then(|parts| parts.split(held - needed)));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARTS: usize = 4;
    /// Of its own, since other tests have theirs at the same time.
    static SMALL: Semaphore = Semaphore::const_new(PARTS);

    #[test]
    fn a_place_is_as_large_as_what_is_beyond_the_free_bytes_and_never_beyond_the_room() {
        let new = || Place { room: &SMALL, parts: None };
        let taken = || PARTS - SMALL.available_permits();
        let mut place = new();

        place.fit(FREE_BYTES).unwrap();
        assert_eq!(taken(), 0);
        place.fit(FREE_BYTES + 1).unwrap();
        assert_eq!(taken(), 1);
        place.fit(FREE_BYTES + 3 * PART_BYTES).unwrap();
        assert_eq!(taken(), 3);
        place.fit(FREE_BYTES + PART_BYTES).unwrap();
        assert_eq!(taken(), 1);

        let rest = SMALL.try_acquire_many(3).unwrap();
        assert!(place.fit(FREE_BYTES + PART_BYTES + 1).is_err());
        assert!(place.fit(FREE_BYTES + PART_BYTES).is_ok(), "what it has it keeps");
        assert!(new().fit(FREE_BYTES).is_ok(), "what is small needs no room");
        drop((rest, place));
        assert_eq!(taken(), 0);
    }
}
