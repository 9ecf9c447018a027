//! Integration tests of the binary `trainer`.

mod accuracy;
mod architecture;
mod bad_input;
#[cfg(unix)]
mod browser;
mod commands;
mod confidence;
mod devices;
mod embedding;
mod explanations;
mod figures;
mod fine_tuning;
mod guards;
mod import_export;
mod layouts;
#[cfg(target_os = "linux")]
mod memory;
mod parquet;
mod pen;
mod pictures;
mod predict;
#[cfg(unix)]
mod printed_names;
mod reading;
mod recorded_images;
mod resume;
mod robustness;
mod runs;
mod serve;
#[cfg(unix)]
mod special_files;
mod support;
#[cfg(unix)]
mod terminal;
#[cfg(unix)]
mod webdriver;
