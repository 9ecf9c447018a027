//! From the pixels of a convolution to the output: max-pooling, ReLU, and channels first again.

use std::mem::MaybeUninit;

use pulp::Simd;

use crate::buffer::Buffer;
use crate::shape::BlockShape;
use crate::simd::store;
use crate::transpose::{transpose, transpose_into};

/// What the forward pass notes of an output that the ReLU cut off: no pixel of its window won.
pub(crate) const NO_WINNER: u8 = 4;

/// Output pixels that are collected before they leave: a multiple of what is transposed at once
/// for images of 7, 14 and 28 columns.
const STRIP: usize = 56;

/// Where output goes: that of a batch, an image or some channels.
pub(crate) struct Output<'a> {
    /// `[.., channels, out_height, out_width]`
    pub(crate) values: &'a mut [MaybeUninit<f32>],
    /// The same; see [`forward`](crate::forward::forward).
    pub(crate) winners: Option<&'a mut [u8]>,
}

impl<'a> Output<'a> {
    /// Takes the first `count` numbers off.
    pub(crate) fn split_off(&mut self, count: usize) -> Output<'a> {
        let all = "no more is taken than there is";
        Output {
            values: self.values.split_off_mut(..count).expect(all),
            winners: self
                .winners
                .as_mut()
                .map(|winners| winners.split_off_mut(..count).expect(all)),
        }
    }
}

/// Output pixels of some channels on their way out.
pub(crate) struct Strip {
    relu: bool,
    /// Pixels of one channel of the output.
    plane: usize,
    /// `[pixels, lanes of the group]`
    values: Buffer,
    /// The same: integers in the bits of floats, so that they can be transposed alike.
    winners: Buffer,
    /// `[lanes of the group, pixels]`
    winner_planes: Buffer,
    /// Pixels that have left.
    done: usize,
    /// Pixels that wait.
    waiting: usize,
}

impl Strip {
    /// A strip for groups of up to `group` channels to which up to `most` pixels are added before
    /// it is asked to [`flush`](Self::flush).
    pub(crate) fn new(shape: &BlockShape, group: usize, most: usize) -> Self {
        let len = (STRIP + most) * group;
        Self {
            relu: shape.relu,
            plane: shape.out_plane(),
            values: Buffer::zeroed(len),
            winners: Buffer::zeroed(len),
            winner_planes: Buffer::zeroed(len),
            done: 0,
            waiting: 0,
        }
    }

    /// Takes vector `v` of `V` of the pixel that is `ahead` of those that wait: the largest of a
    /// window, where as in PyTorch the first of equals wins, and the last NaN.
    #[inline(always)]
    pub(crate) fn pool<S: Simd, const V: usize>(
        &mut self,
        simd: S,
        [ahead, v]: [usize; 2],
        window: [S::f32s; 4],
        note: bool,
    ) {
        let mut best = window[0];
        let mut winner = simd.splat_u32s(0);
        for (number, &value) in (1..).zip(&window[1..]) {
            let larger = simd.greater_than_f32s(value, best);
            let is_number = simd.equal_f32s(value, value);
            let take = simd.or_m32s(larger, simd.not_m32s(is_number));
            best = simd.select_f32s(take, value, best);
            if note {
                winner = simd.select_u32s(take, simd.splat_u32s(number), winner);
            }
        }
        self.put::<S, V>(simd, [ahead, v], best, winner, note);
    }

    /// Takes a vector without a pool.
    #[inline(always)]
    pub(crate) fn copy<S: Simd, const V: usize>(
        &mut self,
        simd: S,
        place: [usize; 2],
        value: S::f32s,
        note: bool,
    ) {
        self.put::<S, V>(simd, place, value, simd.splat_u32s(0), note);
    }

    /// ReLU, and into the strip.
    #[inline(always)]
    fn put<S: Simd, const V: usize>(
        &mut self,
        simd: S,
        [ahead, v]: [usize; 2],
        mut value: S::f32s,
        mut winner: S::u32s,
        note: bool,
    ) {
        if self.relu {
            let zero = simd.splat_f32s(0.0);
            let cut = simd.less_than_or_equal_f32s(value, zero);
            value = simd.select_f32s(cut, zero, value);
            winner = simd.select_u32s(cut, simd.splat_u32s(NO_WINNER.into()), winner);
        }
        let at = ((self.waiting + ahead) * V + v) * S::F32_LANES;
        assert!(at + S::F32_LANES <= self.values.len());
        // SAFETY: the vector lies within the strip; that of the winners is as long.
        unsafe {
            store(simd, self.values.as_mut_ptr().add(at), value);
            if note {
                let winner = simd.transmute_f32s_u32s(winner);
                store(simd, self.winners.as_mut_ptr().add(at), winner);
            }
        }
    }

    /// Adds the pixels that were taken to those that wait, and lets all go once they are many or
    /// the last: from pixels of channels to channels of pixels. `output` is that of these channels
    /// and no others.
    #[inline(always)]
    pub(crate) fn flush<S: Simd, const V: usize>(
        &mut self,
        simd: S,
        taken: usize,
        output: &mut Output<'_>,
    ) {
        self.waiting += taken;
        let is_last = self.done + self.waiting >= self.plane;
        if self.waiting < STRIP && !is_last {
            return;
        }
        let pixels = self.waiting;
        let group = V * S::F32_LANES;
        let channels = output.values.len() / self.plane;
        let start = self.done;
        let values = &mut output.values[start..];
        transpose_into(
            simd,
            &self.values,
            group,
            values,
            self.plane,
            pixels,
            channels,
        );
        if let Some(winners) = &mut output.winners {
            let planes = &mut self.winner_planes;
            transpose(simd, &self.winners, group, planes, pixels, pixels, channels);
            for (channel, from) in planes.chunks_exact(pixels).take(channels).enumerate() {
                let to = &mut winners[start + channel * self.plane..][..pixels];
                for (to, from) in to.iter_mut().zip(from) {
                    *to = from.to_bits() as u8;
                }
            }
        }
        self.done = if is_last { 0 } else { self.done + pixels };
        self.waiting = 0;
    }
}
