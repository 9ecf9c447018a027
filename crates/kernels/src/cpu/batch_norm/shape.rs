//! Sizes of the images.

/// Sizes of images `[batch, channels, plane_len]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NormShape {
    pub(crate) batch: usize,
    pub(crate) channels: usize,
    /// Pixels in one channel of an image.
    pub(crate) plane_len: usize,
}

impl NormShape {
    /// Returns the sizes of images `[N, C, H, W]`.
    pub(crate) fn new([batch, channels, height, width]: [usize; 4]) -> Self {
        Self {
            batch,
            channels,
            plane_len: height * width,
        }
    }

    /// Returns the planes of one channel.
    pub(super) fn channel_planes(
        self,
        values: &[f32],
        channel: usize,
    ) -> impl Iterator<Item = &[f32]> {
        let planes = values.chunks_exact(self.plane_len);
        planes.skip(channel).step_by(self.channels)
    }

    /// Floats in one image.
    pub(super) fn image_len(self) -> usize {
        self.channels * self.plane_len
    }

    /// Pixels per channel in the batch.
    pub(super) fn count(self) -> f64 {
        (self.batch * self.plane_len) as f64
    }
}
