//! Repeated measurements of an operation.

use std::time::{Duration, Instant};

use anyhow::Result;
use serde::Serialize;

/// Minimum duration of one measurement.
const MIN_DURATION: Duration = Duration::from_millis(300);

/// The durations of all calls of an operation, in seconds, by measurement.
#[derive(Debug)]
pub(super) struct Timing(Vec<Vec<f64>>);

/// Percentiles of durations in seconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(super) struct Percentiles {
    pub(super) p50: f64,
    pub(super) p90: f64,
    pub(super) p99: f64,
}

impl Timing {
    /// Calls `operation` for the duration of `runs` measurements, after one for warm-up.
    ///
    /// # Errors
    /// Returns an error if `operation` fails.
    pub(super) fn of(runs: usize, mut operation: impl FnMut() -> Result<()>) -> Result<Self> {
        let mut measure = || -> Result<Vec<f64>> {
            let start = Instant::now();
            let mut durations = Vec::new();
            while start.elapsed() < MIN_DURATION {
                let start = Instant::now();
                operation()?;
                durations.push(start.elapsed().as_secs_f64());
            }
            Ok(durations)
        };
        measure()?;
        let runs = (0..runs).map(|_| measure()).collect::<Result<_>>()?;
        Ok(Self(runs))
    }

    /// Returns the calls per second: the median of the measurements.
    pub(super) fn rate(&self) -> f64 {
        let rate = |durations: &Vec<f64>| durations.len() as f64 / durations.iter().sum::<f64>();
        median(self.0.iter().map(rate).collect())
    }

    /// Returns the percentiles of the durations of all calls.
    pub(super) fn percentiles(&self) -> Percentiles {
        let mut durations = self.0.concat();
        durations.sort_by(f64::total_cmp);
        let [p50, p90, p99] = [50, 90, 99].map(|percent| percentile(&durations, percent));
        Percentiles { p50, p90, p99 }
    }
}

/// Returns the smallest of the sorted numbers that `percent` of them do not exceed; 0 if there are none.
fn percentile(sorted: &[f64], percent: usize) -> f64 {
    let rank = (sorted.len() * percent).div_ceil(100);
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or(0.0)
}

/// Returns the median, the upper one if the count is even; 0 if there are no numbers.
pub(super) fn median(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_by(f64::total_cmp);
    numbers.get(numbers.len() / 2).copied().unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn median_is_the_middle_number() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(vec![]), 0.0);
    }

    #[test]
    fn percentiles_are_nearest_ranks_over_all_measurements() {
        let durations = |range: std::ops::RangeInclusive<u32>| range.rev().map(f64::from).collect();
        let timing = Timing(vec![durations(101..=200), durations(1..=100)]);
        let Percentiles { p50, p90, p99 } = timing.percentiles();
        assert_eq!([p50, p90, p99], [100.0, 180.0, 198.0]);
        let Percentiles { p50, p90, p99 } = Timing(vec![vec![0.5]]).percentiles();
        assert_eq!([p50, p90, p99], [0.5; 3]);
    }

    #[test]
    fn rate_is_the_median_of_the_measurements() {
        let timing = Timing(vec![vec![0.25, 0.25], vec![1.0], vec![0.5]]);
        assert_eq!(timing.rate(), 2.0);
    }

    #[test]
    fn warm_up_is_not_measured() {
        let mut calls = 0;
        let timing = Timing::of(2, || {
            calls += 1;
            std::thread::sleep(Duration::from_millis(400));
            Ok(())
        });
        assert_eq!((calls, timing.unwrap().0.concat().len()), (3, 2));
    }
}
