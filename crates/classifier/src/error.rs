//! The errors of opening and using a classifier.

use std::io;
use std::path::PathBuf;

use data::PictureError;
use model::{ShapeError, WeightsError};

use crate::files::CONFIG_FILE;

/// The reason why a file of a [`Confidence`](crate::Confidence) cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfidenceError {
    /// The file is not in the safetensors format.
    #[error(transparent)]
    Format(#[from] safetensors::SafeTensorError),
    /// A value is missing or not accepted.
    #[error("no valid {0}")]
    Invalid(&'static str),
}

/// The reason why a classifier cannot be opened or used.
///
/// The message does not repeat the message of the [source](std::error::Error::source). For bytes in memory,
/// the path is the name of the file in a run folder.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No pretrained network has this name.
    #[cfg(feature = "pretrained")]
    #[error(
        "{name}: no pretrained network, expected one of {}",
        crate::pretrained::ALL.map(|network| network.name).join(", ")
    )]
    UnknownName {
        /// The name.
        name: String,
    },
    /// A file cannot be read.
    #[error("{}: cannot read the file", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The run folder has no weights.
    #[error("{}: no weights yet: they are written after the first epoch", path.display())]
    NoWeights {
        /// The missing file.
        path: PathBuf,
    },
    /// The description is not TOML, or a table or key is missing or has a wrong type.
    #[error("{}: not the description of a network", path.display())]
    Description {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: Box<toml::de::Error>,
    },
    /// The images are described with other numbers than the network.
    #[error("{}: {key} = {found}, expected {expected}", path.display())]
    Mismatch {
        /// The file.
        path: PathBuf,
        /// The key in the file.
        key: &'static str,
        /// Its value.
        found: String,
        /// The expected value.
        expected: String,
    },
    /// The description gives no valid network.
    #[error("{}: not a valid network", path.display())]
    Network {
        /// The file with the description.
        path: PathBuf,
        /// The cause.
        source: ShapeError,
    },
    /// The weights are damaged, or weights of another network.
    #[error("{}: not the network of {CONFIG_FILE}", path.display())]
    Weights {
        /// The file with the weights.
        path: PathBuf,
        /// The cause.
        source: WeightsError,
    },
    /// The file of the confidence is damaged.
    #[error("{}: damaged; without it, the next prediction measures it again", path.display())]
    Confidence {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: ConfidenceError,
    },
    /// Some weights are infinite or not a number.
    #[error("{}: some weights are not finite", path.display())]
    NotFinite {
        /// The file with the weights.
        path: PathBuf,
    },
    /// A picture cannot be decoded or prepared.
    #[error("picture {index}")]
    Picture {
        /// Its position in the batch, from 0.
        index: usize,
        /// The cause.
        source: PictureError,
    },
    /// An image has another size than the network's input.
    #[error("image {index}: {found} bytes, expected {} for [channels, height, width] = {expected:?}",
            expected.iter().product::<usize>())]
    ImageSize {
        /// Its position in the batch, from 0.
        index: usize,
        /// Its number of bytes.
        found: usize,
        /// The input of the network, `[channels, height, width]`.
        expected: [usize; 3],
    },
    /// The probabilities cannot be read from the device.
    #[error("cannot read the probabilities from the device: {0}")]
    Device(String),
}
