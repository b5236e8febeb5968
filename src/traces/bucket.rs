//! How many traces are recorded: a bucket that fills with time.

use crate::job::Timestamp;

/// Holds as much as a second brings, so a burst after a quiet time is recorded whole and no longer time sees more than the rate.
#[derive(Debug)]
pub struct Bucket {
    per_second: f64,
    level: f64,
    filled: Timestamp,
}

impl Bucket {
    /// A full one.
    pub fn new(per_second: u32, now: Timestamp) -> Self {
        let per_second = f64::from(per_second);
        Self { per_second, level: per_second, filled: now }
    }

    /// Takes so many out of it, or as many as there are; returns how many.
    pub fn take(&mut self, wanted: usize, now: Timestamp) -> usize {
        let more = now.since(self.filled).as_secs_f64() * self.per_second;
        self.level = (self.level + more).min(self.per_second);
        // Who has read the clock earlier may come later.
        self.filled = self.filled.max(now);
        let taken = wanted.min(self.level as usize);
        self.level -= taken as f64;
        taken
    }

    /// What was taken is put back, where there is room for it.
    pub fn put_back(&mut self, taken: usize) {
        self.level = (self.level + taken as f64).min(self.per_second);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn taken(bucket: &mut Bucket, now: Timestamp) -> usize {
        (0..1_000).map(|_| bucket.take(1, now)).sum()
    }

    #[test]
    fn no_second_sees_more_than_the_rate_but_for_a_burst_after_a_quiet_one() {
        let begin = Timestamp::from_micros(1_790_000_000_000_000);
        let mut bucket = Bucket::new(10, begin);

        assert_eq!(taken(&mut bucket, begin), 10);
        assert_eq!(taken(&mut bucket, begin.after(Duration::from_millis(50))), 0);
        assert_eq!(taken(&mut bucket, begin.after(Duration::from_millis(550))), 5);
        assert_eq!(taken(&mut bucket, begin.after(Duration::from_secs(60))), 10);
    }

    #[test]
    fn who_comes_with_an_earlier_time_does_not_fill_it_twice() {
        let begin = Timestamp::from_micros(1_790_000_000_000_000);
        let later = begin.after(Duration::from_secs(10));
        let mut bucket = Bucket::new(10, begin);

        assert_eq!(taken(&mut bucket, later), 10);
        assert_eq!(taken(&mut bucket, begin), 0);
        assert_eq!(taken(&mut bucket, later), 0);
    }

    #[test]
    fn many_are_taken_at_once_as_far_as_they_are_there_and_no_more_put_back_than_it_holds() {
        let begin = Timestamp::from_micros(1_790_000_000_000_000);
        let mut bucket = Bucket::new(10, begin);

        assert_eq!([bucket.take(7, begin), bucket.take(7, begin), bucket.take(7, begin)], [7, 3, 0]);
        bucket.put_back(4);
        assert_eq!(bucket.take(7, begin), 4);
        bucket.put_back(1_000);
        assert_eq!(bucket.take(1_000, begin), 10);
    }
}
