//! The gradient of the weights: of each filter, the patches it won times their gradients.

use pulp::Simd;

use crate::blocks::Blocks;
use crate::registers::for_size;
use crate::simd::{load, mul_add, store};
use crate::winners::Winners;

/// So many chains of additions do not fill the pipeline.
const FEW: usize = 4;

/// Adds one image's gradient of the weights to `sums`.
#[inline(always)]
pub(crate) fn weight_gradient<S: Simd>(
    simd: S,
    blocks: &Blocks,
    padded: &[f32],
    winners: &Winners,
    sums: &mut [f32],
) {
    assert!(padded.len() >= blocks.image_len(S::F32_LANES));
    assert_eq!(sums.len(), blocks.weights());
    assert_eq!(blocks.pitch % S::F32_LANES, 0);
    let filters = blocks.out_channels * blocks.filter();
    for (block, sums) in sums.chunks_exact_mut(filters).enumerate() {
        for (first, vectors) in blocks.parts::<S>() {
            let filters = sums.chunks_exact_mut(blocks.filter());
            for (sums, (pixels, gradients)) in filters.zip(winners.channels()) {
                // SAFETY: winners are pixels of the convolution, so that their patches lie within
                // the padded image; a part's vectors end with the run's pitch, which is less than
                // a vector beyond the run, for which the image has room.
                unsafe {
                    let image = padded.as_ptr().add(block * blocks.plane + first);
                    let sums = sums.as_mut_ptr().add(first);
                    for_size!(
                        add_patches,
                        blocks.kernel,
                        vectors,
                        (simd, blocks, image, pixels, gradients, sums)
                    );
                }
            }
        }
    }
}

/// Adds the patches that begin at `pixels`, times their gradients, to `sums`.
///
/// # Safety
/// Each patch of `K` rows of `V` vectors lies within `image`, and so many vectors within `sums`.
#[inline(always)]
unsafe fn add_patches<S: Simd, const K: usize, const V: usize>(
    simd: S,
    blocks: &Blocks,
    image: *const f32,
    pixels: &[u32],
    gradients: &[f32],
    sums: *mut f32,
) {
    let lanes = S::F32_LANES;
    // SAFETY: as the caller promises.
    unsafe {
        let mut acc = [[simd.splat_f32s(0.0); V]; K];
        for (k, acc) in acc.iter_mut().enumerate() {
            for (v, acc) in acc.iter_mut().enumerate() {
                *acc = load(simd, sums.add(k * blocks.pitch + v * lanes));
            }
        }
        let (pixel_pairs, last_pixel) = pixels.as_chunks::<2>();
        let (gradient_pairs, last_gradient) = gradients.as_chunks::<2>();
        let pairs = pixel_pairs.iter().zip(gradient_pairs);
        if K * V <= FEW {
            // Two sums side by side, or each addition would wait for the one before.
            let mut odd = [[simd.splat_f32s(0.0); V]; K];
            for (&pixel, &gradient) in pairs {
                add_patch(simd, blocks, image, pixel[0], gradient[0], &mut acc);
                add_patch(simd, blocks, image, pixel[1], gradient[1], &mut odd);
            }
            for (acc, odd) in acc.iter_mut().flatten().zip(odd.iter().flatten()) {
                *acc = simd.add_f32s(*acc, *odd);
            }
        } else {
            for (&pixel, &gradient) in pairs {
                add_patch(simd, blocks, image, pixel[0], gradient[0], &mut acc);
                add_patch(simd, blocks, image, pixel[1], gradient[1], &mut acc);
            }
        }
        if let ([pixel], [gradient]) = (last_pixel, last_gradient) {
            add_patch(simd, blocks, image, *pixel, *gradient, &mut acc);
        }
        for (k, acc) in acc.iter().enumerate() {
            for (v, &acc) in acc.iter().enumerate() {
                store(simd, sums.add(k * blocks.pitch + v * lanes), acc);
            }
        }
    }
}

/// Adds one patch.
///
/// # Safety
/// The patch of `K` rows of `V` vectors lies within `image`.
#[inline(always)]
unsafe fn add_patch<S: Simd, const K: usize, const V: usize>(
    simd: S,
    blocks: &Blocks,
    image: *const f32,
    pixel: u32,
    gradient: f32,
    acc: &mut [[S::f32s; V]; K],
) {
    let gradient = simd.splat_f32s(gradient);
    for (k, acc) in acc.iter_mut().enumerate() {
        for (v, acc) in acc.iter_mut().enumerate() {
            let at = pixel as usize * blocks.width + k * blocks.row + v * S::F32_LANES;
            // SAFETY: as the caller promises.
            let pixels = unsafe { load(simd, image.add(at)) };
            *acc = mul_add(simd, gradient, pixels, *acc);
        }
    }
}
