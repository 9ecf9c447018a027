//! Fused operations on remote devices: the client sends a request, the worker runs the kernels.

mod registry;
mod protocol;
mod client;
mod worker;

pub use registry::declare_fused;
pub(super) use registry::is_declared;
pub use worker::with_fused;
