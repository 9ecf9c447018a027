//! The commands: one file each, with its `Args` and its `run`.

pub(crate) mod flags;
pub(crate) mod bench;
pub(crate) mod compare;
pub(crate) mod data;
pub(crate) mod devices;
pub(crate) mod embedding;
pub(crate) mod ensemble;
pub(crate) mod evaluate;
pub(crate) mod explain;
pub(crate) mod export;
pub(crate) mod find_lr;
pub(crate) mod import;
pub(crate) mod inspect;
pub(crate) mod predict;
pub(crate) mod presets;
pub(crate) mod progress;
pub(crate) mod report;
#[cfg(feature = "serve")]
pub(crate) mod serve;
pub(crate) mod summary;
pub(crate) mod train;
pub(crate) mod worker;
