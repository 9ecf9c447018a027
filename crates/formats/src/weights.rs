//! The weights of a file of any known format.

use std::path::Path;

use data::digest::sha256_hex;
use data::regular_file;

use crate::architecture::Architecture;
use crate::error::{FormatError, ReadError};
use crate::format::{Format, is_text};
use crate::hint::LayerHint;
use crate::layout::Layout;
use crate::limits::MAX_BYTES;
use crate::networks::{self, NamedNetwork};
use crate::tensor::Tensors;
use crate::{burnpack, keras, onnx, pytorch, safetensors};

/// The weights of a file.
#[derive(Debug)]
pub struct Weights {
    /// Format of the file.
    pub format: Format,
    /// Memory layout of the tensors.
    pub layout: Layout,
    /// Tensors by their names in the file.
    pub tensors: Tensors,
    /// Names of the tensors in the order of the file; empty if it has none.
    pub order: Vec<String>,
    /// Modules of a PyTorch network that was saved as a whole, in the order of the file.
    pub hints: Vec<LayerHint>,
    /// The networks of a file that holds several; otherwise empty.
    pub networks: Vec<NamedNetwork>,
    /// The network, if the file describes it; an error if this project has no such network.
    pub architecture: Option<Result<Architecture, String>>,
    /// SHA-256 of the file, in hexadecimal.
    pub sha256: String,
}

/// Reads the weights of a file.
///
/// # Errors
/// Returns an error if the file cannot be read, is too large, damaged, of an unknown format or of another format
/// than its extension says, or if it would call Python functions that weights do not need.
pub fn read(path: &Path) -> Result<Weights, ReadError> {
    let bytes = regular_file::read(path, MAX_BYTES)?;
    let named = Format::of_extension(path);
    let is_text = is_text(&bytes);
    let format = Format::of_content(&bytes, named).ok_or_else(|| match named {
        Some(named) if is_text => ReadError::text(named.name(), &bytes),
        _ => ReadError::UnknownFormat,
    })?;
    if let Some(named) = named.filter(|named| *named != format) {
        return Err(ReadError::WrongExtension {
            content: format.name(),
            named: named.name(),
            extension: format.extension(),
        });
    }
    let sha256 = sha256_hex([&bytes]);
    let malformed = |error: FormatError| match error.downcast::<pytorch::UnknownCalls>() {
        Ok(calls) => ReadError::UnsafePickle(calls.to_string()),
        Err(error) => ReadError::Malformed(format.name(), error),
    };
    let mut architecture = None;
    let mut content = pytorch::Content::default();
    let mut described = |(tensors, description): keras::Model| {
        architecture = description;
        (Layout::Keras, tensors)
    };
    let (layout, tensors) = match format {
        Format::PyTorch => pytorch::read(&bytes).map(|read| {
            content = read;
            (Layout::PyTorch, std::mem::take(&mut content.tensors))
        }),
        Format::Safetensors => safetensors::read(&bytes),
        Format::KerasWeights => keras::read(bytes).map(&mut described),
        Format::KerasArchive => keras::read_archive(&bytes).map(&mut described),
        Format::Onnx => onnx::read(&bytes).map(|(tensors, description)| {
            architecture = Some(description);
            (Layout::PyTorch, tensors)
        }),
        Format::Burnpack => burnpack::read(bytes).map(|tensors| (Layout::Burn, tensors)),
    }
    .map_err(malformed)?;
    let mut networks = networks::distinct(&tensors, content.groups);
    if let [single] = networks.as_mut_slice()
        && architecture.is_none()
    {
        architecture = single.architecture.take();
        networks.clear();
    }
    Ok(Weights {
        format,
        layout,
        tensors,
        order: content.order,
        hints: content.hints,
        networks,
        architecture,
        sha256,
    })
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
            weights.networks = networks::by_name(&weights.tensors);
        }
        Ok(weights)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::hint::LayerKind;
    use crate::tensor::Tensor;

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
            networks: networks::distinct(&tensors, Vec::new()),
            tensors,
            order,
            hints: Vec::new(),
            architecture: None,
            sha256: String::new(),
        }
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
