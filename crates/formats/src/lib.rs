//! Weight files of other programs.
//!
//! [`read`] reads the tensors of a PyTorch, Keras, safetensors, ONNX or burnpack file, and the [`Architecture`] if the
//! file has it; [`match_to_network`] renames and permutes tensors for a network that the file does not describe, and
//! [`to_onnx`], [`to_keras`] and [`to_pytorch`] write files for other programs.
//!
//! No code in a file is executed, and stated sizes are checked before memory is allocated. This crate knows no
//! run folder and no command line.

mod weights;
mod format;
mod error;
mod hint;
mod limits;

// Readers of one format each.
mod pytorch;
mod torch_tensor;
mod torch_module;
mod keras;
mod safetensors;
mod burnpack;

// Architectures.
mod chain;
mod preprocessing;
mod steps;
mod translation;
mod architecture;
mod file_layers;
mod readings;
mod windows;
mod keras_model;

// Writers.
mod export;
mod pytorch_writer;
mod keras_writer;

mod tensor;
mod layout;
mod batch_norm;
mod matching;
mod networks;
mod unsupported;
mod onnx;

pub use self::safetensors::{from_safetensors, to_safetensors};
pub use architecture::Architecture;
pub use error::{FormatError, ReadError};
pub use export::{DEFAULT_ONNX_OPSET, Export, ExportError, ONNX_OPSETS};
pub use format::Format;
pub use hint::{LayerHint, LayerKind};
pub use keras_writer::{to_keras, to_keras_weights};
pub use layout::Layout;
pub use limits::MAX_BYTES;
pub use matching::{Mismatch, channels_and_classes, match_to_network, not_finite};
pub use networks::NamedNetwork;
pub use onnx::to_onnx;
pub use pytorch_writer::to_pytorch;
pub use readings::{Reading, Readings};
pub use tensor::{Dtype, SizeError, Tensor, Tensors};
pub use unsupported::unsupported;
pub use weights::{Weights, read};
