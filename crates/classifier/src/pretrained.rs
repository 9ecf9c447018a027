//! Trained networks inside the library.

/// A trained network that is embedded in the crate.
#[derive(Clone, Copy, Debug)]
pub struct Pretrained {
    /// Its name.
    pub name: &'static str,
    /// Its `config.toml`.
    pub config: &'static str,
    /// Its `model.safetensors`.
    pub weights: &'static [u8],
}

macro_rules! pretrained {
    ($name:literal) => {
        Self {
            name: $name,
            config: include_str!(concat!("../../../artifacts/", $name, "/config.toml")),
            weights: include_bytes!(concat!("../../../artifacts/", $name, "/model.safetensors")),
        }
    };
}

impl Pretrained {
    /// `pretrained`: the trainer's default network for MNIST, with 98.99% test accuracy.
    pub const DEFAULT: Self = pretrained!("pretrained");
    /// `pretrained-best`: the trainer's most accurate network for MNIST, with 99.67% test accuracy.
    pub const BEST: Self = pretrained!("pretrained-best");
    /// All embedded networks.
    pub const ALL: [Self; 2] = [Self::DEFAULT, Self::BEST];

    /// Returns the network of this name.
    pub fn find(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|network| network.name == name)
    }
}
