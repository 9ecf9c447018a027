//! Serving devices of this machine to clients.

use std::io::{self, ErrorKind, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use burn::server::{BURN_REMOTE_ALPN, RemoteServer, TokenAuthorizer};
use burn::tensor::Device;
use iroh::protocol::Router;
use tokio::runtime::Runtime;
use tracing::{debug, info};

use crate::device::remote::endpoint;
use crate::device::remote::handshake::{self, Identity};
use crate::device::remote::token::Token;
use crate::process::interruption;

/// Interval at which a worker checks for clients and for an interruption.
const POLL_INTERVAL: Duration = Duration::from_millis(100);
/// Maximum number of simultaneous handshakes. Further connections are closed.
const MAX_HANDSHAKES: usize = 16;

/// Serves devices until the process is interrupted, and prints the address.
///
/// # Errors
/// Returns an error if the address is not available, or the devices are of different backends.
pub(crate) fn serve(devices: Vec<Device>, listen: SocketAddr, token: Token) -> Result<()> {
    let context = || format!("--listen {listen}");
    let listener = TcpListener::bind(listen).with_context(context)?;
    let listen = listener.local_addr()?;
    listener.set_nonblocking(true)?;
    let runtime = Runtime::new().context("cannot start threads")?;
    let (server, is_fused) = kernels::with_fused(RemoteServer::new(devices.clone()), &devices);
    let router = runtime.block_on(async {
        let endpoint = endpoint::builder()
            .clear_ip_transports()
            .bind_addr(listen)?
            .bind()
            .await?;
        let authorizer = TokenAuthorizer::new(token.secret())?;
        let protocol = server
            .with_authorizer(authorizer)
            .into_protocol(&endpoint)?;
        let router = Router::builder(endpoint);
        anyhow::Ok(router.accept(BURN_REMOTE_ALPN, protocol).spawn())
    });
    let router = router.with_context(context)?;
    let identity = Identity {
        id: router.endpoint().id(),
        is_fused,
    };
    let mut out = io::stdout().lock();
    writeln!(out, "worker on {listen}")?;
    out.flush()?;
    drop(out);
    reply_to_clients(&runtime, &listener, identity, &token);
    // Clients learn at once that their devices are gone.
    let stopped = runtime.block_on(router.shutdown());
    runtime.shutdown_background();
    stopped.context("cannot stop")
}

/// Replies to handshakes until the process is interrupted.
fn reply_to_clients(runtime: &Runtime, listener: &TcpListener, identity: Identity, token: &Token) {
    let handshakes = Arc::new(AtomicUsize::new(0));
    while !interruption::is_requested() {
        match listener.accept() {
            Ok((stream, _)) if handshakes.load(Ordering::Relaxed) >= MAX_HANDSHAKES => {
                drop(stream);
            }
            Ok((stream, client)) => {
                let token = token.clone();
                let handshakes = Arc::clone(&handshakes);
                handshakes.fetch_add(1, Ordering::Relaxed);
                runtime.spawn_blocking(move || {
                    match handshake::reply(stream, &identity, &token) {
                        Ok(()) => info!("{client} requested the public key"),
                        Err(error) => debug!("{client}: {error}"),
                    }
                    handshakes.fetch_sub(1, Ordering::Relaxed);
                });
            }
            Err(error) => {
                if error.kind() != ErrorKind::WouldBlock {
                    debug!("accept: {error}");
                }
                std::thread::sleep(POLL_INTERVAL);
            }
        }
    }
}
