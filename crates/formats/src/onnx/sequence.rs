//! The layers from the image to the output, in order.

use data::{PerChannel, Scaling};
use model::Initialization;

use crate::chain::{Chain, ChainLayer, ChainOperation, Padding, Projection};
use crate::onnx::graph::Evaluation;
use crate::onnx::values::{Step, StepKind};

/// Range of the difference between the values of white and black pixels that networks are trained with.
const PLAUSIBLE_CONTRAST: [f64; 2] = [0.5, 16.0];

/// Returns the layers of a network. `scaling` is the normalization of the images that the file states beside the graph.
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
    let sequence = sequence(&steps, output)?;
    let mut steps: Vec<Option<Step>> = steps.into_iter().map(Some).collect();
    let mut take = |index: usize| {
        let step = steps.get_mut(index).and_then(Option::take);
        step.ok_or_else(|| "a layer that is used twice".to_string())
    };
    let mut layers = Vec::new();
    let mut pixels = Affine::identity();
    for item in sequence {
        match item {
            Item::Single(index) => {
                let Step { name, kind, .. } = take(index)?;
                match kind {
                    StepKind::Rescale { factor, shift } => {
                        pixels = pixels.then(&factor, &shift, image[0])?;
                    }
                    StepKind::Layer(operation) => layers.push(ChainLayer { name, operation }),
                    StepKind::Image { .. } | StepKind::Add { .. } => {}
                }
            }
            Item::Residual {
                sum,
                blocks,
                projection,
            } => {
                let name = take(sum)?.name;
                let layer = |operation| ChainLayer {
                    name: name.clone(),
                    operation,
                };
                layers.push(layer(ChainOperation::ResidualStart));
                for index in blocks {
                    let Step { name, kind, .. } = take(index)?;
                    if let StepKind::Layer(operation) = kind {
                        layers.push(ChainLayer { name, operation });
                    }
                }
                let operations = projection.into_iter().map(|index| match take(index)?.kind {
                    StepKind::Layer(operation) => Ok(operation),
                    _ => Err("a shortcut that is not a convolution".to_string()),
                });
                let operations = operations.collect::<Result<Vec<ChainOperation>, String>>()?;
                let projection = self::projection(operations)
                    .map_err(|reason| format!("layer {name}: {reason}"))?;
                layers.push(layer(ChainOperation::ResidualEnd { projection }));
            }
        }
    }
    let rescale = match pixels != Affine::identity() {
        true => Some(pixels.of_pixels(has_integer_pixels)?.into_operation()?),
        // Pixels of integers are not normalized outside of the graph.
        false if has_integer_pixels => Some(pixels.into_operation()?),
        false => scaling.map(|scaling| {
            let (factor, shift) = scaling.factor_and_shift();
            ChainOperation::Rescale {
                scale: factor,
                offset: shift.zip(shift, |shift, _| -shift),
            }
        }),
    };
    let rescale = rescale.map(|operation| ChainLayer {
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

/// Some steps of the sequence.
#[derive(Debug)]
enum Item {
    Single(usize),
    Residual {
        /// The step that adds.
        sum: usize,
        blocks: Vec<usize>,
        /// The steps of the shortcut; none for the identity.
        projection: Vec<usize>,
    },
}

/// Returns the steps from the image to the output, in order.
fn sequence(steps: &[Step], output: usize) -> Result<Vec<Item>, String> {
    let mut items = Vec::new();
    let mut at = output;
    while let Some(step) = steps.get(at) {
        match step.kind {
            StepKind::Image { .. } => break,
            StepKind::Rescale { .. } | StepKind::Layer(_) => {
                items.push(Item::Single(at));
                at = step.input;
            }
            StepKind::Add { other } => {
                let refusal = |reason: &str| format!("layer {}: {reason}", step.name);
                let (start, paths) = branches(steps, [step.input, other]).ok_or_else(|| {
                    refusal("branches other than residual connections are not supported")
                })?;
                let is_shortcut = |path: &Vec<usize>| {
                    let mut kinds = path
                        .iter()
                        .filter_map(|index| steps.get(*index))
                        .map(|step| &step.kind);
                    let is_projection = |kind: &StepKind| {
                        matches!(kind, StepKind::Layer(ChainOperation::Convolution { weight, .. })
                            if weight.shape.get(2..) == Some(&[1, 1]))
                    };
                    let is_norm = |kind: &StepKind| {
                        matches!(kind, StepKind::Layer(ChainOperation::Normalize(_)))
                    };
                    kinds.next().is_none_or(is_projection) && kinds.all(is_norm)
                };
                let [first, second] = paths;
                // The shorter one, if both are shortcuts.
                let is_second =
                    is_shortcut(&second) && (!is_shortcut(&first) || second.len() <= first.len());
                let (blocks, projection) = match is_second {
                    true => (first, second),
                    false => (second, first),
                };
                if !is_shortcut(&projection) || blocks.is_empty() {
                    return Err(refusal(
                        "a sum of two branches, of which none is a shortcut",
                    ));
                }
                items.push(Item::Residual {
                    sum: at,
                    blocks,
                    projection,
                });
                at = start;
            }
        }
    }
    items.reverse();
    Ok(items)
}

/// Returns the last common step of two branches, and the steps of each branch in order; `None` if a branch has branches.
fn branches(steps: &[Step], ends: [usize; 2]) -> Option<(usize, [Vec<usize>; 2])> {
    let mut paths = [Vec::new(), Vec::new()];
    let mut at = ends;
    while at[0] != at[1] {
        // Steps come after their inputs.
        let later = usize::from(at[1] > at[0]);
        let step = steps.get(at[later])?;
        if !matches!(step.kind, StepKind::Layer(_)) {
            return None;
        }
        paths[later].push(at[later]);
        at[later] = step.input;
    }
    paths.iter_mut().for_each(|path| path.reverse());
    Some((at[0], paths))
}

/// Returns the convolution of a shortcut with its normalizations.
fn projection(operations: Vec<ChainOperation>) -> Result<Option<Projection>, String> {
    let mut projection: Option<Projection> = None;
    for operation in operations {
        match (operation, &mut projection) {
            (
                ChainOperation::Convolution {
                    weight,
                    bias,
                    stride,
                    padding: Padding::Each(0),
                    groups: 1,
                    ..
                },
                None,
            ) => {
                projection = Some(Projection {
                    weight,
                    bias,
                    stride,
                });
            }
            (ChainOperation::Normalize(normalization), Some(projection)) => {
                let applied = normalization.apply(&projection.weight, projection.bias.as_ref());
                let [weight, bias] =
                    applied.ok_or("another number of channels than the layer before")?;
                (projection.weight, projection.bias) = (weight, Some(bias));
            }
            _ => return Err("a shortcut that is not an unpadded 1x1 convolution".into()),
        }
    }
    Ok(projection)
}

/// A function of the pixels, `factor * x + shift`, with one number for all channels or one for each.
#[derive(Debug, PartialEq)]
struct Affine {
    factor: Vec<f64>,
    shift: Vec<f64>,
}

impl Affine {
    fn identity() -> Self {
        Self {
            factor: vec![1.0],
            shift: vec![0.0],
        }
    }

    fn then(self, factor: &[f64], shift: &[f64], channels: usize) -> Result<Self, String> {
        let lengths = [&self.factor, &self.shift].map(Vec::len).into_iter();
        let count = lengths
            .chain([factor.len(), shift.len()])
            .max()
            .unwrap_or(1);
        if count > 1 && count != channels {
            return Err(format!("a normalization of {count} channels of {channels}"));
        }
        let at = |numbers: &[f64], index: usize| {
            numbers
                .get(index)
                .or(numbers.first())
                .copied()
                .unwrap_or(0.0)
        };
        let (factors, shifts) = (0..count)
            .map(|channel| {
                let factor = at(factor, channel);
                (
                    at(&self.factor, channel) * factor,
                    at(&self.shift, channel) * factor + at(shift, channel),
                )
            })
            .unzip();
        Ok(Self {
            factor: factors,
            shift: shifts,
        })
    }

    /// Returns the function of pixels from 0 to 255.
    ///
    /// A graph does not state whether other pixels than integers are from 0 to 255 or from 0 to 1. Only one of both
    /// leads to plausible values.
    fn of_pixels(self, are_integers: bool) -> Result<Self, String> {
        let is_plausible = |range: f64| {
            let [least, most] = PLAUSIBLE_CONTRAST;
            self.factor.iter().enumerate().all(|(channel, factor)| {
                let shift = self
                    .shift
                    .get(channel)
                    .or(self.shift.first())
                    .copied()
                    .unwrap_or(0.0);
                let zero = -shift / factor;
                // The value 0 is that of a pixel.
                (0.0..=range).contains(&zero) && (least..=most).contains(&(factor * range).abs())
            })
        };
        let subtracts_mean = self.shift.iter().any(|shift| *shift < -1.0) && self.factor == [1.0];
        match (are_integers || is_plausible(255.0) || subtracts_mean, is_plausible(1.0)) {
            (true, _) => Ok(self),
            (false, true) => Ok(Self {
                factor: self.factor.iter().map(|factor| factor / 255.0).collect(),
                shift: self.shift,
            }),
            (false, false) => Err(
                "a normalization of pixels that suits neither pixels from 0 to 255 nor pixels from 0 to 1".into(),
            ),
        }
    }

    fn into_operation(self) -> Result<ChainOperation, String> {
        let per_channel = |numbers: &[f64]| match *numbers {
            [number] => Ok(PerChannel::Same(number)),
            [red, green, blue] => Ok(PerChannel::Each([red, green, blue])),
            _ => Err(format!("a normalization of {} channels", numbers.len())),
        };
        Ok(ChainOperation::Rescale {
            scale: per_channel(&self.factor)?,
            offset: per_channel(&self.shift)?,
        })
    }
}
