//! Messages of a sender without multicast by kind: their datagrams and bytes, each copy counted.

use std::collections::BTreeMap;
use std::fmt;

use crate::wire::{Datagram, Message, StatusPhase};

/// Messages by kind.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SentMessages {
    kinds: BTreeMap<&'static str, SentKind>,
    /// Kind of the last message, for its later pieces.
    last: &'static str,
}

/// Messages of one kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct SentKind {
    /// Datagrams, each once for all its copies.
    datagrams: u64,
    /// Copies of them.
    copies: u64,
    /// Bytes of the copies, without the headers of the network.
    bytes: u64,
}

impl SentMessages {
    /// Counts a datagram with so many copies.
    pub(super) fn record(&mut self, datagram: &[u8], copies: usize) {
        let Ok(Datagram::Control(_, piece)) = Datagram::parse(datagram) else {
            return;
        };
        if piece.index == 0 {
            self.last = match Message::decode(piece.bytes) {
                Ok(message) => kind_of(&message),
                Err(_) => "long",
            };
        }

        let kind = self.kinds.entry(self.last).or_default();
        kind.datagrams += 1;
        kind.copies += copies as u64;
        kind.bytes += (copies * datagram.len()) as u64;
    }

    /// Returns the number of all copies.
    pub fn copies(&self) -> u64 {
        self.kinds.values().map(|kind| kind.copies).sum()
    }

    /// Returns the bytes of all copies.
    pub fn bytes(&self) -> u64 {
        self.kinds.values().map(|kind| kind.bytes).sum()
    }
}

fn kind_of(message: &Message) -> &'static str {
    match message {
        Message::Solicit(..) => "solicit",
        Message::Probe(_) => "probe",
        Message::Announce(_) => "announce",
        Message::Status(status) => match status.phase {
            StatusPhase::Closed => "farewell",
            _ => "status",
        },
        Message::Ack(..) => "ack",
        Message::Order(_) => "order",
        Message::DriftAsk(..) => "drift",
        Message::Targets(_) => "targets",
        _ => "other",
    }
}

impl fmt::Display for SentMessages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (name, kind)) in self.kinds.iter().enumerate() {
            let comma = if at > 0 { ", " } else { "" };
            let SentKind {
                datagrams,
                copies,
                bytes,
            } = kind;
            write!(
                f,
                "{comma}{name} {datagrams} in {copies} copies, {bytes} bytes"
            )?;
        }
        Ok(())
    }
}
