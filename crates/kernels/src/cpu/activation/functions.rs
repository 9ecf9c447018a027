//! Activation functions of a vector.

use std::f32::consts::FRAC_1_SQRT_2;

use pulp::Simd;

use crate::cpu::simd::{exp, mul_add, polynomial};

/// An activation function and its gradient. Both preserve NaN.
pub(crate) trait ActivationFunction: Copy + Send + Sync {
    /// Returns `f(x)`.
    fn apply<S: Simd>(self, simd: S, x: S::f32s) -> S::f32s;

    /// Returns `gradient * f'(x)`.
    fn gradient<S: Simd>(self, simd: S, x: S::f32s, gradient: S::f32s) -> S::f32s;
}

#[derive(Clone, Copy)]
pub(crate) struct Identity;

impl ActivationFunction for Identity {
    #[inline(always)]
    fn apply<S: Simd>(self, _: S, x: S::f32s) -> S::f32s {
        x
    }

    #[inline(always)]
    fn gradient<S: Simd>(self, _: S, _: S::f32s, gradient: S::f32s) -> S::f32s {
        gradient
    }
}

#[derive(Clone, Copy)]
pub(crate) struct Relu;

impl ActivationFunction for Relu {
    #[inline(always)]
    fn apply<S: Simd>(self, simd: S, x: S::f32s) -> S::f32s {
        let zero = simd.splat_f32s(0.0);
        simd.select_f32s(simd.less_than_or_equal_f32s(x, zero), zero, x)
    }

    #[inline(always)]
    fn gradient<S: Simd>(self, simd: S, x: S::f32s, gradient: S::f32s) -> S::f32s {
        let zero = simd.splat_f32s(0.0);
        let is_clipped = simd.less_than_or_equal_f32s(x, zero);
        simd.select_f32s(is_clipped, zero, gradient)
    }
}

#[derive(Clone, Copy)]
pub(crate) struct Gelu;

impl Gelu {
    /// Returns the standard normal distribution function at `x`, with an error below 2e-7, and `exp(-x * x / 2)`.
    ///
    /// The formula is 7.1.26 of Abramowitz and Stegun, "Handbook of Mathematical Functions" (1964).
    #[inline(always)]
    fn distribution<S: Simd>(simd: S, x: S::f32s) -> (S::f32s, S::f32s) {
        let one = simd.splat_f32s(1.0);
        let scaled = simd.mul_f32s(x, simd.splat_f32s(FRAC_1_SQRT_2));
        let density = exp(simd, simd.neg_f32s(simd.mul_f32s(scaled, scaled)));
        let denominator = mul_add(
            simd,
            simd.abs_f32s(scaled),
            simd.splat_f32s(0.327_591_1),
            one,
        );
        let t = simd.div_f32s(one, denominator);
        let sum = polynomial(
            simd,
            t,
            [
                1.061_405_4,
                -1.453_152,
                1.421_413_7,
                -0.284_496_73,
                0.254_829_6,
                0.0,
            ],
        );
        // The probability beyond |x|.
        let half = simd.splat_f32s(0.5);
        let tail = simd.mul_f32s(half, simd.mul_f32s(sum, density));
        let is_positive = simd.greater_than_f32s(x, simd.splat_f32s(0.0));
        let probability = simd.select_f32s(is_positive, simd.sub_f32s(one, tail), tail);
        (probability, density)
    }
}

impl ActivationFunction for Gelu {
    #[inline(always)]
    fn apply<S: Simd>(self, simd: S, x: S::f32s) -> S::f32s {
        simd.mul_f32s(x, Self::distribution(simd, x).0)
    }

    #[inline(always)]
    fn gradient<S: Simd>(self, simd: S, x: S::f32s, gradient: S::f32s) -> S::f32s {
        let (probability, density) = Self::distribution(simd, x);
        // 1 / sqrt(2 pi)
        let density = simd.mul_f32s(density, simd.splat_f32s(0.398_942_3));
        simd.mul_f32s(gradient, mul_add(simd, x, density, probability))
    }
}

#[derive(Clone, Copy)]
pub(crate) struct Silu;

impl Silu {
    /// Returns `1 / (1 + exp(-x))`.
    #[inline(always)]
    fn sigmoid<S: Simd>(simd: S, x: S::f32s) -> S::f32s {
        let one = simd.splat_f32s(1.0);
        simd.div_f32s(one, simd.add_f32s(one, exp(simd, simd.neg_f32s(x))))
    }
}

impl ActivationFunction for Silu {
    #[inline(always)]
    fn apply<S: Simd>(self, simd: S, x: S::f32s) -> S::f32s {
        simd.mul_f32s(x, Self::sigmoid(simd, x))
    }

    #[inline(always)]
    fn gradient<S: Simd>(self, simd: S, x: S::f32s, gradient: S::f32s) -> S::f32s {
        let sigmoid = Self::sigmoid(simd, x);
        // s' = s (1 - s), so (x s)' = s + x s (1 - s).
        let slope = simd.mul_f32s(sigmoid, simd.sub_f32s(simd.splat_f32s(1.0), sigmoid));
        simd.mul_f32s(gradient, mul_add(simd, x, slope, sigmoid))
    }
}

#[derive(Clone, Copy)]
pub(crate) struct Tanh;

/// Below this, the quotient of [`Tanh`] loses digits, and its Taylor series is exact.
const TANH_SERIES: f32 = 0.3;

impl ActivationFunction for Tanh {
    #[inline(always)]
    fn apply<S: Simd>(self, simd: S, x: S::f32s) -> S::f32s {
        let one = simd.splat_f32s(1.0);
        let power = exp(simd, simd.mul_f32s(x, simd.splat_f32s(-2.0)));
        let quotient = simd.div_f32s(simd.sub_f32s(one, power), simd.add_f32s(one, power));
        let square = simd.mul_f32s(x, x);
        let factor = polynomial(
            simd,
            square,
            [62.0 / 2835.0, -17.0 / 315.0, 2.0 / 15.0, -1.0 / 3.0, 1.0],
        );
        let series = simd.mul_f32s(x, factor);
        let is_small = simd.less_than_f32s(simd.abs_f32s(x), simd.splat_f32s(TANH_SERIES));
        let result = simd.select_f32s(is_small, series, quotient);
        simd.select_f32s(simd.equal_f32s(x, x), result, x)
    }

    #[inline(always)]
    fn gradient<S: Simd>(self, simd: S, x: S::f32s, gradient: S::f32s) -> S::f32s {
        let y = self.apply(simd, x);
        let slope = simd.sub_f32s(simd.splat_f32s(1.0), simd.mul_f32s(y, y));
        simd.mul_f32s(gradient, slope)
    }
}
