//! Benchmarks of the operations at the sizes of the default network: `cargo bench -p kernels`.
//!
//! An item is an image, or a parameter for the optimizer.

use burn::optim::Optimizer;
use burn::tensor::{Device, Distribution, Tensor};
use divan::Bencher;
use divan::counter::ItemsCount;
use kernels::{ConvBlockOptions, FusedAdam, conv_block};

fn main() {
    divan::main();
}

/// A block with 3x3 kernels on square images.
#[derive(Clone, Copy)]
struct Block {
    /// Input and output channels.
    channels: [usize; 2],
    size: usize,
}

const CONV1: Block = Block {
    channels: [1, 32],
    size: 28,
};
const CONV2: Block = Block {
    channels: [32, 64],
    size: 14,
};
const OPTIONS: ConvBlockOptions = ConvBlockOptions {
    padding: 1,
    relu: true,
    pool: true,
};

impl Block {
    /// Returns images, weight and bias. With this bias, the ReLU clips about half of the outputs.
    fn inputs(self, batch: usize, device: &Device) -> (Tensor<4>, Tensor<4>, Tensor<1>) {
        let [inputs, outputs] = self.channels;
        let uniform = Distribution::Uniform(-1.0, 1.0);
        let images = Tensor::random([batch, inputs, self.size, self.size], uniform, device);
        let weight = Tensor::random([outputs, inputs, 3, 3], uniform, device);
        // A product has variance 1/9. The maximum of four sums is about one standard deviation.
        let deviation = (9.0 * inputs as f64 / 9.0).sqrt();
        let bias = Tensor::zeros([outputs], device) - deviation;
        (images, weight, bias)
    }

    fn forward(self, bencher: Bencher, batch: usize) {
        let (images, weight, bias) = self.inputs(batch, &Device::default());
        bencher
            .counter(ItemsCount::new(batch))
            .bench(|| conv_block(images.clone(), weight.clone(), Some(bias.clone()), OPTIONS));
    }

    fn backward(self, bencher: Bencher, batch: usize) {
        let (images, weight, bias) = self.inputs(batch, &Device::default().autodiff());
        let images = match self.channels[0] {
            1 => images,
            _ => images.require_grad(),
        };
        let (weight, bias) = (weight.require_grad(), bias.require_grad());
        bencher
            .counter(ItemsCount::new(batch))
            .with_inputs(|| {
                conv_block(images.clone(), weight.clone(), Some(bias.clone()), OPTIONS).sum()
            })
            .bench_values(|output| output.backward());
    }
}

#[divan::bench(args = [1, 64, 512])]
fn conv1_forward(bencher: Bencher, batch: usize) {
    CONV1.forward(bencher, batch);
}

#[divan::bench(args = [64, 512])]
fn conv1_backward(bencher: Bencher, batch: usize) {
    CONV1.backward(bencher, batch);
}

#[divan::bench(args = [1, 64, 512])]
fn conv2_forward(bencher: Bencher, batch: usize) {
    CONV2.forward(bencher, batch);
}

#[divan::bench(args = [64, 512])]
fn conv2_backward(bencher: Bencher, batch: usize) {
    CONV2.backward(bencher, batch);
}

#[divan::bench(args = [401_408])]
fn adam(bencher: Bencher, parameters: usize) {
    let device = Device::default();
    let adam = FusedAdam::adam([0.9, 0.999], 1e-8, 0.0);
    let mut state = None;
    let mut parameter = Tensor::<1>::zeros([parameters], &device);
    let gradient = Tensor::<1>::random([parameters], Distribution::Default, &device);
    bencher
        .counter(ItemsCount::new(parameters))
        .bench_local(|| {
            let previous = std::mem::replace(&mut parameter, Tensor::empty([0], &device));
            (parameter, state) = adam.step(1e-3, previous, gradient.clone(), state.take());
        });
}
