//! The type of numbers that a network computes with while it learns.

use std::{fmt, iter};

use anyhow::{Result, ensure};
use burn::tensor::FloatDType;
use serde::{Deserialize, Serialize};

use crate::device::Found;

/// What feature maps and products are kept in. Weights, their averages and the optimizer are of 32 bits with
/// each, and networks are judged in 32 bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Precision {
    /// 32 bits.
    #[default]
    F32,
    /// 16 bits with the range of 32, and 2 of its 7 decimal digits.
    Bf16,
    /// 16 bits with 3 digits, from 6e-8 to 65,504.
    F16,
}

impl Precision {
    pub(crate) fn dtype(self) -> FloatDType {
        match self {
            Self::F32 => FloatDType::F32,
            Self::Bf16 => FloatDType::BF16,
            Self::F16 => FloatDType::F16,
        }
    }

    /// What the loss is multiplied by, and its gradients are divided by: the mean over a batch has gradients of
    /// feature maps that may be too small for `f16`; Micikevicius et al. (2018). A power of two, so that
    /// nothing is rounded.
    pub(crate) fn loss_scale(self) -> f64 {
        match self {
            Self::F32 | Self::Bf16 => 1.0,
            Self::F16 => 1024.0,
        }
    }

    /// Those that a device has, 32 bits first.
    pub(crate) fn of(found: &Found) -> Vec<Self> {
        let halves = [Self::Bf16, Self::F16].into_iter();
        let halves = halves.filter(|half| found.device.supports_dtype(half.dtype()));
        iter::once(Self::F32).chain(halves).collect()
    }

    /// # Errors
    /// When one of the devices has it not: with those that it has.
    pub(crate) fn check(self, devices: &[Found]) -> Result<()> {
        // All have 32 bits, and those of other machines need not be asked.
        for found in devices.iter().filter(|_| self != Self::F32) {
            let had = Self::of(found);
            ensure!(
                had.contains(&self),
                "device {}: cannot compute in {self}; it has {}",
                found.name,
                had.iter()
                    .map(Self::to_string)
                    .collect::<Vec<_>>()
                    .join(", ")
            );
        }
        Ok(())
    }
}

impl fmt::Display for Precision {
    /// As among the settings.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
            Self::F16 => "f16",
        })
    }
}
