//! Fuzzes the parsers of weights in all file formats, the recognition of networks, and the matching of tensors with
//! layers.
#![no_main]

use std::sync::LazyLock;

use formats::Readings;
use libfuzzer_sys::fuzz_target;
use model::{BlockConfig, ConvNetConfig};

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
        blocks: vec![block(1).into()],
        ..ConvNetConfig::default()
    };
    let deep = ConvNetConfig {
        dense: vec![4; 3],
        blocks: vec![block(2).into(); 3],
        ..ConvNetConfig::default()
    };
    [small, deep, ConvNetConfig::default()]
});

/// Number of readings of a file that are translated.
const READINGS: usize = 4;

fuzz_target!(|bytes: &[u8]| {
    let Some(weights) = fuzz::weights(bytes) else {
        return;
    };
    fuzz::check_architecture(&weights);
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
