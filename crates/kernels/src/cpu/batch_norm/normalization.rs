//! The normalization of a plane.

use pulp::Simd;

use super::moments::Moments;
use crate::cpu::simd::mul_add;

/// Normalization, scale and bias of a channel, before the activation: `factor * x + offset`.
#[derive(Clone, Copy)]
pub(super) struct Normalization {
    factor: f32,
    offset: f32,
}

/// Scale and bias of each channel after the normalization.
#[derive(Clone, Copy)]
pub(crate) struct ScaleAndBias<'a> {
    pub(crate) scale: &'a [f32],
    pub(crate) bias: &'a [f32],
}

impl ScaleAndBias<'_> {
    /// Returns the scale of a channel.
    pub(super) fn scale(&self, channel: usize) -> f64 {
        self.scale[channel].into()
    }

    /// Returns the normalization of each channel.
    pub(super) fn normalizations(&self, moments: &[Moments]) -> Vec<Normalization> {
        let normalization = |(channel, moments): (usize, &Moments)| {
            let factor = self.scale(channel) * moments.inverse_deviation();
            Normalization {
                factor: factor as f32,
                offset: (f64::from(self.bias[channel]) - moments.mean * factor) as f32,
            }
        };
        moments.iter().enumerate().map(normalization).collect()
    }
}

/// [`Normalization`] with each coefficient in all lanes of a vector.
#[derive(Clone, Copy)]
pub(super) struct NormalizationVectors<S: Simd> {
    factor: S::f32s,
    offset: S::f32s,
}

impl<S: Simd> NormalizationVectors<S> {
    #[inline(always)]
    pub(super) fn new(simd: S, normalization: Normalization) -> Self {
        Self {
            factor: simd.splat_f32s(normalization.factor),
            offset: simd.splat_f32s(normalization.offset),
        }
    }

    /// Returns the normalized pixels, before the activation.
    #[inline(always)]
    pub(super) fn apply(self, simd: S, x: S::f32s) -> S::f32s {
        mul_add(simd, self.factor, x, self.offset)
    }
}
