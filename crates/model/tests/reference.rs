//! Logits and gradients of every kind of layer, against values that PyTorch computed; see reference/networks.py.

use std::collections::BTreeMap;

use burn::module::Module;
use burn::optim::GradientsParams;
use burn::tensor::{Device, Tensor, TensorData};
use model::{ConvNetConfig, gradients};
use serde::Deserialize;

const IMAGES: usize = 3;

#[derive(Deserialize)]
struct Reference {
    logits: Vec<f32>,
    gradients: Vec<f32>,
}

fn tensor<const D: usize>(
    shape: [usize; D],
    value: impl Fn(f64) -> f64,
    device: &Device,
) -> Tensor<D> {
    let count = shape.iter().product::<usize>();
    let values: Vec<f32> = (0..count).map(|i| value(i as f64) as f32).collect();
    Tensor::from_data(TensorData::new(values, shape), device)
}

fn assert_close(name: &str, actual: &[f32], expected: &[f32]) {
    assert_eq!(actual.len(), expected.len(), "{name}");
    let largest = expected.iter().fold(0.0f32, |max, x| max.max(x.abs()));
    for (index, (actual, expected)) in actual.iter().zip(expected).enumerate() {
        let error = (actual - expected).abs() / largest;
        assert!(error < 1e-5, "{name}, {index}: {actual} {expected}");
    }
}

#[test]
fn logits_and_gradients_match_pytorch_to_1e_5() {
    let networks: BTreeMap<String, ConvNetConfig> =
        toml::from_str(include_str!("reference/networks.toml")).unwrap();
    let mut references: BTreeMap<String, Reference> =
        serde_json::from_str(include_str!("reference/networks.json")).unwrap();
    let device = Device::default().autodiff();
    for (name, config) in networks {
        let reference = references.remove(&name).unwrap();
        let model = config.init_seeded(1, &device).unwrap();
        assert_eq!(config.parameters(), Ok(model.num_params()), "{name}");
        let parameters = tensor([model.num_params()], |i| 0.5 * i.sin(), &device);
        let model = model.with_flat_parameters(parameters);
        let [height, width] = config.input;
        let shape = [IMAGES, config.channels, height, width];
        let logits = model.forward(tensor(shape, |i| (i * i).sin(), &device));
        let weights = tensor(logits.dims(), f64::cos, &device);
        let loss = (logits.clone() * weights).sum();
        let grads = GradientsParams::from_grads(loss.backward(), &model);
        let grads = gradients::flatten(grads, &model);
        let values = |data: TensorData| data.try_to_vec::<f32>().unwrap();
        assert_close(&name, &values(logits.into_data()), &reference.logits);
        assert_close(&name, &values(grads.into_data()), &reference.gradients);
    }
    assert!(references.is_empty());
}
