//! ONNX files: <https://github.com/onnx/onnx/blob/main/docs/IR.md>.

mod message;
mod export;

pub use export::{ExportError, OnnxExport};
