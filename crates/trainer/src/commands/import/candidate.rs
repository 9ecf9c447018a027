//! The networks that a file may hold.

use std::fmt;

use anyhow::Result;
use burn::module::Module;
use burn::tensor::Device;
use formats::{Architecture, Reading, Readings, Weights};
use model::{Activation, ConvNet, ConvNetConfig, Layer};

use crate::config::presets;
use crate::config::settings::Settings;

/// A network that a file may hold.
#[derive(Debug)]
pub(super) enum Candidate<'a> {
    /// The network that the file describes.
    Described(&'a Architecture),
    /// A network that the shapes of the weights permit.
    Read {
        readings: &'a Readings,
        reading: &'a Reading,
        /// Whether the user states the activation.
        has_activation: bool,
    },
    /// A network of this project that the weights fit.
    Matched {
        name: String,
        network: ConvNetConfig,
        weights: &'a Weights,
    },
}

impl fmt::Display for Candidate<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Described(_) => f.write_str("the network in the file"),
            Self::Read { reading, .. } => reading.fmt(f),
            Self::Matched { name, .. } => write!(f, "preset {name}"),
        }
    }
}

impl<'a> Candidate<'a> {
    /// Returns the candidates of readings; with an activation, only those with it.
    pub(super) fn of(
        readings: &'a Readings,
        activation: Option<&str>,
    ) -> impl Iterator<Item = Self> {
        let has_activation = move |reading: &&Reading| {
            activation.is_none_or(|name| reading.activation.to_string().eq_ignore_ascii_case(name))
        };
        readings
            .iter()
            .filter(has_activation)
            .map(move |reading| Self::Read {
                readings,
                reading,
                has_activation: activation.is_some(),
            })
    }

    /// Whether networks of this kind are common.
    pub(super) fn is_usual(&self) -> bool {
        match self {
            Self::Described(_) | Self::Matched { .. } => true,
            Self::Read { reading, .. } => reading.is_usual,
        }
    }

    /// Whether the weights alone rarely tell the network from a common one: training without batch normalization leaves
    /// no trace of GELU or SiLU.
    pub(super) fn is_doubtful(&self) -> bool {
        match self {
            Self::Described(_) | Self::Matched { .. } => false,
            Self::Read {
                reading,
                has_activation,
                ..
            } => {
                !has_activation
                    && !reading.is_certain
                    && matches!(reading.activation, Activation::Gelu | Activation::Silu)
            }
        }
    }

    /// Whether the networks differ only in activation, kind of pool and position of batch normalization.
    pub(super) fn is_similar(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Read { reading, .. }, Self::Read { reading: other, .. }) => {
                reading.is_similar(other)
            }
            _ => false,
        }
    }

    /// Returns the network with its weights.
    ///
    /// # Errors
    /// Returns a message if this project has no such network.
    pub(super) fn architecture(&self) -> Result<Architecture, String> {
        match self {
            Self::Described(architecture) => Ok((*architecture).clone()),
            Self::Read {
                readings, reading, ..
            } => readings.architecture(reading),
            Self::Matched {
                network, weights, ..
            } => Ok(Architecture {
                tensors: formats::match_to_network(weights, network)
                    .map_err(|mismatch| mismatch.to_string())?,
                network: network.clone(),
                scaling: None,
                notes: Vec::new(),
            }),
        }
    }

    /// Returns the number of multiply-adds for one image; 0 if this project has no such network.
    pub(super) fn multiply_adds(&self) -> usize {
        let layers = self
            .architecture()
            .map(|architecture| architecture.network.layers());
        let Ok(Ok(layers)) = layers else {
            return 0;
        };
        let counts = layers.iter().map(Layer::multiply_adds);
        counts.fold(0, usize::saturating_add)
    }

    /// Returns the network on a device, for inference; `None` if this project has no such network.
    pub(super) fn load(&self, device: &Device) -> Option<(Architecture, ConvNet)> {
        let architecture = self.architecture().ok()?;
        let model = load(&architecture, device).ok()?;
        Some((architecture, model.valid()))
    }
}

/// Returns a network with its weights, folded.
///
/// # Errors
/// Returns an error if the description is invalid or the weights do not fit it.
pub(super) fn load(architecture: &Architecture, device: &Device) -> Result<ConvNet> {
    let network = architecture.network.folded();
    let network = network.init(&device.clone().autodiff())?;
    Ok(network.with_safetensors(formats::to_safetensors(&architecture.tensors)?)?)
}

/// Returns the networks that the shapes of weights permit, and the presets that they fit; with an activation, only the
/// networks with it.
///
/// # Errors
/// Returns a message if there are none.
pub(super) fn candidates<'a>(
    weights: &'a Weights,
    readings: &'a Result<Readings, String>,
    image_size: usize,
    activation: Option<&str>,
) -> Result<Vec<Candidate<'a>>, String> {
    let mut candidates = Vec::new();
    if let Some([channels, classes]) = formats::channels_and_classes(weights) {
        let presets = fitting_presets(weights, channels, [image_size; 2], classes);
        candidates.extend(
            presets
                .into_iter()
                .map(|(name, network)| Candidate::Matched {
                    name: name.into(),
                    network,
                    weights,
                }),
        );
    }
    if activation.is_some() {
        candidates.clear();
    }
    match readings {
        Ok(readings) => candidates.extend(Candidate::of(readings, activation)),
        Err(reason) if candidates.is_empty() => return Err(reason.clone()),
        Err(_) => {}
    }
    Ok(candidates)
}

/// Returns the presets that the weights fit, with these images and classes.
pub(super) fn fitting_presets(
    weights: &Weights,
    channels: usize,
    input: [usize; 2],
    classes: usize,
) -> Vec<(&'static str, ConvNetConfig)> {
    let fitting = |name: &'static str| {
        let preset = Settings::preset(name).and_then(|settings| settings.model());
        let preset = ConvNetConfig {
            channels,
            input,
            classes,
            ..preset.ok()?
        };
        let is_fitting = formats::match_to_network(weights, &preset).is_ok();
        is_fitting.then_some((name, preset))
    };
    presets::names().filter_map(fitting).collect()
}
