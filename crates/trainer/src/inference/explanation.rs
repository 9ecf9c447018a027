//! Explanations of a prediction: heat maps of the evidence for a class in an image.

use anyhow::{Context, Result};
use burn::module::Module;
use burn::tensor::Tensor;
use data::Preparation;
use model::{ConvNet, SplitNet};

use crate::inference::classifier::{Answer, Classifier};
use crate::inference::heat_map::HeatMap;

/// Number of points on the path of integrated gradients.
const STEPS: usize = 64;
/// Number of images in a batch.
const BATCH: usize = 32;
/// Number of occluding patches that cover the shorter side of an image.
const PATCHES: usize = 7;
/// Number of steps in which a patch moves by its own side.
const STRIDES: usize = 4;

/// The evidence for a class in an image.
#[derive(Clone, Debug)]
pub(crate) struct Explanation {
    /// The prediction for the image.
    pub(crate) answer: Answer,
    /// Index of the explained class.
    pub(crate) class: usize,
    /// `None` for a network without convolutions.
    pub(crate) grad_cam: Option<GradCam>,
    pub(crate) integrated_gradients: IntegratedGradients,
    pub(crate) occlusion: Occlusion,
}

/// The regions of an image that increase the logit of a class, in the resolution of the last convolution.
#[derive(Clone, Debug)]
pub(crate) struct GradCam {
    pub(crate) map: HeatMap,
    /// Height and width of the feature maps.
    pub(crate) maps_size: [usize; 2],
}

/// The contribution of each pixel to the logit of a class.
#[derive(Clone, Debug)]
pub(crate) struct IntegratedGradients {
    /// Contributions, summed over the channels.
    pub(crate) map: HeatMap,
    /// Logit of the image minus logit of a black image. The contributions sum up to it, except for the error of the
    /// numerical integration.
    pub(crate) logit_difference: f64,
}

/// The decrease of the probability of a class where a part of the image is covered.
#[derive(Clone, Debug)]
pub(crate) struct Occlusion {
    /// Mean over the patches that cover a pixel.
    pub(crate) map: HeatMap,
    /// Height and width of a patch.
    pub(crate) patch: usize,
}

impl Explanation {
    /// Returns the probability of the explained class.
    pub(crate) fn probability(&self) -> f32 {
        self.answer.probabilities.as_slice()[self.class]
    }
}

impl Classifier {
    /// Explains the prediction for an image, `[channels, height, width]`: the evidence for the class of this index, or for
    /// the predicted one.
    ///
    /// # Errors
    /// Returns an error if the image has another size, or the device fails.
    ///
    /// # Panics
    /// Panics if there is no such class.
    pub(crate) fn explain(&self, pixels: &[u8], class: Option<usize>) -> Result<Explanation> {
        let answer = self.classify(vec![pixels.to_vec()])?.remove(0);
        let class = class.unwrap_or(answer.probabilities.best().0);
        // Dropout is off.
        let network = self.model.valid();
        let image = self.normalized(vec![pixels.to_vec()]);
        let black = self.normalized(vec![vec![0; pixels.len()]]);
        let shape = self.config.images.shape();
        let probabilities = |images| {
            let answers = self.classify(images)?.into_iter();
            Ok(answers
                .map(|answer| answer.probabilities.as_slice()[class])
                .collect())
        };
        Ok(Explanation {
            grad_cam: self.grad_cam(pixels, class)?,
            integrated_gradients: integrated_gradients(&network, image, black, class)?,
            occlusion: occlusion(pixels, shape, self.background(), probabilities)?,
            answer,
            class,
        })
    }

    /// Computes Grad-CAM of an image; `None` for a network without convolutions.
    ///
    /// # Errors
    /// Returns an error if the device fails.
    ///
    /// # Panics
    /// Panics if the image has another size, or there is no such class.
    pub(crate) fn grad_cam(&self, pixels: &[u8], class: usize) -> Result<Option<GradCam>> {
        let image = self.normalized(vec![pixels.to_vec()]);
        let split = self.model.split();
        split
            .map(|split| grad_cam(&split, image, class))
            .transpose()
    }

    /// Returns the background of images, which covers a part of them without showing anything: black, or the mean color of
    /// the training images if they are pictures. One value per channel.
    fn background(&self) -> Vec<u8> {
        let images = &self.config.images;
        let color = |channel| match images.preparation {
            Preparation::Handwriting | Preparation::Object => 0,
            // The conversion saturates.
            Preparation::Picture => (255.0 * images.mean.of(channel)).round() as u8,
        };
        (0..images.channels).map(color).collect()
    }
}

/// Computes Grad-CAM of a normalized image `[1, C, H, W]`: the feature maps of the last convolution, each weighted with the
/// mean gradient of the logit with respect to it, summed up; negative sums are 0. Selvaraju et al., "Grad-CAM" (2017).
fn grad_cam(network: &SplitNet, image: Tensor<4>, class: usize) -> Result<GradCam> {
    let [_, _, height, width] = image.dims();
    let maps = network.maps(image).autodiff().require_grad();
    let gradients = sum_of_logits(network.logits(maps.clone()), class).backward();
    let gradient = maps.grad(&gradients).context("no gradient of the maps")?;
    let weights = gradient.mean_dim(3).mean_dim(2);
    let map = (maps.inner() * weights).sum_dim(1).clamp_min(0.0);
    let map = HeatMap::of_tensor(map)?;
    Ok(GradCam {
        maps_size: [map.height, map.width],
        map: map.resized(height, width),
    })
}

/// Computes the integrated gradients of a normalized image, `[1, C, H, W]`: its difference from a baseline, times the mean
/// gradient of the logit on the straight line between both, by the midpoint rule. Sundararajan, Taly and Yan, "Axiomatic
/// Attribution for Deep Networks" (2017).
fn integrated_gradients(
    network: &ConvNet,
    image: Tensor<4>,
    baseline: Tensor<4>,
    class: usize,
) -> Result<IntegratedGradients> {
    let difference = image.clone() - baseline.clone();
    let mut sum = difference.zeros_like();
    let fractions: Vec<f32> = (0..STEPS)
        .map(|step| (step as f32 + 0.5) / STEPS as f32)
        .collect();
    for fractions in fractions.chunks(BATCH) {
        let count = fractions.len();
        let fractions = Tensor::<1>::from_floats(fractions, &difference.device());
        let points = difference.clone() * fractions.reshape([count, 1, 1, 1]) + baseline.clone();
        let points = points.autodiff().require_grad();
        let gradients = sum_of_logits(network.forward(points.clone()), class).backward();
        let gradient = points
            .grad(&gradients)
            .context("no gradient of the images")?;
        sum = sum + gradient.sum_dim(0);
    }
    let contributions = (difference * sum).div_scalar(STEPS as f64);
    let logits = network.forward(Tensor::cat(vec![image, baseline], 0));
    let logits = logits.slice([0..2, class..class + 1]).try_into_data()?;
    let logits: Vec<f64> = logits.iter::<f64>().collect();
    Ok(IntegratedGradients {
        map: HeatMap::of_tensor(contributions.sum_dim(1))?,
        logit_difference: logits[0] - logits[1],
    })
}

/// Sums the logits of a class over the images of a batch. The gradient with respect to each image is that of its own logit.
fn sum_of_logits(logits: Tensor<2>, class: usize) -> Tensor<1> {
    let [images, _] = logits.dims();
    logits.slice([0..images, class..class + 1]).sum()
}

/// Covers an image, `[channels, height, width]`, with a square patch of the `background` at each place, and computes the
/// decrease of a probability; Zeiler and Fergus, "Visualizing and Understanding Convolutional Networks" (2014).
/// `probabilities` computes those of several images.
fn occlusion(
    pixels: &[u8],
    [_, height, width]: [usize; 3],
    background: Vec<u8>,
    probabilities: impl Fn(Vec<Vec<u8>>) -> Result<Vec<f32>>,
) -> Result<Occlusion> {
    let patch = height.min(width).div_ceil(PATCHES);
    let places: Vec<[usize; 2]> = offsets(height, patch)
        .into_iter()
        .flat_map(|y| offsets(width, patch).into_iter().map(move |x| [y, x]))
        .collect();
    let whole = probabilities(vec![pixels.to_vec()])?[0];
    let (mut sums, mut counts) = (vec![0.0; height * width], vec![0.0; height * width]);
    for places in places.chunks(BATCH) {
        let covered = |&[top, left]: &[usize; 2]| {
            let mut image = pixels.to_vec();
            for (plane, color) in image.chunks_mut(height * width).zip(&background) {
                for at in square(top, left, patch, width) {
                    plane[at] = *color;
                }
            }
            image
        };
        let found = probabilities(places.iter().map(covered).collect())?;
        for (&[top, left], probability) in places.iter().zip(found) {
            for at in square(top, left, patch, width) {
                sums[at] += whole - probability;
                counts[at] += 1.0;
            }
        }
    }
    let means = sums.iter().zip(&counts).map(|(sum, count)| sum / count);
    let map = HeatMap {
        values: means.collect(),
        height,
        width,
    };
    Ok(Occlusion { map, patch })
}

/// Returns the offsets of a patch on a line, from its start to its end.
fn offsets(length: usize, patch: usize) -> Vec<usize> {
    let (last, stride) = (length - patch, (patch / STRIDES).max(1));
    (0..last).step_by(stride).chain([last]).collect()
}

/// Returns the indices of the pixels of a square in a plane of this width.
fn square(top: usize, left: usize, side: usize, width: usize) -> impl Iterator<Item = usize> {
    (top..top + side).flat_map(move |y| (left..left + side).map(move |x| y * width + x))
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;
    use model::{BlockConfig, ConvNetConfig, Pool, PoolKind, Stage};

    use super::*;
    use crate::run::images;
    use crate::run::run_dir::RunDir;

    /// Returns a network without hidden layers, with these parameters in order: filters, biases, dense weights
    /// `[inputs, classes]`, biases.
    fn network(
        blocks: Vec<Stage>,
        input: [usize; 2],
        classes: usize,
        parameters: &[f32],
    ) -> ConvNet {
        let config = ConvNetConfig {
            input,
            classes,
            dense: vec![],
            blocks,
            ..ConvNetConfig::default()
        };
        let device = Device::default();
        let network = config.init(&device).unwrap();
        assert_eq!(network.num_params(), parameters.len());
        network.with_flat_parameters(Tensor::from_floats(parameters, &device))
    }

    fn image<const W: usize>(rows: &[[f32; W]]) -> Tensor<4> {
        Tensor::<1>::from_floats(rows.as_flattened(), &Device::default()).reshape([
            1,
            1,
            rows.len(),
            W,
        ])
    }

    fn assert_close(found: &[f32], expected: &[f32]) {
        assert_eq!(found.len(), expected.len());
        for (a, b) in found.iter().zip(expected) {
            assert!((a - b).abs() < 1e-5, "{found:?}, expected {expected:?}");
        }
    }

    /// A 1x1 convolution with two channels.
    fn block(pool: Pool) -> Vec<Stage> {
        vec![Stage::Block(BlockConfig {
            channels: 2,
            kernel: 1,
            padding: 0,
            pool,
            ..BlockConfig::default()
        })]
    }

    #[test]
    fn integrated_gradients_of_a_linear_network_are_weights_times_differences() {
        let weights = [1.0, 5.0, -2.0, 6.0, 3.0, -7.0, 0.5, 0.25];
        let network = network(vec![], [2, 2], 2, &[&weights[..], &[10.0, 20.0]].concat());
        let (image, black) = (
            image(&[[1.0, 2.0], [3.0, 4.0]]),
            image(&[[-1.0, -1.0], [-1.0, -1.0]]),
        );
        let found = integrated_gradients(&network, image, black, 1).unwrap();
        assert_close(&found.map.values, &[10.0, 18.0, -28.0, 1.25]);
        assert!((found.map.sum() - found.logit_difference).abs() < 1e-4);
        assert!((found.logit_difference - 1.25).abs() < 1e-4);
    }

    #[test]
    fn grad_cam_weights_the_maps_with_their_mean_gradients() {
        // The maps are 2x and max(x - 2, 0); their mean gradients for class 0 are 0.25 and -1.
        let dense = [
            [0.1, -1.0],
            [0.2, -1.0],
            [0.3, -1.0],
            [0.4, -1.0],
            [-1.0, -1.0],
            [-1.0, -1.0],
            [-1.0, -1.0],
            [-1.0, -1.0],
        ];
        let parameters = [&[2.0, 1.0, 0.0, -2.0], dense.as_flattened(), &[0.0, 0.0]].concat();
        let network = network(block(Pool::None), [2, 2], 2, &parameters);
        let image = image(&[[1.0, 2.0], [3.0, 8.0]]);
        let split = network.split().unwrap();
        let found = grad_cam(&split, image.clone(), 0).unwrap();
        assert_eq!(found.maps_size, [2, 2]);
        assert_close(&found.map.values, &[0.5, 1.0, 0.5, 0.0]);
        // All evidence is against class 1.
        let found = grad_cam(&split, image, 1).unwrap();
        assert_close(&found.map.values, &[0.0; 4]);
    }

    #[test]
    fn grad_cam_sees_the_maps_before_a_global_pooling() {
        let parameters = [1.0, 1.0, 0.0, 0.0, 8.0, 0.0, 0.0, 0.0, 0.0, 0.0];
        let network = network(block(Pool::Global(PoolKind::Max)), [1, 4], 2, &parameters);
        let image = image(&[[1.0, 2.0, 4.0, 3.0]]);
        let found = grad_cam(&network.split().unwrap(), image, 0).unwrap();
        assert_eq!(found.maps_size, [1, 4]);
        // The gradient of the maximum is 8, so its mean is 2.
        assert_close(&found.map.values, &[2.0, 4.0, 8.0, 6.0]);
    }

    #[test]
    fn occlusion_finds_the_patch_with_all_evidence() {
        let evidence = 3 * 14 + 5;
        let mut pixels = vec![9; 14 * 14];
        pixels[evidence] = 200;
        let probabilities = |images: Vec<Vec<u8>>| {
            let probability = |image: &Vec<u8>| if image[evidence] == 200 { 0.9 } else { 0.1 };
            Ok(images.iter().map(probability).collect())
        };
        let found = occlusion(&pixels, [1, 14, 14], vec![9], probabilities).unwrap();
        assert_eq!(found.patch, 2);
        // All patches of 2x2 pixels that cover the pixel hide it; half of those over its neighbors do.
        let value = |y: usize, x: usize| found.map.values[y * 14 + x];
        assert!((value(3, 5) - 0.8).abs() < 1e-6);
        assert!((value(3, 6) - 0.4).abs() < 1e-6);
        assert!((value(4, 6) - 0.2).abs() < 1e-6);
        let far = (0..14usize).flat_map(|y| (0..14usize).map(move |x| (y, x)));
        for (y, x) in far.filter(|(y, x)| y.abs_diff(3) > 1 || x.abs_diff(5) > 1) {
            assert_eq!(value(y, x), 0.0, "{y}, {x}");
        }
    }

    #[test]
    fn patches_cover_all_pixels() {
        assert_eq!(offsets(7, 1), [0, 1, 2, 3, 4, 5, 6]);
        assert_eq!(offsets(1, 1), [0]);
        assert_eq!(offsets(21, 8), [0, 2, 4, 6, 8, 10, 12, 13]);
        for [height, width] in [[1, 9], [28, 28], [33, 95]] {
            let pixels = vec![1; 3 * height * width];
            let mean = |images: Vec<Vec<u8>>| {
                let mean = |image: &Vec<u8>| image.iter().map(|&x| f32::from(x)).sum();
                Ok(images.iter().map(mean).collect())
            };
            let found = occlusion(&pixels, [3, height, width], vec![0; 3], mean).unwrap();
            assert!(found.map.values.iter().all(|value| *value > 0.0));
        }
    }

    #[test]
    fn integrated_gradients_of_pretrained_are_complete() {
        let run = RunDir::open("artifacts/runs".as_ref(), "pretrained").unwrap();
        let classifier = Classifier::open(&run, Device::default()).unwrap();
        let test = images::load_test(&run, &classifier.config).unwrap();
        for index in 0..3 {
            let pixels = test.pixels(index).unwrap();
            let found = classifier.explain(&pixels, None).unwrap();
            assert_eq!(found.class, usize::from(test.label(index)));
            let IntegratedGradients {
                map,
                logit_difference,
            } = &found.integrated_gradients;
            let error = (map.sum() - logit_difference).abs();
            assert!(*logit_difference > 5.0, "{logit_difference}");
            assert!(error < 0.02 * logit_difference, "{error}");
            assert_eq!(found.grad_cam.unwrap().maps_size, [14, 14]);
            // A black patch on black changes nothing.
            assert_eq!(found.occlusion.map.values[0], 0.0);
        }
    }
}
