//! The convolution block: convolution with stride 1, bias, ReLU, 2x2 max-pooling.

mod shape;
mod product;
mod direct;
mod dense;
mod sparse;
mod winograd;

#[cfg(test)]
mod reference_tests;

pub(crate) use shape::BlockShape;
pub use shape::ConvBlockOptions;
#[cfg(feature = "remote")]
pub(crate) use shape::RELU_CLIPPED;
pub(crate) use sparse::Gradients;

use std::sync::OnceLock;

use crate::cpu::simd::InstructionSet;

/// The filters of one block in the layouts of the algorithms, for many calls. Each is computed when it is needed first.
#[derive(Debug, Default)]
pub(crate) struct FilterCache {
    direct: OnceLock<direct::PackedFilters>,
    winograd: OnceLock<winograd::Filters>,
}

/// Computes the output `[batch, out_channels, out_height, out_width]` of a block. `cache` must belong to these weights
/// and this bias.
///
/// Writes to `pool_argmax`, of the same shape, where the backward pass sends each gradient: the index of the maximum
/// in its pooling window, or [`RELU_CLIPPED`](shape::RELU_CLIPPED). It is empty without ReLU and pooling.
///
/// # Panics
/// Panics if a slice does not have the length that `shape` requires.
pub(crate) fn forward(
    set: InstructionSet,
    shape: BlockShape,
    images: &[f32],
    weight: &[f32],
    bias: &[f32],
    mut pool_argmax: Option<&mut [u8]>,
    cache: Option<&FilterCache>,
) -> Vec<f32> {
    assert_eq!(images.len(), shape.batch * shape.image_len());
    assert_eq!(weight.len(), shape.out_channels * shape.filter_len());
    assert_eq!(bias.len(), shape.out_channels);
    if let Some(pool_argmax) = &pool_argmax {
        assert_eq!(pool_argmax.len(), shape.argmax_len());
    }
    // Without ReLU and pooling there is nothing to save.
    pool_argmax = pool_argmax.filter(|argmax| !argmax.is_empty());
    let is_winograd = winograd::is_suited(&shape, cache.is_some());
    let unshared = FilterCache::default();
    let cache = cache.unwrap_or(&unshared);
    if is_winograd {
        let argmax = pool_argmax.as_deref_mut();
        let filters = &cache.winograd;
        if let Some(output) = winograd::forward(set, &shape, images, weight, bias, argmax, filters)
        {
            return output;
        }
    }
    direct::forward(set, shape, images, weight, bias, pool_argmax, &cache.direct)
}

/// Computes the gradients with respect to weight, bias and, if `needs_images`, the images.
///
/// `gradient` is the gradient with respect to the output, `pool_argmax` comes from [`forward`].
///
/// # Panics
/// Panics if a slice does not have the length that `shape` requires.
pub(crate) fn backward(
    set: InstructionSet,
    shape: BlockShape,
    images: &[f32],
    weight: &[f32],
    gradient: &[f32],
    pool_argmax: &[u8],
    needs_images: bool,
) -> Gradients {
    assert_eq!(images.len(), shape.batch * shape.image_len());
    assert_eq!(weight.len(), shape.out_channels * shape.filter_len());
    assert_eq!(gradient.len(), shape.batch * shape.out_image_len());
    assert_eq!(pool_argmax.len(), shape.argmax_len());
    if winograd::is_suited_backward(&shape) {
        let gradients = winograd::backward(
            set,
            &shape,
            images,
            weight,
            gradient,
            pool_argmax,
            needs_images,
        );
        if let Some(gradients) = gradients {
            return gradients;
        }
    }
    let backward = match dense::is_suited(&shape) {
        true => dense::backward,
        false => sparse::backward,
    };
    backward(
        set,
        &shape,
        images,
        weight,
        gradient,
        pool_argmax,
        needs_images,
    )
}
