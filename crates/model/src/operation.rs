//! The operation of a layer, and its description in words.

use std::fmt;

use kernels::Activation;

use crate::block::{Pool, PoolKind};

/// The operation of a layer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Operation {
    /// 2-D convolution.
    Convolution {
        /// Height and width of the kernel.
        kernel: usize,
        /// Stride.
        stride: usize,
        /// Zero padding on each side.
        padding: usize,
        /// Operations on its output.
        then: Epilogue,
    },
    /// Pooling.
    Pooling {
        /// The pooling.
        pool: Pool,
        /// Operations on its output.
        then: Epilogue,
    },
    /// A 1x1 convolution of the input of a residual group.
    Projection {
        /// Number of layers of the table before the group.
        start: usize,
        /// Stride.
        stride: usize,
        /// Whether batch normalization is used during training.
        norm: bool,
    },
    /// Addition of the input of a residual group, or of its projection, to the output of its blocks.
    Addition {
        /// Number of layers of the table before the group.
        start: usize,
        /// Whether the layer before this one is the projection of the input; else the input itself is added.
        projection: bool,
        /// Activation of the sum.
        activation: Activation,
    },
    /// Feature maps to a vector, channels first.
    Flatten,
    /// Dense layer.
    Dense {
        /// Activation.
        activation: Activation,
    },
    /// Last dense layer, without activation.
    Logits {
        /// Constant factor of the logits.
        scale: f64,
    },
    /// Dropout with this probability, during training only.
    Dropout(f64),
}

/// Operations that follow a convolution or its pooling.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Epilogue {
    /// Whether batch normalization is used during training.
    pub norm: bool,
    /// Activation; none where a later operation has it.
    pub activation: Activation,
}

impl Epilogue {
    pub(crate) const NONE: Self = Self {
        norm: false,
        activation: Activation::None,
    };
}

impl fmt::Display for Epilogue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.norm {
            f.write_str(" + batch norm")?;
        }
        match self.activation {
            Activation::None => Ok(()),
            activation => write!(f, " + {activation}"),
        }
    }
}

impl fmt::Display for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = |kind: &PoolKind| match kind {
            PoolKind::Max => "max",
            PoolKind::Average => "average ",
        };
        match self {
            Self::None => f.write_str("no pooling"),
            Self::Global(kind) => write!(f, "global {}-pooling", name(kind).trim_end()),
            Self::Windows {
                kind,
                size,
                stride,
                padding,
            } => {
                let dash = if *kind == PoolKind::Max { "-" } else { "" };
                write!(f, "{size}x{size} {}{dash}pooling", name(kind))?;
                if stride != size {
                    write!(f, ", stride {stride}")?;
                }
                match padding {
                    0 => Ok(()),
                    padding => write!(f, ", padding {padding}"),
                }
            }
        }
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let stride = |stride: usize| match stride {
            1 => String::new(),
            stride => format!(", stride {stride}"),
        };
        match *self {
            Self::Convolution {
                kernel,
                stride: distance,
                then,
                ..
            } => {
                let stride = stride(distance);
                write!(f, "{kernel}x{kernel} convolution{stride}{then}")
            }
            Self::Pooling { pool, then } => write!(f, "{pool}{then}"),
            Self::Projection {
                stride: distance,
                norm,
                ..
            } => {
                let norm = if norm { " + batch norm" } else { "" };
                let stride = stride(distance);
                write!(f, "1x1 convolution of the group's input{stride}{norm}")
            }
            Self::Addition {
                projection,
                activation,
                ..
            } => {
                f.write_str(match projection {
                    true => "addition of the projection",
                    false => "addition of the group's input",
                })?;
                match activation {
                    Activation::None => Ok(()),
                    activation => write!(f, " + {activation}"),
                }
            }
            Self::Flatten => f.write_str("reshape"),
            Self::Dense {
                activation: Activation::None,
            } => f.write_str("dense"),
            Self::Dense { activation } => write!(f, "dense + {activation}"),
            Self::Logits { scale: 1.0 } => f.write_str("dense, logits"),
            Self::Logits { scale } => write!(f, "dense, logits times {scale}"),
            Self::Dropout(probability) => write!(f, "dropout {probability}"),
        }
    }
}
