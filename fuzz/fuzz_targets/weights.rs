//! Fuzzes the parsers of weights in all file formats, the recognition of networks, and the matching of tensors with
//! layers.
#![no_main]

use std::fs;
use std::path::PathBuf;
use std::sync::LazyLock;

use formats::Readings;
use libfuzzer_sys::fuzz_target;
use model::{BlockConfig, ConvNetConfig};

/// A temporary file, one per process.
static PATH: LazyLock<PathBuf> =
    LazyLock::new(|| std::env::temp_dir().join(format!("weights-{}", std::process::id())));

/// Networks that files in `tests/weights` and in the corpus fit, and the default one.
static NETWORKS: LazyLock<[ConvNetConfig; 3]> = LazyLock::new(|| {
    let block = |channels| BlockConfig {
        channels,
        ..BlockConfig::default()
    };
    let small = ConvNetConfig {
        input: [4, 4],
        classes: 2,
        dense: Vec::new(),
        blocks: vec![block(1)],
        ..ConvNetConfig::default()
    };
    let deep = ConvNetConfig {
        dense: vec![4; 3],
        blocks: vec![block(2); 3],
        ..ConvNetConfig::default()
    };
    [small, deep, ConvNetConfig::default()]
});

/// Number of readings of a file that are translated.
const READINGS: usize = 4;

fuzz_target!(|bytes: &[u8]| {
    fs::write(&*PATH, bytes).expect("a temporary file");
    let Ok(weights) = formats::read(&PATH) else {
        return;
    };
    let _ = formats::unsupported(&weights);
    if let Ok(readings) = Readings::new(&weights, 28) {
        for reading in readings.iter().take(READINGS) {
            let _ = readings.architecture(reading);
        }
    }
    let _ = formats::channels_and_classes(&weights);
    for network in NETWORKS.iter() {
        if let Ok(tensors) = formats::match_to_network(&weights, network) {
            let _ = formats::not_finite(&tensors);
            formats::to_safetensors(&tensors).expect("tensors of a network");
        }
    }
});
