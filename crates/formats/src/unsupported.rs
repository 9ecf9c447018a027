//! Files of networks that this project does not support, and files that hold no network.

use crate::hint::LayerKind;
use crate::layout::Layout;
use crate::matching::is_layer_weight;
use crate::tensor::Tensor;
use crate::weights::Weights;

/// Parts of names that only layers of one kind have, and the kind.
const KINDS: [(&str, &str); 17] = [
    ("in_proj_weight", "attention"),
    ("q_proj.weight", "attention"),
    ("q_proj_weight", "attention"),
    ("qkv.weight", "attention"),
    ("query.weight", "attention"),
    ("to_q.weight", "attention"),
    ("to_qkv.weight", "attention"),
    ("weight_ih", "a recurrent layer"),
    ("recurrent_kernel", "a recurrent layer"),
    ("embedding.weight", "an embedding"),
    ("embeddings.weight", "an embedding"),
    ("embed.weight", "an embedding"),
    ("pos_embed", "an embedding"),
    ("weight_g", "weight normalization"),
    ("weight_orig", "pruning or spectral normalization"),
    ("parametrizations.weight.original", "a parametrization"),
    ("_packed_params", "quantization"),
];

/// Returns why the weights of a file without a description cannot be those of a network of this project: the name of a
/// layer, and what is not supported. `None` if nothing speaks against it.
pub fn unsupported(weights: &Weights) -> Option<String> {
    if !weights.networks.is_empty() {
        let networks = weights.networks.iter();
        let flags: Vec<_> = networks
            .map(|network| format!("--prefix {}", network.prefix.escape_debug()))
            .collect();
        return Some(format!(
            "the file holds several networks; choose one with {}",
            flags.join(" or ")
        ));
    }
    let refused = |name: &str, reason: &str| {
        let name = name.escape_debug();
        Some(format!("layer {name}: {reason} is not supported"))
    };
    let names = ordered(weights);
    for (name, _) in &names {
        let kind = KINDS.iter().find(|(part, _)| has_part(name, part));
        if let Some((part, kind)) = kind {
            let layer = name.split(part).next().unwrap_or(name);
            // Parts such as `q_proj` are layers of their own.
            let end = layer.len() + part.find(".weight").unwrap_or(0);
            let layer = name.get(..end).unwrap_or(name).trim_end_matches(['.', '/']);
            return refused(if layer.is_empty() { name } else { layer }, kind);
        }
    }
    if let Some((layer, groups)) = grouped(weights, &names) {
        return refused(
            layer,
            &format!("a convolution of {groups} groups of channels"),
        );
    }
    if weights.layout == Layout::PyTorch {
        for (name, tensor) in &names {
            let Some(layer) = name.strip_suffix(".weight") else {
                continue;
            };
            let has = |part: &str| weights.tensors.contains_key(&format!("{layer}.{part}"));
            match tensor.shape.len() {
                1 if !has("running_mean") => {
                    return refused(
                        layer,
                        "normalization without running statistics, such as LayerNorm, GroupNorm or PReLU,",
                    );
                }
                3 => return refused(layer, "a convolution in one dimension"),
                5 => return refused(layer, "a convolution in three dimensions"),
                _ => {}
            }
        }
    }
    let has_layers = names
        .iter()
        .any(|(name, tensor)| is_layer_weight(name, tensor));
    let largest = names.iter().max_by_key(|(_, tensor)| {
        tensor
            .shape
            .iter()
            .fold(1, |a: usize, b| a.saturating_mul(*b))
    });
    match largest {
        None => Some("the file holds no tensors".into()),
        Some((name, tensor)) if !has_layers => Some(format!(
            "the file holds no layer of a network: its largest tensor is {} {:?}",
            name.escape_debug(),
            tensor.shape
        )),
        Some(_) => None,
    }
}

/// Returns whether a name contains a part that no letter follows.
fn has_part(name: &str, part: &str) -> bool {
    let mut after = name.split(part).skip(1);
    after.any(|rest| !rest.starts_with(|letter: char| letter.is_ascii_alphabetic()))
}

/// Returns the tensors in the order of the file.
fn ordered(weights: &Weights) -> Vec<(&str, &Tensor)> {
    let tensors = &weights.tensors;
    match weights.order.is_empty() {
        true => tensors
            .iter()
            .map(|(name, tensor)| (name.as_str(), tensor))
            .collect(),
        false => {
            let order = weights.order.iter();
            order
                .filter_map(|name| Some((name.as_str(), tensors.get(name)?)))
                .collect()
        }
    }
}

/// Returns the first convolution of several groups, by what the file says of it or by its shape `[channels, 1, k, k]`
/// after the first convolution.
fn grouped<'a>(weights: &'a Weights, names: &[(&'a str, &'a Tensor)]) -> Option<(&'a str, usize)> {
    let stated = weights.hints.iter().find_map(|hint| match hint.kind {
        LayerKind::Convolution { groups, .. } if groups > 1 => Some((hint.name.as_str(), groups)),
        _ => None,
    });
    if stated.is_some() || weights.layout != Layout::PyTorch {
        return stated;
    }
    let convolutions: Vec<_> = names
        .iter()
        .filter(|(name, tensor)| tensor.shape.len() == 4 && name.ends_with(".weight"))
        .collect();
    // Without an order, the one with a single input channel may be the first.
    let has_order = !weights.order.is_empty();
    let candidates = convolutions
        .iter()
        .enumerate()
        .filter(|(index, (_, tensor))| {
            let &[outputs, inputs, height, width] = tensor.shape.as_slice() else {
                return false;
            };
            let is_first = *index == 0 && has_order;
            inputs == 1 && outputs > 1 && height * width > 1 && !is_first
        });
    let has_single_output = convolutions
        .iter()
        .any(|(_, tensor)| tensor.shape.first() == Some(&1));
    let mut candidates: Vec<_> = candidates.map(|(_, candidate)| candidate).collect();
    if has_single_output || (!has_order && candidates.len() < 2) {
        return None;
    }
    // The first one takes the image.
    let (name, tensor) = match has_order {
        true => candidates.first()?,
        false => candidates.pop()?,
    };
    Some((name.strip_suffix(".weight")?, *tensor.shape.first()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hint::LayerHint;
    use crate::weights::tests::weights;

    fn reason(tensors: &[(&str, &[usize])]) -> String {
        unsupported(&weights(tensors)).unwrap_or_default()
    }

    #[test]
    fn layers_are_refused_by_name() {
        for (name, message) in [
            (
                "encoder.self_attn.in_proj_weight",
                "layer encoder.self_attn: attention",
            ),
            ("layers.0.q_proj.weight", "layer layers.0.q_proj: attention"),
            ("lstm.weight_ih_l0", "layer lstm: a recurrent layer"),
            ("weight_ih_l0", "layer weight_ih_l0: a recurrent layer"),
            (
                "word_embedding.weight",
                "layer word_embedding: an embedding",
            ),
            ("fc.weight_g", "layer fc: weight normalization"),
        ] {
            assert_eq!(
                reason(&[("fc.weight", &[2, 2]), (name, &[2, 2])]),
                format!("{message} is not supported")
            );
        }
        assert_eq!(
            reason(&[("fc.weight", &[2, 2]), ("weight_gamma", &[2])]),
            ""
        );
        assert_eq!(
            reason(&[("conv.weight", &[2, 2, 3])]),
            "layer conv: a convolution in one dimension is not supported"
        );
        assert_eq!(
            reason(&[("norm.weight", &[2]), ("norm.bias", &[2])]),
            "layer norm: normalization without running statistics, such as LayerNorm, GroupNorm or PReLU, is not \
             supported"
        );
        let normalized: &[(&str, &[usize])] = &[
            ("norm.weight", &[2]),
            ("norm.running_mean", &[2]),
            ("conv.weight", &[2, 1, 3, 3]),
        ];
        assert_eq!(reason(normalized), "");
    }

    #[test]
    fn convolutions_of_groups_are_found_by_their_shape() {
        let first: (&str, &[usize]) = ("a.weight", &[8, 1, 3, 3]);
        let depthwise: (&str, &[usize]) = ("b.weight", &[8, 1, 3, 3]);
        let message = "layer b: a convolution of 8 groups of channels is not supported";
        assert_eq!(reason(&[first, depthwise]), message);
        assert_eq!(reason(&[first, ("fc.weight", &[2, 8])]), "");
        // A convolution of one output before
        assert_eq!(reason(&[("a.weight", &[1, 1, 3, 3]), depthwise]), "");
        // Without an order
        let unordered = |tensors: &[(&str, &[usize])]| {
            let mut weights = weights(tensors);
            weights.order.clear();
            unsupported(&weights).unwrap_or_default()
        };
        assert_eq!(unordered(&[first, depthwise]), message);
        assert_eq!(unordered(&[("a.weight", &[16, 8, 3, 3]), depthwise]), "");
        let mut stated = weights(&[("a.weight", &[8, 4, 3, 3])]);
        stated.hints.push(LayerHint {
            name: "a".into(),
            kind: LayerKind::Convolution {
                stride: [1; 2],
                padding: [0; 4],
                dilation: [1; 2],
                groups: 2,
            },
        });
        assert_eq!(
            unsupported(&stated).unwrap(),
            "layer a: a convolution of 2 groups of channels is not supported"
        );
    }

    #[test]
    fn data_and_several_networks_are_no_network() {
        assert_eq!(
            reason(&[("labels", &[60]), ("images", &[60, 28, 28])]),
            "the file holds no layer of a network: its largest tensor is images [60, 28, 28]"
        );
        assert_eq!(reason(&[]), "the file holds no tensors");
        let several: &[(&str, &[usize])] = &[
            ("a.0.weight", &[2, 2]),
            ("a.1.weight", &[2, 2]),
            ("b.0.weight", &[2, 2]),
            ("b.1.weight", &[2, 2]),
        ];
        assert_eq!(
            reason(several),
            "the file holds several networks; choose one with --prefix a. or --prefix b."
        );
    }
}
