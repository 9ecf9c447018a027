//! Shape and receptive field of feature maps.

use crate::block::{BlockConfig, Pool};
use crate::shape_error::ShapeError;

/// Shape and receptive field of the feature maps of one image.
#[derive(Clone, Copy)]
pub(crate) struct FeatureMaps {
    pub(crate) channels: usize,
    height: usize,
    width: usize,
    /// Height and width of the image.
    pub(crate) image: [usize; 2],
    /// Height and width of the pixels that one value depends on, not limited to the image.
    field: usize,
    /// Pixels between the receptive fields of neighboring values.
    jump: usize,
}

impl FeatureMaps {
    /// Returns the shape of an image.
    pub(crate) fn of_image(channels: usize, [height, width]: [usize; 2]) -> Self {
        Self {
            channels,
            height,
            width,
            image: [height, width],
            field: 1,
            jump: 1,
        }
    }

    /// Returns the shape `[channels, height, width]`.
    pub(crate) fn shape(self) -> [usize; 3] {
        [self.channels, self.height, self.width]
    }

    pub(crate) fn has_shape_of(self, other: Self) -> bool {
        self.shape() == other.shape()
    }

    /// Returns the shape after the convolution of a block.
    pub(crate) fn convolve(
        self,
        layer: &str,
        key: &str,
        block: &BlockConfig,
    ) -> Result<Self, ShapeError> {
        let windows = self.slide(block.kernel, block.stride, block.padding);
        let maps = windows.ok_or_else(|| ShapeError::KernelTooLarge {
            key: key.into(),
            layer: layer.into(),
            kernel: block.kernel,
            padding: block.padding,
            height: self.height,
            width: self.width,
        })?;
        Ok(Self {
            channels: block.channels,
            ..maps
        })
    }

    /// Returns the shape after pooling.
    pub(crate) fn pool(self, layer: &str, key: &str, pool: Pool) -> Result<Self, ShapeError> {
        match pool {
            Pool::None => Ok(self),
            Pool::Global(_) => Ok(Self {
                height: 1,
                width: 1,
                field: usize::MAX,
                ..self
            }),
            Pool::Windows {
                size,
                stride,
                padding,
                ..
            } => {
                let windows = self.slide(size, stride, padding);
                windows.ok_or_else(|| ShapeError::PoolTooLarge {
                    key: key.into(),
                    layer: layer.into(),
                    size,
                    height: self.height,
                    width: self.width,
                })
            }
        }
    }

    /// Returns the positions of a window of `size` pixels; `None` if it is larger than the padded maps.
    fn slide(self, size: usize, stride: usize, padding: usize) -> Option<Self> {
        let positions = |length: usize| {
            let free = (length + 2 * padding).checked_sub(size)?;
            Some(free / stride + 1)
        };
        Some(Self {
            height: positions(self.height)?,
            width: positions(self.width)?,
            field: self
                .field
                .saturating_add((size - 1).saturating_mul(self.jump)),
            jump: self.jump.saturating_mul(stride),
            ..self
        })
    }

    /// Returns the stride of a 1x1 convolution of these maps whose output has the height and width of `output`.
    pub(crate) fn projection_stride(self, output: Self) -> Option<usize> {
        let has_size = |stride: usize| {
            let size = |length: usize| (length - 1) / stride + 1;
            [size(self.height), size(self.width)] == [output.height, output.width]
        };
        (1..=self.height.max(self.width)).find(|&stride| has_size(stride))
    }

    /// Returns the number of values.
    pub(crate) fn features(self) -> usize {
        self.channels
            .saturating_mul(self.height)
            .saturating_mul(self.width)
    }

    /// Returns the height and width of the pixels that one value depends on.
    pub(crate) fn receptive_field(self) -> [usize; 2] {
        self.image.map(|size| size.min(self.field))
    }
}
