//! The backward pass. Behind a pooling window at most one pixel has a gradient, and none where the
//! ReLU cut it off: only the pixels that won are visited.

use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use crate::buffer::Buffer;
use crate::shape::BlockShape;
use crate::simd::{InstructionSet, load, mul_add, store};
use crate::transpose::transpose;
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
    let mut image_gradients = input.then(|| vec![0.0; images.len()]);

    let groups = shape.batch.clamp(1, MAX_GROUPS);
    let bounds = |group: usize| group * shape.batch / groups;
    let mut rest = image_gradients.as_deref_mut().unwrap_or_default();
    let jobs: Vec<(usize, &mut [f32])> = (0..groups)
        .map(|group| {
            let numbers = (bounds(group + 1) - bounds(group)) * shape.image();
            let (own, others) =
                std::mem::take(&mut rest).split_at_mut(if input { numbers } else { 0 });
            rest = others;
            (group, own)
        })
        .collect();
    let sums: Vec<Sums> = jobs
        .into_par_iter()
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
        .collect();

    let parts = |part: fn(&Sums) -> &[f32]| sums.iter().map(part).collect::<Vec<_>>();
    let weight = add_up(&parts(|sums| &sums.weight));
    let bias = add_up(&parts(|sums| &sums.bias));
    Gradients {
        images: image_gradients,
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

/// Images and weights with their channels last, in blocks of as many as a vector has lanes, so
/// that what is read again and again stays in the first-level cache.
///
/// Images are `[blocks, padded_height, padded_width, width of a block]`, weights `[blocks,
/// out_channels, kernel, pitch]`: for each row of the kernel a run of `kernel * width` numbers that
/// lie side by side in the image too, filled up to whole vectors.
struct Blocks {
    kernel: usize,
    in_channels: usize,
    out_channels: usize,
    count: usize,
    /// Channels of a block.
    width: usize,
    /// Numbers in a run.
    run: usize,
    /// The same in whole vectors.
    pitch: usize,
    /// Numbers in a row of a padded image.
    row: usize,
    /// Numbers in a block of a padded image.
    plane: usize,
}

impl Blocks {
    fn new(shape: &BlockShape, lanes: usize) -> Self {
        let width = shape.in_channels.min(lanes);
        let run = shape.kernel * width;
        let row = shape.padded_width() * width;
        Self {
            kernel: shape.kernel,
            in_channels: shape.in_channels,
            out_channels: shape.out_channels,
            count: shape.in_channels.div_ceil(width),
            width,
            run,
            pitch: run.next_multiple_of(lanes),
            row,
            plane: shape.padded_height() * row,
        }
    }

    /// Numbers of one filter in one block.
    fn filter(&self) -> usize {
        self.kernel * self.pitch
    }

    /// Numbers of all weights.
    fn weights(&self) -> usize {
        self.count * self.out_channels * self.filter()
    }

    /// Calls `visit(weight, packed)` with the index of each weight in `[out_channels, in_channels,
    /// kernel, kernel]` and here.
    #[inline(always)]
    fn indices(&self, mut visit: impl FnMut(usize, usize)) {
        let mut weight = 0;
        for out in 0..self.out_channels {
            for channel in 0..self.in_channels {
                let (block, lane) = (channel / self.width, channel % self.width);
                let filter = (block * self.out_channels + out) * self.filter() + lane;
                for ky in 0..self.kernel {
                    for kx in 0..self.kernel {
                        visit(weight, filter + ky * self.pitch + kx * self.width);
                        weight += 1;
                    }
                }
            }
        }
    }

    fn pack(&self, weight: &[f32]) -> Buffer {
        let mut packed = Buffer::zeroed(self.weights());
        self.indices(|from, to| packed[to] = weight[from]);
        packed
    }

    fn unpack(&self, packed: &[f32]) -> Vec<f32> {
        let mut weight = vec![0.0; self.out_channels * self.in_channels * self.kernel.pow(2)];
        self.indices(|to, from| weight[to] = packed[from]);
        weight
    }

    /// A padded image of zeros, with room for vectors that reach beyond its end.
    fn image(&self, lanes: usize) -> Buffer {
        Buffer::zeroed(self.count * self.plane + lanes)
    }

    /// Calls `copy` for each row of each block with its first index in the image and in the padded
    /// image, and the channels of the block.
    #[inline(always)]
    fn rows(&self, shape: &BlockShape, mut copy: impl FnMut(usize, usize, usize)) {
        for block in 0..self.count {
            let first = block * self.width;
            let channels = self.width.min(self.in_channels - first);
            for y in 0..shape.height {
                let padded = block * self.plane
                    + (y + shape.padding) * self.row
                    + shape.padding * self.width;
                copy(first * shape.plane() + y * shape.width, padded, channels);
            }
        }
    }

    #[inline(always)]
    fn pad<S: Simd>(&self, simd: S, shape: &BlockShape, image: &[f32], padded: &mut [f32]) {
        self.rows(
            shape,
            #[inline(always)]
            |at, to, channels| {
                let (from, to) = (&image[at..], &mut padded[to..]);
                transpose(
                    simd,
                    from,
                    shape.plane(),
                    to,
                    self.width,
                    channels,
                    shape.width,
                );
            },
        );
    }

    #[inline(always)]
    fn unpad<S: Simd>(&self, simd: S, shape: &BlockShape, padded: &[f32], image: &mut [f32]) {
        self.rows(
            shape,
            #[inline(always)]
            |at, from, channels| {
                let (from, to) = (&padded[from..], &mut image[at..]);
                transpose(
                    simd,
                    from,
                    self.width,
                    to,
                    shape.plane(),
                    shape.width,
                    channels,
                );
            },
        );
    }

    /// Splits a run into parts whose accumulators fit into the registers, as even as possible:
    /// (first number, vectors) of each.
    #[inline(always)]
    fn parts<S: Simd>(&self) -> impl Iterator<Item = (usize, usize)> {
        let vectors = self.pitch / S::F32_LANES;
        let most = (accumulators(S::REGISTER_COUNT) / self.kernel).max(1);
        let parts = vectors.div_ceil(most);
        (0..parts).map(move |part| {
            let (first, end) = (part * vectors / parts, (part + 1) * vectors / parts);
            (first * S::F32_LANES, end - first)
        })
    }
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
    image_gradients: &'a mut [f32],
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
        let mut padded_gradient = blocks.image(S::F32_LANES);
        let mut won = Winners::new(shape);
        let mut by_pixel = ByPixel::new(shape, blocks);
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
            if let (Some(taps), Some(image_gradient)) = (self.taps, image_gradients.next()) {
                padded_gradient.fill(0.0);
                by_pixel.sort(&won);
                input_gradient(simd, blocks, taps, &by_pixel, &mut padded_gradient);
                blocks.unpad(simd, shape, &padded_gradient, image_gradient);
            }
        }
        sums
    }
}

/// The winners of one image by pixel, for chunks of output channels whose weights stay in the
/// first-level cache.
struct ByPixel {
    /// Output channels of a chunk.
    chunk: usize,
    /// Pixels of a padded image.
    pixels: usize,
    /// Where the winners of each chunk and pixel begin; the last is where all end.
    starts: Vec<u32>,
    /// Number of the channel in its chunk, and gradient.
    entries: Vec<(u32, f32)>,
}

/// Bytes of weights that leave room for more in the first-level cache.
const CACHED: usize = 20 << 10;

impl ByPixel {
    fn new(shape: &BlockShape, blocks: &Blocks) -> Self {
        let filter = blocks.filter() * size_of::<f32>();
        let chunk = (CACHED / filter).max(4);
        let pixels = shape.padded_plane();
        Self {
            chunk,
            pixels,
            starts: vec![0; shape.out_channels.div_ceil(chunk) * pixels + 1],
            entries: vec![(0, 0.0); shape.out_image()],
        }
    }

    /// Sorts the winners by counting.
    #[inline(always)]
    fn sort(&mut self, winners: &Winners) {
        self.starts.fill(0);
        for (channel, (pixels, _)) in winners.channels().enumerate() {
            let counts = &mut self.starts[channel / self.chunk * self.pixels..][..self.pixels];
            for &pixel in pixels {
                counts[pixel as usize] += 1;
            }
        }
        let mut end = 0;
        for place in &mut self.starts {
            end += *place;
            *place = end;
        }
        // From the last to the first, so that each place moves from its end to its start.
        for (channel, (pixels, gradients)) in winners.channels().enumerate() {
            let places = &mut self.starts[channel / self.chunk * self.pixels..][..self.pixels];
            let number = (channel % self.chunk) as u32;
            for (&pixel, &gradient) in pixels.iter().zip(gradients) {
                let place = &mut places[pixel as usize];
                *place -= 1;
                self.entries[*place as usize] = (number, gradient);
            }
        }
    }
}

/// Accumulators that fit into the registers, a few left for what is added to them.
const fn accumulators(registers: usize) -> usize {
    if registers >= 32 { 28 } else { 12 }
}

/// Calls `$function::<S, K, V>` for the kernel and vectors at hand.
macro_rules! for_size {
    ($function:ident, $kernel:expr, $vectors:expr, $arguments:tt) => {
        for_size!(@kernels $function, $kernel, $vectors, $arguments, 1 [1], 2 [1 2], 3 [1 2 3],
            4 [1 2 3 4], 5 [1 2 3 4 5], 6 [1 2 3 4], 7 [1 2 3 4])
    };
    (@kernels $function:ident, $kernel:expr, $vectors:expr, $arguments:tt,
        $($k:literal [$($v:literal)+]),+) => {
        match $kernel {
            $($k => for_size!(@vectors $function, $k, $vectors, $arguments, $($v)+),)+
            _ => unreachable!("kernels are 1 to 7"),
        }
    };
    (@vectors $function:ident, $k:literal, $vectors:expr, $arguments:tt, $($v:literal)+) => {
        match $vectors {
            $($v => for_size!(@call $function, $k, $v, $arguments),)+
            _ => unreachable!("a run has as many vectors as the kernel has columns, or fewer"),
        }
    };
    (@call $function:ident, $k:literal, $v:literal, ($($argument:expr),+)) => {
        $function::<S, $k, $v>($($argument),+)
    };
}

/// Adds one image's gradient of the weights to `sums`.
#[inline(always)]
fn weight_gradient<S: Simd>(
    simd: S,
    blocks: &Blocks,
    padded: &[f32],
    winners: &Winners,
    sums: &mut [f32],
) {
    let filters = blocks.out_channels * blocks.filter();
    for (block, sums) in sums.chunks_exact_mut(filters).enumerate() {
        for (first, vectors) in blocks.parts::<S>() {
            let filters = sums.chunks_exact_mut(blocks.filter());
            for (sums, (pixels, gradients)) in filters.zip(winners.channels()) {
                // SAFETY: a patch lies within the padded image and the vector behind it; the part
                // within the run.
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
        let add = |acc: &mut [[S::f32s; V]; K], pixel: u32, gradient: f32| {
            let patch = image.add(pixel as usize * blocks.width);
            let gradient = simd.splat_f32s(gradient);
            for (k, acc) in acc.iter_mut().enumerate() {
                for (v, acc) in acc.iter_mut().enumerate() {
                    let pixels = load(simd, patch.add(k * blocks.row + v * lanes));
                    *acc = mul_add(simd, gradient, pixels, *acc);
                }
            }
        };
        let mut acc: [[S::f32s; V]; K] = std::array::from_fn(|k| {
            std::array::from_fn(|v| load(simd, sums.add(k * blocks.pitch + v * lanes)))
        });
        let (pixel_pairs, last_pixel) = pixels.as_chunks::<2>();
        let (gradient_pairs, last_gradient) = gradients.as_chunks::<2>();
        let pairs = pixel_pairs.iter().zip(gradient_pairs);
        if K * V <= FEW {
            // Two sums side by side, or each addition would wait for the one before.
            let mut odd = [[simd.splat_f32s(0.0); V]; K];
            for (&pixel, &gradient) in pairs {
                add(&mut acc, pixel[0], gradient[0]);
                add(&mut odd, pixel[1], gradient[1]);
            }
            for (acc, odd) in acc.iter_mut().flatten().zip(odd.iter().flatten()) {
                *acc = simd.add_f32s(*acc, *odd);
            }
        } else {
            for (&pixel, &gradient) in pairs {
                add(&mut acc, pixel[0], gradient[0]);
                add(&mut acc, pixel[1], gradient[1]);
            }
        }
        if let ([pixel], [gradient]) = (last_pixel, last_gradient) {
            add(&mut acc, *pixel, *gradient);
        }
        for (k, acc) in acc.iter().enumerate() {
            for (v, &acc) in acc.iter().enumerate() {
                store(simd, sums.add(k * blocks.pitch + v * lanes), acc);
            }
        }
    }
}

/// So many chains of additions do not fill the pipeline.
const FEW: usize = 4;

/// Adds one image's gradient to the zeros of `padded`.
#[inline(always)]
fn input_gradient<S: Simd>(
    simd: S,
    blocks: &Blocks,
    taps: &[f32],
    winners: &ByPixel,
    padded: &mut [f32],
) {
    let filters = blocks.out_channels * blocks.filter();
    let chunk = winners.chunk * blocks.filter();
    for (block, taps) in taps.chunks_exact(filters).enumerate() {
        for (first, vectors) in blocks.parts::<S>() {
            for (chunk, taps) in taps.chunks(chunk).enumerate() {
                for pixel in 0..winners.pixels {
                    let place = chunk * winners.pixels + pixel;
                    let [start, end] = [place, place + 1].map(|p| winners.starts[p] as usize);
                    if start == end {
                        continue;
                    }
                    let list = &winners.entries[start..end];
                    let at = block * blocks.plane + pixel * blocks.width + first;
                    // SAFETY: as for the weights.
                    unsafe {
                        let taps = taps.as_ptr().add(first);
                        let to = padded.as_mut_ptr().add(at);
                        for_size!(
                            add_filters,
                            blocks.kernel,
                            vectors,
                            (
                                simd,
                                taps,
                                blocks.pitch,
                                list,
                                to,
                                blocks.row,
                                blocks.run - first
                            )
                        );
                    }
                }
            }
        }
    }
}

/// Adds filters, times gradients, to the patch at `to`.
#[inline(always)]
unsafe fn add_filters<S: Simd, const K: usize, const V: usize>(
    simd: S,
    taps: *const f32,
    run: usize,
    list: &[(u32, f32)],
    to: *mut f32,
    pitch: usize,
    left: usize,
) {
    let lanes = S::F32_LANES;
    // SAFETY: as the caller promises.
    unsafe {
        let mut acc = [[simd.splat_f32s(0.0); V]; K];
        for &(channel, gradient) in list {
            let filter = taps.add(channel as usize * K * run);
            let gradient = simd.splat_f32s(gradient);
            for (k, acc) in acc.iter_mut().enumerate() {
                for (v, acc) in acc.iter_mut().enumerate() {
                    let tap = load(simd, filter.add(k * run + v * lanes));
                    *acc = mul_add(simd, gradient, tap, *acc);
                }
            }
        }
        for (k, acc) in acc.iter().enumerate() {
            for (v, &acc) in acc.iter().enumerate() {
                let to = to.add(k * pitch + v * lanes);
                if (v + 1) * lanes <= left {
                    store(simd, to, simd.add_f32s(load(simd, to), acc));
                } else {
                    let rest = std::slice::from_raw_parts_mut(to, left - v * lanes);
                    let sum = simd.add_f32s(simd.partial_load_f32s(rest), acc);
                    simd.partial_store_f32s(rest, sum);
                }
            }
        }
    }
}
