//! The backward pass: sums per channel, then the gradients in parallel over images.

use std::mem::MaybeUninit;

use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use super::moments::Moments;
use super::normalization::{Normalization, NormalizationVectors, ScaleAndBias};
use super::shape::NormShape;
use crate::cpu::activation::{Activation, ActivationFunction, with_function};
use crate::cpu::simd::{InstructionSet, VectorFunction, init_vec, map_vectors, mul_add};

/// Gradients of batch normalization.
pub(crate) struct NormGradients {
    pub(crate) images: Vec<f32>,
    pub(crate) scale: Vec<f32>,
    pub(crate) bias: Vec<f32>,
}

/// Returns the gradients with respect to images, scale and bias.
pub(crate) fn backward(
    set: InstructionSet,
    shape: NormShape,
    images: &[f32],
    affine: ScaleAndBias<'_>,
    activation: Activation,
    moments: &[Moments],
    gradient: &[f32],
) -> NormGradients {
    let normalizations = affine.normalizations(moments);
    // Per channel: the sums of g and of g * x, where g is the gradient before the activation.
    let sums: Vec<[f64; 2]> = (0..shape.channels)
        .into_par_iter()
        .map(|channel| {
            let images = shape.channel_planes(images, channel);
            let planes = images.zip(shape.channel_planes(gradient, channel));
            let sums = planes.map(|(image, gradient)| {
                let normalization = normalizations[channel];
                with_function!(activation, |function| set.run(GradientSums {
                    function,
                    image,
                    gradient,
                    normalization,
                }))
            });
            sums.fold([0.0; 2], |[a, b], [sum, product]| [a + sum, b + product])
        })
        .collect();
    // dx = scale (g - mean(g) - x' mean(g x')) / deviation, where x' = (x - mean) / deviation.
    let input_gradients: Vec<InputGradient> = sums
        .iter()
        .zip(moments)
        .enumerate()
        .map(|(channel, (&[sum, product], moments))| {
            let inverse = moments.inverse_deviation();
            let factor = affine.scale(channel) * inverse;
            let mean = sum / shape.count();
            let slope = inverse * inverse * (product / shape.count() - moments.mean * mean);
            InputGradient {
                factor: factor as f32,
                slope: (-factor * slope) as f32,
                offset: (factor * (slope * moments.mean - mean)) as f32,
            }
        })
        .collect();
    let compute_planes = |output: &mut [MaybeUninit<f32>]| {
        let image_len = shape.image_len();
        let images = images
            .par_chunks(image_len)
            .zip(gradient.par_chunks(image_len));
        output
            .par_chunks_mut(image_len)
            .zip(images)
            .for_each(|(output, (image, gradient))| {
                let inputs = image
                    .chunks(shape.plane_len)
                    .zip(gradient.chunks(shape.plane_len));
                let planes = output.chunks_mut(shape.plane_len).zip(inputs);
                for (channel, (output, (image, gradient))) in planes.enumerate() {
                    with_function!(activation, |function| set.run(BackwardPlane {
                        function,
                        image,
                        gradient,
                        normalization: normalizations[channel],
                        input_gradient: input_gradients[channel],
                        output,
                    }));
                }
            });
    };
    // SAFETY: each plane of each image is written completely.
    let images = unsafe { init_vec(images.len(), compute_planes) };
    let scale = sums.iter().zip(moments).map(|([sum, product], moments)| {
        (moments.inverse_deviation() * (product - moments.mean * sum)) as f32
    });
    NormGradients {
        images,
        scale: scale.collect(),
        bias: sums.iter().map(|[sum, _]| *sum as f32).collect(),
    }
}

/// The gradient with respect to a pixel `x` of a channel: `factor * g + slope * x + offset`, where `g` is the gradient
/// before the activation.
#[derive(Clone, Copy)]
struct InputGradient {
    factor: f32,
    slope: f32,
    offset: f32,
}

/// Computes the sum of a plane's gradient before the activation, and the sum of its products with the image.
struct GradientSums<'a, F> {
    function: F,
    image: &'a [f32],
    gradient: &'a [f32],
    normalization: Normalization,
}

impl<F: ActivationFunction> WithSimd for GradientSums<'_, F> {
    type Output = [f64; 2];

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> [f64; 2] {
        let normalization = NormalizationVectors::new(simd, self.normalization);
        let (images, image_rest) = S::as_simd_f32s(self.image);
        let (gradients, gradient_rest) = S::as_simd_f32s(self.gradient);
        // Lanes beyond the end have gradient zero, so they add nothing.
        let rest = simd.partial_load_f32s(image_rest);
        let gradient_rest = simd.partial_load_f32s(gradient_rest);
        let mut sum = self
            .function
            .gradient(simd, normalization.apply(simd, rest), gradient_rest);
        let mut products = simd.mul_f32s(sum, rest);
        for (&x, &gradient) in images.iter().zip(gradients) {
            let gradient = self
                .function
                .gradient(simd, normalization.apply(simd, x), gradient);
            sum = simd.add_f32s(sum, gradient);
            products = mul_add(simd, gradient, x, products);
        }
        let (sum, products) = (simd.reduce_sum_f32s(sum), simd.reduce_sum_f32s(products));
        [sum.into(), products.into()]
    }
}

/// Computes the gradient with respect to a plane.
struct BackwardPlane<'a, F> {
    function: F,
    image: &'a [f32],
    gradient: &'a [f32],
    normalization: Normalization,
    input_gradient: InputGradient,
    output: &'a mut [MaybeUninit<f32>],
}

impl<F: ActivationFunction> WithSimd for BackwardPlane<'_, F> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let InputGradient {
            factor,
            slope,
            offset,
        } = self.input_gradient;
        let function = DifferentiateInput {
            function: self.function,
            normalization: NormalizationVectors::new(simd, self.normalization),
            factor: simd.splat_f32s(factor),
            slope: simd.splat_f32s(slope),
            offset: simd.splat_f32s(offset),
        };
        map_vectors(simd, self.output, [self.image, self.gradient], &function);
    }
}

/// The function of [`BackwardPlane`].
struct DifferentiateInput<S: Simd, F> {
    function: F,
    normalization: NormalizationVectors<S>,
    factor: S::f32s,
    slope: S::f32s,
    offset: S::f32s,
}

impl<S: Simd, F: ActivationFunction> VectorFunction<S> for DifferentiateInput<S, F> {
    #[inline(always)]
    fn call(&self, simd: S, x: S::f32s, gradient: S::f32s) -> S::f32s {
        let y = self.normalization.apply(simd, x);
        let gradient = self.function.gradient(simd, y, gradient);
        let linear = mul_add(simd, self.slope, x, self.offset);
        mul_add(simd, self.factor, gradient, linear)
    }
}
