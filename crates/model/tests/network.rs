//! Tests of the public interface: shapes, weight files, initialization, batch normalization.

use std::collections::HashMap;
use std::ops::Range;

use burn::module::Module;
use burn::optim::{AdamConfig, GradientsParams};
use burn::tensor::{Device, Distribution, Int, Tensor};
use model::{
    Activation, BlockConfig, ConvBlock, ConvBlockOptions, ConvNet, ConvNetConfig, Initialization,
    Pool, ResidualConfig, Stage, Storage,
};

fn device(seed: u64) -> Device {
    let device = Device::default().autodiff();
    device.seed(seed);
    device
}

fn small() -> ConvNetConfig {
    let block = |pool| {
        Stage::Block(BlockConfig {
            channels: 4,
            pool,
            ..BlockConfig::default()
        })
    };
    ConvNetConfig {
        input: [9, 8],
        classes: 3,
        dense: vec![5],
        blocks: vec![block(Pool::MAX), block(Pool::None)],
        ..ConvNetConfig::default()
    }
}

/// Returns six images of noise with different brightness.
fn images(device: &Device) -> Tensor<4> {
    let noise = Tensor::random([6, 1, 9, 8], Distribution::Uniform(0.0, 0.5), device);
    let brightness = Tensor::<1>::from_floats([0.0, 1.0, 2.0, 0.0, 1.0, 2.0], device);
    noise + brightness.reshape([6, 1, 1, 1])
}

fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().try_to_vec().unwrap()
}

#[test]
fn feature_maps_have_the_shapes_of_the_layer_table() {
    let device = device(1);
    let model = small().init(&device).unwrap();
    let maps = model.feature_maps(images(&device));
    let shapes: Vec<[usize; 4]> = maps.iter().map(Tensor::dims).collect();
    assert_eq!(shapes, [[6, 4, 4, 4], [6, 4, 4, 4]]);
    assert_eq!(model.forward(images(&device)).dims(), [6, 3]);
    let table = small().layers().unwrap();
    assert_eq!(table[1].output, [4, 4, 4]);
    assert_eq!(table[2].output, [4, 4, 4]);
}

#[test]
fn layer_table_counts_all_parameters() {
    for config in [ConvNetConfig::default(), small(), residual()] {
        let model = config.init(&device(1)).unwrap();
        let table = config.layers().unwrap();
        let sum: usize = table.iter().map(|layer| layer.parameters).sum();
        assert_eq!(model.num_params(), sum);
    }
}

#[test]
fn safetensors_round_trip_keeps_weights_and_pytorch_names() {
    let device = device(1);
    let model = small().init(&device).unwrap();
    let bytes = model.to_safetensors(Storage::Single).unwrap();
    let header = String::from_utf8_lossy(&bytes[8..1000]).into_owned();
    // PyTorch's dense weights are [out, in]; `fc1` has 4 x 4 x 4 inputs.
    for entry in [
        r#""conv1.weight":{"dtype":"F32","shape":[4,1,3,3]"#,
        r#""conv2.bias":{"dtype":"F32","shape":[4]"#,
        r#""fc1.weight":{"dtype":"F32","shape":[5,64]"#,
        r#""fc2.weight":{"dtype":"F32","shape":[3,5]"#,
    ] {
        assert!(header.contains(entry), "{entry} missing in {header}");
    }
    assert_eq!(model.to_safetensors(Storage::Single).unwrap(), bytes);

    let other = small().init(&device).unwrap();
    let images = images(&device);
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
fn rejects_weights_of_other_networks_and_damaged_files() {
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
fn is_finite_detects_nan_parameters() {
    let device = device(1);
    let model = small().init(&device).unwrap();
    assert!(model.is_finite());
    let loss = model.forward(images(&device)).square().sum();
    let gradients = GradientsParams::from_grads(loss.backward(), &model);
    let model = AdamConfig::new().init().step(f64::NAN, model, gradients);
    assert!(!model.is_finite());
}

#[test]
fn dirac_copies_channels_and_whitening_decorrelates_patches() {
    let device = device(5);
    let block = BlockConfig {
        channels: 8,
        kernel: 2,
        padding: 0,
        pool: Pool::None,
        whitening: true,
        ..BlockConfig::default()
    };
    let dirac = BlockConfig {
        channels: 10,
        initialization: Some(Initialization::Dirac),
        ..BlockConfig::default()
    };
    let config = ConvNetConfig {
        blocks: vec![block.into(), dirac.into()],
        ..small()
    };
    let images = Tensor::random([50, 1, 9, 8], Distribution::Default, &device).powi_scalar(2);
    let model = config.init(&device).unwrap();
    let model = model.whiten(vec![images.clone(), images.clone()]).unwrap();

    let identity = values(model.blocks()[1].weights());
    for (at, weight) in identity[..8 * 8 * 9].iter().enumerate() {
        let (filter, channel, pixel) = (at / 72, at / 9 % 8, at % 9);
        let is_center = filter == channel && pixel == 4;
        assert_eq!(*weight, f32::from(u8::from(is_center)), "{at}");
    }
    // The first four filters give uncorrelated values of mean square 1; the others are their negatives.
    let weights = model.blocks()[0].weights();
    assert_eq!(
        values(weights.clone().slice_dim(0, 0..4)),
        values(-weights.clone().slice_dim(0, 4..8))
    );
    let options = ConvBlockOptions {
        padding: 0,
        relu: false,
        pool: false,
    };
    let filters = ConvBlock::with_weights(weights.slice_dim(0, 0..4), options);
    let maps: Tensor<2> = filters
        .forward(images.clone())
        .swap_dims(0, 1)
        .flatten(1, 3);
    let count = maps.dims()[1] as f32;
    let products = values(maps.clone().matmul(maps.transpose()).div_scalar(count));
    for (at, product) in products.iter().enumerate() {
        let expected = if at / 4 == at % 4 { 1.0 } else { 0.0 };
        // 5e-4 is added to the variances, which are at least 0.05.
        assert!((product - expected).abs() < 0.02, "{products:?}");
    }

    // Several steps train all parameters but the frozen filters.
    let mut optimizer = AdamConfig::new().init();
    let mut trained = model.clone();
    for _ in 0..2 {
        let loss = trained.forward(images.clone()).square().sum();
        let gradients = GradientsParams::from_grads(loss.backward(), &trained);
        trained = optimizer.step(0.01, trained, gradients);
    }
    let average = model.valid().ema_update(&trained.valid(), 0.9);
    for trained in [trained, average] {
        let changed = |block: usize| {
            values(trained.blocks()[block].weights()) != values(model.blocks()[block].weights())
        };
        assert_eq!([0, 1].map(changed), [false, true]);
    }
}

#[test]
fn whitening_needs_as_many_patches_as_values() {
    let block = BlockConfig {
        channels: 18,
        whitening: true,
        padding: 0,
        ..BlockConfig::default()
    };
    let config = ConvNetConfig {
        input: [4, 4],
        dense: vec![],
        blocks: vec![
            BlockConfig {
                pool: Pool::None,
                ..block
            }
            .into(),
        ],
        ..small()
    };
    // Two images have 8 patches of 9 values.
    assert!(config.check_whitening(3).is_ok());
    assert_eq!(
        config.check_whitening(2).unwrap_err().to_string(),
        "whitening needs at least as many patches as a patch has values, 9, but the training images have 8"
    );
}

/// The expected logits were computed with NumPy in float64.
#[test]
fn logits_match_numpy_to_1e_5() {
    let device = Device::default();
    let model = with_sine_weights(small().init(&device).unwrap());
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

/// Sets element i of every weight tensor, in PyTorch's layout, to 0.3 sin(i).
fn with_sine_weights(model: ConvNet) -> ConvNet {
    let mut bytes = model.to_safetensors(Storage::Single).unwrap();
    for (_, range) in tensor_ranges(&bytes) {
        for (i, weight) in bytes[range].chunks_exact_mut(4).enumerate() {
            weight.copy_from_slice(&(0.3 * (i as f32).sin()).to_le_bytes());
        }
    }
    model.with_safetensors(bytes).unwrap()
}

#[test]
fn initial_weights_have_the_bounds_of_pytorch_and_keras() {
    let bound = |tensor: Vec<f32>| tensor.iter().fold(0.0f32, |max, x| max.max(x.abs()));
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
    // The largest of thousands of uniform draws is within 1% of the bound, that of 64 biases within 10%.
    let assert_near = |bound: f32, expected: f64, tolerance: f64| {
        let ratio = f64::from(bound) / expected;
        assert!(
            (1.0 - tolerance..=1.0001).contains(&ratio),
            "{bound}, expected {expected}"
        );
    };
    let [conv, conv_bias, fc, fc_bias] = weights(Initialization::Pytorch);
    assert_near(conv, 1.0 / 288f64.sqrt(), 0.01);
    assert_near(conv_bias, 1.0 / 288f64.sqrt(), 0.1);
    assert_near(fc, 1.0 / 3136f64.sqrt(), 0.01);
    assert_near(fc_bias, 1.0 / 3136f64.sqrt(), 0.1);
    let [conv, conv_bias, fc, fc_bias] = weights(Initialization::Keras);
    assert_near(conv, f64::sqrt(6.0 / (288.0 + 576.0)), 0.01);
    assert_near(fc, f64::sqrt(6.0 / (3136.0 + 128.0)), 0.01);
    assert_eq!([conv_bias, fc_bias], [0.0, 0.0]);
}

/// Returns the tensors of a safetensors file in f32.
fn safetensors(bytes: &[u8]) -> HashMap<String, Vec<f32>> {
    let float = |bytes: &[u8]| f32::from_le_bytes(bytes.try_into().unwrap());
    tensor_ranges(bytes)
        .into_iter()
        .map(|(name, range)| (name, bytes[range].chunks_exact(4).map(float).collect()))
        .collect()
}

/// Returns the byte range of each tensor of a safetensors file.
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

/// Returns the small network with batch normalization in all blocks.
fn small_with_batch_norm() -> ConvNetConfig {
    normalized(1)
}

fn normalized(padding: usize) -> ConvNetConfig {
    let block = |pool| {
        Stage::Block(BlockConfig {
            channels: 4,
            padding,
            pool,
            norm: true,
            pool_first: true,
            ..BlockConfig::default()
        })
    };
    ConvNetConfig {
        blocks: vec![block(Pool::MAX), block(Pool::None)],
        ..small()
    }
}

/// Returns a network with every operation that is folded: normalizations with scale, in a residual group with
/// projection too, and a factor of the logits.
fn residual() -> ConvNetConfig {
    let block = BlockConfig {
        channels: 6,
        norm: true,
        norm_scale: true,
        activation: Activation::Gelu,
        pool: Pool::None,
        ..BlockConfig::default()
    };
    let group = ResidualConfig {
        blocks: vec![BlockConfig { stride: 2, ..block }, block],
        activation: Activation::Relu,
        pool: Pool::None,
    };
    ConvNetConfig {
        logit_scale: 0.25,
        blocks: vec![
            Stage::Block(BlockConfig {
                pool: Pool::MAX,
                norm_scale: false,
                pool_first: true,
                channels: 4,
                ..block
            }),
            Stage::Residual(group),
        ],
        ..small()
    }
}

#[test]
fn folding_keeps_the_logits() {
    let device = device(3);
    let model = small_with_batch_norm().init(&device).unwrap();
    assert_eq!(model.num_params(), small().parameters().unwrap());
    for config in [small_with_batch_norm(), residual()] {
        check_folding(&config, &device);
    }
}

fn check_folding(config: &ConvNetConfig, device: &Device) {
    let model = config.init(device).unwrap();
    // Other scales than the initial 1.
    let parameters = Tensor::<1>::random(
        [model.num_params()],
        Distribution::Uniform(-0.5, 0.5),
        device,
    );
    let model = model.with_flat_parameters(parameters);
    let images = images(device);
    let expected = model.forward(images.clone()).inner();
    // Folded with the statistics of a batch, the network computes the same logits for that batch.
    let inner = images.inner();
    let folded = model.valid().fold([inner.clone()]);
    assert!(!folded.has_batch_norm());
    let actual = folded.forward(inner.clone());
    for (actual, expected) in values(actual).into_iter().zip(values(expected)) {
        assert!((actual - expected).abs() < 1e-4, "{actual} {expected}");
    }
    // Its weights load into a network without batch normalization.
    let bytes = folded.to_safetensors(Storage::Single).unwrap();
    let loaded = config.folded().init(&Device::default()).unwrap();
    let loaded = loaded.with_safetensors(bytes).unwrap();
    assert_eq!(
        values(loaded.forward(inner.clone())),
        values(folded.forward(inner))
    );
}

#[test]
fn batch_norm_cancels_brightness_and_contrast() {
    let device = device(4);
    // Zero padding would not change with brightness.
    let model = normalized(0).init(&device).unwrap();
    let images = images(&device);
    let expected = values(model.forward(images.clone()));
    let actual = values(model.forward(images * 100.0 + 500.0));
    for (actual, expected) in actual.into_iter().zip(expected) {
        assert!((actual - expected).abs() < 1e-2, "{actual} {expected}");
    }
}

#[test]
fn flat_parameters_restore_the_network_and_its_gradients() {
    let first = small_with_batch_norm().init(&device(1)).unwrap();
    let flat = first.flatten_parameters();
    assert_eq!(flat.dims(), [first.num_params()]);
    assert!(!flat.device().is_autodiff());
    // Not of another seed: tests that run at the same time share the generator.
    let doubled = Tensor::from_inner(flat.clone() * 2.0);
    let second = first.clone().with_flat_parameters(doubled);
    let bytes = |model: &ConvNet| model.to_safetensors(Storage::Single).unwrap();
    assert_ne!(bytes(&second), bytes(&first));
    let second = second.with_flat_parameters(Tensor::from_inner(flat));
    assert_eq!(bytes(&second), bytes(&first));

    for model in [first, second] {
        let loss = model.forward(images(&device(1))).square().sum();
        let gradients = GradientsParams::from_grads(loss.backward(), &model);
        // Two convolutions and two dense layers, each with a bias.
        assert_eq!(gradients.len(), 8);
    }
}

#[test]
fn ema_update_weighs_parameters_by_decay() {
    let [first, second] = [1, 2].map(|seed| small().init(&device(seed)).unwrap().valid());
    let weights = |model: &ConvNet| {
        let bytes = model.to_safetensors(Storage::Single).unwrap();
        safetensors(&bytes)["fc1.weight"].clone()
    };
    let average = first.clone().ema_update(&second, 0.75);
    let pairs = weights(&first).into_iter().zip(weights(&second));
    for ((first, second), actual) in pairs.zip(weights(&average)) {
        assert!((0.75 * first + 0.25 * second - actual).abs() < 1e-6);
    }
}
