//! The convolution block.

use burn::module::{Module, Param};
use burn::nn::Dropout;
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::tensor::module::{avg_pool2d, conv2d, max_pool2d};
use burn::tensor::ops::{AvgPoolOptions, ConvOptions, MaxPoolOptions};
use burn::tensor::{DType, Tensor};
use kernels::{Activation, ConvBlockOptions, PackedFilters, activate, batch_norm, conv_block};

use crate::block::{Pool, PoolKind};

/// Convolution, optional batch normalization, activation, optional pooling and dropout.
///
/// The parameters are those of a convolution, and the scale of the normalization. The block runs as one fused
/// operation where the backend has one. Batch normalization is for training only:
/// [`ConvNet::fold`](crate::ConvNet::fold) makes it a part of the parameters.
#[derive(Module, Debug)]
pub struct ConvBlock {
    /// The filters. The bias is added after the normalization.
    pub(crate) conv: Conv2d,
    /// Scale of each channel after the normalization, `[channels]`.
    pub(crate) scale: Option<Param<Tensor<1>>>,
    pub(crate) dropout: Option<Dropout>,
    #[module(skip)]
    pub(crate) options: BlockOptions,
}

/// Settings of a block, as in [`BlockConfig`](crate::BlockConfig).
#[derive(Clone, Copy, Debug)]
pub(crate) struct BlockOptions {
    pub(crate) stride: usize,
    pub(crate) padding: usize,
    pub(crate) norm: bool,
    pub(crate) activation: Activation,
    pub(crate) pool: Pool,
    pub(crate) pool_first: bool,
    /// Whether the filters get no gradients.
    pub(crate) is_frozen: bool,
}

impl ConvBlock {
    /// Creates a block without bias from the weights `[channels, C, K, K]`.
    pub fn with_weights(weights: Tensor<4>, options: ConvBlockOptions) -> Self {
        let [outputs, inputs, kernel, _] = weights.dims();
        let config = Conv2dConfig::new([inputs, outputs], [kernel; 2]).with_bias(false);
        let mut conv = config.init(&weights.device());
        conv.weight = Param::from_tensor(weights);
        Self {
            conv,
            scale: None,
            dropout: None,
            options: BlockOptions {
                stride: 1,
                padding: options.padding,
                norm: false,
                activation: match options.relu {
                    true => Activation::Relu,
                    false => Activation::None,
                },
                pool: match options.pool {
                    true => Pool::MAX,
                    false => Pool::None,
                },
                pool_first: false,
                is_frozen: false,
            },
        }
    }

    /// Returns the weights, `[channels, C, K, K]`.
    pub fn weights(&self) -> Tensor<4> {
        self.conv.weight.val()
    }

    /// Computes the feature maps `[N, channels, H', W']` of images `[N, C, H, W]`.
    pub fn forward(&self, images: Tensor<4>) -> Tensor<4> {
        self.run(images, None)
    }

    /// Same as [`forward`](Self::forward), with the packed filters of this block if it does not change anymore.
    pub(crate) fn run(&self, images: Tensor<4>, filters: Option<&PackedFilters>) -> Tensor<4> {
        if self.options.norm {
            return self.normalize(self.convolve(images));
        }
        let dtype = images.dtype();
        let bias = self.conv.bias.as_ref().map(|bias| bias.val().cast(dtype));
        let BlockOptions {
            activation,
            pool,
            pool_first,
            ..
        } = self.options;
        // ReLU and max-pooling commute, so they can be one operation with the convolution in either order.
        let relu = activation == Activation::Relu && (pool == Pool::MAX || !pool_first);
        let fused_pool =
            pool == Pool::MAX && (relu || pool_first || activation == Activation::None);
        let mut maps = self.conv(images, bias, relu, fused_pool, filters);
        let rest = match relu {
            true => Activation::None,
            false => activation,
        };
        maps = match (fused_pool, pool_first) {
            (true, _) => activate(maps, rest),
            (false, true) => activate(pooled(maps, pool), rest),
            (false, false) => pooled(activate(maps, rest), pool),
        };
        self.drop_out(maps)
    }

    /// Convolves without bias, and pools if pooling comes first: the input of batch normalization.
    pub(crate) fn convolve(&self, images: Tensor<4>) -> Tensor<4> {
        let BlockOptions {
            pool, pool_first, ..
        } = self.options;
        let fused_pool = pool_first && pool == Pool::MAX;
        let maps = self.conv(images, None, false, fused_pool, None);
        match pool_first && !fused_pool {
            true => pooled(maps, pool),
            false => maps,
        }
    }

    /// Normalizes the output of [`convolve`](Self::convolve) over the batch, and applies the operations after the
    /// normalization.
    pub(crate) fn normalize(&self, maps: Tensor<4>) -> Tensor<4> {
        let BlockOptions {
            activation,
            pool,
            pool_first,
            ..
        } = self.options;
        let dtype = maps.dtype();
        let scale = self.scale.as_ref().map(Param::val);
        // Batch statistics need more precision than 16 bits have.
        let maps = batch_norm(maps.cast(DType::F32), scale, self.bias(), activation).cast(dtype);
        self.drop_out(match pool_first {
            true => maps,
            false => pooled(maps, pool),
        })
    }

    /// Convolves, and applies ReLU and [`Pool::MAX`] if requested.
    fn conv(
        &self,
        images: Tensor<4>,
        bias: Option<Tensor<1>>,
        relu: bool,
        pool: bool,
        filters: Option<&PackedFilters>,
    ) -> Tensor<4> {
        let BlockOptions {
            stride,
            padding,
            is_frozen,
            ..
        } = self.options;
        let weights = match is_frozen {
            true => self.weights().set_require_grad(false),
            false => self.weights(),
        };
        let weights = weights.cast(images.dtype());
        if stride == 1 {
            let options = ConvBlockOptions {
                padding,
                relu,
                pool,
            };
            return match filters {
                Some(filters) => filters.conv_block(images, weights, bias, options),
                None => conv_block(images, weights, bias, options),
            };
        }
        let options = ConvOptions::new([stride; 2], [padding; 2], [1; 2], 1);
        let maps = conv2d(images, weights, bias, options);
        let maps = match relu {
            true => activate(maps, Activation::Relu),
            false => maps,
        };
        match pool {
            true => pooled(maps, Pool::MAX),
            false => maps,
        }
    }

    fn drop_out(&self, maps: Tensor<4>) -> Tensor<4> {
        match &self.dropout {
            Some(dropout) => dropout.forward(maps),
            None => maps,
        }
    }

    /// Returns the bias, `[channels]`; zeros if the block has none.
    pub(crate) fn bias(&self) -> Tensor<1> {
        let weights = &self.conv.weight;
        match &self.conv.bias {
            Some(bias) => bias.val(),
            None => Tensor::zeros([weights.dims()[0]], &weights.device()),
        }
    }
}

/// Pools feature maps `[N, C, H, W]`.
pub(crate) fn pooled(maps: Tensor<4>, pool: Pool) -> Tensor<4> {
    match pool {
        Pool::None => maps,
        Pool::Windows {
            kind: PoolKind::Max,
            size,
            stride,
            padding,
        } => {
            let options = MaxPoolOptions::new([size; 2])
                .with_stride([stride; 2])
                .with_padding([padding; 2]);
            max_pool2d(maps, options)
        }
        Pool::Windows {
            kind: PoolKind::Average,
            size,
            stride,
            padding,
        } => {
            let options = AvgPoolOptions::new([size; 2])
                .with_stride([stride; 2])
                .with_padding([padding; 2]);
            avg_pool2d(maps, options)
        }
        Pool::Global(kind) => {
            let [images, channels, height, width] = maps.dims();
            let pixels = maps.reshape([images, channels, height * width]);
            let pooled = match kind {
                PoolKind::Max => pixels.max_dim(2),
                PoolKind::Average => pixels.mean_dim(2),
            };
            pooled.reshape([images, channels, 1, 1])
        }
    }
}
