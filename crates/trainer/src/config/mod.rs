//! Settings: the schema, the presets, and the layers that become the configuration of a run.

pub(crate) mod constraint;
pub(crate) mod schema;
mod commented;
pub(crate) mod presets;
pub(crate) mod given;
pub(crate) mod settings;
pub(crate) mod run_config;
pub(crate) mod ineffective;
pub(crate) mod time;
pub(crate) mod suggest;
#[cfg(test)]
mod settings_page;
