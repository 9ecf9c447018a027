//! The normalization of pixels in a graph.

use data::{PerChannel, Scaling};
use model::Initialization;

use crate::chain::{Chain, ChainLayer, ChainOperation};
use crate::onnx::graph::Evaluation;
use crate::preprocessing;
use crate::steps;

/// Range of the difference between the values of white and black pixels that networks are trained with.
const PLAUSIBLE_CONTRAST: [f64; 2] = [0.5, 16.0];

/// Returns the layers of a network, with the normalizations of the image as one. `scaling` is the normalization of the
/// images that the file states beside the graph.
///
/// # Errors
/// Returns a message if there are branches other than residual connections.
pub(super) fn chain(evaluation: Evaluation, scaling: Option<Scaling>) -> Result<Chain, String> {
    let Evaluation {
        steps,
        output,
        image,
        has_integer_pixels,
    } = evaluation;
    let mut layers = steps::layers(steps, output)?;
    let mut pixels = Affine::IDENTITY;
    let is_layer = |layer: &ChainLayer| !matches!(layer.operation, ChainOperation::Rescale { .. });
    let first = layers.iter().position(is_layer).unwrap_or(layers.len());
    for layer in layers.drain(..first) {
        if let ChainOperation::Rescale { scale, offset } = layer.operation {
            if ![scale, offset].iter().all(|numbers| numbers.fits(image[0])) {
                return Err(format!("a normalization of 3 channels of {}", image[0]));
            }
            pixels = pixels.then(scale, offset);
        }
    }
    // Pixels of integers are not normalized outside of the graph.
    let normalization = match has_integer_pixels || pixels != Affine::IDENTITY {
        true => Some(pixels.of_pixels(has_integer_pixels)?.into_operation()),
        false => scaling.map(preprocessing::operation),
    };
    let rescale = normalization.map(|operation| ChainLayer {
        name: "input".into(),
        operation,
    });
    layers.splice(0..0, rescale);
    Ok(Chain {
        input: image,
        layers,
        initialization: Initialization::Pytorch,
    })
}

/// A function of the pixels, `scale * x + offset`.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Affine {
    scale: PerChannel,
    offset: PerChannel,
}

impl Affine {
    const IDENTITY: Self = Self {
        scale: PerChannel::Same(1.0),
        offset: PerChannel::Same(0.0),
    };

    fn then(self, scale: PerChannel, offset: PerChannel) -> Self {
        let shifted = self.offset.zip(scale, |shift, factor| shift * factor);
        Self {
            scale: self.scale.zip(scale, |a, b| a * b),
            offset: shifted.zip(offset, |a, b| a + b),
        }
    }

    /// Returns the function of pixels from 0 to 255.
    ///
    /// A graph does not state whether other pixels than integers are from 0 to 255 or from 0 to 1. Only one of both
    /// leads to plausible values.
    fn of_pixels(self, are_integers: bool) -> Result<Self, String> {
        let is_plausible = |range: f64| {
            let [least, most] = PLAUSIBLE_CONTRAST;
            (0..3).all(|channel| {
                let [scale, offset] = [self.scale, self.offset].map(|numbers| numbers.of(channel));
                let zero = -offset / scale;
                // The value 0 is that of a pixel.
                (0.0..=range).contains(&zero) && (least..=most).contains(&(scale * range).abs())
            })
        };
        let subtracts_mean =
            self.scale == PerChannel::Same(1.0) && !self.offset.all(|offset| offset >= -1.0);
        match (are_integers || is_plausible(255.0) || subtracts_mean, is_plausible(1.0)) {
            (true, _) => Ok(self),
            (false, true) => Ok(Self {
                scale: self.scale.zip(self.scale, |scale, _| scale / 255.0),
                ..self
            }),
            (false, false) => Err(
                "a normalization of pixels that suits neither pixels from 0 to 255 nor pixels from 0 to 1".into(),
            ),
        }
    }

    fn into_operation(self) -> ChainOperation {
        let Self { scale, offset } = self;
        ChainOperation::Rescale { scale, offset }
    }
}
