//! A network overfits one batch. The only test of its process: all CPU tensors share one random number generator.

use burn::optim::AdamConfig;
use burn::tensor::{Device, Distribution, Int, Tensor};
use burn::train::TrainStep;
use data::Batch;
use model::{BlockConfig, ConvNetConfig, Objective, Pool, Precision, Stage, TrainingBatch};

#[test]
fn overfits_one_batch() {
    let device = Device::default().autodiff();
    device.seed(1);
    let block = |pool| {
        Stage::Block(BlockConfig {
            channels: 4,
            pool,
            ..BlockConfig::default()
        })
    };
    let config = ConvNetConfig {
        input: [9, 8],
        classes: 3,
        dense: vec![16],
        blocks: vec![block(Pool::MAX), block(Pool::None)],
        ..ConvNetConfig::default()
    };
    let mut model = config.init(&device).unwrap();
    // Uniform noise whose brightness grows with the class.
    let targets = Tensor::<1, Int>::from_ints([0, 1, 2, 0, 1, 2], &device);
    let noise = Tensor::random([6, 1, 9, 8], Distribution::Uniform(0.0, 0.5), &device);
    let images = noise + targets.clone().float().reshape([6, 1, 1, 1]);
    let batch = TrainingBatch {
        batch: Batch {
            images,
            targets,
            mixed: None,
        },
        objective: Objective {
            label_smoothing: 0.0,
            class_weights: None,
            precision: Precision::F32,
        },
        weight: 1.0,
    };
    let mut optimizer = AdamConfig::new().init();
    let mut loss = f32::NAN;
    for _ in 0..600 {
        let output = TrainStep::step(&model, batch.clone());
        loss = output.item.loss.into_scalar();
        model = optimizer.step(1e-2, model, output.grads);
    }
    assert!(loss < 0.01, "loss {loss}");
}
