//! Batch normalization in files, folded into the layer before it.

use std::borrow::Cow;

use crate::hint::{LayerHint, LayerKind};
use crate::tensor::{Tensor, Tensors};

/// The number that is added to each variance, by default in PyTorch, Burn and ONNX.
pub(crate) const EPSILON: f64 = 1e-5;
/// The number that is added to each variance, by default in Keras.
pub(crate) const KERAS_EPSILON: f64 = 1e-3;
/// Names of normalization layers that follow a layer `conv`.
const NORMS: [&str; 4] = ["bn", "norm", "batchnorm", "batch_norm"];

/// Normalization of the output of a layer: `factor * x + shift` for each channel.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Normalization {
    pub(crate) factor: Vec<f64>,
    pub(crate) shift: Vec<f64>,
}

/// The tensors of a file with batch normalization folded into convolutions.
pub(crate) struct Folded<'a> {
    pub(crate) tensors: Cow<'a, Tensors>,
    /// Names of convolutions that were multiplied by a negative number, which does not commute with max-pooling.
    pub(crate) negated: Vec<String>,
}

/// Folds each batch normalization into the convolution before it: `features.1` into `features.0`, `bn1` into `conv1`.
/// Normalizations without such a convolution stay. `hints` may state the numbers that are added to variances.
pub(crate) fn fold<'a>(tensors: &'a Tensors, hints: &[LayerHint]) -> Folded<'a> {
    let norms: Vec<&str> = tensors
        .keys()
        .filter_map(|name| name.strip_suffix(".running_mean"))
        .collect();
    let mut folded = Folded {
        tensors: Cow::Borrowed(tensors),
        negated: Vec::new(),
    };
    for norm in norms {
        let convolution = candidates(norm)
            .into_iter()
            .find(|name| is_convolution(tensors, name));
        let Some(convolution) = convolution else {
            continue;
        };
        let names = ["weight", "bias"].map(|part| format!("{convolution}.{part}"));
        let [weight, bias] = names.each_ref().map(|name| tensors.get(name));
        if let Some(normalization) = Normalization::read(
            tensors,
            norm,
            stated_epsilon(hints, norm).unwrap_or(EPSILON),
        ) && let Some(parts) = weight.and_then(|weight| normalization.apply(weight, bias))
        {
            let tensors = folded.tensors.to_mut();
            tensors.extend(names.into_iter().zip(parts));
            let prefix = format!("{norm}.");
            tensors.retain(|name, _| !name.starts_with(&prefix));
            if normalization.factor.iter().any(|factor| *factor < 0.0) {
                folded.negated.push(convolution);
            }
        }
    }
    folded
}

/// Returns the possible names of the convolution before a normalization.
fn candidates(norm: &str) -> Vec<String> {
    let (parent, last) = match norm.rsplit_once('.') {
        Some((parent, last)) => (format!("{parent}."), last),
        None => (String::new(), norm),
    };
    // A sequence numbers its layers.
    let previous = last.parse::<usize>().ok().and_then(|at| at.checked_sub(1));
    let numbered = previous.map(|previous| format!("{parent}{previous}"));
    let named = NORMS.iter().filter_map(|name| {
        let rest = last.strip_prefix(name)?;
        Some(format!("{parent}conv{rest}"))
    });
    numbered.into_iter().chain(named).collect()
}

/// Returns the number that a normalization adds to each variance, if the file states it.
pub(crate) fn stated_epsilon(hints: &[LayerHint], norm: &str) -> Option<f64> {
    let stated = hints.iter().find(|hint| hint.name == norm);
    match stated?.kind {
        LayerKind::BatchNorm { eps } => Some(eps),
        _ => None,
    }
}

fn is_convolution(tensors: &Tensors, name: &str) -> bool {
    let weight = tensors.get(&format!("{name}.weight"));
    weight.is_some_and(|weight| weight.shape.len() == 4)
}

impl Normalization {
    /// Creates a normalization from the statistics of each channel, and its learned scale and bias if it has them;
    /// `None` if their lengths differ.
    pub(crate) fn new(
        [mean, variance]: [&[f32]; 2],
        [scale, bias]: [Option<Vec<f32>>; 2],
        epsilon: f64,
    ) -> Option<Self> {
        let channels = mean.len();
        let scale = scale.unwrap_or_else(|| vec![1.0; channels]);
        let bias = bias.unwrap_or_else(|| vec![0.0; channels]);
        if [variance, &scale, &bias].map(<[f32]>::len) != [channels; 3] {
            return None;
        }
        let factor = variance.iter().zip(&scale);
        let factor: Vec<f64> = factor
            .map(|(variance, scale)| f64::from(*scale) / (f64::from(*variance) + epsilon).sqrt())
            .collect();
        let shift = bias.iter().zip(mean).zip(&factor);
        let shift =
            shift.map(|((bias, mean), factor)| f64::from(*bias) - f64::from(*mean) * factor);
        Some(Self {
            shift: shift.collect(),
            factor,
        })
    }

    /// Returns this normalization followed by `next`; `None` if their channels differ.
    pub(crate) fn then(&self, next: &Self) -> Option<Self> {
        let channels = self.factor.len();
        let shift = self.shift.iter().zip(&next.factor).zip(&next.shift);
        (next.factor.len() == channels).then(|| Self {
            factor: self
                .factor
                .iter()
                .zip(&next.factor)
                .map(|(a, b)| a * b)
                .collect(),
            shift: shift
                .map(|((shift, factor), next)| shift * factor + next)
                .collect(),
        })
    }

    /// Returns whether it preserves the order of values, so that it commutes with a maximum.
    pub(crate) fn is_increasing(&self) -> bool {
        self.factor.iter().all(|factor| *factor >= 0.0)
    }

    fn read(tensors: &Tensors, norm: &str, epsilon: f64) -> Option<Self> {
        let values = |part: &str| tensors.get(&format!("{norm}.{part}"))?.values();
        let (mean, variance) = (values("running_mean")?, values("running_var")?);
        Self::new(
            [&mean, &variance],
            [values("weight"), values("bias")],
            epsilon,
        )
    }

    /// Returns weight and bias of a layer followed by this normalization; `None` if the channels do not match.
    pub(crate) fn apply(&self, weight: &Tensor, bias: Option<&Tensor>) -> Option<[Tensor; 2]> {
        let channels = self.factor.len();
        if weight.shape.first() != Some(&channels) || channels == 0 {
            return None;
        }
        let values = weight.values().filter(|values| !values.is_empty())?;
        let filters = values.chunks(values.len() / channels).zip(&self.factor);
        let scaled: Vec<f32> = filters
            .flat_map(|(filter, factor)| {
                filter.iter().map(move |x| (f64::from(*x) * factor) as f32)
            })
            .collect();
        let bias = match bias {
            Some(bias) => bias.values().filter(|bias| bias.len() == channels)?,
            None => vec![0.0; channels],
        };
        let bias = bias.iter().zip(&self.factor).zip(&self.shift);
        let bias: Vec<f32> = bias
            .map(|((bias, factor), shift)| (f64::from(*bias) * factor + shift) as f32)
            .collect();
        Some([
            Tensor::from_values(weight.shape.clone(), &scaled),
            Tensor::from_values(vec![channels], &bias),
        ])
    }

    /// Returns weight `[out, in, ...]` and bias of an unpadded layer after this normalization of its inputs; `None` if the
    /// channels do not match.
    pub(crate) fn apply_before(
        &self,
        weight: &Tensor,
        bias: Option<&Tensor>,
    ) -> Option<[Tensor; 2]> {
        let channels = self.factor.len();
        let &[outputs, inputs, ..] = weight.shape.as_slice() else {
            return None;
        };
        let values = weight.values()?;
        let taps = values.len().checked_div(outputs.checked_mul(inputs)?)?;
        if inputs != channels || taps == 0 {
            return None;
        }
        let mut sums: Vec<f64> = match bias {
            Some(bias) => bias
                .values()
                .filter(|bias| bias.len() == outputs)?
                .into_iter()
                .map(f64::from)
                .collect(),
            None => vec![0.0; outputs],
        };
        let scaled = values.iter().enumerate().map(|(index, x)| {
            let (channel, x) = (index / taps % channels, f64::from(*x));
            sums[index / taps / channels] += x * self.shift[channel];
            (x * self.factor[channel]) as f32
        });
        let scaled: Vec<f32> = scaled.collect();
        let bias: Vec<f32> = sums.iter().map(|sum| *sum as f32).collect();
        Some([
            Tensor::from_values(weight.shape.clone(), &scaled),
            Tensor::from_values(vec![outputs], &bias),
        ])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(tensors: &[(&str, &[usize], &[f32])]) -> Tensors {
        let tensors = tensors.iter();
        tensors
            .map(|(name, shape, values)| {
                (
                    name.to_string(),
                    Tensor::from_values(shape.to_vec(), values),
                )
            })
            .collect()
    }

    #[test]
    fn folds_the_normalization_after_a_convolution() {
        for (conv, norm) in [
            ("conv1", "bn1"),
            ("features.0", "features.1"),
            ("a.conv2", "a.norm2"),
        ] {
            let name = |layer: &str, part: &str| format!("{layer}.{part}");
            let names =
                ["weight", "bias", "running_mean", "running_var"].map(|part| name(norm, part));
            let weight = name(conv, "weight");
            let tensors = file(&[
                (&weight, &[2, 1, 1, 1], &[2.0, 3.0]),
                (&names[0], &[2], &[-1.0, 0.5]),
                (&names[1], &[2], &[0.25, 0.0]),
                (&names[2], &[2], &[1.0, 4.0]),
                (&names[3], &[2], &[4.0, 1.0]),
            ]);
            let folded = fold(&tensors, &[]);
            let keys: Vec<&String> = folded.tensors.keys().collect();
            assert_eq!(keys, [&name(conv, "bias"), &weight]);
            let values = |part| folded.tensors[&name(conv, part)].values().unwrap();
            let close = |a: &[f32], b: [f32; 2]| a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-4);
            assert!(close(&values("weight"), [-1.0, 1.5]));
            assert!(close(&values("bias"), [0.75, -2.0]));
            assert_eq!(folded.negated, [conv]);
        }
    }

    #[test]
    fn leaves_normalizations_of_other_layers() {
        let tensors = file(&[
            ("fc1.weight", &[2, 1], &[2.0, 3.0]),
            ("bn1.running_mean", &[2], &[1.0, 4.0]),
            ("bn1.running_var", &[2], &[1.0, 4.0]),
            ("conv2.weight", &[3, 1, 1, 1], &[2.0, 3.0, 4.0]),
            ("bn2.running_mean", &[2], &[1.0, 4.0]),
            ("bn2.running_var", &[2], &[1.0, 4.0]),
        ]);
        assert_eq!(fold(&tensors, &[]).tensors.len(), tensors.len());
    }
}
