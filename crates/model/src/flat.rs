//! All parameters in one tensor, as they go from one device to another: at once.

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::Tensor;

use crate::conv_net::ConvNet;

impl ConvNet {
    /// The parameters one after another, `[P]`, on a device without gradients.
    pub fn to_flat(&self) -> Tensor<1> {
        let parameters = self.parameters().into_iter();
        Tensor::cat(parameters.map(Tensor::without_autodiff).collect(), 0)
    }

    /// The network with the parameters that [`to_flat`](Self::to_flat) gave, on their device, where they learn if
    /// it has gradients.
    ///
    /// # Panics
    /// When they are not as many as those of the network.
    pub fn with_flat(self, parameters: Tensor<1>) -> Self {
        let mut slices = Slices {
            learn: parameters.device().is_autodiff(),
            parameters: parameters.without_autodiff(),
            at: 0,
        };
        let network = self.map(&mut slices);
        assert_eq!(slices.at, slices.parameters.dims()[0]);
        network
    }

    /// Each parameter as `[P_i]`.
    pub fn parameters(&self) -> Vec<Tensor<1>> {
        let mut parameters = Parameters(Vec::new());
        self.visit(&mut parameters);
        parameters.0
    }
}

/// The parameters that were visited, in order.
struct Parameters(Vec<Tensor<1>>);

impl ModuleVisitor for Parameters {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let parameter = param.val();
        let count = parameter.dims().iter().product::<usize>();
        self.0.push(parameter.reshape([count]));
    }
}

/// Makes each parameter the next part of `parameters`.
struct Slices {
    /// Whether they will have gradients.
    learn: bool,
    parameters: Tensor<1>,
    at: usize,
}

impl ModuleMapper for Slices {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let shape = param.dims();
        let end = self.at + shape.iter().product::<usize>();
        let slice = self.parameters.clone().slice(self.at..end).reshape(shape);
        self.at = end;
        param.map(|_| match self.learn {
            true => Tensor::from_inner(slice).require_grad(),
            false => slice,
        })
    }
}
