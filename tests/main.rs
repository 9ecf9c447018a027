//! The binary, driven from outside on real images.

mod bad_input;
mod commands;
mod figures;
mod import_export;
mod pictures;
mod predict;
mod resume;
mod runs;
mod serve;
mod support;
#[cfg(unix)]
mod terminal;
