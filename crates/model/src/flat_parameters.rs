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

    /// Replaces each parameter by `combine` of its values and those of `other`, a network of the same description,
    /// both `[P_i]`.
    pub(crate) fn combine_parameters(
        self,
        other: &Self,
        combine: impl Fn(Tensor<1>, Tensor<1>) -> Tensor<1>,
    ) -> Self {
        let others = other.parameters().into_iter();
        self.map(&mut Combine { others, combine })
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

/// Combines each parameter with the next of `others`.
struct Combine<I, F> {
    others: I,
    combine: F,
}

impl<I, F> ModuleMapper for Combine<I, F>
where
    I: Iterator<Item = Tensor<1>>,
    F: Fn(Tensor<1>, Tensor<1>) -> Tensor<1>,
{
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let Some(other) = self.others.next() else {
            return param;
        };
        param.map(|values| {
            let shape = values.dims();
            let values = values.reshape(other.dims());
            (self.combine)(values, other).reshape(shape)
        })
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
