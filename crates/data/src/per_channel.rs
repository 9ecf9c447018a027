//! A number for all channels of an image, or one for each.

use std::array;
use std::fmt;

use serde::{Deserialize, Serialize};

/// A number for all channels of an image, or one for each channel of an RGB image.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(
    untagged,
    expecting = "expected a number, or an array of three numbers, one for each channel"
)]
pub enum PerChannel {
    /// The same number for all channels.
    Same(f64),
    /// The numbers of red, green and blue.
    Each([f64; 3]),
}

impl PerChannel {
    /// Returns the number of a channel.
    ///
    /// # Panics
    /// Panics if `channel` is 3 or more and the numbers of the channels are given.
    pub fn of(self, channel: usize) -> f64 {
        match self {
            Self::Same(number) => number,
            Self::Each(numbers) => numbers[channel],
        }
    }

    /// Returns whether images of this number of channels have all numbers.
    pub fn fits(self, channels: usize) -> bool {
        match self {
            Self::Same(_) => true,
            Self::Each(numbers) => numbers.len() == channels,
        }
    }

    /// Returns whether all numbers satisfy a condition.
    pub fn all(self, condition: impl Fn(f64) -> bool) -> bool {
        (0..3).all(|channel| condition(self.of(channel)))
    }

    /// Combines the numbers of each channel with those of `other`.
    pub fn zip(self, other: Self, combine: impl Fn(f64, f64) -> f64) -> Self {
        match (self, other) {
            (Self::Same(a), Self::Same(b)) => Self::Same(combine(a, b)),
            _ => Self::Each(array::from_fn(|channel| {
                combine(self.of(channel), other.of(channel))
            })),
        }
    }
}

impl From<f64> for PerChannel {
    fn from(number: f64) -> Self {
        Self::Same(number)
    }
}

impl fmt::Display for PerChannel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Same(number) => write!(f, "{number}"),
            Self::Each(numbers) => write!(f, "{numbers:?}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_each_channel_fit_rgb_images_only() {
        let each = PerChannel::Each([1.0, 2.0, 3.0]);
        assert_eq!([1, 3].map(|channels| each.fits(channels)), [false, true]);
        assert!(PerChannel::Same(1.0).fits(1));
        assert_eq!((0..3).map(|at| each.of(at)).sum::<f64>(), 6.0);
        let sum = each.zip(PerChannel::Same(1.0), |a, b| a + b);
        assert_eq!(sum, PerChannel::Each([2.0, 3.0, 4.0]));
        assert_eq!(sum.to_string(), "[2.0, 3.0, 4.0]");
        assert!(each.all(|x| x > 0.0) && !each.all(|x| x < 3.0));
    }
}
