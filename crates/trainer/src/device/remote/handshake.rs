//! The exchange over TCP by which a client learns the public key of a worker.
//!
//! The client sends a nonce. The worker replies with its [`Identity`] and a hash of both, keyed with the
//! token, so that the reply can neither be forged nor replayed.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use iroh::{EndpointId, SecretKey};

use crate::device::remote::token::Token;

/// How long each end waits for the other.
const TIMEOUT: Duration = Duration::from_secs(5);
/// The context string of the key derivation.
const CONTEXT: &str = "trainer 2026 public key of a worker";
/// Version of the fused operations of a worker. Changes with each change of their interface.
const FUSED_VERSION: u8 = 2;

/// What a worker tells a client about itself.
#[derive(Clone, Copy, Debug)]
pub(super) struct Identity {
    /// The public key.
    pub(super) id: EndpointId,
    /// Whether the worker has the fused operations in the version of this program.
    pub(super) is_fused: bool,
}

impl Identity {
    const SIZE: usize = 33;

    fn to_bytes(self) -> [u8; Self::SIZE] {
        let mut bytes = [0; Self::SIZE];
        bytes[..32].copy_from_slice(self.id.as_bytes());
        bytes[32] = if self.is_fused { FUSED_VERSION } else { 0 };
        bytes
    }

    fn from_bytes(bytes: &[u8; Self::SIZE]) -> Result<Self> {
        let (id, version) = bytes.split_at(32);
        Ok(Self {
            id: EndpointId::from_bytes(id.try_into()?).context("not a public key")?,
            is_fused: version == [FUSED_VERSION],
        })
    }

    /// Computes the proof that this reply to `nonce` is from a worker with this token.
    fn proof(&self, token: &Token, nonce: &[u8; 32]) -> blake3::Hash {
        let key = blake3::derive_key(CONTEXT, token.secret().as_bytes());
        let mut hasher = blake3::Hasher::new_keyed(&key);
        hasher.update(nonce).update(&self.to_bytes());
        hasher.finalize()
    }
}

/// Asks the worker at `address` for its identity.
///
/// # Errors
/// Returns an error if there is no reply, or the worker has another token.
pub(super) fn request(address: SocketAddr, token: &Token) -> Result<Identity> {
    let mut stream = TcpStream::connect_timeout(&address, TIMEOUT)
        .with_context(|| format!("cannot reach a worker at {address}"))?;
    let mut identity = [0; Identity::SIZE];
    let mut proof = [0; 32];
    let nonce = SecretKey::generate().to_bytes();
    let mut exchange = || {
        set_timeouts(&stream)?;
        stream.write_all(&nonce)?;
        stream.read_exact(&mut identity)?;
        stream.read_exact(&mut proof)
    };
    exchange().with_context(|| format!("no worker answers at {address}"))?;
    let identity = Identity::from_bytes(&identity)?;
    // Hashes compare in constant time.
    ensure!(
        identity.proof(token, &nonce) == blake3::Hash::from_bytes(proof),
        "the worker at {address} has another token"
    );
    Ok(identity)
}

/// Replies to the request of a client.
///
/// # Errors
/// Returns an error if the connection fails or times out.
pub(super) fn reply(mut stream: TcpStream, identity: &Identity, token: &Token) -> io::Result<()> {
    stream.set_nonblocking(false)?;
    set_timeouts(&stream)?;
    let mut nonce = [0; 32];
    stream.read_exact(&mut nonce)?;
    stream.write_all(&identity.to_bytes())?;
    stream.write_all(identity.proof(token, &nonce).as_bytes())
}

fn set_timeouts(stream: &TcpStream) -> io::Result<()> {
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proof_depends_on_the_token_the_identity_and_the_nonce() {
        let token = |secret: &str| Token::from(secret);
        let [a, b] = [1, 2].map(|seed| Identity {
            id: SecretKey::from_bytes(&[seed; 32]).public(),
            is_fused: false,
        });
        assert_eq!(Identity::from_bytes(&b.to_bytes()).unwrap().id, b.id);
        let fused = Identity {
            is_fused: true,
            ..a
        };
        let secret = token("a secret of some length");
        let proof = a.proof(&secret, &[7; 32]);
        assert_eq!(proof, a.proof(&secret, &[7; 32]));
        assert_ne!(proof, a.proof(&token("a secret of other length"), &[7; 32]));
        assert_ne!(proof, a.proof(&secret, &[8; 32]));
        assert_ne!(proof, b.proof(&secret, &[7; 32]));
        assert_ne!(proof, fused.proof(&secret, &[7; 32]));
    }
}
