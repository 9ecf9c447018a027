//! Trained networks inside the library.

/// A trained network that is embedded in the library.
#[derive(Debug)]
pub struct Pretrained {
    /// Its name.
    pub name: &'static str,
    /// Its `config.toml`.
    pub config: &'static str,
    /// Its `model.safetensors`.
    pub weights: &'static [u8],
    /// Its `confidence.safetensors`.
    pub confidence: &'static [u8],
}

macro_rules! pretrained {
    ($name:literal) => {
        Pretrained {
            name: $name,
            config: include_str!(concat!("../../../artifacts/", $name, "/config.toml")),
            weights: include_bytes!(concat!("../../../artifacts/", $name, "/model.safetensors")),
            confidence: include_bytes!(concat!(
                "../../../artifacts/",
                $name,
                "/confidence.safetensors"
            )),
        }
    };
}

/// `pretrained`: the trainer's default network for MNIST, with 98.99% test accuracy.
pub static DEFAULT: Pretrained = pretrained!("pretrained");

/// `pretrained-best`: the trainer's most accurate network for MNIST, with 99.67% test accuracy.
pub static BEST: Pretrained = pretrained!("pretrained-best");

/// `pretrained-cifar`: a network for color pictures of 32x32 pixels, trained on CIFAR-10, with 89.81% test accuracy.
pub static CIFAR: Pretrained = pretrained!("pretrained-cifar");

/// All embedded networks.
pub static ALL: [&Pretrained; 3] = [&DEFAULT, &BEST, &CIFAR];

/// Returns the embedded network of this name.
pub fn find(name: &str) -> Option<&'static Pretrained> {
    ALL.into_iter().find(|network| network.name == name)
}
