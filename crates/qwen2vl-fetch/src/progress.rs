//! What a fetch tells while it is at work.

use std::time::{Duration, Instant};

/// A step of a fetch, for the person who waits. Messages are whole lines without a final dot.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Progress<'a> {
    /// Something worth saying once.
    Note(String),
    /// Another process is fetching the same model.
    Waiting,
    /// Bytes are coming. Told ten times a second at most, and at the end of a file.
    Transfer {
        /// The file.
        file: &'a str,
        /// What is there, from earlier runs too.
        done_bytes: u64,
        /// What will be there, if the server says so.
        total_bytes: Option<u64>,
        /// The rate of late.
        bytes_per_second: f64,
        /// The time to the end at that rate.
        remaining: Option<Duration>,
    },
    /// A request failed and is tried again.
    Retrying {
        /// Why it failed.
        reason: String,
        /// How long is waited.
        wait: Duration,
    },
    /// Checksums are computed.
    Checking,
    /// The zip is unpacked.
    Unpacking,
}

/// Who is told.
pub(crate) type Tell<'a> = &'a mut dyn FnMut(Progress<'_>);

/// Between two reports of a transfer.
const INTERVAL: Duration = Duration::from_millis(100);
/// The rate is an average that forgets with this time.
const MEMORY_SECONDS: f64 = 3.0;

/// Counts the bytes of a transfer.
pub(crate) struct Meter {
    done_bytes: u64,
    total_bytes: Option<u64>,
    rate: f64,
    since: Instant,
    since_bytes: u64,
}

impl Meter {
    pub fn new(done_bytes: u64, total_bytes: Option<u64>) -> Self {
        Self { done_bytes, total_bytes, rate: 0.0, since: Instant::now(), since_bytes: 0 }
    }

    pub fn done_bytes(&self) -> u64 {
        self.done_bytes
    }

    /// Counts, and tells if it is time.
    pub fn add(&mut self, bytes: u64, file: &str, tell: Tell<'_>) {
        self.done_bytes += bytes;
        self.since_bytes += bytes;
        if self.since.elapsed() >= INTERVAL {
            self.tell(file, tell);
        }
    }

    pub fn tell(&mut self, file: &str, tell: Tell<'_>) {
        self.measure(self.since.elapsed().as_secs_f64());
        let missing = self.total_bytes.map(|total| total.saturating_sub(self.done_bytes));
        let seconds = missing.map(|missing| missing as f64 / self.rate);
        tell(Progress::Transfer {
            file,
            done_bytes: self.done_bytes,
            total_bytes: self.total_bytes,
            bytes_per_second: self.rate,
            remaining: seconds.and_then(|s| Duration::try_from_secs_f64(s).ok()),
        });
    }

    fn measure(&mut self, seconds: f64) {
        if seconds <= 0.0 {
            return;
        }
        let now = self.since_bytes as f64 / seconds;
        let weight = if self.rate == 0.0 { 1.0 } else { 1.0 - (-seconds / MEMORY_SECONDS).exp() };
        self.rate += weight * (now - self.rate);
        self.since = Instant::now();
        self.since_bytes = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_follows_the_bytes_and_the_rest_is_divided_by_it() {
        let mut meter = Meter::new(1000, Some(5000));
        meter.since_bytes = 2000;
        meter.measure(2.0);
        assert!((meter.rate - 1000.0).abs() < 1e-9);
        // A second at another rate moves the average by 1 - e^(-1/3).
        meter.since_bytes = 2000;
        meter.measure(1.0);
        assert!((meter.rate - 1283.47).abs() < 0.01, "{}", meter.rate);
        let mut told = None;
        meter.since = Instant::now() - Duration::from_secs(1);
        meter.done_bytes = 4000;
        meter.tell("a", &mut |p| {
            if let Progress::Transfer { remaining, done_bytes, .. } = p {
                told = Some((remaining, done_bytes));
            }
        });
        let (remaining, done_bytes) = told.expect("told");
        assert_eq!(done_bytes, 4000);
        assert!(remaining.is_some_and(|r| r > Duration::from_millis(700) && r < Duration::from_secs(2)));
    }

    #[test]
    fn without_a_total_or_a_rate_there_is_no_remaining_time() {
        for total in [None, Some(10)] {
            let mut meter = Meter::new(0, total);
            meter.tell("a", &mut |p| {
                assert!(matches!(p, Progress::Transfer { remaining: None, .. }), "{p:?}");
            });
        }
    }
}
