//! The gradient with respect to the weights: for each filter, the sum of image patches times their gradients.

use pulp::Simd;

use super::blocked_layout::BlockedLayout;
use super::register_blocking::dispatch_size;
use super::sparse_gradient::SparseGradient;
use crate::cpu::simd::{load, mul_add, store};

/// With at most this many accumulators, the latency of an addition limits the speed.
const LATENCY_BOUND_ACCUMULATORS: usize = 4;

/// Adds the gradient of one image to `sums`, the packed gradient with respect to the weights.
#[inline(always)]
pub(super) fn weight_gradient<S: Simd>(
    simd: S,
    layout: &BlockedLayout,
    padded: &[f32],
    gradient: &SparseGradient,
    sums: &mut [f32],
) {
    assert!(padded.len() >= layout.image_len(S::F32_LANES));
    assert_eq!(sums.len(), layout.weight_len());
    assert_eq!(layout.run_pitch % S::F32_LANES, 0);
    let filters = layout.out_channels * layout.filter_len();
    for (block, sums) in sums.chunks_exact_mut(filters).enumerate() {
        for (first, vectors) in layout.run_parts::<S>() {
            let filters = sums.chunks_exact_mut(layout.filter_len());
            for (sums, (pixels, gradients)) in filters.zip(gradient.channels()) {
                // SAFETY: `pixels` are pixels of the convolution, so their patches lie within the padded image. A
                // part ends at most at the run's pitch, less than a vector beyond the run; the image has room for a
                // vector behind its end.
                unsafe {
                    let image = padded.as_ptr().add(block * layout.plane_len + first);
                    let sums = sums.as_mut_ptr().add(first);
                    dispatch_size!(
                        add_patches,
                        layout.kernel,
                        vectors,
                        (simd, layout, image, pixels, gradients, sums)
                    );
                }
            }
        }
    }
}

/// Adds the patches that start at `pixels`, times their gradients, to `sums`.
///
/// # Safety
/// `image` must be valid for reads of the patch of each pixel, and `sums` for reads and writes of one filter: `K` rows
/// of `V` vectors.
#[inline(always)]
unsafe fn add_patches<S: Simd, const K: usize, const V: usize>(
    simd: S,
    layout: &BlockedLayout,
    image: *const f32,
    pixels: &[u32],
    gradients: &[f32],
    sums: *mut f32,
) {
    let lanes = S::F32_LANES;
    // SAFETY: the caller guarantees that the patches and the filter's sums are valid.
    unsafe {
        let mut acc = [[simd.splat_f32s(0.0); V]; K];
        for (k, acc) in acc.iter_mut().enumerate() {
            for (v, acc) in acc.iter_mut().enumerate() {
                *acc = load(simd, sums.add(k * layout.run_pitch + v * lanes));
            }
        }
        let (pixel_pairs, last_pixel) = pixels.as_chunks::<2>();
        let (gradient_pairs, last_gradient) = gradients.as_chunks::<2>();
        let pairs = pixel_pairs.iter().zip(gradient_pairs);
        if K * V <= LATENCY_BOUND_ACCUMULATORS {
            // Two independent sums hide the latency.
            let mut odd = [[simd.splat_f32s(0.0); V]; K];
            for (&pixel, &gradient) in pairs {
                add_patch(simd, layout, image, pixel[0], gradient[0], &mut acc);
                add_patch(simd, layout, image, pixel[1], gradient[1], &mut odd);
            }
            for (acc, odd) in acc.iter_mut().flatten().zip(odd.iter().flatten()) {
                *acc = simd.add_f32s(*acc, *odd);
            }
        } else {
            for (&pixel, &gradient) in pairs {
                add_patch(simd, layout, image, pixel[0], gradient[0], &mut acc);
                add_patch(simd, layout, image, pixel[1], gradient[1], &mut acc);
            }
        }
        if let ([pixel], [gradient]) = (last_pixel, last_gradient) {
            add_patch(simd, layout, image, *pixel, *gradient, &mut acc);
        }
        for (k, acc) in acc.iter().enumerate() {
            for (v, &acc) in acc.iter().enumerate() {
                store(simd, sums.add(k * layout.run_pitch + v * lanes), acc);
            }
        }
    }
}

/// Adds one patch, times its gradient, to the accumulators.
///
/// # Safety
/// `image` must be valid for reads of the patch: `K` rows of `V` vectors.
#[inline(always)]
unsafe fn add_patch<S: Simd, const K: usize, const V: usize>(
    simd: S,
    layout: &BlockedLayout,
    image: *const f32,
    pixel: u32,
    gradient: f32,
    acc: &mut [[S::f32s; V]; K],
) {
    let gradient = simd.splat_f32s(gradient);
    for (k, acc) in acc.iter_mut().enumerate() {
        for (v, acc) in acc.iter_mut().enumerate() {
            let at = pixel as usize * layout.block_channels + k * layout.row_len + v * S::F32_LANES;
            // SAFETY: the caller guarantees that the patch is valid for reads.
            let pixels = unsafe { load(simd, image.add(at)) };
            *acc = mul_add(simd, gradient, pixels, *acc);
        }
    }
}
