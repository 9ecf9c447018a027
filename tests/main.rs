//! The binary, driven from outside on real images.

mod bad_input;
mod commands;
mod runs;
mod support;
