//! Devices of other machines, over encrypted connections authenticated by a shared token.
//!
//! A worker serves its devices with Burn's remote server, over QUIC. A client needs the worker's public
//! key to connect, and the key is new at each start. So the client first asks for it over TCP at the
//! same address: the [`handshake`] returns the key with a keyed hash that proves knowledge of the token.
//! The token itself crosses only the encrypted connection.

pub(crate) mod address;
pub(crate) mod token;
mod handshake;
mod endpoint;
pub(super) mod client;
pub(crate) mod worker;
