//! Number formats that a training can compute in.

use std::fmt;

use burn::tensor::FloatDType;
use serde::{Deserialize, Serialize};

/// Number format of feature maps and matrix products during training.
///
/// Parameters, their moving average and the optimizer state are always in 32 bits, and so is evaluation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// 32 bits: about 7 decimal digits.
    #[default]
    F32,
    /// bfloat16: 16 bits with the range of `F32` and about 2 decimal digits.
    Bf16,
    /// IEEE 754 half precision: 16 bits with about 3 decimal digits, from 6e-8 to 65,504.
    F16,
}

impl Precision {
    /// Returns Burn's type for this format.
    pub fn dtype(self) -> FloatDType {
        match self {
            Self::F32 => FloatDType::F32,
            Self::Bf16 => FloatDType::BF16,
            Self::F16 => FloatDType::F16,
        }
    }

    /// Returns the factor by which the loss is multiplied and its gradients are divided.
    ///
    /// Without it, gradients of feature maps can underflow in `F16`; Micikevicius et al., "Mixed Precision
    /// Training" (2018). Scaling is exact because the factor is a power of two.
    pub fn loss_scale(self) -> f64 {
        match self {
            Self::F32 | Self::Bf16 => 1.0,
            Self::F16 => 1024.0,
        }
    }
}

impl fmt::Display for Precision {
    /// Writes the name used in settings, such as `bf16`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
            Self::F16 => "f16",
        })
    }
}
