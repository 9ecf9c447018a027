//! Images that lie on a device, where batches are gathered and changed. What crosses to the device for a batch
//! is which images it has, and how each is changed.
//!
//! A GPU waits longer for a batch than it takes to learn from it. On a CPU the images lie where they are used
//! anyway.

use burn::tensor::ops::PadMode;
use burn::tensor::{Bool, DType, Device, Int, Tensor, TensorData};

use crate::augmentation::{Change, Displacements};
use crate::batch::{Batch, normalize, takes_bytes};
use crate::dataset::ImageDataset;
use crate::normalization::Scaling;

/// The most bytes of pixels that are kept on a device: what Burn sends to one of another machine at once is
/// limited too.
const MOST: usize = 512 << 20;

/// The images of a dataset on a device.
#[derive(Clone, Debug)]
pub(crate) struct Resident {
    device: Device,
    pixels: Pixels,
    /// `[count]`
    labels: Tensor<1, Int>,
    /// Channels, rows and columns of an image.
    shape: [usize; 3],
    /// The column and the row of each of its pixels, `[1, height * width]`.
    places: [Tensor<2>; 2],
}

/// `[count, channels * height * width]`
#[derive(Clone, Debug)]
enum Pixels {
    Bytes(Tensor<2, Int>),
    /// Where a device has no bytes.
    Floats(Tensor<2>),
}

impl Resident {
    /// Copies all images to the device; `None` where they take too much room.
    pub(crate) fn on(device: &Device, dataset: &ImageDataset) -> Option<Self> {
        let shape = [dataset.channels(), dataset.height(), dataset.width()];
        let [count, size] = [dataset.len(), shape.iter().product()];
        let is_byte = takes_bytes(device);
        let bytes = count * size * if is_byte { 1 } else { 4 };
        if bytes > MOST || count == 0 {
            return None;
        }
        let pixels: Vec<u8> = (0..count)
            .flat_map(|index| dataset.pixels(index))
            .copied()
            .collect();
        let pixels = TensorData::new(pixels, [count, size]);
        let labels: Vec<i32> = dataset.labels().map(i32::from).collect();
        let [_, height, width] = shape;
        let axis = |place: fn(usize, usize) -> usize| -> Tensor<2> {
            let places = (0..height * width).map(|at| place(at, width) as f32);
            let places = TensorData::new(places.collect::<Vec<f32>>(), [1, height * width]);
            Tensor::from_data(places, device)
        };
        Some(Self {
            pixels: match is_byte {
                true => Pixels::Bytes(Tensor::from_data(pixels, (device, DType::U8))),
                false => Pixels::Floats(Tensor::from_data(pixels, device)),
            },
            labels: Tensor::from_data(TensorData::new(labels, [count]), device),
            device: device.clone(),
            shape,
            places: [axis(|at, width| at % width), axis(|at, width| at / width)],
        })
    }

    /// Whether it lies there.
    pub(crate) fn is_on(&self, device: &Device) -> bool {
        self.device == *device
    }

    /// The images of these rows, changed if `changes` has one for each.
    pub(crate) fn batch(&self, rows: &[u32], changes: &[Change], scaling: Scaling) -> Batch {
        let [channels, height, width] = self.shape;
        let count = rows.len();
        let rows: Vec<i32> = rows.iter().map(|&row| row as i32).collect();
        let rows = Tensor::<1, Int>::from_data(TensorData::new(rows, [count]), &self.device);
        let pixels = match &self.pixels {
            Pixels::Bytes(pixels) => pixels.clone().select(0, rows.clone()).float(),
            Pixels::Floats(pixels) => pixels.clone().select(0, rows.clone()),
        };
        let mut images = pixels.reshape([count, channels, height, width]);
        if !changes.is_empty() {
            images = changed(images, changes, self.places.clone());
        }
        Batch {
            images: normalize(images, scaling),
            targets: self.labels.clone().select(0, rows),
        }
    }
}

/// What [`Change::apply`] does, for a whole batch: pixels `[N, C, H, W]` from 0 to 255.
fn changed(pixels: Tensor<4>, changes: &[Change], [columns, rows]: [Tensor<2>; 2]) -> Tensor<4> {
    let [count, channels, height, width] = pixels.dims();
    let device = pixels.device();
    let numbers: Vec<f32> = changes.iter().flat_map(Change::numbers).collect();
    let each = numbers.len() / count;
    let numbers = Tensor::<2>::from_data(TensorData::new(numbers, [count, each]), &device);
    let number = |at: usize| numbers.clone().slice([0..count, at..at + 1]);

    // Where each pixel comes from, `[N, H * W]`.
    let [centre_x, centre_y] = [width, height].map(|size| (size as f32 - 1.0) / 2.0);
    let x = columns.clone().sub_scalar(centre_x);
    let y = rows.clone().sub_scalar(centre_y);
    let from = |first: usize, centre: f32| {
        let turned = number(first) * x.clone() + number(first + 1) * y.clone();
        (turned + number(first + 2)).add_scalar(centre)
    };
    let (mut x, mut y) = (from(0, centre_x), from(3, centre_y));
    let elastic = changes
        .iter()
        .filter_map(|change| change.map.elastic.as_ref());
    if let Some([right, down]) = displaced(elastic, [height, width], &device) {
        x = x + right;
        y = y + down;
    }

    // The four pixels around it, in images with a frame of black.
    let (x, y) = (
        x.clamp(-1.0, width as f32).add_scalar(1.0),
        y.clamp(-1.0, height as f32).add_scalar(1.0),
    );
    let (left, above) = (x.clone().floor(), y.clone().floor());
    let right = (x - left.clone()).unsqueeze_dim::<3>(1);
    let down = (y - above.clone()).unsqueeze_dim::<3>(1);
    let pitch = width + 3;
    let at = (above.mul_scalar(pitch as f32) + left).int();
    let at = at.unsqueeze_dim::<3>(1).repeat_dim(1, channels);
    let framed = pixels.pad([(1, 2), (1, 2)], PadMode::Constant(0.0));
    let framed: Tensor<3> = framed.flatten(2, 3);
    let value = |offset: usize| {
        let at = at.clone().add_scalar(offset as i32);
        framed.clone().gather(2, at)
    };
    let along = |offset: usize| {
        let first = value(offset);
        first.clone() + right.clone() * (value(offset + 1) - first)
    };
    let upper = along(0);
    let lower = along(pitch);
    let values = (upper.clone() + down * (lower - upper))
        .add_scalar(0.5)
        .floor();

    let [top, left, bottom, right] = [6, 7, 8, 9].map(number);
    let erased: Tensor<2, Bool> = rows
        .clone()
        .greater_equal(top)
        .bool_and(rows.lower(bottom))
        .bool_and(columns.clone().greater_equal(left))
        .bool_and(columns.lower(right));
    let erased = erased.unsqueeze_dim::<3>(1).repeat_dim(1, channels);
    let values = values.mask_fill(erased, 0.0);
    values.reshape([count, channels, height, width])
}

/// Displacements to the right and down, `[N, H * W]` each, if there are any.
fn displaced<'a>(
    elastic: impl Iterator<Item = &'a Displacements> + Clone,
    [height, width]: [usize; 2],
    device: &Device,
) -> Option<[Tensor<2>; 2]> {
    let count = elastic.clone().count();
    let [(rows, grid_rows), (columns, grid_columns)] = elastic.clone().next()?.weights();
    let points: Vec<f32> = elastic.flat_map(Displacements::points).collect();
    let tensor = |numbers: Vec<f32>, shape: [usize; 4]| {
        Tensor::<4>::from_data(TensorData::new(numbers, shape), device)
    };
    let rows = tensor(rows, [1, 1, height, grid_rows]);
    let columns = tensor(columns, [1, 1, width, grid_columns]).transpose();
    let points = tensor(points, [count, 2, grid_rows, grid_columns]);
    let moved = rows.matmul(points).matmul(columns);
    Some([0..1, 1..2].map(|axis| {
        let moved = moved.clone().slice([0..count, axis]);
        moved.reshape([count, height * width])
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::augmentation::Augmentation;
    use crate::batch::MnistBatcher;
    use crate::dataset::Images;
    use crate::loader::{Loader, Order};

    /// Coloured noise, of which no pixel is like the one beside it.
    fn noise(count: usize) -> ImageDataset {
        let images = Images {
            channels: 3,
            height: 11,
            width: 14,
            pixels: (0..count * 462)
                .map(|at| ((at * at * 7919) >> 3) as u8)
                .collect(),
        };
        ImageDataset::new(images, (0..count).map(|at| at as u8 % 10).collect()).unwrap()
    }

    #[test]
    fn batches_on_a_device_are_those_of_the_host() {
        let none = Augmentation::default();
        for augmentation in [
            none,
            Augmentation {
                rotation: 20.0,
                scale: 0.3,
                flip: true,
                ..none
            },
            Augmentation {
                translation: 0.4,
                shear: 30.0,
                erasing: 0.7,
                ..none
            },
            Augmentation {
                elastic: 0.05,
                rotation: 5.0,
                ..none
            },
        ] {
            let scaling = Scaling {
                mean: 0.0,
                std: 1.0 / 255.0,
            };
            let order = Order::Shuffled { seed: 5 };
            let device = Device::default();
            let batcher = MnistBatcher { scaling };
            let host = Loader::new(noise(70), batcher, 32, order, device.clone())
                .with_augmentation(augmentation, 3);
            let resident = host.clone().kept_on(&[device]);
            for (expected, found) in host.pass(2).zip(resident.pass(2)) {
                let (expected, found) = (expected.unwrap(), found.unwrap());
                assert_eq!(expected.images.dims(), found.images.dims());
                let far = (expected.images - found.images).abs();
                // Sums in another order may be rounded to the next number.
                let most = far.clone().max().into_scalar::<f32>();
                let mean = far.mean().into_scalar::<f32>();
                assert!(
                    most < 1.01 && mean < 1e-3,
                    "{augmentation:?}: {most}, {mean}"
                );
                let labels = |targets: Tensor<1, Int>| -> Vec<i64> {
                    targets.into_data().iter::<i64>().collect()
                };
                assert_eq!(labels(expected.targets), labels(found.targets));
            }
        }
    }
}
