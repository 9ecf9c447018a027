//! The layers of a file with weights only: convolutions, dense layers and batch normalization, by the names and shapes of
//! their tensors.

use std::collections::BTreeMap;

use crate::batch_norm::{EPSILON, KERAS_EPSILON, Normalization, stated_epsilon};
use crate::layout::Layout;
use crate::matching::{Part, is_weight, part, pattern};
use crate::tensor::Tensor;
use crate::weights::Weights;

/// Largest number of orders of layers that are tried.
const MAX_ORDERS: usize = 10_000;

/// The layers of a file, in order.
#[derive(Debug)]
pub(crate) struct FileLayers {
    /// Weights `[out, in, ky, kx]`.
    pub(crate) convolutions: Vec<FileLayer>,
    /// Weights `[out, in]`; the inputs of the first layer have the order of the file.
    pub(crate) dense: Vec<FileLayer>,
    /// Batch normalization.
    pub(crate) norms: Vec<FileNorm>,
}

/// A layer with a weight in PyTorch's layout.
#[derive(Clone, Debug)]
pub(crate) struct FileLayer {
    pub(crate) name: String,
    pub(crate) weight: Tensor,
    pub(crate) bias: Option<Tensor>,
}

impl FileLayer {
    /// Returns the number of outputs.
    pub(crate) fn outputs(&self) -> usize {
        self.weight.shape[0]
    }

    /// Returns the number of inputs.
    pub(crate) fn inputs(&self) -> usize {
        self.weight.shape[1]
    }
}

/// Batch normalization.
#[derive(Clone, Debug)]
pub(crate) struct FileNorm {
    pub(crate) name: String,
    pub(crate) normalization: Normalization,
}

impl FileLayers {
    /// Finds the layers of a file.
    ///
    /// # Errors
    /// Returns a message with the name of a tensor that belongs to no layer, or if the layers form no chain.
    pub(crate) fn of(weights: &Weights) -> Result<Self, String> {
        let layout = weights.layout;
        let mut parts: BTreeMap<&str, Parts<'_>> = BTreeMap::new();
        for (name, tensor) in weights.tensors.iter().filter(is_weight) {
            let (layer, part) = split(name);
            parts.entry(layer).or_default().insert(part, (name, tensor));
        }
        let mut layers = Self {
            convolutions: Vec::new(),
            dense: Vec::new(),
            norms: Vec::new(),
        };
        for (name, parts) in parts {
            if let Some(normalization) =
                normalization(&parts, layout, stated_epsilon(&weights.hints, name))
            {
                let name = name.to_owned();
                layers.norms.push(FileNorm {
                    name,
                    normalization,
                });
                continue;
            }
            let layer = weighted(name, &parts, layout)?;
            match layer.weight.shape.len() {
                4 => layers.convolutions.push(layer),
                _ => layers.dense.push(layer),
            }
        }
        layers.convolutions = ordered(layers.convolutions, layout)?;
        layers.dense = ordered(layers.dense, layout)?;
        layers
            .norms
            .sort_by_cached_key(|norm| pattern(&norm.name, layout));
        Ok(layers)
    }
}

/// The tensors of a layer and their names, by the last part of the name.
type Parts<'a> = BTreeMap<&'a str, (&'a str, &'a Tensor)>;

/// Splits the name of a tensor into the name of its layer and the last part.
fn split(name: &str) -> (&str, &str) {
    let (layer, last) = name.rsplit_once(['.', '/']).unwrap_or(("", name));
    let last = last.split(':').next().unwrap_or(last);
    (layer.strip_suffix("/vars").unwrap_or(layer), last)
}

/// Returns the batch normalization of a layer; `None` for other layers. `epsilon` overrides the default of the layout.
fn normalization(parts: &Parts<'_>, layout: Layout, epsilon: Option<f64>) -> Option<Normalization> {
    let values = |names: &[&str]| names.iter().find_map(|name| parts.get(name)?.1.values());
    let epsilon = epsilon.unwrap_or(match layout {
        Layout::Keras => KERAS_EPSILON,
        Layout::PyTorch | Layout::Burn => EPSILON,
    });
    let is_vector = |(_, tensor): &(&str, &Tensor)| tensor.shape.len() == 1;
    if layout == Layout::Keras && parts.len() == 4 && parts.contains_key("3") {
        let all = parts.values().all(is_vector);
        let [scale, offset, mean, variance] = ["0", "1", "2", "3"].map(|name| values(&[name]));
        return all
            .then(|| Normalization::new([&mean?, &variance?], [scale, offset], epsilon))
            .flatten();
    }
    let mean = values(&["running_mean", "moving_mean"])?;
    let variance = values(&["running_var", "moving_variance"])?;
    let learned = [values(&["weight", "gamma"]), values(&["bias", "beta"])];
    Normalization::new([&mean, &variance], learned, epsilon)
}

/// Returns a layer with a weight of two or four dimensions, and possibly a bias.
fn weighted(name: &str, parts: &Parts<'_>, layout: Layout) -> Result<FileLayer, String> {
    let mut layer = [None, None];
    for (full, tensor) in parts.values() {
        let unknown = || {
            let (name, shape) = (full.escape_debug(), &tensor.shape);
            format!("{name} {shape:?} belongs to a layer that is not supported")
        };
        let (slot, ranks): (_, &[usize]) = match part(full) {
            Some((_, Part::Weight)) => (0, &[2, 4]),
            Some((_, Part::Bias)) => (1, &[1]),
            None => return Err(unknown()),
        };
        if !ranks.contains(&tensor.shape.len()) || tensor.shape.contains(&0) {
            return Err(unknown());
        }
        let values = tensor.values().ok_or_else(unknown)?;
        let shape = layout.shape_to_pytorch(&tensor.shape);
        let values = layout.values_to_pytorch(values, &shape, None);
        layer[slot] = Some(Tensor::from_values(shape, &values));
    }
    let [weight, bias] = layer;
    let weight = weight.ok_or_else(|| format!("{} has no weight", name.escape_debug()))?;
    if let Some(bias) = &bias
        && bias.shape[0] != weight.shape[0]
    {
        let name = name.escape_debug();
        return Err(format!("{name} has a bias of another size than its weight"));
    }
    Ok(FileLayer {
        name: name.into(),
        weight,
        bias,
    })
}

/// Orders layers such that each takes the outputs of the one before; by their names where shapes permit it.
fn ordered(mut layers: Vec<FileLayer>, layout: Layout) -> Result<Vec<FileLayer>, String> {
    layers.sort_by_cached_key(|layer| pattern(&layer.name, layout));
    let mut order = Vec::new();
    let mut steps_left = MAX_ORDERS;
    if !extend(&layers, &mut order, &mut steps_left) {
        let names: Vec<_> = layers
            .iter()
            .map(|layer| {
                let FileLayer { name, weight, .. } = layer;
                format!("{} {:?}", name.escape_debug(), weight.shape)
            })
            .take(4)
            .collect();
        return Err(format!(
            "the layers {} do not follow each other: only networks without branches are recognized",
            names.join(", ")
        ));
    }
    Ok(order
        .into_iter()
        .map(|index| layers[index].clone())
        .collect())
}

/// Extends a chain of layers by all others; whether that is possible.
fn extend(layers: &[FileLayer], order: &mut Vec<usize>, steps_left: &mut usize) -> bool {
    if order.len() == layers.len() {
        return true;
    }
    let outputs = order.last().map(|&last| layers[last].outputs());
    for (index, layer) in layers.iter().enumerate() {
        let fits = outputs.is_none_or(|outputs| outputs == layer.inputs());
        if !fits || order.contains(&index) {
            continue;
        }
        let Some(left) = steps_left.checked_sub(1) else {
            return false;
        };
        *steps_left = left;
        order.push(index);
        if extend(layers, order, steps_left) {
            return true;
        }
        order.pop();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::weights::tests::weights as zero_weights;

    fn weights(layout: Layout, tensors: &[(&str, &[usize])]) -> Weights {
        Weights {
            layout,
            ..zero_weights(tensors)
        }
    }

    fn names(layers: &[FileLayer]) -> Vec<&str> {
        layers.iter().map(|layer| layer.name.as_str()).collect()
    }

    #[test]
    fn layers_follow_each_other_by_shape_then_by_name() {
        let layers = FileLayers::of(&weights(
            Layout::PyTorch,
            &[
                ("conv10.weight", &[8, 8, 3, 3]),
                ("conv2.weight", &[8, 8, 3, 3]),
                ("stem.weight", &[8, 1, 3, 3]),
                ("stem.bias", &[8]),
                ("bn.running_mean", &[8]),
                ("bn.running_var", &[8]),
                ("out.weight", &[10, 20]),
                ("a.weight", &[20, 72]),
            ],
        ))
        .unwrap();
        assert_eq!(names(&layers.convolutions), ["stem", "conv2", "conv10"]);
        assert_eq!(names(&layers.dense), ["a", "out"]);
        assert_eq!(layers.norms.len(), 1);
    }

    #[test]
    fn layers_of_keras_have_numbered_variables() {
        let layers = FileLayers::of(&weights(
            Layout::Keras,
            &[
                ("layers/conv2d/vars/0", &[3, 3, 1, 4]),
                ("layers/conv2d/vars/1", &[4]),
                ("layers/batch_normalization/vars/0", &[4]),
                ("layers/batch_normalization/vars/1", &[4]),
                ("layers/batch_normalization/vars/2", &[4]),
                ("layers/batch_normalization/vars/3", &[4]),
                ("layers/dense/vars/0", &[16, 10]),
            ],
        ))
        .unwrap();
        assert_eq!(layers.convolutions[0].weight.shape, [4, 1, 3, 3]);
        assert_eq!(layers.dense[0].weight.shape, [10, 16]);
        assert_eq!(layers.norms.len(), 1);
    }

    #[test]
    fn other_networks_are_refused() {
        let error = |tensors: &[(&str, &[usize])]| {
            FileLayers::of(&weights(Layout::PyTorch, tensors)).unwrap_err()
        };
        assert_eq!(
            error(&[("lstm.weight_ih_l0", &[4, 4])]),
            "lstm.weight_ih_l0 [4, 4] belongs to a layer that is not supported"
        );
        assert_eq!(
            error(&[("a.weight", &[4, 3]), ("b.weight", &[4, 3])]),
            "the layers a [4, 3], b [4, 3] do not follow each other: only networks without branches are recognized"
        );
        assert_eq!(error(&[("fc.bias", &[4])]), "fc has no weight");
    }
}
