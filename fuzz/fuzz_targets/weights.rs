//! Fuzzes the parsers of weights in all file formats, and the matching of tensors with layers.
#![no_main]

use std::fs;
use std::path::PathBuf;
use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use model::ConvNetConfig;

/// A temporary file, one per process.
static PATH: LazyLock<PathBuf> =
    LazyLock::new(|| std::env::temp_dir().join(format!("weights-{}", std::process::id())));

fuzz_target!(|bytes: &[u8]| {
    fs::write(&*PATH, bytes).expect("a temporary file");
    if let Ok(weights) = formats::read(&PATH) {
        let _ = formats::match_to_network(&weights, &ConvNetConfig::default());
    }
});
