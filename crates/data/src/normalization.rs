//! Normalization of pixels.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::per_channel::PerChannel;

/// A normalization of pixels. As text: `unit`, `half`, `mean-std`, two numbers `MEAN,STD`, or for RGB images six: the
/// means of red, green and blue, then their standard deviations.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Normalization {
    /// `x / 255`, in `0.0..=1.0`.
    Unit,
    /// `(x / 255 - 0.5) / 0.5`, in `-1.0..=1.0`.
    Half,
    /// `(x / 255 - mean) / std` with the mean and standard deviation of the dataset.
    MeanStd,
    /// `(x / 255 - mean) / std` with the given values.
    Custom(Scaling),
}

/// The parameters of a normalization: `(x / 255 - mean) / std`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scaling {
    /// Mean of the pixels, scaled to `0.0..=1.0`.
    pub mean: PerChannel,
    /// Standard deviation of the pixels, greater than 0.
    pub std: PerChannel,
}

impl Scaling {
    /// Creates parameters that are the same for all channels.
    pub fn same(mean: f64, std: f64) -> Self {
        Self {
            mean: mean.into(),
            std: std.into(),
        }
    }

    /// Returns whether images of this number of channels can be normalized.
    pub fn fits(self, channels: usize) -> bool {
        self.mean.fits(channels) && self.std.fits(channels)
    }

    /// Returns the factor and the shift of the normalization as `factor * x - shift`.
    pub fn factor_and_shift(self) -> (PerChannel, PerChannel) {
        let Self { mean, std } = self;
        (
            std.zip(std, |std, _| 1.0 / (255.0 * std)),
            mean.zip(std, |mean, std| mean / std),
        )
    }

    /// Returns the pixel value of a channel whose normalized value is closest to `normalized`.
    ///
    /// # Panics
    /// Panics if `channel` is 3 or more and the parameters of the channels differ.
    pub fn pixel(self, normalized: f32, channel: usize) -> u8 {
        let Self { mean, std } = self;
        let scaled = f64::from(normalized) * std.of(channel) + mean.of(channel);
        // The conversion saturates.
        (scaled * 255.0).round() as u8
    }

    /// Returns the pixel values of red, green and blue whose normalized value is closest to 0. The first one is that of
    /// a gray image.
    pub fn zero(self) -> [u8; 3] {
        [0, 1, 2].map(|channel| self.pixel(0.0, channel))
    }
}

/// Difference of means and standard deviations that is rounding.
const TOLERANCE: f64 = 1e-6;

impl From<Scaling> for Normalization {
    /// Returns the named normalization with these parameters up to rounding, or a custom one.
    fn from(scaling: Scaling) -> Self {
        let is_close = |named: &Self| {
            let named = named.scaling(scaling);
            let pairs = [(named.mean, scaling.mean), (named.std, scaling.std)];
            pairs
                .into_iter()
                .all(|(named, given)| given.all(|given| (given - named.of(0)).abs() < TOLERANCE))
        };
        let named = [Self::Unit, Self::Half].into_iter().find(is_close);
        named.unwrap_or(Self::Custom(scaling))
    }
}

impl Normalization {
    /// Returns the mean and the standard deviation to normalize with, given those measured on the dataset.
    pub fn scaling(self, dataset: Scaling) -> Scaling {
        match self {
            Self::Unit => Scaling::same(0.0, 1.0),
            Self::Half => Scaling::same(0.5, 0.5),
            Self::MeanStd => dataset,
            Self::Custom(scaling) => scaling,
        }
    }
}

impl fmt::Display for Normalization {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unit => f.write_str("unit"),
            Self::Half => f.write_str("half"),
            Self::MeanStd => f.write_str("mean-std"),
            Self::Custom(Scaling {
                mean: PerChannel::Same(mean),
                std: PerChannel::Same(std),
            }) => write!(f, "{mean},{std}"),
            Self::Custom(Scaling { mean, std }) => {
                let numbers = [mean, std].map(|numbers| [0, 1, 2].map(|at| numbers.of(at)));
                let numbers = numbers.as_flattened().iter().map(f64::to_string);
                f.write_str(&numbers.collect::<Vec<_>>().join(","))
            }
        }
    }
}

impl FromStr for Normalization {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let expected = || {
            "expected unit, half, mean-std, MEAN,STD such as 0.1307,0.3081, or for RGB images three means and three \
             standard deviations"
                .to_string()
        };
        match text {
            "unit" => return Ok(Self::Unit),
            "half" => return Ok(Self::Half),
            "mean-std" => return Ok(Self::MeanStd),
            _ => {}
        }
        let numbers = text.split(',').map(|part| part.trim().parse());
        let numbers: Vec<f64> = numbers.collect::<Result<_, _>>().map_err(|_| expected())?;
        let scaling = match numbers[..] {
            [mean, std] => Scaling::same(mean, std),
            [a, b, c, d, e, f] => Scaling {
                mean: PerChannel::Each([a, b, c]),
                std: PerChannel::Each([d, e, f]),
            },
            _ => return Err(expected()),
        };
        let Scaling { mean, std } = scaling;
        if !mean.all(f64::is_finite) || !std.all(|std| std.is_finite() && std > 0.0) {
            return Err("expected a finite mean and a standard deviation above 0".into());
        }
        Ok(Self::Custom(scaling))
    }
}

impl TryFrom<String> for Normalization {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Normalization> for String {
    fn from(normalization: Normalization) -> Self {
        normalization.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pixel_inverts_the_normalization() {
        let scaling = Scaling::same(0.4734, 0.2516);
        for pixel in 0..=255 {
            let normalized = (f64::from(pixel) / 255.0 - 0.4734) / 0.2516;
            assert_eq!(scaling.pixel(normalized as f32, 2), pixel);
        }
        assert_eq!([0.0, 9.0, -9.0].map(|x| scaling.pixel(x, 0)), [121, 255, 0]);
        let each: Normalization = "0.2,0.4,0.6,0.2,0.4,0.2".parse().unwrap();
        let each = each.scaling(scaling);
        assert_eq!(each.zero(), [51, 102, 153]);
        assert_eq!(
            [0, 1, 2].map(|channel| each.pixel(1.0, channel)),
            [102, 204, 204]
        );
        assert_eq!(scaling.zero(), [121; 3]);
    }

    #[test]
    fn text_survives_the_round_trip() {
        for text in [
            "unit",
            "half",
            "mean-std",
            "0.1307,0.3081",
            "0.485,0.456,0.406,0.229,0.224,0.225",
        ] {
            let normalization: Normalization = text.parse().unwrap();
            assert_eq!(normalization.to_string(), text);
        }
    }

    #[test]
    fn rejects_invalid_text() {
        for text in [
            "",
            "meanstd",
            "0.1",
            "0.1,0",
            "0.1,-1",
            "nan,1",
            "0,inf",
            "1,2,3",
            "1,1,1,1,1,0",
        ] {
            assert!(text.parse::<Normalization>().is_err(), "{text}");
        }
    }
}
