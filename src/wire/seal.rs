//! Where datagrams are sealed: in place, each by itself, on the way between machine and socket.
//!
//! A machine leaves [`Seal::room`] bytes free behind every datagram that it writes, so that a train of them is sealed
//! where it lies, without a copy; what arrives is opened where the kernel put it. The front of a datagram (its source
//! and counter, a number used once) stays readable: it is what a nonce is made of. A datagram that does not open is as
//! if it had not come.

use std::fmt::Debug;

/// Seals and opens the datagrams of one process.
pub trait Seal: Debug + Send {
    /// Bytes that it needs at the end of every datagram.
    fn room(&self) -> usize;

    /// Seals a datagram, the last [`Seal::room`] bytes of which are free.
    fn seal(&mut self, datagram: &mut [u8]);

    /// What a sealed datagram says; `None` when nobody with our key said it.
    fn open<'a>(&mut self, datagram: &'a mut [u8]) -> Option<&'a [u8]>;
}

/// Without a group key: nothing is sealed. What matters is signed or named by its hash all the same.
#[derive(Debug, Clone, Copy, Default)]
pub struct Plain;

impl Seal for Plain {
    fn room(&self) -> usize {
        0
    }

    fn seal(&mut self, _: &mut [u8]) {}

    fn open<'a>(&mut self, datagram: &'a mut [u8]) -> Option<&'a [u8]> {
        Some(datagram)
    }
}
