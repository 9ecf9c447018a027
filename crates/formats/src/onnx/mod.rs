//! ONNX files: <https://github.com/onnx/onnx/blob/main/docs/IR.md>.
//!
//! [`read`] evaluates the graph symbolically: each node becomes a constant, a shape, or a step of the network, and the
//! steps from the image to the output are translated to layers.

mod message;
mod wire;

// Writer.
mod export;

// Reader.
mod constant;
mod attributes;
mod values;
mod elementwise;
mod shapes;
mod layers;
mod graph;
mod pixels;
mod import;

pub use export::to_onnx;
pub(crate) use import::read;
pub(crate) use wire::is_model;
