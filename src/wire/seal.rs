//! Where datagrams are sealed: in place, each by itself, on the way between machine and socket.
//!
//! A machine leaves [`Seal::room`] bytes free behind every datagram that it writes, so that a train of them is sealed
//! where it lies, without a copy; what arrives is opened where the kernel put it. The front of a datagram (its source
//! and counter, a number used once) stays readable: it is what a nonce is made of. A datagram that does not open is as
//! if it had not come; why it did not is counted by whoever opens.
//!
//! [`Plain`] is a process without a group key, [`Sealed`] one with. Neither hears the other: there is no way down from
//! sealed to plain.

mod group;

pub use group::{ROOM, Sealed};

use std::fmt::Debug;

use super::VERSION;
use super::datagram::{FRONT, MAGIC};
use crate::keys::GroupKey;

/// Marks the kind of a sealed datagram.
pub const SEALED: u8 = 0x80;
/// Where the kind stands in a datagram.
const KIND: usize = 3;

/// Why a datagram was not opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Refusal {
    /// Not of makuo, or cut short.
    Foreign,
    /// Of another version of the wire format.
    Version,
    /// Not sealed, and we have a key.
    Plain,
    /// Sealed, and we have no key.
    Sealed,
    /// Sealed with another key, or forged.
    Wrong,
    /// It came before; or it is so old that nobody knows.
    Replayed,
}

/// Seals and opens the datagrams of one process.
pub trait Seal: Debug + Send {
    /// Bytes that it needs at the end of every datagram.
    fn room(&self) -> usize;

    /// Seals a datagram, the last [`Seal::room`] bytes of which are free.
    fn seal(&mut self, datagram: &mut [u8]);

    /// What a sealed datagram says, or why that is nobody's business.
    fn open<'a>(&mut self, datagram: &'a mut [u8]) -> Result<&'a [u8], Refusal>;

    /// Seals with the first of `keys` from now on and opens with all of them; `start` is fresh randomness. False when it
    /// cannot change: a process that is plain stays so.
    fn rekey(&mut self, _keys: &[GroupKey], _start: [u8; 4]) -> bool {
        false
    }
}

/// Without a group key: nothing is sealed. What matters is signed or named by its hash all the same.
#[derive(Debug, Clone, Copy, Default)]
pub struct Plain;

impl Seal for Plain {
    fn room(&self) -> usize {
        0
    }

    fn seal(&mut self, _: &mut [u8]) {}

    fn open<'a>(&mut self, datagram: &'a mut [u8]) -> Result<&'a [u8], Refusal> {
        if is_sealed(datagram) {
            Err(Refusal::Sealed)
        } else {
            Ok(datagram)
        }
    }
}

/// Whether it is a datagram of this version that somebody sealed.
fn is_sealed(datagram: &[u8]) -> bool {
    version_of(datagram) == Some(VERSION) && datagram[KIND] & SEALED != 0
}

/// The version of a datagram with our front.
fn version_of(datagram: &[u8]) -> Option<u8> {
    (datagram.len() >= FRONT && datagram[..2] == MAGIC).then(|| datagram[2])
}
