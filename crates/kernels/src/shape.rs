//! The sizes of a convolution block.

/// 2x2 max-pooling with stride 2 keeps `size / 2` windows; an odd edge is dropped.
const POOL: usize = 2;

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
