//! Normalization of pixels.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A normalization of pixels. As text: `unit`, `half`, `mean-std`, or two numbers `MEAN,STD`.
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
    pub mean: f64,
    /// Standard deviation of the pixels, greater than 0.
    pub std: f64,
}

impl Scaling {
    /// Returns the pixel value whose normalized value is closest to `normalized`.
    pub fn pixel(self, normalized: f32) -> u8 {
        let scaled = f64::from(normalized) * self.std + self.mean;
        // The conversion saturates.
        (scaled * 255.0).round() as u8
    }
}

impl Normalization {
    /// Returns the mean and the standard deviation to normalize with, given those measured on the dataset.
    pub fn scaling(self, dataset: Scaling) -> Scaling {
        match self {
            Self::Unit => Scaling {
                mean: 0.0,
                std: 1.0,
            },
            Self::Half => Scaling {
                mean: 0.5,
                std: 0.5,
            },
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
            Self::Custom(Scaling { mean, std }) => write!(f, "{mean},{std}"),
        }
    }
}

impl FromStr for Normalization {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let expected =
            || "expected unit, half, mean-std, or MEAN,STD such as 0.1307,0.3081".to_string();
        match text {
            "unit" => Ok(Self::Unit),
            "half" => Ok(Self::Half),
            "mean-std" => Ok(Self::MeanStd),
            _ => {
                let (mean, std) = text.split_once(',').ok_or_else(expected)?;
                let number = |part: &str| part.trim().parse::<f64>().map_err(|_| expected());
                let (mean, std) = (number(mean)?, number(std)?);
                if !mean.is_finite() || !std.is_finite() || std <= 0.0 {
                    return Err("expected a finite mean and a standard deviation above 0".into());
                }
                Ok(Self::Custom(Scaling { mean, std }))
            }
        }
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
        let scaling = Scaling {
            mean: 0.4734,
            std: 0.2516,
        };
        for pixel in 0..=255 {
            let normalized = (f64::from(pixel) / 255.0 - 0.4734) / 0.2516;
            assert_eq!(scaling.pixel(normalized as f32), pixel);
        }
        assert_eq!([0.0, 9.0, -9.0].map(|x| scaling.pixel(x)), [121, 255, 0]);
    }

    #[test]
    fn text_survives_the_round_trip() {
        for text in ["unit", "half", "mean-std", "0.1307,0.3081"] {
            let normalization: Normalization = text.parse().unwrap();
            assert_eq!(normalization.to_string(), text);
        }
    }

    #[test]
    fn rejects_invalid_text() {
        for text in ["", "meanstd", "0.1", "0.1,0", "0.1,-1", "nan,1", "0,inf"] {
            assert!(text.parse::<Normalization>().is_err(), "{text}");
        }
    }
}
