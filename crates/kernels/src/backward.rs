//! The backward pass. Behind a pooling window at most one pixel has a gradient, and none where the
//! ReLU cut it off: only the pixels that won are visited.

use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use crate::buffer::Buffer;
use crate::forward::NO_WINNER;
use crate::shape::BlockShape;
use crate::simd::{InstructionSet, load, mul_add, store};
use crate::transpose::transpose;

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
            let (own, others) = std::mem::take(&mut rest).split_at_mut(if input { numbers } else { 0 });
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

    let mut total = sums.into_iter().reduce(|mut total, sums| {
        for (total, sum) in total.weight.iter_mut().zip(&*sums.weight) {
            *total += sum;
        }
        for (total, sum) in total.bias.iter_mut().zip(&*sums.bias) {
            *total += sum;
        }
        total
    });
    let (weight, bias) = total.take().map_or_else(Default::default, |total| {
        (blocks.unpack(&total.weight), total.bias)
    });
    Gradients {
        images: image_gradients,
        weight,
        bias,
    }
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

    /// Index here of each weight, in the order of `[out_channels, in_channels, kernel, kernel]`.
    fn indices(&self) -> impl Iterator<Item = usize> {
        (0..self.out_channels).flat_map(move |out| {
            (0..self.in_channels).flat_map(move |channel| {
                let (block, lane) = (channel / self.width, channel % self.width);
                let filter = (block * self.out_channels + out) * self.filter() + lane;
                (0..self.kernel).flat_map(move |ky| {
                    (0..self.kernel).map(move |kx| filter + ky * self.pitch + kx * self.width)
                })
            })
        })
    }

    fn pack(&self, weight: &[f32]) -> Buffer {
        let mut packed = Buffer::zeroed(self.weights());
        for (index, &weight) in self.indices().zip(weight) {
            packed[index] = weight;
        }
        packed
    }

    fn unpack(&self, packed: &[f32]) -> Vec<f32> {
        self.indices().map(|index| packed[index]).collect()
    }

    /// A padded image of zeros, with room for vectors that reach beyond its end.
    fn image(&self, lanes: usize) -> Buffer {
        Buffer::zeroed(self.count * self.plane + lanes)
    }

    /// Calls `copy` with the place of each row of each block: (block, row of the image, index in
    /// the padded image, channels).
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
        self.rows(shape, #[inline(always)] |at, to, channels| {
            let (from, to) = (&image[at..], &mut padded[to..]);
            transpose(simd, from, shape.plane(), to, self.width, channels, shape.width);
        });
    }

    #[inline(always)]
    fn unpad<S: Simd>(&self, simd: S, shape: &BlockShape, padded: &[f32], image: &mut [f32]) {
        self.rows(shape, #[inline(always)] |at, from, channels| {
            let (from, to) = (&padded[from..], &mut image[at..]);
            transpose(simd, from, self.width, to, shape.plane(), shape.width, channels);
        });
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
    bias: Vec<f32>,
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
            bias: vec![0.0; shape.out_channels],
        };
        let mut padded = blocks.image(S::F32_LANES);
        let mut padded_gradient = blocks.image(S::F32_LANES);
        let mut winning = Winning::new(shape, blocks);
        let mut lists = Lists::new(shape, blocks);
        let images = self.images.chunks_exact(shape.image());
        let gradients = self.gradient.chunks_exact(shape.out_image());
        let winners = self.winners.chunks_exact(shape.out_image());
        let mut image_gradients = self.image_gradients.chunks_exact_mut(shape.image());
        for ((image, gradient), winners) in images.zip(gradients).zip(winners) {
            blocks.pad(simd, shape, image, &mut padded);
            winning.note(simd, shape, gradient, winners, &mut sums.bias);
            weight_gradient(simd, blocks, &padded, &winning, &mut sums.weight);
            if let (Some(taps), Some(image_gradient)) = (self.taps, image_gradients.next()) {
                padded_gradient.fill(0.0);
                lists.collect(shape, gradient, winners);
                input_gradient(simd, blocks, taps, &lists, &winning, &mut padded_gradient);
                blocks.unpad(simd, shape, &padded_gradient, image_gradient);
            }
        }
        sums
    }
}

/// Where in a padded image the patch of each output begins, and the output's gradient.
struct Winning {
    /// Of each window, where its first pixel's patch begins.
    bases: Vec<u32>,
    /// What the winner adds to that.
    steps: [u32; NO_WINNER as usize],
    /// `[out_channels, out_height * out_width]`
    offsets: Vec<u32>,
    /// The same; zero where the ReLU cut.
    gradients: Vec<f32>,
}

impl Winning {
    fn new(shape: &BlockShape, blocks: &Blocks) -> Self {
        let (row, column) = (blocks.row, blocks.width);
        let window = shape.window();
        let index = |y: usize, x: usize| (y * window * row + x * window * column) as u32;
        Self {
            bases: (0..shape.out_height())
                .flat_map(|y| (0..shape.out_width()).map(move |x| (y, x)))
                .map(|(y, x)| index(y, x))
                .collect(),
            steps: [0, column, row, row + column].map(|step| step as u32),
            offsets: vec![0; shape.out_image()],
            gradients: vec![0.0; shape.out_image()],
        }
    }

    /// Takes the gradients and winners of one image, and adds the former up for the bias.
    #[inline(always)]
    fn note<S: Simd>(
        &mut self,
        simd: S,
        shape: &BlockShape,
        gradient: &[f32],
        winners: &[u8],
        bias: &mut [f32],
    ) {
        let plane = shape.out_plane();
        let [_, column, row, _] = self.steps;
        for channel in 0..shape.out_channels {
            let range = channel * plane..(channel + 1) * plane;
            let offsets = &mut self.offsets[range.clone()];
            let gradients = &mut self.gradients[range.clone()];
            let (gradient, winners) = (&gradient[range.clone()], &winners[range]);
            let bases = &self.bases[..plane];
            for i in 0..plane {
                let winner = u32::from(winners[i]);
                offsets[i] = bases[i] + (winner & 1) * column + (winner >> 1 & 1) * row;
                gradients[i] = if winners[i] == NO_WINNER { 0.0 } else { gradient[i] };
            }
            let (vectors, rest) = S::as_simd_f32s(gradients);
            let sum = vectors.iter().fold(simd.splat_f32s(0.0), |sum, &v| simd.add_f32s(sum, v));
            bias[channel] += simd.reduce_sum_f32s(sum) + rest.iter().sum::<f32>();
        }
    }
}

/// The output channels that each pixel of each window won, with their gradients, for chunks of
/// channels whose weights stay in the first-level cache.
struct Lists {
    /// Output channels of a chunk.
    chunk: usize,
    /// Of each chunk, window and pixel in turn: the winners (their number in the chunk) and their
    /// gradients.
    entries: Vec<(u32, f32)>,
    /// Where the entries of each chunk, window and pixel end.
    ends: Vec<u32>,
    /// Those of one window as they are sorted; the last are those that nothing won.
    sorted: [Vec<(u32, f32)>; PIXELS + 1],
}

/// Pixels of a window.
const PIXELS: usize = NO_WINNER as usize;

/// Bytes of weights that leave room for more in the first-level cache.
const CACHED: usize = 20 << 10;

impl Lists {
    fn new(shape: &BlockShape, blocks: &Blocks) -> Self {
        let filter = blocks.filter() * size_of::<f32>();
        let chunk = (CACHED / filter).clamp(4, shape.out_channels.max(4));
        Self {
            chunk,
            entries: vec![(0, 0.0); shape.out_image()],
            ends: vec![0; shape.out_channels.div_ceil(chunk) * shape.out_plane() * PIXELS],
            sorted: std::array::from_fn(|_| vec![(0, 0.0); chunk]),
        }
    }

    #[inline(always)]
    fn collect(&mut self, shape: &BlockShape, gradient: &[f32], winners: &[u8]) {
        let plane = shape.out_plane();
        let mut end = 0;
        let mut ends = self.ends.iter_mut();
        for first in (0..shape.out_channels).step_by(self.chunk) {
            let channels = self.chunk.min(shape.out_channels - first);
            for window in 0..plane {
                let mut lens = [0; PIXELS + 1];
                for channel in 0..channels {
                    let at = (first + channel) * plane + window;
                    let pixel = usize::from(winners[at].min(NO_WINNER));
                    self.sorted[pixel][lens[pixel]] = (channel as u32, gradient[at]);
                    lens[pixel] += 1;
                }
                for (sorted, len) in self.sorted.iter().zip(lens).take(PIXELS) {
                    self.entries[end..end + len].copy_from_slice(&sorted[..len]);
                    end += len;
                    if let Some(place) = ends.next() {
                        *place = end as u32;
                    }
                }
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
    winning: &Winning,
    sums: &mut [f32],
) {
    let plane = winning.bases.len();
    for (block, sums) in sums.chunks_exact_mut(blocks.out_channels * blocks.filter()).enumerate() {
        for (first, vectors) in blocks.parts::<S>() {
            for (channel, sums) in sums.chunks_exact_mut(blocks.filter()).enumerate() {
                let range = channel * plane..(channel + 1) * plane;
                let offsets = &winning.offsets[range.clone()];
                let gradients = &winning.gradients[range];
                // SAFETY: a patch lies within the padded image and the vector behind it; the part
                // within the run.
                unsafe {
                    let image = padded.as_ptr().add(block * blocks.plane + first);
                    let sums = sums.as_mut_ptr().add(first);
                    for_size!(add_patches, blocks.kernel, vectors, (
                        simd, image, blocks.row, offsets, gradients, sums, blocks.pitch
                    ));
                }
            }
        }
    }
}

/// Adds the patches at `offsets`, times their gradients, to `sums`.
#[inline(always)]
unsafe fn add_patches<S: Simd, const K: usize, const V: usize>(
    simd: S,
    image: *const f32,
    pitch: usize,
    offsets: &[u32],
    gradients: &[f32],
    sums: *mut f32,
    run: usize,
) {
    let lanes = S::F32_LANES;
    // SAFETY: as the caller promises.
    unsafe {
        let mut acc: [[S::f32s; V]; K] = std::array::from_fn(|k| {
            std::array::from_fn(|v| load(simd, sums.add(k * run + v * lanes)))
        });
        for (&offset, &gradient) in offsets.iter().zip(gradients) {
            let patch = image.add(offset as usize);
            let gradient = simd.splat_f32s(gradient);
            for (k, acc) in acc.iter_mut().enumerate() {
                for (v, acc) in acc.iter_mut().enumerate() {
                    let pixels = load(simd, patch.add(k * pitch + v * lanes));
                    *acc = mul_add(simd, gradient, pixels, *acc);
                }
            }
        }
        for (k, acc) in acc.iter().enumerate() {
            for (v, &acc) in acc.iter().enumerate() {
                store(simd, sums.add(k * run + v * lanes), acc);
            }
        }
    }
}

/// Computes one image's gradient, padded, from the winners in `lists`.
#[inline(always)]
fn input_gradient<S: Simd>(
    simd: S,
    blocks: &Blocks,
    taps: &[f32],
    lists: &Lists,
    winning: &Winning,
    padded: &mut [f32],
) {
    let chunk = lists.chunk * blocks.filter();
    for (block, taps) in taps.chunks_exact(blocks.out_channels * blocks.filter()).enumerate() {
        for (first, vectors) in blocks.parts::<S>() {
            let mut start = 0;
            let mut ends = lists.ends.iter();
            for taps in taps.chunks(chunk) {
                for &base in &winning.bases {
                    for (&step, &end) in winning.steps.iter().zip(&mut ends) {
                        let list = &lists.entries[start..end as usize];
                        start = end as usize;
                        if list.is_empty() {
                            continue;
                        }
                        let at = block * blocks.plane + (base + step) as usize + first;
                        // SAFETY: as for the weights.
                        unsafe {
                            let taps = taps.as_ptr().add(first);
                            let to = padded.as_mut_ptr().add(at);
                            for_size!(add_filters, blocks.kernel, vectors, (
                                simd, taps, blocks.pitch, list, to, blocks.row, blocks.run - first
                            ));
                        }
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
