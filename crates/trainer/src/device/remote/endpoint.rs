//! The endpoints of encrypted connections.

use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result};
use iroh::endpoint::{Builder, PortmapperConfig, QuicTransportConfig, presets};
use iroh::{Endpoint, RelayMode};
use tokio::runtime::Runtime;

/// Returns the builder of an endpoint that uses neither relays nor port mapping on the router.
pub(super) fn builder() -> Builder {
    // Burn disables segmentation offload too, because of https://github.com/n0-computer/iroh/issues/4555.
    let transport = QuicTransportConfig::builder().enable_segmentation_offload(false);
    Endpoint::builder(presets::Minimal)
        .relay_mode(RelayMode::Disabled)
        .portmapper_config(PortmapperConfig::Disabled)
        .transport_config(transport.build())
}

/// Returns the endpoint of this process, which connects to all remote devices.
///
/// # Errors
/// Returns an error if no thread can be started or no port is available.
pub(super) fn client() -> Result<Endpoint> {
    static CLIENT: Mutex<Option<(Runtime, Endpoint)>> = Mutex::new(None);
    let mut client = CLIENT.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((_, endpoint)) = &*client {
        return Ok(endpoint.clone());
    }
    let runtime = Runtime::new().context("cannot start threads")?;
    let bound = runtime.block_on(builder().bind());
    let endpoint = bound.context("cannot open a port")?;
    *client = Some((runtime, endpoint.clone()));
    Ok(endpoint)
}
