//! Whitening filters of the first block.

use burn::linalg::svd;
use burn::tensor::{Device, Tensor, TensorData};

use crate::block::BlockConfig;
use crate::config::ConvNetConfig;
use crate::conv_net::ConvNet;

/// Added to each variance, so that directions with little variance are not amplified.
const EPSILON: f64 = 5e-4;
/// Sweeps of the singular value decomposition.
const SWEEPS: usize = 50;

/// The training images have fewer patches than a patch has values.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "whitening needs at least as many patches as a patch has values, {values}, but the training images have {patches}"
)]
pub struct WhiteningError {
    patches: usize,
    values: usize,
}

impl ConvNetConfig {
    /// Checks that this number of training images gives a whitening block enough patches.
    ///
    /// # Errors
    /// Returns an error if they have fewer patches than a patch has values.
    pub fn check_whitening(&self, images: usize) -> Result<(), WhiteningError> {
        let blocks = self.conv_blocks().filter(|block| block.whitening);
        for BlockConfig { kernel, .. } in blocks {
            let [rows, columns] = self.input.map(|size| (size + 1).saturating_sub(*kernel));
            check_patches(images * rows * columns, self.channels * kernel * kernel)?;
        }
        Ok(())
    }
}

fn check_patches(patches: usize, values: usize) -> Result<(), WhiteningError> {
    match patches < values {
        true => Err(WhiteningError { patches, values }),
        false => Ok(()),
    }
}

impl ConvNet {
    /// Returns whether the first block has whitening filters.
    pub fn has_whitening(&self) -> bool {
        self.blocks
            .first()
            .is_some_and(|block| block.options.is_frozen)
    }

    /// Sets the filters of a whitening block from batches of normalized training images `[N, C, H, W]`: the eigenvectors of
    /// the covariance of their patches, divided by the standard deviations, largest first, and the negatives of
    /// all; Jordan, "94% on CIFAR-10 in 3.29 seconds on a single GPU" (2024). Without such a block, the network
    /// stays as it is.
    ///
    /// # Errors
    /// Returns an error if the images have fewer patches than a patch has values.
    pub fn whiten(
        mut self,
        batches: impl IntoIterator<Item = Tensor<4>>,
    ) -> Result<Self, WhiteningError> {
        if !self.has_whitening() {
            return Ok(self);
        }
        let weight = &mut self.blocks[0].conv.weight;
        let [_, channels, size, _] = weight.dims();
        let filters = filters(batches, [channels, size], &weight.device().inner())?;
        let filters = filters.reshape([-1, channels as i32, size as i32, size as i32]);
        let both = Tensor::cat(vec![filters.clone(), -filters], 0);
        let is_autodiff = weight.device().is_autodiff();
        *weight = weight.clone().map(|_| match is_autodiff {
            true => Tensor::from_inner(both),
            false => both,
        });
        Ok(self)
    }
}

/// Returns the whitening filters of patches of `size` by `size` pixels as rows, `[D, D]`.
fn filters(
    batches: impl IntoIterator<Item = Tensor<4>>,
    [channels, size]: [usize; 2],
    device: &Device,
) -> Result<Tensor<2>, WhiteningError> {
    let values = channels * size * size;
    let mut patches = 0;
    let mut sums = vec![0.0f64; values * values];
    for images in batches {
        let columns = collect_patches(images.without_autodiff(), size);
        patches += columns.dims()[1];
        let products = columns.clone().matmul(columns.transpose()).into_data();
        for (sum, product) in sums.iter_mut().zip(products.iter::<f64>()) {
            *sum += product;
        }
    }
    check_patches(patches, values)?;
    let covariance: Vec<f32> = sums
        .iter()
        .map(|sum| (sum / patches as f64) as f32)
        .collect();
    let covariance = TensorData::new(covariance, [values, values]);
    // The singular vectors of a symmetric positive matrix are its eigenvectors.
    let (_, variances, vectors) = svd::<2, 1>(Tensor::from_data(covariance, device), SWEEPS);
    let deviations = variances.add_scalar(EPSILON).sqrt();
    Ok(vectors / deviations.unsqueeze_dim(1))
}

/// Returns the patches of images `[N, C, H, W]` as columns, `[C * size * size, N * H' * W']`.
fn collect_patches(images: Tensor<4>, size: usize) -> Tensor<2> {
    let [count, channels, height, width] = images.dims();
    let [rows, columns] = [height, width].map(|length| (length + 1).saturating_sub(size));
    let offsets = (0..size).flat_map(|y| (0..size).map(move |x| (y, x)));
    let shifted = offsets.map(|(y, x)| {
        let pixels = images
            .clone()
            .slice([0..count, 0..channels, y..y + rows, x..x + columns]);
        pixels
            .swap_dims(0, 1)
            .reshape([channels, 1, count * rows * columns])
    });
    // [C, size * size, N * H' * W']
    let patches: Tensor<3> = Tensor::cat(shifted.collect(), 1);
    patches.flatten(0, 1)
}
