//! One labeled image.

/// One labeled image, the item type of [`ImageDataset`](crate::ImageDataset).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sample {
    /// Number of channels: 1 for gray, 3 for RGB.
    pub channels: usize,
    /// Height in pixels.
    pub height: usize,
    /// Width in pixels.
    pub width: usize,
    /// Pixel values, `[channels, height, width]`, row-major.
    pub pixels: Vec<u8>,
    /// Index of the class.
    pub label: u8,
}
