//! The transforms of `F(4x4, 3x3)` in one dimension, each on vectors of independent channels.
//!
//! A convolution of 6 pixels with 3 taps is a product of polynomials, which is determined by its values at 6 points:
//! Lavin and Gray (2015), "Fast Algorithms for Convolutional Neural Networks". Their points are 0, 1, -1, 2, -2 and
//! infinity. The points 0, 2/3, -2/3, 3/2, -3/2 and infinity halve the rounding error, because the powers of 2/3 and
//! 3/2 stay closer to 1, and need as few operations: the product of the squares of 2/3 and 3/2 is 1.

use pulp::Simd;

use crate::cpu::simd::mul_add;

/// Outputs of a tile in one dimension.
pub(super) const OUTPUTS: usize = 4;
/// Taps of a filter in one dimension.
pub(super) const TAPS: usize = 3;
/// Pixels of a tile, and values after a transform, in one dimension.
pub(super) const POINTS: usize = OUTPUTS + TAPS - 1;

/// Multiplications of the convolution for each multiplication at a point, in whole tiles.
pub(super) const SAVED_PRODUCTS: usize = (OUTPUTS * TAPS / POINTS).pow(2);

/// The points `A` and `-A`, `B` and `-B`.
const A: f32 = 2.0 / 3.0;
const B: f32 = 3.0 / 2.0;
const A2: f32 = A * A;
const B2: f32 = B * B;
/// Factors that make the transforms of filters and images those of one convolution: the reciprocals of the products of
/// the differences of a point to the others.
const SCALE_A: f32 = 1.0 / (2.0 * A2 * (A2 - B2));
const SCALE_B: f32 = 1.0 / (2.0 * B2 * (B2 - A2));

/// Transforms the pixels of a tile.
#[inline(always)]
pub(super) fn pixels<S: Simd>(simd: S, d: [S::f32s; POINTS]) -> [S::f32s; POINTS] {
    let splat = |x: f32| simd.splat_f32s(x);
    let (a2, b2, sum) = (splat(-A2), splat(-B2), splat(-(A2 + B2)));
    let even = [mul_add(simd, d[2], b2, d[4]), mul_add(simd, d[2], a2, d[4])];
    let odd = [mul_add(simd, d[1], b2, d[3]), mul_add(simd, d[1], a2, d[3])];
    [
        mul_add(simd, d[2], sum, simd.add_f32s(d[0], d[4])),
        mul_add(simd, odd[0], splat(A), even[0]),
        mul_add(simd, odd[0], splat(-A), even[0]),
        mul_add(simd, odd[1], splat(B), even[1]),
        mul_add(simd, odd[1], splat(-B), even[1]),
        mul_add(simd, d[3], sum, simd.add_f32s(d[1], d[5])),
    ]
}

/// Transforms the taps of a filter.
#[inline(always)]
pub(super) fn taps<S: Simd>(simd: S, g: [S::f32s; TAPS]) -> [S::f32s; POINTS] {
    let splat = |x: f32| simd.splat_f32s(x);
    let scaled = |x: f32, scale: f32| {
        let even = mul_add(
            simd,
            g[2],
            splat(x * x * scale),
            simd.mul_f32s(g[0], splat(scale)),
        );
        let odd = simd.mul_f32s(g[1], splat(x * scale));
        (simd.add_f32s(even, odd), simd.sub_f32s(even, odd))
    };
    let (a, minus_a) = scaled(A, SCALE_A);
    let (b, minus_b) = scaled(B, SCALE_B);
    [g[0], a, minus_a, b, minus_b, g[2]]
}

/// Transforms the products at the points to the outputs of a tile.
#[inline(always)]
pub(super) fn outputs<S: Simd>(simd: S, m: [S::f32s; POINTS]) -> [S::f32s; OUTPUTS] {
    let splat = |x: f32| simd.splat_f32s(x);
    let (even_a, odd_a) = (simd.add_f32s(m[1], m[2]), simd.sub_f32s(m[1], m[2]));
    let (even_b, odd_b) = (simd.add_f32s(m[3], m[4]), simd.sub_f32s(m[3], m[4]));
    let combine = |a: S::f32s, power_a: f32, b: S::f32s, power_b: f32| {
        mul_add(simd, b, splat(power_b), simd.mul_f32s(a, splat(power_a)))
    };
    [
        simd.add_f32s(m[0], simd.add_f32s(even_a, even_b)),
        combine(odd_a, A, odd_b, B),
        combine(even_a, A2, even_b, B2),
        simd.add_f32s(m[5], combine(odd_a, A2 * A, odd_b, B2 * B)),
    ]
}

/// Transforms the gradients of a tile's outputs: the transpose of [`outputs`].
#[inline(always)]
pub(super) fn output_gradients<S: Simd>(simd: S, y: [S::f32s; OUTPUTS]) -> [S::f32s; POINTS] {
    let splat = |x: f32| simd.splat_f32s(x);
    let at = |x: f32| {
        let even = mul_add(simd, y[2], splat(x * x), y[0]);
        let odd = mul_add(simd, y[3], splat(x * x * x), simd.mul_f32s(y[1], splat(x)));
        (simd.add_f32s(even, odd), simd.sub_f32s(even, odd))
    };
    let (a, minus_a) = at(A);
    let (b, minus_b) = at(B);
    [y[0], a, minus_a, b, minus_b, y[3]]
}

/// Transforms the sums of products at the points to the gradients of a filter's taps: the transpose of [`taps`].
#[inline(always)]
pub(super) fn tap_gradients<S: Simd>(simd: S, m: [S::f32s; POINTS]) -> [S::f32s; TAPS] {
    let splat = |x: f32| simd.splat_f32s(x);
    let (a, b) = (splat(SCALE_A), splat(SCALE_B));
    let even_a = simd.mul_f32s(simd.add_f32s(m[1], m[2]), a);
    let odd_a = simd.mul_f32s(simd.sub_f32s(m[1], m[2]), a);
    let even_b = simd.mul_f32s(simd.add_f32s(m[3], m[4]), b);
    let odd_b = simd.mul_f32s(simd.sub_f32s(m[3], m[4]), b);
    [
        simd.add_f32s(m[0], simd.add_f32s(even_a, even_b)),
        mul_add(simd, odd_b, splat(B), simd.mul_f32s(odd_a, splat(A))),
        simd.add_f32s(
            m[5],
            mul_add(simd, even_b, splat(B2), simd.mul_f32s(even_a, splat(A2))),
        ),
    ]
}
