//! Statistics of batch normalization over batches of several sizes. The only test of its process: all CPU tensors
//! share one random number generator.

use burn::module::Module;
use burn::tensor::{Device, Distribution, Tensor};
use model::{BlockConfig, ConvNetConfig, Stage};

fn device(seed: u64) -> Device {
    let device = Device::default().autodiff();
    device.seed(seed);
    device
}

fn network() -> ConvNetConfig {
    ConvNetConfig {
        input: [9, 8],
        blocks: vec![Stage::Block(BlockConfig {
            channels: 4,
            norm: true,
            pool_first: true,
            ..BlockConfig::default()
        })],
        dense: vec![],
        classes: 3,
        ..ConvNetConfig::default()
    }
}

fn images(device: &Device) -> Tensor<4> {
    Tensor::random([6, 1, 9, 8], Distribution::Uniform(0.0, 1.0), device)
}

fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().try_to_vec().unwrap()
}

#[test]
fn batch_norm_statistics_weight_each_image_equally() {
    let model = network().init(&device(3)).unwrap().valid();
    let batch = images(&device(3)).inner();
    let other = batch.clone() * 2.0 + 1.0;
    let logits = |batches: Vec<Tensor<4>>| {
        let folded = model.clone().fold(batches);
        values(folded.forward(batch.clone()))
    };
    // Repeated images have the moments of the batch, so only the weights of the batches matter.
    let thrice = Tensor::cat(vec![batch.clone(); 3], 0);
    let actual = logits(vec![thrice, other.clone()]);
    let mut batches = vec![batch.clone(); 3];
    batches.push(other.clone());
    for (actual, expected) in actual.iter().zip(logits(batches)) {
        assert!((actual - expected).abs() < 1e-4, "{actual} {expected}");
    }
    let once = logits(vec![batch.clone(), other]);
    assert!(
        (once[0] - actual[0]).abs() > 1e-3,
        "{} {}",
        once[0],
        actual[0]
    );
}
