//! Windows of convolutions and pools: kernels that are not square, dilated, or padded unequally.

use crate::chain::{Padding, Sides};
use crate::tensor::Tensor;

/// Largest number of values of a kernel with added zeros.
const MAX_VALUES: usize = 1 << 26;

/// Returns the number of windows along a side.
pub(crate) fn count(
    length: usize,
    size: usize,
    stride: usize,
    padding: [usize; 2],
) -> Result<usize, String> {
    let padded = length
        .checked_add(padding[0])
        .and_then(|length| length.checked_add(padding[1]));
    let room = padded.and_then(|padded| padded.checked_sub(size));
    match room {
        Some(room) if stride > 0 => Ok(room / stride + 1),
        _ => Err(format!(
            "a window of {size}x{size} on an image of {length} pixels"
        )),
    }
}

/// Returns the pixels that a padding adds to an image of `[height, width]`, for windows of `size`.
pub(crate) fn sides(padding: Padding, image: [usize; 2], size: [usize; 2], stride: usize) -> Sides {
    match padding {
        Padding::Each(pixels) => [pixels; 4],
        Padding::Sides(sides) => sides,
        Padding::Same => {
            let total = |axis: usize| {
                let outputs = image[axis].div_ceil(stride.max(1));
                let covered = outputs.saturating_sub(1).saturating_mul(stride);
                covered
                    .saturating_add(size[axis])
                    .saturating_sub(image[axis])
            };
            let [height, width] = [total(0), total(1)];
            [height / 2, width / 2, height.div_ceil(2), width.div_ceil(2)]
        }
    }
}

/// Returns the height and width of a padded image.
pub(crate) fn padded([height, width]: [usize; 2], [top, left, bottom, right]: Sides) -> [usize; 2] {
    [
        height.saturating_add(top).saturating_add(bottom),
        width.saturating_add(left).saturating_add(right),
    ]
}

/// A square kernel and its padding on each side, which compute the same as another kernel.
#[derive(Debug, PartialEq)]
pub(crate) struct SquareKernel {
    pub(crate) size: usize,
    pub(crate) padding: usize,
    /// Rows and columns before the values of the other kernel.
    before: [usize; 2],
}

impl SquareKernel {
    /// Finds the smallest square kernel for a kernel of `size` on an image padded by `sides`; `None` if there is none.
    pub(crate) fn new(
        image: [usize; 2],
        size: [usize; 2],
        stride: usize,
        sides: Sides,
    ) -> Result<Option<Self>, String> {
        let [top, left, bottom, right] = sides;
        let outputs = [
            count(image[0], size[0], stride, [top, bottom])?,
            count(image[1], size[1], stride, [left, right])?,
        ];
        let most = sides.into_iter().max().unwrap_or(0);
        let kernel = |padding: usize| {
            // Zeros before the values shift the kernel, to make up for more padding.
            let before = [padding - top, padding - left];
            let least = (before[0] + size[0]).max(before[1] + size[1]);
            let has_equal_outputs = |kernel: &usize| {
                let counts = image.map(|length| count(length, *kernel, stride, [padding; 2]));
                matches!(counts, [Ok(height), Ok(width)] if [height, width] == outputs)
            };
            // Networks of this project have less padding than the size of the kernel.
            let sizes = least.max(padding + 1)..=least + 2 * padding;
            let size = sizes.into_iter().find(has_equal_outputs)?;
            Some(Self {
                size,
                padding,
                before,
            })
        };
        Ok((most..=2 * most).find_map(kernel))
    }

    /// Returns the weight of this kernel: `weight`, `[out, in, ky, kx]`, with zeros between its values for `dilation`,
    /// and around them; `None` if it is not a weight of
    /// such a kernel, or too large.
    pub(crate) fn weight(&self, weight: &Tensor, dilation: usize) -> Option<Tensor> {
        let &[outputs, inputs, height, width] = weight.shape.as_slice() else {
            return None;
        };
        if [height, width, dilation] == [self.size, self.size, 1] {
            return Some(weight.clone());
        }
        let values = weight.values()?;
        let area = self.size.checked_mul(self.size)?;
        let count = outputs.checked_mul(inputs)?.checked_mul(area)?;
        if count > MAX_VALUES {
            return None;
        }
        let mut spread = vec![0.0; count];
        for (index, value) in values.iter().enumerate() {
            let (x, y, filter) = (
                index % width,
                index / width % height,
                index / width / height,
            );
            let (row, column) = (self.before[0] + y * dilation, self.before[1] + x * dilation);
            *spread.get_mut(filter * area + row * self.size + column)? = *value;
        }
        let shape = vec![outputs, inputs, self.size, self.size];
        Some(Tensor::from_values(shape, &spread))
    }
}

/// Returns the extent of a kernel of `size` with `dilation`.
pub(crate) fn dilated(size: usize, dilation: usize) -> usize {
    size.saturating_sub(1)
        .saturating_mul(dilation)
        .saturating_add(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn same_padding_adds_one_more_at_the_end() {
        assert_eq!(sides(Padding::Same, [28, 28], [3, 3], 1), [1; 4]);
        assert_eq!(sides(Padding::Same, [28, 28], [5, 5], 2), [1, 1, 2, 2]);
        assert_eq!(sides(Padding::Same, [7, 28], [2, 2], 2), [0, 0, 1, 0]);
    }

    #[test]
    fn kernels_become_square() {
        let kernel = |image, size, stride, sides| {
            let kernel = SquareKernel::new([image; 2], size, stride, sides).unwrap();
            kernel.map(|kernel| (kernel.size, kernel.padding, kernel.before))
        };
        assert_eq!(kernel(28, [3, 3], 1, [1; 4]), Some((3, 1, [0, 0])));
        assert_eq!(kernel(28, [5, 5], 2, [1, 1, 2, 2]), Some((6, 2, [1, 1])));
        // More padding than the kernel covers.
        assert_eq!(kernel(28, [1, 1], 1, [1; 4]), Some((3, 2, [1, 1])));
        assert_eq!(kernel(28, [2, 2], 1, [0, 0, 1, 1]), Some((3, 1, [1, 1])));
        assert_eq!(kernel(28, [3, 5], 1, [1, 2, 1, 2]), Some((5, 2, [1, 0])));
        // Its output is not square.
        assert_eq!(kernel(28, [3, 5], 1, [0; 4]), None);
        let error = SquareKernel::new([4, 4], [5, 5], 1, [0; 4]).unwrap_err();
        assert_eq!(error, "a window of 5x5 on an image of 4 pixels");
    }

    #[test]
    fn zeros_fill_a_kernel() {
        let weight = Tensor::from_values(vec![1, 1, 2, 2], &[1.0, 2.0, 3.0, 4.0]);
        let kernel = SquareKernel::new([9, 9], [3, 3], 1, [0, 0, 1, 1])
            .unwrap()
            .unwrap();
        #[rustfmt::skip]
        let expected = [
            0.0, 0.0, 0.0, 0.0,
            0.0, 1.0, 0.0, 2.0,
            0.0, 0.0, 0.0, 0.0,
            0.0, 3.0, 0.0, 4.0,
        ];
        assert_eq!(
            kernel.weight(&weight, 2).unwrap().values().unwrap(),
            expected
        );
    }
}
