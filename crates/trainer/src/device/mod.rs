//! Devices: the backends compiled in, the devices they find, and the devices of other machines.
//!
//! The only module of this crate that names backends. Everything else works on Burn's `Device`.

mod backend;
mod request;
mod open_device;
mod candidate;
mod open_devices;
pub(crate) mod panics;
pub(crate) mod precision;
#[cfg(feature = "remote")]
pub(crate) mod remote;

pub(crate) use backend::Backend;
pub(crate) use candidate::candidates;
pub(crate) use open_device::OpenDevice;
pub(crate) use open_devices::{OpenDevices, open};
pub(crate) use request::{Request, VARIABLE};
