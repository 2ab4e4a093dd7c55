//! Writing messages as datagrams: counters, message numbers, cutting. Shared by all machines of a process.

use std::collections::VecDeque;

use super::{Dest, Transmit};
use crate::id::InstanceId;
use crate::wire::datagram::{Front, write_piece};
use crate::wire::{Message, fragment};

/// Numbers what one process sends, and queues its messages.
#[derive(Debug)]
pub struct Control {
    instance: InstanceId,
    counter: u64,
    message: u32,
    datagram: usize,
    queue: VecDeque<(Dest, Vec<u8>)>,
}

impl Control {
    /// For a process `instance` whose datagrams have at most `datagram` bytes.
    pub fn new(instance: InstanceId, datagram: usize) -> Self {
        Self { instance, counter: 0, message: 0, datagram, queue: VecDeque::new() }
    }

    /// Who we are.
    pub fn instance(&self) -> InstanceId {
        self.instance
    }

    /// The most bytes of a datagram.
    pub fn datagram(&self) -> usize {
        self.datagram
    }

    /// The front of the next datagram.
    pub fn front(&mut self) -> Front {
        self.counter += 1;
        Front { source: self.instance, counter: self.counter }
    }

    /// Datagrams numbered so far.
    pub fn counter(&self) -> u64 {
        self.counter
    }

    /// Queues `message`. One that would not fit 255 datagrams is dropped; no message of ours is near that.
    pub fn send(&mut self, dest: Dest, message: &Message) {
        let bytes = message.encode();
        self.message = self.message.wrapping_add(1);
        let Some(pieces) = fragment::cut(&bytes, self.message, self.datagram) else { return };
        for piece in pieces {
            self.counter += 1;
            let mut out = Vec::with_capacity(piece.bytes.len() + 32);
            write_piece(&mut out, Front { source: self.instance, counter: self.counter }, piece);
            self.queue.push_back((dest, out));
        }
    }

    /// The next queued datagram, written into `out`.
    pub fn poll(&mut self, out: &mut Vec<u8>) -> Option<Transmit> {
        let (dest, bytes) = self.queue.pop_front()?;
        out.clear();
        out.extend_from_slice(&bytes);
        Some(Transmit { dest, segment: bytes.len() })
    }
}
