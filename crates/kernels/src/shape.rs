//! The sizes of a convolution block.

use crate::conv_block::ConvBlockOptions;

/// 2x2 max-pooling with stride 2 keeps `size / 2` windows; an odd edge is dropped.
const POOL: usize = 2;
/// The largest kernel that the fused block takes.
const MAX_KERNEL: usize = 7;
/// The most padding that it takes.
const MAX_PADDING: usize = 3;

/// Sizes and options of one block: convolution with stride 1, bias, ReLU, 2x2 max-pooling.
///
/// Images are `[batch, in_channels, height, width]`, weights `[out_channels, in_channels, kernel,
/// kernel]`, the output `[batch, out_channels, out_height, out_width]`; all contiguous.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BlockShape {
    pub(crate) batch: usize,
    pub(crate) in_channels: usize,
    pub(crate) height: usize,
    pub(crate) width: usize,
    pub(crate) out_channels: usize,
    /// Side of the square kernel, 1 to 7.
    pub(crate) kernel: usize,
    /// Zeros around the image, 0 to 3.
    pub(crate) padding: usize,
    pub(crate) relu: bool,
    pub(crate) pool: bool,
}

impl BlockShape {
    /// That of images and weights of these dimensions, if the fused block takes them.
    pub(crate) fn of(
        [batch, in_channels, height, width]: [usize; 4],
        weight: [usize; 4],
        options: ConvBlockOptions,
    ) -> Option<Self> {
        let [out_channels, _, kernel, _] = weight;
        let shape = Self {
            batch,
            in_channels,
            height,
            width,
            out_channels,
            kernel,
            padding: options.padding,
            relu: options.relu,
            pool: options.pool,
        };
        (shape.weight() == weight && shape.is_taken()).then_some(shape)
    }

    /// Whether nothing that is computed from it overflows, and the kernels are made for it.
    fn is_taken(&self) -> bool {
        let &Self {
            batch,
            in_channels,
            height,
            width,
            out_channels,
            kernel,
            padding,
            ..
        } = self;
        let sizes = [batch, in_channels, height, width, out_channels];
        let is_size = |size: &usize| (1..=u32::MAX as usize).contains(size);
        let fits = |sizes: [usize; 4]| {
            let numbers = sizes
                .into_iter()
                .try_fold(1, |numbers: usize, size| numbers.checked_mul(size));
            numbers.is_some_and(|numbers| numbers <= isize::MAX as usize / size_of::<f32>())
        };
        // In this order: each line computes with what those before it checked.
        sizes.iter().all(is_size)
            && padding <= MAX_PADDING
            && (1..=MAX_KERNEL).contains(&kernel)
            && kernel <= self.padded_height().min(self.padded_width())
            && self.out_height().min(self.out_width()) > 0
            && fits([
                batch,
                in_channels,
                self.padded_height(),
                self.padded_width(),
            ])
            && fits(self.output())
            && fits(self.weight())
            && self.is_numbered()
    }

    /// The dimensions of the images.
    pub(crate) fn input(&self) -> [usize; 4] {
        [self.batch, self.in_channels, self.height, self.width]
    }

    /// The dimensions of the weights.
    pub(crate) fn weight(&self) -> [usize; 4] {
        [
            self.out_channels,
            self.in_channels,
            self.kernel,
            self.kernel,
        ]
    }

    /// The dimensions of the output.
    pub(crate) fn output(&self) -> [usize; 4] {
        [
            self.batch,
            self.out_channels,
            self.out_height(),
            self.out_width(),
        ]
    }

    /// Height with the padding above and below.
    pub(crate) fn padded_height(&self) -> usize {
        self.height + 2 * self.padding
    }

    /// Width with the padding left and right.
    pub(crate) fn padded_width(&self) -> usize {
        self.width + 2 * self.padding
    }

    /// Height of the convolution, before the pool.
    pub(crate) fn conv_height(&self) -> usize {
        self.padded_height() + 1 - self.kernel
    }

    /// Width of the convolution, before the pool.
    pub(crate) fn conv_width(&self) -> usize {
        self.padded_width() + 1 - self.kernel
    }

    /// Whether the backward pass, which numbers pixels with 32 bits, can take the block.
    pub(crate) fn is_numbered(&self) -> bool {
        let outputs = self.out_channels.checked_mul(self.out_plane());
        let pixels = self.padded_height().checked_mul(self.padded_width());
        [outputs, pixels]
            .into_iter()
            .all(|count| count.is_some_and(|count| u32::try_from(count).is_ok()))
    }

    /// How many convolution pixels per side make one output pixel.
    pub(crate) fn window(&self) -> usize {
        if self.pool { POOL } else { 1 }
    }

    pub(crate) fn out_height(&self) -> usize {
        self.conv_height() / self.window()
    }

    pub(crate) fn out_width(&self) -> usize {
        self.conv_width() / self.window()
    }

    /// Pixels of one channel of the input.
    pub(crate) fn plane(&self) -> usize {
        self.height * self.width
    }

    /// Pixels of one channel of the output.
    pub(crate) fn out_plane(&self) -> usize {
        self.out_height() * self.out_width()
    }

    /// Pixels of one channel of the input with its padding.
    pub(crate) fn padded_plane(&self) -> usize {
        self.padded_height() * self.padded_width()
    }

    /// Numbers in one input image.
    pub(crate) fn image(&self) -> usize {
        self.in_channels * self.plane()
    }

    /// Numbers in one output image.
    pub(crate) fn out_image(&self) -> usize {
        self.out_channels * self.out_plane()
    }

    /// Weights of one output channel.
    pub(crate) fn filter(&self) -> usize {
        self.in_channels * self.kernel * self.kernel
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_whose_sizes_overflow_are_not_taken() {
        let shape = BlockShape {
            batch: 64,
            in_channels: 1,
            height: 28,
            width: 28,
            out_channels: 32,
            kernel: 3,
            padding: 1,
            relu: true,
            pool: true,
        };
        assert!(shape.is_taken());
        for size in [0, 1 << 31, (1 << 60) + 1, usize::MAX] {
            assert!(
                !BlockShape {
                    batch: size,
                    in_channels: size,
                    ..shape
                }
                .is_taken()
            );
            assert!(
                !BlockShape {
                    in_channels: size,
                    out_channels: size,
                    ..shape
                }
                .is_taken()
            );
            assert!(
                !BlockShape {
                    height: size,
                    width: size,
                    ..shape
                }
                .is_taken()
            );
            assert!(
                !BlockShape {
                    padding: size.max(4),
                    ..shape
                }
                .is_taken()
            );
            assert!(
                !BlockShape {
                    kernel: size,
                    ..shape
                }
                .is_taken()
            );
        }
        assert!(
            !BlockShape {
                height: 1,
                padding: 0,
                kernel: 1,
                ..shape
            }
            .is_taken()
        );
    }
}
