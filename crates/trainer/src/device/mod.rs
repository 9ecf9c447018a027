//! OpenDevices: the backends compiled in, the devices they find, and what a user asks for.
//!
//! Backends are named in this module only. The rest of the program works on Burn's `Device`.

mod backend;
pub(crate) mod open;
pub(crate) mod panics;
pub(crate) mod precision;
#[cfg(feature = "remote")]
pub(crate) mod remote;

pub(crate) use backend::Backend;
pub(crate) use open::{OpenDevice, OpenDevices, Request, VARIABLE, candidates, open};
