//! The steps of a network whose layers name their inputs, and their order.

use crate::chain::{ChainLayer, ChainOperation, Padding, Projection};

/// A step of the network. Steps come after their inputs.
#[derive(Debug)]
pub(crate) struct Step {
    /// Name of the layer.
    pub(crate) name: String,
    /// The step that it is applied to.
    pub(crate) input: usize,
    pub(crate) kind: StepKind,
}

#[derive(Debug)]
pub(crate) enum StepKind {
    /// The image, at index 0, with the sizes of its dimensions in the file.
    Image {
        sizes: Vec<usize>,
    },
    Layer(ChainOperation),
    /// The sum with the output of another step.
    Add {
        other: usize,
    },
}

/// Returns the layers from the image to the output, a step, in order.
///
/// # Errors
/// Returns a message if there are branches other than residual connections.
pub(crate) fn layers(steps: Vec<Step>, output: usize) -> Result<Vec<ChainLayer>, String> {
    let sequence = sequence(&steps, output)?;
    let mut steps: Vec<Option<Step>> = steps.into_iter().map(Some).collect();
    let mut take = |index: usize| {
        let step = steps.get_mut(index).and_then(Option::take);
        step.ok_or_else(|| "a layer that is used twice".to_string())
    };
    let mut layers = Vec::new();
    for item in sequence {
        match item {
            Item::Single(index) => {
                let Step { name, kind, .. } = take(index)?;
                if let StepKind::Layer(operation) = kind {
                    layers.push(ChainLayer { name, operation });
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
    Ok(layers)
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
            StepKind::Layer(_) => {
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
