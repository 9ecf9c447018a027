//! Elementary functions of a vector.

use pulp::Simd;

use super::vector::mul_add;

/// Exponents beyond this overflow or underflow.
const EXP_LIMIT: f32 = 87.0;
/// Adding this number rounds a small float to an integer, which the low bits of the sum contain.
const ROUNDING: f32 = 12_582_912.0;
/// Bits of the mantissa of an `f32`.
const MANTISSA_BITS: u32 = 23;
/// The natural logarithm of 2 as a sum. The product of the first part and a small integer is exact.
const LN_2: [f32; 2] = [0.693_359_4, -2.121_944_4e-4];
/// The Taylor series of `exp(x)`, highest degree first. Its relative error is below 2e-7 for `|x| <= ln(2) / 2`.
const EXP: [f32; 7] = [
    1.0 / 720.0,
    1.0 / 120.0,
    1.0 / 24.0,
    1.0 / 6.0,
    0.5,
    1.0,
    1.0,
];

/// Evaluates a polynomial, highest degree first, by Horner's method.
#[inline(always)]
pub(crate) fn polynomial<S: Simd, const N: usize>(
    simd: S,
    x: S::f32s,
    coefficients: [f32; N],
) -> S::f32s {
    let mut sum = simd.splat_f32s(coefficients[0]);
    for &coefficient in &coefficients[1..] {
        sum = mul_add(simd, sum, x, simd.splat_f32s(coefficient));
    }
    sum
}

/// Computes `exp(x)` with a relative error below 1e-6. `x` is clamped to -87..87.
#[inline(always)]
pub(crate) fn exp<S: Simd>(simd: S, x: S::f32s) -> S::f32s {
    let limit = simd.splat_f32s(EXP_LIMIT);
    let x = simd.max_f32s(simd.min_f32s(x, limit), simd.neg_f32s(limit));
    // x = n ln(2) + rest, with an integer n.
    let rounding = simd.splat_f32s(ROUNDING);
    let shifted = mul_add(simd, x, simd.splat_f32s(std::f32::consts::LOG2_E), rounding);
    let n = simd.sub_f32s(shifted, rounding);
    let (high, low) = (simd.splat_f32s(-LN_2[0]), simd.splat_f32s(-LN_2[1]));
    let rest = mul_add(simd, n, low, mul_add(simd, n, high, x));
    let power = polynomial(simd, rest, EXP);
    // Multiplies by 2^n: adds n to the exponent. The shift removes all bits of `ROUNDING`.
    let bits = simd.transmute_u32s_f32s(shifted);
    let exponent = simd.wrapping_dyn_shl_u32s(bits, simd.splat_u32s(MANTISSA_BITS));
    let power = simd.transmute_u32s_f32s(power);
    simd.transmute_f32s_u32s(simd.add_u32s(power, exponent))
}
