//! Many images as one picture.

use anyhow::Result;
use data::ImageDataset;
use data::picture::to_png;

/// How images are arranged.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Grid {
    /// Number of images in a row.
    pub(crate) columns: usize,
    /// White pixels between the images.
    pub(crate) gap: usize,
    /// Reduction factor: each square of this side is averaged into one pixel.
    pub(crate) reduction: usize,
}

/// Draws images in rows, as a PNG file.
///
/// # Errors
/// Returns an error if an image cannot be read.
pub(crate) fn contact_sheet(
    images: &ImageDataset,
    indices: &[usize],
    grid: Grid,
) -> Result<Vec<u8>> {
    let [height, width] = reduced_size(images, grid.reduction);
    let channels = images.channels();
    let columns = indices.len().clamp(1, grid.columns);
    let rows = indices.len().div_ceil(columns).max(1);
    let (cell_height, cell_width) = (height + grid.gap, width + grid.gap);
    let (sheet_height, sheet_width) = (rows * cell_height, columns * cell_width);
    let mut sheet = vec![u8::MAX; channels * sheet_height * sheet_width];
    for (place, &index) in indices.iter().enumerate() {
        let pixels = images.pixels(index)?;
        let pixels = reduced(&pixels, images, grid.reduction);
        let (top, left) = (place / columns * cell_height, place % columns * cell_width);
        for (row, line) in pixels.chunks(width).enumerate() {
            let (channel, row) = (row / height, row % height);
            let start = (channel * sheet_height + top + row) * sheet_width + left;
            sheet[start..start + width].copy_from_slice(line);
        }
    }
    Ok(to_png(&sheet, channels, sheet_height, sheet_width))
}

/// Returns height and width of reduced images.
pub(crate) fn reduced_size(images: &ImageDataset, reduction: usize) -> [usize; 2] {
    [images.height(), images.width()].map(|side| (side / reduction).max(1))
}

/// Averages squares of pixels. Pixels at the end of a line that do not fill a square are left out.
fn reduced(pixels: &[u8], images: &ImageDataset, reduction: usize) -> Vec<u8> {
    if reduction == 1 {
        return pixels.to_vec();
    }
    let [height, width] = reduced_size(images, reduction);
    let (rows, columns) = (images.height(), images.width());
    let mut reduced = Vec::with_capacity(images.channels() * height * width);
    for plane in pixels.chunks(rows * columns) {
        for y in 0..height {
            for x in 0..width {
                let lines = plane.chunks(columns).skip(y * reduction).take(reduction);
                let square = lines.flat_map(|line| line.iter().skip(x * reduction).take(reduction));
                let (sum, count) = square.fold((0, 0), |(sum, count), &pixel| {
                    (sum + usize::from(pixel), count + 1)
                });
                reduced.push((sum / count) as u8);
            }
        }
    }
    reduced
}

#[cfg(test)]
mod tests {
    use data::Images;

    use super::*;

    #[test]
    fn reduced_images_are_means_of_squares() {
        // Two images of 2x5 pixels.
        let images = Images {
            channels: 1,
            height: 2,
            width: 5,
            pixels: (0..20).map(|at| 10 * at).collect(),
        };
        let images = ImageDataset::new(images, vec![0, 1]).unwrap();
        let sheet = |gap, reduction| {
            let grid = Grid {
                columns: 1,
                gap,
                reduction,
            };
            let png = contact_sheet(&images, &[1, 0], grid).unwrap();
            image::load_from_memory(&png).unwrap().into_luma8()
        };
        assert_eq!(reduced_size(&images, 2), [1, 2]);
        // (100 + 110 + 150 + 160) / 4, ...
        assert_eq!(sheet(0, 2).into_raw(), [130, 150, 30, 50]);
        let whole = sheet(1, 1);
        assert_eq!(whole.dimensions(), (6, 6));
        assert_eq!(whole.into_raw()[..7], [100, 110, 120, 130, 140, 255, 150]);
    }
}
