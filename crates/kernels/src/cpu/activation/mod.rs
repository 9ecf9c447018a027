//! Activation functions and their derivatives.

mod functions;
mod forward;
mod backward;
#[cfg(test)]
mod reference_tests;

use std::fmt;

use serde::{Deserialize, Serialize};

pub(crate) use backward::backward;
pub(crate) use forward::forward;
pub(crate) use functions::{ActivationFunction, Gelu, Identity, Relu, Silu, Tanh};

/// An activation function.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Activation {
    /// The rectified linear unit, `max(x, 0)`.
    #[default]
    Relu,
    /// The Gaussian error linear unit, `x * P(X <= x)` for X ~ N(0, 1), without approximation; Hendrycks and Gimpel
    /// (2016).
    Gelu,
    /// The sigmoid linear unit, `x / (1 + exp(-x))`; Elfwing, Uchibe and Doya (2017).
    Silu,
    /// The hyperbolic tangent.
    Tanh,
    /// The identity.
    None,
}

impl fmt::Display for Activation {
    /// Writes the usual name, such as `ReLU`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Relu => "ReLU",
            Self::Gelu => "GELU",
            Self::Silu => "SiLU",
            Self::Tanh => "tanh",
            Self::None => "no activation",
        })
    }
}

/// Calls `$call` with `$function` bound to the function of an [`Activation`].
macro_rules! with_function {
    ($activation:expr, |$function:ident| $call:expr) => {
        match $activation {
            $crate::cpu::activation::Activation::Relu => {
                let $function = $crate::cpu::activation::Relu;
                $call
            }
            $crate::cpu::activation::Activation::Gelu => {
                let $function = $crate::cpu::activation::Gelu;
                $call
            }
            $crate::cpu::activation::Activation::Silu => {
                let $function = $crate::cpu::activation::Silu;
                $call
            }
            $crate::cpu::activation::Activation::Tanh => {
                let $function = $crate::cpu::activation::Tanh;
                $call
            }
            $crate::cpu::activation::Activation::None => {
                let $function = $crate::cpu::activation::Identity;
                $call
            }
        }
    };
}
pub(crate) use with_function;
