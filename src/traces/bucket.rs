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

    /// Whether there is another one in it, which is then gone.
    pub fn take(&mut self, now: Timestamp) -> bool {
        let more = now.since(self.filled).as_secs_f64() * self.per_second;
        self.level = (self.level + more).min(self.per_second);
        self.filled = now;
        let is_there = self.level >= 1.0;
        if is_there {
            self.level -= 1.0;
        }
        is_there
    }

    /// One that was taken is put back, where there is room for it.
    pub fn put_back(&mut self) {
        self.level = (self.level + 1.0).min(self.per_second);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn taken(bucket: &mut Bucket, now: Timestamp) -> usize {
        (0..1_000).filter(|_| bucket.take(now)).count()
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
}
