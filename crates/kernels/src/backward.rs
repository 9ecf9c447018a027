//! The backward pass. Behind a pooling window at most one pixel has a gradient, and none where the
//! ReLU cut it off: only the pixels that won are visited.

use std::mem::MaybeUninit;

use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use crate::blocks::Blocks;
use crate::buffer::{Buffer, written};
use crate::input_gradient::{ByPixel, input_gradient};
use crate::shape::BlockShape;
use crate::simd::InstructionSet;
use crate::weight_gradient::weight_gradient;
use crate::winners::Winners;

/// Images are split into at most so many groups, each with its own sum of the weights' gradient.
/// The number does not depend on the threads, so neither do the results.
const MAX_GROUPS: usize = 16;

/// The gradients of a block's inputs.
pub(crate) struct Gradients {
    /// `[batch, in_channels, height, width]`, where it was asked for.
    pub(crate) images: Option<Vec<f32>>,
    /// `[out_channels, in_channels, kernel, kernel]`
    pub(crate) weight: Vec<f32>,
    /// `[out_channels]`
    pub(crate) bias: Vec<f32>,
}

/// Computes the gradients of the images (where `input` is set), the weight and the bias from that
/// of the output, `gradient`, and the `winners` that [`forward`](crate::forward::forward) noted.
pub(crate) fn backward(
    set: InstructionSet,
    shape: BlockShape,
    images: &[f32],
    weight: &[f32],
    gradient: &[f32],
    winners: &[u8],
    input: bool,
) -> Gradients {
    assert_eq!(images.len(), shape.batch * shape.image());
    assert_eq!(weight.len(), shape.out_channels * shape.filter());
    assert_eq!(gradient.len(), shape.batch * shape.out_image());
    assert_eq!(winners.len(), gradient.len());
    let blocks = Blocks::new(&shape, set.lanes());
    let taps = input.then(|| blocks.pack(weight));

    let groups = shape.batch.clamp(1, MAX_GROUPS);
    let bounds = |group: usize| group * shape.batch / groups;
    // Numbers of an image's gradient.
    let wanted = if input { shape.image() } else { 0 };
    let mut sums: Vec<Sums> = Vec::new();
    let visit = |image_gradients: &mut [MaybeUninit<f32>]| {
        // Each group writes to its own part; where no gradient is asked for, all parts are empty.
        let mut rest = image_gradients;
        let jobs: Vec<(usize, &mut [MaybeUninit<f32>])> = (0..groups)
            .map(|group| {
                let numbers = (bounds(group + 1) - bounds(group)) * wanted;
                let own = rest.split_off_mut(..numbers);
                (group, own.expect("there is room for all images"))
            })
            .collect();
        jobs.into_par_iter()
            .map(|(group, image_gradients)| {
                let (first, end) = (bounds(group), bounds(group + 1));
                set.run(BackwardGroup {
                    shape: &shape,
                    blocks: &blocks,
                    images: &images[first * shape.image()..end * shape.image()],
                    taps: taps.as_deref(),
                    gradient: &gradient[first * shape.out_image()..end * shape.out_image()],
                    winners: &winners[first * shape.out_image()..end * shape.out_image()],
                    image_gradients,
                })
            })
            .collect_into_vec(&mut sums);
    };
    // SAFETY: each group writes the gradients of all of its images, where they are wanted.
    let image_gradients = unsafe { written(shape.batch * wanted, visit) };

    let parts = |part: fn(&Sums) -> &[f32]| sums.iter().map(part).collect::<Vec<_>>();
    let weight = add_up(&parts(|sums| &sums.weight));
    let bias = add_up(&parts(|sums| &sums.bias));
    Gradients {
        images: input.then_some(image_gradients),
        weight: blocks.unpack(&weight),
        bias,
    }
}

/// The sums, number by number and in order, of vectors of the same length.
fn add_up(parts: &[&[f32]]) -> Vec<f32> {
    const CHUNK: usize = 1 << 12;
    let mut total = parts[0].to_vec();
    total
        .par_chunks_mut(CHUNK)
        .enumerate()
        .for_each(|(chunk, total)| {
            for part in &parts[1..] {
                for (total, &number) in total.iter_mut().zip(&part[chunk * CHUNK..]) {
                    *total += number;
                }
            }
        });
    total
}

/// The sum of some numbers.
#[inline(always)]
fn total<S: Simd>(simd: S, numbers: &[f32]) -> f32 {
    let (vectors, rest) = S::as_simd_f32s(numbers);
    let zero = simd.splat_f32s(0.0);
    let sum = vectors
        .iter()
        .fold(zero, |sum, &vector| simd.add_f32s(sum, vector));
    simd.reduce_sum_f32s(sum) + rest.iter().sum::<f32>()
}

/// The gradients of the weights, summed over some images.
struct Sums {
    /// As [`Blocks`] lays them out.
    weight: Buffer,
    bias: Buffer,
}

/// Some images, whose gradients are summed in order.
struct BackwardGroup<'a> {
    shape: &'a BlockShape,
    blocks: &'a Blocks,
    images: &'a [f32],
    taps: Option<&'a [f32]>,
    gradient: &'a [f32],
    winners: &'a [u8],
    image_gradients: &'a mut [MaybeUninit<f32>],
}

impl WithSimd for BackwardGroup<'_> {
    type Output = Sums;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> Sums {
        let shape = self.shape;
        let blocks = self.blocks;
        let mut sums = Sums {
            weight: Buffer::zeroed(blocks.weights()),
            bias: Buffer::zeroed(shape.out_channels),
        };
        let mut padded = blocks.image(S::F32_LANES);
        let mut won = Winners::new(shape);
        let mut input = self.taps.map(|taps| {
            let padded = blocks.image(S::F32_LANES);
            (taps, ByPixel::new(shape, blocks), padded)
        });
        let images = self.images.chunks_exact(shape.image());
        let gradients = self.gradient.chunks_exact(shape.out_image());
        let winners = self.winners.chunks_exact(shape.out_image());
        let mut image_gradients = self.image_gradients.chunks_exact_mut(shape.image());
        for ((image, gradient), winners) in images.zip(gradients).zip(winners) {
            blocks.pad(simd, shape, image, &mut padded);
            won.collect(simd, gradient, winners);
            for (sum, (_, gradients)) in sums.bias.iter_mut().zip(won.channels()) {
                *sum += total(simd, gradients);
            }
            weight_gradient(simd, blocks, &padded, &won, &mut sums.weight);
            if let (Some((taps, by_pixel, padded)), Some(image_gradient)) =
                (&mut input, image_gradients.next())
            {
                padded.fill(0.0);
                by_pixel.sort(&won);
                input_gradient(simd, blocks, taps, by_pixel, padded);
                blocks.unpad(simd, shape, padded, image_gradient);
            }
        }
        sums
    }
}
