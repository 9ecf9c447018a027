//! Connecting to a worker's device.

use std::net::{SocketAddr, ToSocketAddrs};

use anyhow::{Context, Result, anyhow, bail};
use burn::remote::{ConnectError, IrohHost, RemoteHost};
use burn::tensor::Device;

use crate::device::remote::address::Address;
use crate::device::remote::endpoint;
use crate::device::remote::handshake::{self, Identity};
use crate::device::remote::token::Token;

/// Connects to a worker's device. Returns it with a name for its hardware.
///
/// # Errors
/// Returns an error, within a minute, if the worker cannot be reached, has another token, or has no
/// such device.
pub(crate) fn connect(address: &Address, token: &Token) -> Result<(Device, &'static str)> {
    let resolved: Vec<SocketAddr> = address
        .worker
        .to_socket_addrs()
        .with_context(|| format!("{address}: no such host"))?
        .collect();
    let mut failure = format!("{address}: no address");
    for &worker in &resolved {
        match handshake::request(worker, token) {
            Ok(identity) => return connect_to(worker, identity, address, token),
            Err(error) => failure = format!("{address}: {error:#}"),
        }
    }
    bail!("{failure}")
}

fn connect_to(
    worker: SocketAddr,
    identity: Identity,
    address: &Address,
    token: &Token,
) -> Result<(Device, &'static str)> {
    let host = IrohHost::new(identity.id)
        .with_endpoint(endpoint::client()?)
        .with_address(worker);
    let host = RemoteHost::iroh(host).with_credential(token.secret());
    let device = Device::remote_options(&host)
        .device_index(address.index as usize)
        .init();
    let device = device.map_err(|error| match error {
        ConnectError::NoSuchDevice { device_count } => {
            anyhow!("{address}: there are {device_count}, numbered from 0")
        }
        error => anyhow!("{address}: {error}"),
    })?;
    if identity.is_fused {
        kernels::declare_fused(&device);
        return Ok((device, "a worker's CPU"));
    }
    Ok((device, "a worker's GPU"))
}
