//! Options and sizes of a convolution block.

/// Side and stride of the pooling window.
const POOL: usize = 2;
/// The largest kernel side that the fused block supports.
const MAX_KERNEL: usize = 7;
/// The largest padding that the fused block supports.
const MAX_PADDING: usize = 3;

/// Pool argmax of an output that the ReLU set to zero: no pixel of its window gets a gradient.
///
/// All other outputs have the index of the maximum in their pooling window: 0 to 3 in row-major order, 0 without
/// pooling.
pub(crate) const RELU_CLIPPED: u8 = 4;

/// Options of a convolution block with stride 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConvBlockOptions {
    /// Zero padding on each side of the image, in pixels.
    pub padding: usize,
    /// Whether to apply ReLU.
    pub relu: bool,
    /// Whether to apply 2x2 max-pooling with stride 2. An odd last row or column is dropped.
    pub pool: bool,
}

/// Sizes and options of a convolution block.
///
/// All tensors are contiguous: images `[batch, in_channels, height, width]`, weights `[out_channels, in_channels,
/// kernel, kernel]`, output `[batch, out_channels, out_height, out_width]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BlockShape {
    pub(crate) batch: usize,
    pub(crate) in_channels: usize,
    pub(crate) height: usize,
    pub(crate) width: usize,
    pub(crate) out_channels: usize,
    /// Side of the square kernel, 1 to 7.
    pub(crate) kernel: usize,
    /// Zero padding on each side, 0 to 3.
    pub(crate) padding: usize,
    pub(crate) relu: bool,
    pub(crate) pool: bool,
}

impl BlockShape {
    /// Returns the shape of a block with these dimensions of images and weights, or `None` if the kernels do not
    /// support it.
    pub(crate) fn supported(
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
        (shape.weight_dims() == weight && shape.is_supported()).then_some(shape)
    }

    /// Returns whether the kernels support the shape and no size computed from it overflows.
    fn is_supported(&self) -> bool {
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
        let fits_in_memory = |dims: [usize; 4]| {
            let elements = dims
                .into_iter()
                .try_fold(1, |elements: usize, size| elements.checked_mul(size));
            elements.is_some_and(|elements| elements <= isize::MAX as usize / size_of::<f32>())
        };
        // The order matters: each condition relies on the ones before it not to overflow.
        sizes.iter().all(is_size)
            && padding <= MAX_PADDING
            && (1..=MAX_KERNEL).contains(&kernel)
            && kernel <= self.padded_height().min(self.padded_width())
            && self.out_height().min(self.out_width()) > 0
            && fits_in_memory([
                batch,
                in_channels,
                self.padded_height(),
                self.padded_width(),
            ])
            && fits_in_memory(self.output_dims())
            && fits_in_memory(self.weight_dims())
            && self.fits_u32_indices()
    }

    /// Returns whether the pixels of an image have `u32` indices, which the backward pass uses.
    fn fits_u32_indices(&self) -> bool {
        let outputs = self.out_channels.checked_mul(self.out_plane_len());
        let pixels = self.padded_height().checked_mul(self.padded_width());
        [outputs, pixels]
            .into_iter()
            .all(|count| count.is_some_and(|count| u32::try_from(count).is_ok()))
    }

    pub(crate) fn images_dims(&self) -> [usize; 4] {
        [self.batch, self.in_channels, self.height, self.width]
    }

    pub(crate) fn weight_dims(&self) -> [usize; 4] {
        [
            self.out_channels,
            self.in_channels,
            self.kernel,
            self.kernel,
        ]
    }

    pub(crate) fn output_dims(&self) -> [usize; 4] {
        [
            self.batch,
            self.out_channels,
            self.out_height(),
            self.out_width(),
        ]
    }

    pub(crate) fn padded_height(&self) -> usize {
        self.height + 2 * self.padding
    }

    pub(crate) fn padded_width(&self) -> usize {
        self.width + 2 * self.padding
    }

    /// Height of the convolution's output, before pooling.
    pub(crate) fn conv_height(&self) -> usize {
        self.padded_height() + 1 - self.kernel
    }

    /// Width of the convolution's output, before pooling.
    pub(crate) fn conv_width(&self) -> usize {
        self.padded_width() + 1 - self.kernel
    }

    /// Number of pool argmaxes that the forward pass saves: none without ReLU and pooling, where all would be 0.
    pub(crate) fn argmax_len(&self) -> usize {
        match self.relu || self.pool {
            true => self.batch * self.out_image_len(),
            false => 0,
        }
    }

    /// Side of the pooling window: 1 without pooling.
    pub(crate) fn window(&self) -> usize {
        if self.pool { POOL } else { 1 }
    }

    pub(crate) fn out_height(&self) -> usize {
        self.conv_height() / self.window()
    }

    pub(crate) fn out_width(&self) -> usize {
        self.conv_width() / self.window()
    }

    /// Pixels in one channel of an image.
    pub(crate) fn plane_len(&self) -> usize {
        self.height * self.width
    }

    /// Pixels in one channel of an output.
    pub(crate) fn out_plane_len(&self) -> usize {
        self.out_height() * self.out_width()
    }

    /// Pixels in one channel of a padded image.
    pub(crate) fn padded_plane_len(&self) -> usize {
        self.padded_height() * self.padded_width()
    }

    /// Floats in one image.
    pub(crate) fn image_len(&self) -> usize {
        self.in_channels * self.plane_len()
    }

    /// Floats in the output of one image.
    pub(crate) fn out_image_len(&self) -> usize {
        self.out_channels * self.out_plane_len()
    }

    /// Multiply-adds of the convolution.
    pub(super) fn products(&self) -> usize {
        self.batch * self.conv_height() * self.conv_width() * self.out_channels * self.filter_len()
    }

    /// Weights of one output channel.
    pub(crate) fn filter_len(&self) -> usize {
        self.in_channels * self.kernel * self.kernel
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rejects_shapes_whose_sizes_overflow() {
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
        assert!(shape.is_supported());
        for size in [0, 1 << 31, (1 << 60) + 1, usize::MAX] {
            assert!(
                !BlockShape {
                    batch: size,
                    in_channels: size,
                    ..shape
                }
                .is_supported()
            );
            assert!(
                !BlockShape {
                    in_channels: size,
                    out_channels: size,
                    ..shape
                }
                .is_supported()
            );
            assert!(
                !BlockShape {
                    height: size,
                    width: size,
                    ..shape
                }
                .is_supported()
            );
            assert!(
                !BlockShape {
                    padding: size.max(4),
                    ..shape
                }
                .is_supported()
            );
            assert!(
                !BlockShape {
                    kernel: size,
                    ..shape
                }
                .is_supported()
            );
        }
        assert!(
            !BlockShape {
                height: 1,
                padding: 0,
                kernel: 1,
                ..shape
            }
            .is_supported()
        );
    }
}
