//! Fuzzes the loading of a run's weights, `model.safetensors`.
#![no_main]

use std::sync::LazyLock;

use burn::tensor::Device;
use libfuzzer_sys::fuzz_target;
use model::{BlockConfig, ConvNet, ConvNetConfig};

/// A network of few weights.
static NETWORK: LazyLock<ConvNet> = LazyLock::new(|| {
    let config = ConvNetConfig {
        input: [4, 4],
        classes: 2,
        dense: Vec::new(),
        blocks: vec![
            BlockConfig {
                channels: 1,
                ..BlockConfig::default()
            }
            .into(),
        ],
        ..ConvNetConfig::default()
    };
    config.init(&Device::default()).expect("a network")
});

fuzz_target!(|bytes: &[u8]| {
    let _ = NETWORK.clone().with_safetensors(bytes.to_vec());
});
