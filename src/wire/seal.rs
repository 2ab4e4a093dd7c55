//! Encryption of datagrams: in place, one by one, between the state machines and the socket.
//!
//! A state machine leaves [`Seal::room`] bytes free behind every datagram, so that a train of
//! datagrams is sealed where it lies, without a copy. Incoming datagrams are opened in the kernel's
//! receive buffer. The front of a datagram (source and counter, unique together) stays readable,
//! because the nonce is derived from it. A datagram that does not open is ignored; the caller
//! counts the reason.
//!
//! [`Plain`] is for a process without a group key, [`Sealed`] for one with a key. Neither accepts
//! datagrams of the other: there is no downgrade from sealed to plain.

mod group;

pub use group::{SEAL_OVERHEAD, Sealed};

use std::fmt::Debug;

use serde::{Deserialize, Serialize};

use super::VERSION;
use super::datagram::{DATAGRAM_MAGIC, FRONT, KIND, SEALED};
use crate::keys::GroupKey;

/// Reason why a datagram was not opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum OpenError {
    /// Not from makuo, or truncated.
    Foreign,
    /// Another version of the wire format.
    Version,
    /// Not sealed, though this process has a key.
    Plain,
    /// Sealed, though this process has no key.
    Sealed,
    /// Sealed with another key, or forged.
    Wrong,
    /// Received before, or too old to know.
    Replayed,
}

/// Seals and opens the datagrams of one process.
pub trait Seal: Debug + Send {
    /// Bytes needed at the end of every datagram.
    fn room(&self) -> usize;

    /// Seals a datagram whose last [`Seal::room`] bytes are free.
    fn seal(&mut self, datagram: &mut [u8]);

    /// Opens a datagram in place; returns its plain bytes, or the reason for dropping it.
    fn open<'a>(&mut self, datagram: &'a mut [u8]) -> Result<&'a [u8], OpenError>;

    /// From now on seals with the first of `keys` and opens with all of them; `start` is fresh
    /// randomness. Returns false if that is impossible: a plain process stays plain.
    fn rekey(&mut self, _keys: &[GroupKey], _start: [u8; 4]) -> bool {
        false
    }
}

/// No group key, no encryption. Everything important is still signed or named by its hash.
#[derive(Debug, Clone, Copy, Default)]
pub struct Plain;

impl Seal for Plain {
    fn room(&self) -> usize {
        0
    }

    fn seal(&mut self, _: &mut [u8]) {}

    fn open<'a>(&mut self, datagram: &'a mut [u8]) -> Result<&'a [u8], OpenError> {
        if is_sealed(datagram) {
            Err(OpenError::Sealed)
        } else {
            Ok(datagram)
        }
    }
}

/// Returns whether the datagram is sealed and of this version.
fn is_sealed(datagram: &[u8]) -> bool {
    version_of(datagram) == Some(VERSION) && datagram[KIND] & SEALED != 0
}

/// Version of a datagram with makuo's front.
fn version_of(datagram: &[u8]) -> Option<u8> {
    (datagram.len() >= FRONT && datagram[..2] == DATAGRAM_MAGIC).then(|| datagram[2])
}
