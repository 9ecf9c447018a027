//! One file per command: its `Args`, and `run`.

pub(crate) mod bench;
pub(crate) mod devices;
pub(crate) mod evaluate;
pub(crate) mod presets;
pub(crate) mod summary;
pub(crate) mod train;
