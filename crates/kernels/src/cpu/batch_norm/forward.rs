//! The forward pass, in parallel over images.

use std::mem::MaybeUninit;

use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use super::moments::{Moments, channel_moments};
use super::normalization::{Normalization, NormalizationVectors, ScaleAndBias};
use super::shape::NormShape;
use crate::cpu::activation::{Activation, ActivationFunction, with_function};
use crate::cpu::simd::{InstructionSet, VectorFunction, init_vec, map_vectors};

/// Returns the output, and the moments of the images for the backward pass.
pub(crate) fn forward(
    set: InstructionSet,
    shape: NormShape,
    images: &[f32],
    affine: ScaleAndBias<'_>,
    activation: Activation,
) -> (Vec<f32>, Vec<Moments>) {
    let moments = channel_moments(set, shape, images);
    let normalizations = affine.normalizations(&moments);
    let normalize = |output: &mut [MaybeUninit<f32>]| {
        let output = output.par_chunks_mut(shape.image_len());
        output
            .zip(images.par_chunks(shape.image_len()))
            .for_each(|(output, image)| {
                let planes = output
                    .chunks_mut(shape.plane_len)
                    .zip(image.chunks(shape.plane_len));
                for ((output, image), &normalization) in planes.zip(&normalizations) {
                    with_function!(activation, |function| set.run(ForwardPlane {
                        function,
                        image,
                        normalization,
                        output,
                    }));
                }
            });
    };
    // SAFETY: each plane of each image is written completely.
    let output = unsafe { init_vec(images.len(), normalize) };
    (output, moments)
}

/// Normalizes a plane and applies the activation.
struct ForwardPlane<'a, F> {
    function: F,
    image: &'a [f32],
    normalization: Normalization,
    output: &'a mut [MaybeUninit<f32>],
}

impl<F: ActivationFunction> WithSimd for ForwardPlane<'_, F> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let function = Normalize {
            function: self.function,
            normalization: NormalizationVectors::new(simd, self.normalization),
        };
        map_vectors(simd, self.output, [self.image; 2], &function);
    }
}

/// The function of [`ForwardPlane`].
struct Normalize<S: Simd, F> {
    function: F,
    normalization: NormalizationVectors<S>,
}

impl<S: Simd, F: ActivationFunction> VectorFunction<S> for Normalize<S, F> {
    #[inline(always)]
    fn call(&self, simd: S, x: S::f32s, _: S::f32s) -> S::f32s {
        self.function.apply(simd, self.normalization.apply(simd, x))
    }
}
