//! Memory layouts of weights, and their conversion to PyTorch's, which this project uses.

/// The order of dimensions in weight tensors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// Convolution `[out, in, ky, kx]`, dense `[out, in]`, feature maps flattened channels first.
    PyTorch,
    /// As PyTorch, but dense `[in, out]`.
    Burn,
    /// Convolution `[ky, kx, in, out]`, dense `[in, out]`, feature maps flattened channels last.
    Keras,
}

impl Layout {
    /// Converts PyTorch's shape of a weight tensor to this layout.
    pub(crate) fn shape_from_pytorch(self, shape: &[usize]) -> Vec<usize> {
        match (self, shape) {
            (Self::Burn | Self::Keras, &[outputs, inputs]) => vec![inputs, outputs],
            (Self::Keras, &[outputs, inputs, height, width]) => {
                vec![height, width, inputs, outputs]
            }
            _ => shape.to_vec(),
        }
    }

    /// Converts the shape of a weight tensor in this layout to PyTorch's.
    pub(crate) fn shape_to_pytorch(self, shape: &[usize]) -> Vec<usize> {
        match (self, shape) {
            (Self::Burn | Self::Keras, &[inputs, outputs]) => vec![outputs, inputs],
            (Self::Keras, &[height, width, inputs, outputs]) => {
                vec![outputs, inputs, height, width]
            }
            _ => shape.to_vec(),
        }
    }

    /// Converts the values of a weight tensor to PyTorch's order.
    ///
    /// `shape` is PyTorch's shape. `maps` is the shape `[channels, height, width]` of the flattened feature maps
    /// if the tensor belongs to the dense layer after them.
    pub(crate) fn values_to_pytorch(
        self,
        values: Vec<f32>,
        shape: &[usize],
        maps: Option<[usize; 3]>,
    ) -> Vec<f32> {
        match (self, shape, maps) {
            (Self::Keras, &[outputs, _], Some([channels, height, width]))
            | (Self::Keras, &[outputs, channels, height, width], _) => {
                permute(&values, [height, width, channels, outputs], [3, 2, 0, 1])
            }
            (Self::Burn | Self::Keras, &[outputs, inputs], _) => {
                permute(&values, [inputs, outputs], [1, 0])
            }
            _ => values,
        }
    }

    /// Converts the values of a weight tensor from PyTorch's order: the inverse of
    /// [`values_to_pytorch`](Self::values_to_pytorch), of the same arguments.
    pub(crate) fn values_from_pytorch<T: Copy>(
        self,
        values: &[T],
        shape: &[usize],
        maps: Option<[usize; 3]>,
    ) -> Vec<T> {
        match (self, shape, maps) {
            (Self::Keras, &[outputs, _], Some([channels, height, width]))
            | (Self::Keras, &[outputs, channels, height, width], _) => {
                permute(values, [outputs, channels, height, width], [2, 3, 1, 0])
            }
            (Self::Burn | Self::Keras, &[outputs, inputs], _) => {
                permute(values, [outputs, inputs], [1, 0])
            }
            _ => values.to_vec(),
        }
    }
}

/// Permutes the dimensions of a tensor of shape `shape`: dimension i of the result is dimension `axes[i]`.
pub(crate) fn permute<T: Copy, const D: usize>(
    values: &[T],
    shape: [usize; D],
    axes: [usize; D],
) -> Vec<T> {
    let mut strides = [1; D];
    for axis in (1..D).rev() {
        strides[axis - 1] = strides[axis] * shape[axis];
    }
    let sizes = axes.map(|axis| shape[axis]);
    let strides = axes.map(|axis| strides[axis]);
    let value = |index: usize| {
        let mut rest = index;
        let mut source = 0;
        for axis in (0..D).rev() {
            source += rest % sizes[axis] * strides[axis];
            rest /= sizes[axis];
        }
        values[source]
    };
    (0..values.len()).map(value).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn permutes_dimensions() {
        let values = [0.0, 1.0, 2.0, 3.0, 4.0, 5.0];
        assert_eq!(
            permute(&values, [2, 3], [1, 0]),
            [0.0, 3.0, 1.0, 4.0, 2.0, 5.0]
        );
        // A dense layer on two 1x2 feature maps, from channels last to channels first.
        let dense = vec![0.0, 10.0, 1.0, 11.0];
        let pytorch = Layout::Keras.values_to_pytorch(dense.clone(), &[1, 4], Some([2, 1, 2]));
        assert_eq!(pytorch, [0.0, 1.0, 10.0, 11.0]);
        let again = Layout::Keras.values_from_pytorch(&pytorch, &[1, 4], Some([2, 1, 2]));
        assert_eq!(again, dense);
        // A 2x2 kernel with two input channels.
        let filter = vec![0.0, 10.0, 1.0, 11.0, 2.0, 12.0, 3.0, 13.0];
        let pytorch = Layout::Keras.values_to_pytorch(filter.clone(), &[1, 2, 2, 2], None);
        assert_eq!(pytorch, [0.0, 1.0, 2.0, 3.0, 10.0, 11.0, 12.0, 13.0]);
        let again = Layout::Keras.values_from_pytorch(&pytorch, &[1, 2, 2, 2], None);
        assert_eq!(again, filter);
    }
}
