//! How long things took, in bins that grow with the time: eight to each doubling, so that what is read is within about 6 % of what was.

use std::time::Duration;

/// Bins for each doubling: as many as three bits below the highest tell apart.
const BINS_PER_OCTAVE: usize = 8;
const BITS: u32 = BINS_PER_OCTAVE.trailing_zeros();
/// The highest bit of the shortest time that has a bin of its own, in microseconds: about a millisecond.
const FIRST_OCTAVE: u32 = 10;
/// Up to about 38 hours; what is longer counts as that.
const OCTAVES: usize = 27;
/// One more, for what is shorter than all others.
const BINS: usize = OCTAVES * BINS_PER_OCTAVE + 1;

/// Times, each forgotten but for its bin.
#[derive(Clone, Debug)]
pub struct Times {
    bins: [u32; BINS],
    count: u64,
}

impl Default for Times {
    fn default() -> Self {
        Self { bins: [0; BINS], count: 0 }
    }
}

impl Times {
    /// One has taken so long.
    pub fn count(&mut self, time: Duration) {
        let bin = &mut self.bins[bin(time)];
        *bin = bin.saturating_add(1);
        self.count += 1;
    }

    /// Counts all of the others too.
    pub fn add(&mut self, other: &Self) {
        for (bin, more) in self.bins.iter_mut().zip(&other.bins) {
            *bin = bin.saturating_add(*more);
        }
        self.count += other.count;
    }

    /// How long the fastest `part` of them took at most, which is from 0 to 1; nothing where there are none.
    pub fn quantile(&self, part: f64) -> Option<Duration> {
        if self.count == 0 {
            return None;
        }
        let rank = ((self.count as f64 * part).ceil() as u64).max(1);
        let mut seen = 0;
        let found = self.bins.iter().position(|bin| {
            seen += u64::from(*bin);
            seen >= rank
        });
        Some(middle(found.unwrap_or(BINS - 1)))
    }
}

fn bin(time: Duration) -> usize {
    let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
    let Some(octave) = micros.checked_ilog2().and_then(|octave| octave.checked_sub(FIRST_OCTAVE)) else {
        return 0;
    };
    let part = (micros >> (octave + FIRST_OCTAVE - BITS)) as usize % BINS_PER_OCTAVE;
    (octave as usize * BINS_PER_OCTAVE + part + 1).min(BINS - 1)
}

/// The middle of a bin.
fn middle(bin: usize) -> Duration {
    let Some(above) = bin.checked_sub(1) else { return Duration::from_micros(1 << (FIRST_OCTAVE - 1)) };
    let (octave, part) = (above / BINS_PER_OCTAVE, above % BINS_PER_OCTAVE);
    let width = 1u64 << (octave as u32 + FIRST_OCTAVE - BITS);
    Duration::from_micros((BINS_PER_OCTAVE + part) as u64 * width + width / 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_read_back_within_a_sixteenth() {
        let mut micros = 1_024;
        while micros < 100_000_000_000 {
            let time = Duration::from_micros(micros);
            let mut times = Times::default();
            times.count(time);

            let read = times.quantile(0.5).unwrap();

            assert!(read.abs_diff(time) <= time / 16, "{time:?} is read as {read:?}");
            micros += micros / 7;
        }
    }

    #[test]
    fn what_is_too_short_or_too_long_has_a_bin_too() {
        for (time, read_below) in [(Duration::ZERO, 1), (Duration::MAX, 160_000_000)] {
            let mut times = Times::default();
            times.count(time);

            let read = times.quantile(0.95).unwrap();

            assert!(read < Duration::from_millis(read_below), "{time:?} is read as {read:?}");
        }
    }

    #[test]
    fn a_quantile_is_the_time_of_that_rank() {
        let mut times = Times::default();
        (0..94).for_each(|_| times.count(Duration::from_millis(10)));
        (0..6).for_each(|_| times.count(Duration::from_secs(60)));

        let (half, most) = (times.quantile(0.5).unwrap(), times.quantile(0.95).unwrap());

        assert!(half < Duration::from_millis(11), "{half:?}");
        assert!(most > Duration::from_secs(55), "{most:?}");
        assert_eq!(Times::default().quantile(0.5), None);
    }
}
