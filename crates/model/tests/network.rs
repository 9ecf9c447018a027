//! The network as its users see it: shapes, weights in and out, and whether it learns.

use std::collections::HashMap;
use std::ops::Range;

use burn::module::Module;
use burn::optim::{AdamConfig, GradientsParams};
use burn::tensor::{Device, Distribution, Int, Tensor};
use burn::train::TrainStep;
use data::Batch;
use model::{BlockConfig, ConvNet, ConvNetConfig, Initialization, Storage};

fn device(seed: u64) -> Device {
    let device = Device::default().autodiff();
    device.seed(seed);
    device
}

fn small() -> ConvNetConfig {
    let block = |pool| BlockConfig {
        channels: 4,
        pool,
        ..BlockConfig::default()
    };
    ConvNetConfig {
        input: [9, 8],
        classes: 3,
        dense: vec![5],
        blocks: vec![block(true), block(false)],
        ..ConvNetConfig::default()
    }
}

/// Three classes of noise, each brighter than the one before.
fn batch(device: &Device) -> Batch {
    let targets = Tensor::<1, Int>::from_ints([0, 1, 2, 0, 1, 2], device);
    let noise = Tensor::random([6, 1, 9, 8], Distribution::Uniform(0.0, 0.5), device);
    Batch {
        images: noise + targets.clone().float().reshape([6, 1, 1, 1]),
        targets,
    }
}

fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().try_to_vec().unwrap()
}

#[test]
fn feature_maps_have_the_shapes_of_the_layer_table() {
    let device = device(1);
    let model = small().init(&device).unwrap();
    let maps = model.feature_maps(batch(&device).images);
    let shapes: Vec<[usize; 4]> = maps.iter().map(Tensor::dims).collect();
    assert_eq!(shapes, [[6, 4, 4, 4], [6, 4, 4, 4]]);
    assert_eq!(model.forward(batch(&device).images).dims(), [6, 3]);
    let table = small().layers().unwrap();
    assert_eq!(table[1].output, [4, 4, 4]);
    assert_eq!(table[2].output, [4, 4, 4]);
}

#[test]
fn the_layer_table_counts_the_parameters_there_are() {
    for config in [ConvNetConfig::default(), small()] {
        let model = config.init(&device(1)).unwrap();
        let table = config.layers().unwrap();
        let sum: usize = table.iter().map(|layer| layer.parameters).sum();
        assert_eq!(model.num_params(), sum);
    }
}

#[test]
fn weights_survive_the_round_trip_and_keep_pytorchs_names() {
    let device = device(1);
    let model = small().init(&device).unwrap();
    let bytes = model.to_safetensors(Storage::Single).unwrap();
    let header = String::from_utf8_lossy(&bytes[8..1000]).into_owned();
    // PyTorch stores a dense layer as [out, in]; 4 x 4 x 4 features go in.
    for entry in [
        r#""conv1.weight":{"dtype":"F32","shape":[4,1,3,3]"#,
        r#""conv2.bias":{"dtype":"F32","shape":[4]"#,
        r#""fc1.weight":{"dtype":"F32","shape":[5,64]"#,
        r#""fc2.weight":{"dtype":"F32","shape":[3,5]"#,
    ] {
        assert!(header.contains(entry), "no {entry} in {header}");
    }
    assert_eq!(model.to_safetensors(Storage::Single).unwrap(), bytes);

    let other = small().init(&device).unwrap();
    let images = batch(&device).images;
    assert_ne!(
        values(other.forward(images.clone())),
        values(model.forward(images.clone()))
    );
    let loaded = other.with_safetensors(bytes).unwrap();
    assert_eq!(
        values(loaded.forward(images.clone())),
        values(model.forward(images))
    );
}

#[test]
fn foreign_weights_are_an_error() {
    let device = device(1);
    let bytes = small()
        .init(&device)
        .unwrap()
        .to_safetensors(Storage::Single)
        .unwrap();
    let wider = ConvNetConfig {
        dense: vec![6],
        ..small()
    };
    let deeper = ConvNetConfig {
        dense: vec![5, 5],
        ..small()
    };
    let load = |config: &ConvNetConfig, bytes: &[u8]| {
        let model = config.init(&device).unwrap();
        model.with_safetensors(bytes.to_vec())
    };
    assert!(load(&wider, &bytes).is_err());
    assert!(load(&deeper, &bytes).is_err());
    assert!(load(&small(), &bytes[..bytes.len() - 1]).is_err());
    assert!(load(&small(), b"").is_err());
    assert!(load(&small(), &bytes).is_ok());
}

#[test]
fn one_batch_can_be_learned_by_heart() {
    let device = device(1);
    let batch = batch(&device);
    let mut model = small().init(&device).unwrap();
    let mut optimizer = AdamConfig::new().init();
    let mut loss = f32::NAN;
    for _ in 0..600 {
        let step = TrainStep::step(&model, batch.clone());
        loss = step.item.loss.into_scalar();
        model = optimizer.step(1e-2, model, step.grads);
    }
    assert!(loss < 0.01, "loss {loss}");
}

#[test]
fn label_smoothing_spreads_probability_over_all_classes() {
    let device = device(1);
    let model = small().init(&device).unwrap();
    let batch = batch(&device);
    let logits = values(model.forward(batch.images.clone()));
    let targets = batch.targets.clone().into_data();
    let mut expected = 0.0;
    for (logits, target) in logits.chunks(3).zip(targets.iter::<i64>()) {
        let log_sum = logits.iter().map(|&x| f64::from(x).exp()).sum::<f64>().ln();
        for (class, &logit) in logits.iter().enumerate() {
            let probability = 0.2 / 3.0 + if class as i64 == target { 0.8 } else { 0.0 };
            expected += probability * (log_sum - f64::from(logit)) / 6.0;
        }
    }
    let loss = |smoothing| {
        let output = model.forward_classification(batch.clone(), smoothing);
        f64::from(output.loss.into_scalar::<f32>())
    };
    assert!(
        (loss(0.2) - expected).abs() < 1e-5,
        "{} {expected}",
        loss(0.2)
    );
    assert!((loss(1e-6) - loss(0.0)).abs() < 1e-4);
}

#[test]
fn weights_that_are_no_numbers_are_found() {
    let device = device(1);
    let model = small().init(&device).unwrap();
    assert!(model.is_finite());
    let step = TrainStep::step(&model, batch(&device));
    let model = AdamConfig::new().init().step(f64::NAN, model, step.grads);
    assert!(!model.is_finite());
}

/// The expected logits come from an independent computation in NumPy, with 64-bit floats.
#[test]
fn logits_of_fixed_weights() {
    let device = Device::default();
    let model = ramp_weights(small().init(&device).unwrap());
    let images = Tensor::<1, Int>::arange(0..72, &device)
        .float()
        .div_scalar(72.0)
        .reshape([1, 1, 9, 8]);
    let logits = values(model.forward(images));
    let expected = [0.116_070_64, 0.275_075_27, 0.169_559_39];
    for (logit, expected) in logits.iter().zip(expected) {
        assert!((logit - expected).abs() < 1e-5, "{logits:?}");
    }
}

/// Element i of every weight tensor, in PyTorch's layout, is 0.3 sin(i).
fn ramp_weights(model: ConvNet) -> ConvNet {
    let mut bytes = model.to_safetensors(Storage::Single).unwrap();
    for (_, range) in tensor_ranges(&bytes) {
        for (i, weight) in bytes[range].chunks_exact_mut(4).enumerate() {
            weight.copy_from_slice(&(0.3 * (i as f32).sin()).to_le_bytes());
        }
    }
    model.with_safetensors(bytes).unwrap()
}

#[test]
fn initial_weights_follow_the_framework() {
    let bound = |tensor: Vec<f32>| tensor.iter().fold(0.0f32, |most, x| most.max(x.abs()));
    let weights = |initialization| {
        let config = ConvNetConfig {
            initialization,
            ..ConvNetConfig::default()
        };
        let model = config.init(&device(3)).unwrap();
        let bytes = model.to_safetensors(Storage::Single).unwrap();
        let tensors = safetensors(&bytes);
        ["conv2.weight", "conv2.bias", "fc1.weight", "fc1.bias"]
            .map(|name| bound(tensors[name].clone()))
    };
    // Thousands of uniform draws come within 1% of their bound; 128 biases within 10%.
    let near = |found: f32, expected: f64, tolerance: f64| {
        let ratio = f64::from(found) / expected;
        assert!(
            (1.0 - tolerance..=1.0001).contains(&ratio),
            "{found} of {expected}"
        );
    };
    let [conv, conv_bias, fc, fc_bias] = weights(Initialization::Pytorch);
    near(conv, 1.0 / 288f64.sqrt(), 0.01);
    near(conv_bias, 1.0 / 288f64.sqrt(), 0.1);
    near(fc, 1.0 / 3136f64.sqrt(), 0.01);
    near(fc_bias, 1.0 / 3136f64.sqrt(), 0.1);
    let [conv, conv_bias, fc, fc_bias] = weights(Initialization::Keras);
    near(conv, f64::sqrt(6.0 / (288.0 + 576.0)), 0.01);
    near(fc, f64::sqrt(6.0 / (3136.0 + 128.0)), 0.01);
    assert_eq!([conv_bias, fc_bias], [0.0, 0.0]);
}

/// The tensors of a safetensors file of f32.
fn safetensors(bytes: &[u8]) -> HashMap<String, Vec<f32>> {
    let float = |bytes: &[u8]| f32::from_le_bytes(bytes.try_into().unwrap());
    tensor_ranges(bytes)
        .into_iter()
        .map(|(name, range)| (name, bytes[range].chunks_exact(4).map(float).collect()))
        .collect()
}

/// Where each tensor of a safetensors file lies.
fn tensor_ranges(bytes: &[u8]) -> HashMap<String, Range<usize>> {
    let start = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let header: serde_json::Value = serde_json::from_slice(&bytes[8..start]).unwrap();
    let entries = header.as_object().unwrap().iter();
    entries
        .filter(|(name, _)| *name != "__metadata__")
        .map(|(name, entry)| {
            let at = |i: usize| start + entry["data_offsets"][i].as_u64().unwrap() as usize;
            (name.clone(), at(0)..at(1))
        })
        .collect()
}

/// The small network with its blocks normalized.
fn normalized() -> ConvNetConfig {
    let mut config = small();
    config.blocks.iter_mut().for_each(|block| block.norm = true);
    config
}

#[test]
fn normalization_becomes_part_of_the_weights() {
    let device = device(3);
    let model = normalized().init(&device).unwrap();
    assert_eq!(model.num_params(), small().parameters().unwrap());
    let images = batch(&device).images;
    let expected = model.forward(images.clone()).inner();
    // Judged by the batch that it was normalized with, it is the same network, without normalization.
    let inner = images.inner();
    let folded = model.valid().folded([inner.clone()]);
    assert!(!folded.is_batch_normalized());
    let found = folded.forward(inner.clone());
    for (found, expected) in values(found).into_iter().zip(values(expected)) {
        assert!((found - expected).abs() < 1e-4, "{found} {expected}");
    }
    // Its weights are those of a network that has none.
    let bytes = folded.to_safetensors(Storage::Single).unwrap();
    let loaded = normalized().folded().init(&Device::default()).unwrap();
    let loaded = loaded.with_safetensors(bytes).unwrap();
    assert_eq!(
        values(loaded.forward(inner.clone())),
        values(folded.forward(inner))
    );
}

#[test]
fn a_normalized_network_sees_no_brightness_and_no_contrast() {
    let device = device(4);
    let mut config = normalized();
    // Without the frame of zeros, which stays as it is.
    config.blocks.iter_mut().for_each(|block| block.padding = 0);
    let model = config.init(&device).unwrap();
    let images = batch(&device).images;
    let expected = values(model.forward(images.clone()));
    let found = values(model.forward(images * 100.0 + 500.0));
    for (found, expected) in found.into_iter().zip(expected) {
        assert!((found - expected).abs() < 1e-2, "{found} {expected}");
    }
}

#[test]
fn all_parameters_in_one_tensor_make_the_same_network_that_learns() {
    let [first, second] = [1, 2].map(|seed| normalized().init(&device(seed)).unwrap());
    let flat = first.to_flat();
    assert_eq!(flat.dims(), [first.num_params()]);
    assert!(!flat.device().is_autodiff());
    let bytes = |model: &ConvNet| model.to_safetensors(Storage::Single).unwrap();
    assert_ne!(bytes(&second), bytes(&first));
    let second = second.with_flat(Tensor::from_inner(flat));
    assert_eq!(bytes(&second), bytes(&first));

    for model in [first, second] {
        let loss = model.forward(batch(&device(1)).images).square().sum();
        let gradients = GradientsParams::from_grads(loss.backward(), &model);
        // Two convolutions and two dense layers, each with a bias.
        assert_eq!(gradients.len(), 8);
    }
}

#[test]
fn averages_keep_what_they_are_told() {
    let [first, second] = [1, 2].map(|seed| small().init(&device(seed)).unwrap().valid());
    let weights = |model: &ConvNet| {
        let bytes = model.to_safetensors(Storage::Single).unwrap();
        safetensors(&bytes)["fc1.weight"].clone()
    };
    let average = first.clone().averaged(&second, 0.75);
    let pairs = weights(&first).into_iter().zip(weights(&second));
    for ((first, second), found) in pairs.zip(weights(&average)) {
        assert!((0.75 * first + 0.25 * second - found).abs() < 1e-6);
    }
}
