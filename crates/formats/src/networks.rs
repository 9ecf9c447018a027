//! Files with several networks, such as a model and its moving average, or a generator and a discriminator.

use std::collections::BTreeMap;

use crate::pytorch::Group;
use crate::tensor::{Tensor, Tensors};
use crate::translation::Architecture;
use crate::weights::Weights;

/// Names of a network beside the one that classifies.
const GENERATORS: [&str; 4] = ["generator", "netG", "G", "gen"];

/// Largest number of dictionaries that are compared with each other.
const MAX_GROUPS: usize = 50;
/// Largest number of prefixes that all names have.
const MAX_PREFIXES: usize = 8;

/// A network of a file that holds several.
#[derive(Debug)]
pub struct NamedNetwork {
    /// Prefix of the names of its tensors, with a dot at the end.
    pub prefix: String,
    /// The network, if the file describes it.
    pub architecture: Option<Result<Architecture, String>>,
}

/// The tensors of a group that can be weights, by their names without its prefix.
type Members<'a> = BTreeMap<&'a str, &'a Tensor>;

fn members<'a>(tensors: &'a Tensors, prefix: &str) -> Members<'a> {
    let weights = tensors.iter().filter(|(_, tensor)| tensor.shape.len() > 1);
    weights
        .filter_map(|(name, tensor)| Some((name.strip_prefix(prefix)?, tensor)))
        .collect()
}

/// Returns the networks of a file that holds several, or the single module that describes itself.
pub(crate) fn distinct(tensors: &Tensors, groups: Vec<Group>) -> Vec<NamedNetwork> {
    let mut found: Vec<(Group, Members<'_>)> = Vec::new();
    // The groups around others come first.
    for group in groups {
        let members = members(tensors, &group.prefix);
        let is_part = found
            .iter()
            .any(|(outer, _)| group.prefix.starts_with(&outer.prefix));
        if !members.is_empty() && !is_part {
            found.push((group, members));
        }
    }
    if found.len() > MAX_GROUPS {
        return Vec::new();
    }
    let is_several = found.iter().enumerate().any(|(index, (_, members))| {
        let others = &found[index + 1..];
        others.iter().any(|(_, other)| are_separate(members, other))
    });
    let network = |(group, _): (Group, Members<'_>)| NamedNetwork {
        prefix: group.prefix,
        architecture: group.architecture,
    };
    match is_several {
        true => found.into_iter().map(network).collect(),
        false => match by_name(tensors) {
            networks if networks.is_empty() => {
                let modules = found.into_iter().map(network);
                modules
                    .filter(|network| network.architecture.is_some())
                    .take(1)
                    .collect()
            }
            networks => networks,
        },
    }
}

/// Returns whether two groups are networks of their own, rather than the layers for images and the dense layers of one.
fn are_separate(a: &Members<'_>, b: &Members<'_>) -> bool {
    let has = |members: &Members<'_>, rank| {
        members
            .values()
            .any(|tensor: &&Tensor| tensor.shape.len() == rank)
    };
    let are_parts = |a, b| has(a, 4) && !has(a, 2) && has(b, 2) && !has(b, 4);
    a.len() > 1 && b.len() > 1 && !are_parts(a, b) && !are_parts(b, a)
}

fn shapes<'a>(members: &Members<'a>) -> Vec<(&'a str, &'a [usize])> {
    let shape = |(name, tensor): (&&'a str, &&'a Tensor)| (*name, tensor.shape.as_slice());
    members.iter().map(shape).collect()
}

/// Returns the networks that only the names tell apart: `model.conv1.weight` and `ema.conv1.weight`.
fn by_name(tensors: &Tensors) -> Vec<NamedNetwork> {
    let all = members(tensors, "");
    let mut prefix = String::new();
    for _ in 0..MAX_PREFIXES {
        let mut parts: BTreeMap<&str, Members<'_>> = BTreeMap::new();
        for (name, tensor) in &all {
            let rest = name.get(prefix.len()..).unwrap_or_default();
            let Some((part, rest)) = rest.split_once('.') else {
                return Vec::new();
            };
            parts.entry(part).or_default().insert(rest, *tensor);
        }
        let names: Vec<&str> = parts.keys().copied().collect();
        if let [single] = names.as_slice() {
            prefix = format!("{prefix}{single}.");
            continue;
        }
        let mut members = parts.values();
        let first = members.next().map(shapes);
        let is_copy = members.all(|other| Some(shapes(other)) == first);
        let is_adversarial = names.iter().any(|name| GENERATORS.contains(name));
        let is_several = names.len() > 1 && (is_copy || is_adversarial);
        return match is_several && parts.values().all(|members| members.len() > 1) {
            true => names
                .iter()
                .map(|name| NamedNetwork {
                    prefix: format!("{prefix}{name}."),
                    architecture: None,
                })
                .collect(),
            false => Vec::new(),
        };
    }
    Vec::new()
}

impl Weights {
    /// Keeps the network whose tensors have names that begin with `prefix`, and removes the prefix from their names.
    ///
    /// # Errors
    /// Returns an error if no tensor has this prefix.
    pub fn select(self, prefix: &str) -> Result<Self, String> {
        let prefix = match prefix.strip_suffix('.') {
            None if !prefix.is_empty() => format!("{prefix}."),
            _ => prefix.to_owned(),
        };
        let stripped = |name: &str| name.strip_prefix(&prefix).map(str::to_owned);
        let mut weights = Self {
            tensors: Tensors::new(),
            order: self
                .order
                .iter()
                .filter_map(|name| stripped(name))
                .collect(),
            hints: Vec::new(),
            networks: Vec::new(),
            architecture: None,
            ..self
        };
        for (name, tensor) in self.tensors {
            if let Some(name) = stripped(&name) {
                weights.tensors.insert(name, tensor);
            }
        }
        if weights.tensors.is_empty() {
            let prefixes = self.networks.iter().map(|network| network.prefix.as_str());
            let known = match self.networks.is_empty() {
                true => "the file holds one network".into(),
                false => format!("expected {}", prefixes.collect::<Vec<_>>().join(" or ")),
            };
            return Err(format!("no tensor has the prefix {prefix}; {known}"));
        }
        for mut hint in self.hints {
            if let Some(name) = stripped(&hint.name) {
                hint.name = name;
                weights.hints.push(hint);
            }
        }
        let selected = self
            .networks
            .into_iter()
            .find(|network| network.prefix == prefix);
        match selected {
            Some(network) => weights.architecture = network.architecture,
            // All of the file.
            None if prefix.is_empty() => weights.architecture = self.architecture,
            None => {}
        }
        if weights.architecture.is_none() {
            weights.networks = by_name(&weights.tensors);
        }
        Ok(weights)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::format::Format;
    use crate::hint::{LayerHint, LayerKind};
    use crate::layout::Layout;

    /// Returns the weights of a file with these tensors of zeros, in this order.
    pub(crate) fn weights(tensors: &[(&str, &[usize])]) -> Weights {
        let zeros = |shape: &[usize]| {
            Tensor::from_values(shape.to_vec(), &vec![0.0; shape.iter().product()])
        };
        let order = tensors.iter().map(|(name, _)| (*name).to_owned()).collect();
        let tensors: Tensors = tensors
            .iter()
            .map(|(name, shape)| ((*name).to_owned(), zeros(shape)))
            .collect();
        Weights {
            format: Format::PyTorch,
            layout: Layout::PyTorch,
            networks: distinct(&tensors, Vec::new()),
            tensors,
            order,
            hints: Vec::new(),
            architecture: None,
            sha256: String::new(),
        }
    }

    fn prefixes(networks: &[NamedNetwork]) -> Vec<&str> {
        let networks = networks.iter();
        networks.map(|network| network.prefix.as_str()).collect()
    }

    /// Returns the networks of tensors in dictionaries with these prefixes.
    fn in_dictionaries(groups: &[&str], tensors: &[(&str, &[usize])]) -> Vec<String> {
        let group = |prefix: &&str| Group {
            prefix: (*prefix).into(),
            architecture: None,
        };
        let networks = distinct(
            &weights(tensors).tensors,
            groups.iter().map(group).collect(),
        );
        prefixes(&networks).into_iter().map(str::to_owned).collect()
    }

    #[test]
    fn separate_networks_are_told_from_parts() {
        let conv: &[usize] = &[8, 1, 3, 3];
        // A model and its average
        let average: &[(&str, &[usize])] = &[
            ("model.a.weight", conv),
            ("model.b.weight", conv),
            ("ema.a.weight", conv),
            ("ema.b.weight", conv),
        ];
        assert_eq!(
            in_dictionaries(&["model.", "ema."], average),
            ["model.", "ema."]
        );
        // Two dense networks
        let adversarial: &[(&str, &[usize])] = &[
            ("g.0.weight", &[8, 4]),
            ("g.1.weight", &[9, 8]),
            ("d.0.weight", &[8, 9]),
            ("d.1.weight", &[1, 8]),
        ];
        assert_eq!(in_dictionaries(&["g.", "d."], adversarial), ["g.", "d."]);
        // Layers for images and dense layers of one network; a dictionary per layer
        let parts: &[(&str, &[usize])] = &[
            ("a.0.weight", conv),
            ("a.1.weight", &[8, 8, 3, 3]),
            ("b.0.weight", &[8, 9]),
            ("b.1.weight", &[1, 8]),
        ];
        assert_eq!(in_dictionaries(&["a.", "b."], parts), [""; 0]);
        assert_eq!(
            in_dictionaries(&["a.0.", "a.1.", "b.0.", "b.1."], parts),
            [""; 0]
        );
    }

    #[test]
    fn names_tell_copies_apart() {
        let copies: &[(&str, &[usize])] = &[
            ("state_dict.net.conv.weight", &[8, 1, 3, 3]),
            ("state_dict.net.fc.weight", &[2, 8]),
            ("state_dict.ema.conv.weight", &[8, 1, 3, 3]),
            ("state_dict.ema.fc.weight", &[2, 8]),
        ];
        let expected = ["state_dict.ema.", "state_dict.net."];
        assert_eq!(prefixes(&weights(copies).networks), expected);
        let layers: &[(&str, &[usize])] = &[
            ("block1.conv.weight", &[8, 8, 3, 3]),
            ("block2.conv.weight", &[8, 8, 3, 3]),
            ("fc.weight", &[2, 8]),
        ];
        assert!(weights(layers).networks.is_empty());
    }

    #[test]
    fn a_prefix_selects_a_network() {
        let tensors: &[(&str, &[usize])] = &[
            ("model.conv.weight", &[8, 1, 3, 3]),
            ("model.fc.weight", &[2, 8]),
            ("ema.conv.weight", &[8, 1, 3, 3]),
            ("ema.fc.weight", &[2, 8]),
        ];
        for prefix in ["ema.", "ema"] {
            let mut weights = weights(tensors);
            let hint = |name: &str| LayerHint {
                name: name.into(),
                kind: LayerKind::Flatten,
            };
            weights.hints = vec![hint("model.flat"), hint("ema.flat")];
            weights.networks[0].architecture = Some(Err("unknown".into()));
            let selected = weights.select(prefix).unwrap();
            assert_eq!(selected.order, ["conv.weight", "fc.weight"]);
            assert_eq!(selected.tensors.len(), 2);
            assert_eq!(selected.hints, [hint("flat")]);
            assert!(selected.networks.is_empty());
            assert_eq!(selected.architecture, Some(Err("unknown".into())));
        }
        let error = weights(tensors).select("best").unwrap_err();
        assert_eq!(
            error,
            "no tensor has the prefix best.; expected ema. or model."
        );
    }
}
