//! Settings: their schema, the presets, and the layers that make a configuration.

pub(crate) mod schema;
pub(crate) mod presets;
pub(crate) mod settings;
pub(crate) mod run_config;
pub(crate) mod time;
pub(crate) mod suggest;
