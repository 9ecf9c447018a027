//! How weights lie in memory: PyTorch's way, which this project keeps to, and the others.

/// Whose order of dimensions weights are in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// Filters `[out, in, ky, kx]`, dense weights `[out, in]`, feature maps flattened channels first.
    PyTorch,
    /// The same, but dense weights `[in, out]`.
    Burn,
    /// Filters `[ky, kx, in, out]`, dense weights `[in, out]`, feature maps flattened channels last.
    Keras,
}

impl Layout {
    /// The shape here of what PyTorch has as `shape`.
    pub(crate) fn shape(self, shape: &[usize]) -> Vec<usize> {
        match (self, shape) {
            (Self::Burn | Self::Keras, &[outputs, inputs]) => vec![inputs, outputs],
            (Self::Keras, &[outputs, inputs, height, width]) => {
                vec![height, width, inputs, outputs]
            }
            _ => shape.to_vec(),
        }
    }

    /// The shape in PyTorch of what is `shape` here.
    pub(crate) fn shape_in_pytorch(self, shape: &[usize]) -> Vec<usize> {
        match (self, shape) {
            (Self::Burn | Self::Keras, &[inputs, outputs]) => vec![outputs, inputs],
            (Self::Keras, &[height, width, inputs, outputs]) => {
                vec![outputs, inputs, height, width]
            }
            _ => shape.to_vec(),
        }
    }

    /// The values of a weight in PyTorch's order, which has it as `shape`; `maps` are the feature maps
    /// `[channels, height, width]` that a dense layer takes, if it takes any.
    pub(crate) fn to_pytorch(
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
}

/// The values of a tensor `shape` in the order of one whose dimensions are its `axes`.
pub(crate) fn permute<const D: usize>(
    values: &[f32],
    shape: [usize; D],
    axes: [usize; D],
) -> Vec<f32> {
    let mut strides = [1; D];
    for axis in (1..D).rev() {
        strides[axis - 1] = strides[axis] * shape[axis];
    }
    let sizes = axes.map(|axis| shape[axis]);
    let strides = axes.map(|axis| strides[axis]);
    let value = |place: usize| {
        let mut rest = place;
        let mut at = 0;
        for axis in (0..D).rev() {
            at += rest % sizes[axis] * strides[axis];
            rest /= sizes[axis];
        }
        values[at]
    };
    (0..values.len()).map(value).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dimensions_change_places() {
        let values = [0.0, 1.0, 2.0, 3.0, 4.0, 5.0];
        assert_eq!(
            permute(&values, [2, 3], [1, 0]),
            [0.0, 3.0, 1.0, 4.0, 2.0, 5.0]
        );
        // Two maps of 1x2 pixels, channels last, to one output: channels first.
        let dense = vec![0.0, 10.0, 1.0, 11.0];
        let dense = Layout::Keras.to_pytorch(dense, &[1, 4], Some([2, 1, 2]));
        assert_eq!(dense, [0.0, 1.0, 10.0, 11.0]);
        // One filter of 2x2 over two channels.
        let filter = vec![0.0, 10.0, 1.0, 11.0, 2.0, 12.0, 3.0, 13.0];
        let filter = Layout::Keras.to_pytorch(filter, &[1, 2, 2, 2], None);
        assert_eq!(filter, [0.0, 1.0, 2.0, 3.0, 10.0, 11.0, 12.0, 13.0]);
    }
}
