//! Files with several networks, such as a model and its moving average, or a generator and a discriminator.

use std::collections::BTreeMap;

use crate::architecture::Architecture;
use crate::pytorch::Group;
use crate::tensor::{Tensor, Tensors};

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
pub(crate) fn by_name(tensors: &Tensors) -> Vec<NamedNetwork> {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn zeros(tensors: &[(&str, &[usize])]) -> Tensors {
        let zeros = |shape: &[usize]| {
            Tensor::from_values(shape.to_vec(), &vec![0.0; shape.iter().product()])
        };
        let tensors = tensors.iter();
        tensors
            .map(|(name, shape)| ((*name).to_owned(), zeros(shape)))
            .collect()
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
        let networks = distinct(&zeros(tensors), groups.iter().map(group).collect());
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
        assert_eq!(prefixes(&distinct(&zeros(copies), Vec::new())), expected);
        let layers: &[(&str, &[usize])] = &[
            ("block1.conv.weight", &[8, 8, 3, 3]),
            ("block2.conv.weight", &[8, 8, 3, 3]),
            ("fc.weight", &[2, 8]),
        ];
        assert!(distinct(&zeros(layers), Vec::new()).is_empty());
    }
}
