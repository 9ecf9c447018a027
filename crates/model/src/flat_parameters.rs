//! All parameters as one tensor, which moves between devices in a single transfer.

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::Tensor;

use crate::conv_net::ConvNet;

impl ConvNet {
    /// Concatenates all parameters to one tensor without autodiff, `[P]`.
    pub fn flatten_parameters(&self) -> Tensor<1> {
        let parameters = self.parameters().into_iter();
        Tensor::cat(parameters.map(Tensor::without_autodiff).collect(), 0)
    }

    /// Replaces all parameters by those of a tensor made by [`flatten_parameters`](Self::flatten_parameters).
    ///
    /// The network moves to the device of `parameters`, and tracks gradients if that is an autodiff device.
    ///
    /// # Panics
    /// Panics if the number of parameters differs.
    pub fn with_flat_parameters(self, parameters: Tensor<1>) -> Self {
        let mut unflatten = Unflatten {
            require_grad: parameters.device().is_autodiff(),
            parameters: parameters.without_autodiff(),
            offset: 0,
        };
        let network = self.map(&mut unflatten);
        assert_eq!(unflatten.offset, unflatten.parameters.dims()[0]);
        network
    }

    /// Returns each parameter as `[P_i]`.
    pub fn parameters(&self) -> Vec<Tensor<1>> {
        let mut parameters = Parameters(Vec::new());
        self.visit(&mut parameters);
        parameters.0
    }
}

/// Collects the parameters in order.
struct Parameters(Vec<Tensor<1>>);

impl ModuleVisitor for Parameters {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let parameter = param.val();
        let count = parameter.dims().iter().product::<usize>();
        self.0.push(parameter.reshape([count]));
    }
}

/// Replaces the parameters by consecutive slices of `parameters`, `[P]`.
struct Unflatten {
    require_grad: bool,
    parameters: Tensor<1>,
    offset: usize,
}

impl ModuleMapper for Unflatten {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let shape = param.dims();
        let end = self.offset + shape.iter().product::<usize>();
        let slice = self
            .parameters
            .clone()
            .slice(self.offset..end)
            .reshape(shape);
        self.offset = end;
        param.map(|_| match self.require_grad {
            true => Tensor::from_inner(slice).require_grad(),
            false => slice,
        })
    }
}
