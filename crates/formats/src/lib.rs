//! Weights in the files of other programs.
//!
//! [`read`] takes a file of PyTorch, Keras or Burn, or one of safetensors, for named tensors, and
//! [`fit()`] brings these to the names and layout of a network. [`Export`] is a network as an ONNX file.
//!
//! Nothing in a file is ever run, and what it announces is checked before memory is taken for it.
//! This crate knows no run folder and no command line.

mod burnpack;
mod file;
mod fit;
mod keras;
mod layout;
mod onnx;
mod pickle;
mod pytorch;
mod safetensors;
mod tensor;

pub use self::safetensors::{from_safetensors, to_safetensors};
pub use file::{Format, MAX_BYTES, ReadError, Unreadable, Weights, read};
pub use fit::{Misfit, channels_and_classes, fit, not_finite};
pub use layout::Layout;
pub use onnx::{Export, ExportError};
pub use tensor::{Dtype, SizeError, Tensor, Tensors};
