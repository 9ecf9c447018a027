//! The results of a device as one tensor, for one transfer to the first device.

use burn::tensor::{Device, ExecutionError, Tensor};
use burn::train::{ClassificationOutput, ItemLazy};

/// The output and the gradients of one part of a batch, in one tensor.
pub(super) struct Packed {
    /// Index of the device.
    pub(super) device: usize,
    /// Weight of the part in the step.
    pub(super) weight: f64,
    /// Shape of the logits, `[N, classes]`.
    shape: [usize; 2],
    /// The loss, the logits, the targets and the gradients, one after another.
    packed: Tensor<1>,
}

/// The content of [`Packed`].
pub(super) struct Unpacked {
    pub(super) output: ClassificationOutput,
    /// All gradients, `[P]`.
    pub(super) gradients: Tensor<1>,
}

impl Packed {
    pub(super) fn new(
        device: usize,
        weight: f64,
        output: ClassificationOutput,
        gradients: Tensor<1>,
    ) -> Self {
        let shape = output.output.dims();
        let packed = vec![
            output.loss.inner(),
            output.output.inner().flatten(0, 1),
            // `f32` represents integers below 2^24 exactly.
            output.targets.inner().float(),
            gradients,
        ];
        Self {
            device,
            weight,
            shape,
            packed: Tensor::cat(packed, 0),
        }
    }

    /// Transfers the tensor to `device` and splits it there.
    pub(super) fn unpack(self, device: &Device) -> Unpacked {
        let [batch, classes] = self.shape;
        // The clone shares the tensor with this thread once, not once for each slice.
        let packed = self.packed.clone().to_device(device);
        let sizes = [1, batch * classes, batch];
        let gradients = packed.dims()[0] - sizes.iter().sum::<usize>();
        let parts = packed.split_with_sizes([sizes.as_slice(), &[gradients]].concat(), 0);
        let [loss, logits, targets, gradients] = parts.try_into().expect("one tensor per size");
        Unpacked {
            output: ClassificationOutput::new(loss, logits.reshape(self.shape), targets.int()),
            gradients,
        }
    }
}

impl ItemLazy for Packed {
    fn sync(self) -> Result<Self, ExecutionError> {
        Ok(self)
    }
}
