//! OpenDevices of other machines, over an encrypted connection that both ends know a token for.
//!
//! A worker serves its devices with Burn's remote server, over QUIC. Who dials needs the worker's public key,
//! which is another at each start: it is asked for over TCP at the same address, and comes with a keyed hash
//! that only who knows the token can make. The token itself crosses the encrypted connection alone.

use std::fmt;
use std::fs::{self, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::path::Path;
use std::str::FromStr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail, ensure};
use burn::remote::{ConnectError, IrohHost, RemoteHost};
use burn::server::{BURN_REMOTE_ALPN, RemoteServer, TokenAuthorizer};
use burn::tensor::Device;
use iroh::endpoint::{Builder, PortmapperConfig, QuicTransportConfig, presets};
use iroh::protocol::Router;
use iroh::{Endpoint, EndpointId, RelayMode, SecretKey};
use tokio::runtime::Runtime;
use tracing::{debug, info};

use crate::process::interruption;

/// How long either end waits for the other while a connection is made.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often a worker looks whether it shall stop.
const CHECK: Duration = Duration::from_millis(100);
/// What the hash is made for, and for nothing else.
const CONTEXT: &str = "trainer 2026 public key of a worker";
/// How many clients are answered at a time.
const ASKING: usize = 16;
/// The fewest letters of a token.
const SHORTEST: usize = 32;

/// What clients and workers know, and nobody else.
#[derive(Clone)]
pub(crate) struct Token(String);

impl Token {
    /// The first line of a file.
    ///
    /// # Errors
    /// When it cannot be read, or is too short to be a secret.
    pub(crate) fn read(path: &Path) -> Result<Self> {
        let place = || path.display().to_string();
        let text = fs::read_to_string(path).with_context(place)?;
        let token = text.lines().next().unwrap_or_default().trim();
        ensure!(
            token.len() >= SHORTEST,
            "{}: expected a line of {SHORTEST} letters or more",
            path.display()
        );
        Ok(Self(token.into()))
    }

    /// The same, of a file that is made, with a random token, where there is none.
    ///
    /// # Errors
    /// As [`read`](Self::read); or when the file cannot be made.
    pub(crate) fn read_or_make(path: &Path) -> Result<Self> {
        let mut options = OpenOptions::new();
        options.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        match options.open(path) {
            Ok(mut file) => {
                let token = hex(&SecretKey::generate().to_bytes());
                writeln!(file, "{token}").with_context(|| path.display().to_string())?;
                info!(
                    "made a token: copy {} to who shall use this worker",
                    path.display()
                );
                Self::read(path)
            }
            Err(error) if error.kind() == ErrorKind::AlreadyExists => Self::read(path),
            Err(error) => Err(error).with_context(|| path.display().to_string()),
        }
    }

    /// Proves to who sent `nonce` that this is the answer of a worker with this token.
    fn proof(&self, nonce: &[u8; 32], answer: &Answer) -> blake3::Hash {
        let key = blake3::derive_key(CONTEXT, self.0.as_bytes());
        let mut hasher = blake3::Hasher::new_keyed(&key);
        hasher.update(nonce).update(&answer.to_bytes());
        hasher.finalize()
    }
}

/// Which operations a worker has that says it is fused: another number with each change of them.
const FUSED: u8 = 2;

/// What a worker tells who wants to use it.
#[derive(Clone, Copy, Debug)]
struct Answer {
    id: EndpointId,
    /// Whether it has the fused operations.
    is_fused: bool,
}

impl Answer {
    const SIZE: usize = 33;

    fn to_bytes(self) -> [u8; Self::SIZE] {
        let mut bytes = [0; Self::SIZE];
        bytes[..32].copy_from_slice(self.id.as_bytes());
        bytes[32] = if self.is_fused { FUSED } else { 0 };
        bytes
    }

    fn from_bytes(bytes: &[u8; Self::SIZE]) -> Result<Self> {
        let (id, is_fused) = bytes.split_at(32);
        Ok(Self {
            id: EndpointId::from_bytes(id.try_into()?).context("no public key")?,
            is_fused: is_fused == [FUSED],
        })
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A device of a worker, `HOST:PORT[:INDEX]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Address {
    /// `HOST:PORT`
    worker: String,
    index: u32,
}

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let expected =
            || format!("expected remote:HOST:PORT or remote:HOST:PORT:NUMBER, not remote:{text}");
        // An address of IPv6 has colons of its own, in brackets.
        let after_host = text.find(']').map_or(0, |end| end + 1);
        let (host, rest) =
            text.split_at(after_host + text[after_host..].find(':').ok_or_else(expected)?);
        let mut numbers = rest[1..].split(':');
        let port: u16 = numbers
            .next()
            .and_then(|port| port.parse().ok())
            .ok_or_else(expected)?;
        let index = match numbers.next() {
            None => 0,
            Some(index) => index.parse().map_err(|_| expected())?,
        };
        if host.is_empty() || numbers.next().is_some() {
            return Err(expected());
        }
        Ok(Self {
            worker: format!("{host}:{port}"),
            index,
        })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "remote:{}:{}", self.worker, self.index)
    }
}

/// Connects a device of a worker, and says what it is.
///
/// # Errors
/// When the worker cannot be reached, has another token, or has no such device: within a minute.
pub(crate) fn connect(address: &Address, token: &Token) -> Result<(Device, &'static str)> {
    let places: Vec<SocketAddr> = address
        .worker
        .to_socket_addrs()
        .with_context(|| format!("{address}: no such host"))?
        .collect();
    let mut failure = format!("{address}: no address");
    for &place in &places {
        match ask(place, token) {
            Ok(answer) => return open(address, answer, place, token),
            Err(error) => failure = format!("{address}: {error:#}"),
        }
    }
    bail!("{failure}")
}

/// Asks a worker who it is.
fn ask(place: SocketAddr, token: &Token) -> Result<Answer> {
    let mut stream = TcpStream::connect_timeout(&place, PATIENCE)
        .with_context(|| format!("cannot reach a worker at {place}"))?;
    let mut answer = [0; Answer::SIZE];
    let mut proof = [0; 32];
    let nonce = SecretKey::generate().to_bytes();
    exchange(&mut stream, |stream| {
        stream.write_all(&nonce)?;
        stream.read_exact(&mut answer)?;
        stream.read_exact(&mut proof)
    })
    .with_context(|| format!("no worker answers at {place}"))?;
    let answer = Answer::from_bytes(&answer)?;
    // Compares in constant time.
    ensure!(
        token.proof(&nonce, &answer) == blake3::Hash::from_bytes(proof),
        "the worker at {place} has another token"
    );
    Ok(answer)
}

/// Talks, with limits on how long each part may take.
fn exchange(
    stream: &mut TcpStream,
    talk: impl FnOnce(&mut TcpStream) -> io::Result<()>,
) -> io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    talk(stream)
}

/// An end of connections that asks nobody else for help: no relay, and no router for an open port.
fn endpoint() -> Builder {
    // As Burn does, because of iroh's issue 4555.
    let transport = QuicTransportConfig::builder().enable_segmentation_offload(false);
    Endpoint::builder(presets::Minimal)
        .relay_mode(RelayMode::Disabled)
        .portmapper_config(PortmapperConfig::Disabled)
        .transport_config(transport.build())
}

/// The end that all remote devices of this process are reached from.
fn client_endpoint() -> Result<Endpoint> {
    static CLIENT: Mutex<Option<(Runtime, Endpoint)>> = Mutex::new(None);
    let mut client = CLIENT.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((_, endpoint)) = &*client {
        return Ok(endpoint.clone());
    }
    let runtime = Runtime::new().context("cannot start threads")?;
    let bound = runtime.block_on(endpoint().bind());
    let endpoint = bound.context("cannot open a port")?;
    *client = Some((runtime, endpoint.clone()));
    Ok(endpoint)
}

fn open(
    address: &Address,
    answer: Answer,
    place: SocketAddr,
    token: &Token,
) -> Result<(Device, &'static str)> {
    let host = IrohHost::new(answer.id)
        .with_endpoint(client_endpoint()?)
        .with_address(place);
    let host = RemoteHost::iroh(host).with_credential(token.0.as_str());
    let device = Device::remote_options(&host)
        .device_index(address.index as usize)
        .init();
    let device = device.map_err(|error| match error {
        ConnectError::NoSuchDevice { device_count } => {
            anyhow!("{address}: there are {device_count}, numbered from 0")
        }
        error => anyhow!("{address}: {error}"),
    })?;
    if answer.is_fused {
        kernels::declare_fused(&device);
        return Ok((device, "a worker's CPU"));
    }
    Ok((device, "a worker's GPU"))
}

/// Serves devices until the program is told to stop.
///
/// # Errors
/// When the address cannot be listened on, or the devices are of several kinds.
pub(crate) fn serve(devices: Vec<Device>, listen: SocketAddr, token: Token) -> Result<()> {
    let place = || format!("--listen {listen}");
    let listener = TcpListener::bind(listen).with_context(place)?;
    let listen = listener.local_addr()?;
    listener.set_nonblocking(true)?;
    let runtime = Runtime::new().context("cannot start threads")?;
    let (server, is_fused) = kernels::with_fused(RemoteServer::new(devices.clone()), &devices);
    let router = runtime.block_on(async {
        let endpoint = endpoint()
            .clear_ip_transports()
            .bind_addr(listen)?
            .bind()
            .await?;
        let authorizer = TokenAuthorizer::new(token.0.as_str())?;
        let protocol = server
            .with_authorizer(authorizer)
            .into_protocol(&endpoint)?;
        let router = Router::builder(endpoint);
        anyhow::Ok(router.accept(BURN_REMOTE_ALPN, protocol).spawn())
    });
    let router = router.with_context(place)?;
    let answer = Answer {
        id: router.endpoint().id(),
        is_fused,
    };
    let mut out = io::stdout().lock();
    writeln!(out, "worker on {listen}")?;
    out.flush()?;
    drop(out);
    let asking = Arc::new(AtomicUsize::new(0));
    while !interruption::is_requested() {
        match listener.accept() {
            // More than that are turned away.
            Ok((stream, _)) if asking.load(Ordering::Relaxed) >= ASKING => drop(stream),
            Ok((mut stream, client)) => {
                let token = token.clone();
                let asking = Arc::clone(&asking);
                asking.fetch_add(1, Ordering::Relaxed);
                let mut reply = move || {
                    stream.set_nonblocking(false)?;
                    exchange(&mut stream, |stream| {
                        let mut nonce = [0; 32];
                        stream.read_exact(&mut nonce)?;
                        stream.write_all(&answer.to_bytes())?;
                        stream.write_all(token.proof(&nonce, &answer).as_bytes())
                    })
                };
                runtime.spawn_blocking(move || {
                    match reply() {
                        Ok(()) => info!("{client} asked for the public key"),
                        Err(error) => debug!("{client}: {error}"),
                    }
                    asking.fetch_sub(1, Ordering::Relaxed);
                });
            }
            Err(error) => {
                if error.kind() != ErrorKind::WouldBlock {
                    debug!("accept: {error}");
                }
                std::thread::sleep(CHECK);
            }
        }
    }
    // Tells clients at once that their devices are gone.
    let stopped = runtime.block_on(router.shutdown());
    runtime.shutdown_background();
    stopped.context("cannot stop")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_have_a_host_a_port_and_perhaps_a_number() {
        let address = |worker: &str, index| Address {
            worker: worker.into(),
            index,
        };
        assert_eq!("gpu:7000".parse(), Ok(address("gpu:7000", 0)));
        assert_eq!("10.0.0.1:7000:3".parse(), Ok(address("10.0.0.1:7000", 3)));
        assert_eq!("[::1]:7000:1".parse(), Ok(address("[::1]:7000", 1)));
        for text in [
            "",
            "gpu",
            "gpu:",
            ":7000",
            "gpu:70000",
            "gpu:1:x",
            "gpu:1:2:3",
            "::1:7000",
        ] {
            assert!(text.parse::<Address>().is_err(), "{text}");
        }
        assert_eq!(address("gpu:7000", 2).to_string(), "remote:gpu:7000:2");
    }

    #[test]
    fn a_proof_is_for_one_token_one_key_and_one_question() {
        let token = |text: &str| Token(text.into());
        let [a, b] = [1, 2].map(|seed| Answer {
            id: SecretKey::from_bytes(&[seed; 32]).public(),
            is_fused: false,
        });
        assert_eq!(Answer::from_bytes(&b.to_bytes()).unwrap().id, b.id);
        let fused = Answer {
            is_fused: true,
            ..a
        };
        let proof = token("a secret of some length").proof(&[7; 32], &a);
        assert_eq!(proof, token("a secret of some length").proof(&[7; 32], &a));
        assert_ne!(proof, token("a secret of other length").proof(&[7; 32], &a));
        assert_ne!(proof, token("a secret of some length").proof(&[8; 32], &a));
        assert_ne!(proof, token("a secret of some length").proof(&[7; 32], &b));
        assert_ne!(
            proof,
            token("a secret of some length").proof(&[7; 32], &fused)
        );
    }

    #[test]
    fn a_token_is_made_once_and_for_its_owner() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        let first = Token::read_or_make(&path).unwrap();
        assert_eq!(first.0, Token::read_or_make(&path).unwrap().0);
        assert_eq!(first.0.len(), 64);
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let mode = fs::metadata(&path).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
        }
        fs::write(&path, "short\n").unwrap();
        assert!(Token::read(&path).is_err());
    }
}
