//! Test-time augmentation: predictions averaged over several views of each image.

use std::str::FromStr;

use anyhow::{Result, ensure};
use burn::tensor::Tensor;
use model::ConvNet;

/// Maximum number of random transforms.
const MAX_TRANSFORMS: usize = 1000;

/// The views of an image that a prediction is averaged over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TestTimeAugmentation {
    /// The image and a number of random transforms of it, drawn as in training: mean of probabilities.
    Random(usize),
    /// The views of a fixed list: mean of logits.
    Fixed(FixedViews),
}

/// Views that do not depend on the training.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FixedViews {
    /// The image and its mirror image.
    Flip,
    /// The image and two copies shifted by one pixel, each with its mirror image.
    FlipShift,
}

impl TestTimeAugmentation {
    /// The image alone.
    pub(crate) const NONE: Self = Self::Random(0);
}

impl FromStr for TestTimeAugmentation {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "flip" => Ok(Self::Fixed(FixedViews::Flip)),
            "flip-shift" => Ok(Self::Fixed(FixedViews::FlipShift)),
            _ => match text.parse() {
                Ok(count) if count <= MAX_TRANSFORMS => Ok(Self::Random(count)),
                _ => Err(format!(
                    "expected a number from 0 to {MAX_TRANSFORMS}, flip or flip-shift"
                )),
            },
        }
    }
}

impl FixedViews {
    /// Checks that images of this size have these views.
    ///
    /// # Errors
    /// Returns an error if the images are too small to be reflected at their border.
    pub(crate) fn check(self, height: usize, width: usize) -> Result<()> {
        ensure!(
            self == Self::Flip || height.min(width) > 1,
            "--tta flip-shift reflects images at their border: expected images of at least 2x2 pixels, found \
             {height}x{width}"
        );
        Ok(())
    }

    /// Computes the mean of the logits over the views, `[N, classes]`, of images `[N, C, H, W]`. The image has
    /// half of the weight, the shifted copies a quarter each, as in Jordan, "94% on CIFAR-10 in 3.29 Seconds on a
    /// Single GPU" (2024).
    pub(crate) fn mean_logits(self, model: &ConvNet, images: Tensor<4>) -> Tensor<2> {
        let mirrored = |images: Tensor<4>| {
            let logits = model.forward(images.clone());
            (logits + model.forward(images.flip([3]))).mul_scalar(0.5)
        };
        let logits = mirrored(images.clone());
        match self {
            Self::Flip => logits,
            Self::FlipShift => {
                let down_right = shift(shift(images.clone(), 2, Towards::End), 3, Towards::End);
                let up_left = shift(shift(images, 2, Towards::Start), 3, Towards::Start);
                let shifted = mirrored(down_right) + mirrored(up_left);
                logits.mul_scalar(0.5) + shifted.mul_scalar(0.25)
            }
        }
    }
}

/// The end of a dimension that pixels move towards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Towards {
    /// Left or up.
    Start,
    /// Right or down.
    End,
}

/// Shifts images by one pixel along a dimension; the border is filled by reflection.
fn shift(images: Tensor<4>, dim: usize, towards: Towards) -> Tensor<4> {
    let size = images.dims()[dim];
    let part = |start, length| images.clone().narrow(dim, start, length);
    let parts = match towards {
        Towards::End => [part(1, 1), part(0, size - 1)],
        Towards::Start => [part(1, size - 1), part(size - 2, 1)],
    };
    Tensor::cat(parts.to_vec(), dim)
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;
    use model::{BlockConfig, ConvNetConfig};

    use super::*;

    #[test]
    fn reads_a_number_or_a_name() {
        let parse = |text: &str| text.parse::<TestTimeAugmentation>();
        assert_eq!(parse("0"), Ok(TestTimeAugmentation::NONE));
        assert_eq!(parse("8"), Ok(TestTimeAugmentation::Random(8)));
        let fixed = TestTimeAugmentation::Fixed;
        assert_eq!(parse("flip"), Ok(fixed(FixedViews::Flip)));
        assert_eq!(parse("flip-shift"), Ok(fixed(FixedViews::FlipShift)));
        let expected = "expected a number from 0 to 1000, flip or flip-shift";
        for text in ["1001", "-1", "flips", ""] {
            assert_eq!(parse(text), Err(expected.into()), "{text}");
        }
    }

    #[test]
    fn shifts_match_reflection_padding_in_pytorch() {
        // torch.nn.functional.pad(x, [1] * 4, "reflect")[..., :3, :3] and [..., 2:, 2:].
        let device = Device::default();
        let image = Tensor::<4>::from_floats(
            [[[[1.0, 2.0, 3.0], [4.0, 5.0, 6.0], [7.0, 8.0, 9.0]]]],
            &device,
        );
        let shifted = |towards| {
            let shifted = shift(shift(image.clone(), 2, towards), 3, towards);
            shifted.into_data().try_to_vec::<f32>().unwrap()
        };
        let up_and_left = [5.0, 4.0, 5.0, 2.0, 1.0, 2.0, 5.0, 4.0, 5.0];
        assert_eq!(shifted(Towards::End), up_and_left);
        let down_and_right = [5.0, 6.0, 5.0, 8.0, 9.0, 8.0, 5.0, 6.0, 5.0];
        assert_eq!(shifted(Towards::Start), down_and_right);
    }

    #[test]
    fn logits_match_the_recipe_for_cifar() {
        let device = Device::default();
        let config = ConvNetConfig {
            input: [8, 8],
            blocks: vec![
                BlockConfig {
                    channels: 4,
                    ..BlockConfig::default()
                }
                .into(),
            ],
            ..ConvNetConfig::default()
        };
        let model = config.init_seeded(3, &device).unwrap();
        let pixels: Vec<f32> = (0..128u8).map(|at| (1.7 * f32::from(at)).sin()).collect();
        let images = Tensor::<1>::from_floats(pixels.as_slice(), &device).reshape([2, 1, 8, 8]);
        let values = |logits: Tensor<2>| logits.into_data().try_to_vec::<f32>().unwrap();
        let mirrored = |images: Tensor<4>| {
            let sum = model.forward(images.clone()) + model.forward(images.flip([3]));
            values(sum)
        };
        let flip = values(FixedViews::Flip.mean_logits(&model, images.clone()));
        let flip_shift = values(FixedViews::FlipShift.mean_logits(&model, images.clone()));
        let shifted = [Towards::End, Towards::Start]
            .map(|towards| mirrored(shift(shift(images.clone(), 2, towards), 3, towards)));
        for (at, plain) in mirrored(images).into_iter().enumerate() {
            assert!((flip[at] - plain / 2.0).abs() < 1e-6);
            let sum = 2.0 * plain + shifted[0][at] + shifted[1][at];
            assert!((flip_shift[at] - sum / 8.0).abs() < 1e-6);
        }
    }

    #[test]
    fn shifts_need_two_pixels() {
        assert!(FixedViews::Flip.check(1, 1).is_ok());
        assert!(FixedViews::FlipShift.check(2, 2).is_ok());
        assert_eq!(
            FixedViews::FlipShift.check(1, 9).unwrap_err().to_string(),
            "--tta flip-shift reflects images at their border: expected images of at least 2x2 pixels, found 1x9"
        );
    }
}
