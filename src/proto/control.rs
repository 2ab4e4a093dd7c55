//! Encodes messages as datagrams: numbers and fragments messages, and queues the datagrams. Every
//! state machine of a process sends through this.

use std::collections::VecDeque;

use super::datagram_size::{CONTROL_DATAGRAM, MIN_DATAGRAM, min_datagram};
use super::{Dest, Transmit};
use crate::id::InstanceId;
use crate::wire::count::CountedProbe;
use crate::wire::datagram::{CONTROL_OVERHEAD, Fragment, Front, write_fragment};
use crate::wire::message::Probe;
use crate::wire::{Message, fragment};

/// Bound on queued bytes. Messages beyond are dropped, as a network drops datagrams; the sender of
/// an important message retransmits.
pub const MAX_QUEUED_BYTES: usize = 8 << 20;

/// Numbers the datagrams of one process and queues its messages.
#[derive(Debug)]
pub struct Control {
    instance: InstanceId,
    counter: u64,
    message: u32,
    /// Largest datagram of this machine's interface, in bytes.
    max_datagram: usize,
    /// Largest datagram of a message, in bytes.
    datagram: usize,
    /// Bytes left free behind every datagram.
    room: usize,
    queue: VecDeque<(Dest, Vec<u8>)>,
    /// Bytes in the queue.
    queued: usize,
    /// Datagrams taken from the queue so far.
    taken: u64,
}

impl Control {
    /// Creates the queue of process `instance`. Datagrams have at most `datagram` bytes, followed
    /// by `room` free bytes.
    pub fn new(instance: InstanceId, datagram: usize, room: usize) -> Self {
        let mut control = Self {
            instance,
            counter: 0,
            message: 0,
            max_datagram: datagram,
            datagram,
            room,
            queue: VecDeque::new(),
            queued: 0,
            taken: 0,
        };

        control.fit(CONTROL_DATAGRAM);
        control
    }

    /// This process.
    pub fn instance(&self) -> InstanceId {
        self.instance
    }

    /// Largest datagram of a message, in bytes.
    pub fn datagram(&self) -> usize {
        self.datagram
    }

    /// Fragments later messages for a path with datagrams of `datagram` bytes.
    pub fn fit(&mut self, datagram: usize) {
        let largest = CONTROL_DATAGRAM.saturating_sub(self.room);
        self.datagram = datagram
            .clamp(min_datagram(self.room), largest)
            .min(self.max_datagram);
    }

    /// Queues a probe: one datagram of `size` bytes, at least [`min_datagram`].
    pub fn probe(&mut self, dest: Dest, size: usize) {
        self.padded(dest, size, |size, padding| {
            Message::Probe(Probe { size, padding })
        });
    }

    /// Queues the datagram `number` of a counted train: one datagram like that of a probe.
    pub fn counted(&mut self, dest: Dest, size: usize, (run, train): (u64, u8), number: u32) {
        self.padded(dest, size, |size, padding| {
            Message::Counted(CountedProbe {
                run,
                train,
                number,
                size,
                padding,
            })
        });
    }

    /// Queues a message with padding as one datagram of `size` bytes.
    fn padded(&mut self, dest: Dest, size: usize, message: impl Fn(u16, Vec<u8>) -> Message) {
        let Ok(size) = u16::try_from(size.max(min_datagram(self.room))) else {
            return;
        };

        let message = |padding: usize| message(size, vec![0; padding]);
        // From here on, CBOR encodes the length of the padding in the same number of bytes for
        // every size.
        let least = MIN_DATAGRAM / 2;
        let bare = message(least).encode().len() - least + CONTROL_OVERHEAD;
        let bytes = message(usize::from(size) - bare).encode();
        self.message = self.message.wrapping_add(1);
        let Some(pieces) = fragment::cut(&bytes, self.message, usize::from(size)) else {
            return;
        };

        pieces.for_each(|piece| self.queue(dest, piece));
    }

    fn queue(&mut self, dest: Dest, piece: Fragment<'_>) {
        let front = self.front();
        let mut out = Vec::with_capacity(piece.bytes.len() + CONTROL_OVERHEAD);
        write_fragment(&mut out, front, piece);
        self.queued += out.len();
        self.queue.push_back((dest, out));
    }

    /// Returns the front of the next datagram.
    pub fn front(&mut self) -> Front {
        self.counter += 1;
        Front {
            source: self.instance,
            counter: self.counter,
        }
    }

    /// Number of datagrams numbered so far.
    pub fn counter(&self) -> u64 {
        self.counter
    }

    /// Queues `message`. Drops a message of more than 255 datagrams (no real message comes close),
    /// and any message while [`MAX_QUEUED_BYTES`] bytes are queued.
    pub fn send(&mut self, dest: Dest, message: &Message) {
        if self.queued >= MAX_QUEUED_BYTES {
            return;
        }

        let bytes = message.encode();
        self.message = self.message.wrapping_add(1);
        let Some(pieces) = fragment::cut(&bytes, self.message, self.datagram) else {
            return;
        };

        pieces.for_each(|piece| self.queue(dest, piece));
    }

    /// Returns the present end of the queue, for [`Control::is_past`].
    pub fn mark(&self) -> u64 {
        self.taken + self.queue.len() as u64
    }

    /// Returns whether every datagram before `mark` was taken.
    pub fn is_past(&self, mark: u64) -> bool {
        self.taken >= mark
    }

    /// Number of bytes queued.
    pub fn queued_bytes(&self) -> usize {
        self.queued
    }

    /// Returns true when the queue is empty.
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Writes the next queued datagram into `out`.
    pub fn poll(&mut self, out: &mut Vec<u8>) -> Option<Transmit> {
        let (dest, bytes) = self.queue.pop_front()?;
        self.queued -= bytes.len();
        self.taken += 1;
        out.clear();
        out.extend_from_slice(&bytes);
        out.resize(bytes.len() + self.room, 0);

        Some(Transmit {
            dest,
            segment: out.len(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Datagram;
    use crate::wire::fragment::Reassembly;

    fn sizes(control: &mut Control) -> Vec<usize> {
        let mut out = Vec::new();
        std::iter::from_fn(|| control.poll(&mut out).map(|transmit| transmit.segment)).collect()
    }

    #[test]
    fn a_probe_is_one_datagram_of_just_its_size() {
        let mut control = Control::new(InstanceId(1), 8972, 0);
        let mut out = Vec::new();
        for (size, number) in [(548, 0), (1472, 300), (8972, 70_000)] {
            control.counted(Dest::Group, size, (u64::MAX, 9), number);
            let sent = control.poll(&mut out).map(|transmit| transmit.segment);
            assert_eq!(sent, Some(size));
        }

        for size in [548, 549, 600, 1232, 1472, 8972] {
            control.probe(Dest::Group, size);
            assert_eq!(
                control.poll(&mut out).map(|t| (t.segment, out.len())),
                Some((size, size))
            );

            let Ok(Datagram::Control(front, piece)) = Datagram::parse(&out) else {
                panic!("a piece")
            };
            let whole = Reassembly::default()
                .add(crate::units::Moment(1), front.source, piece)
                .expect("one piece");
            let Ok(Message::Probe(probe)) = Message::decode(&whole) else {
                panic!("a probe")
            };
            assert_eq!(usize::from(probe.size), size);
            assert!(control.poll(&mut out).is_none());
        }
    }

    #[test]
    fn what_nobody_takes_is_not_queued_without_end() {
        let mut control = Control::new(InstanceId(1), 1472, 0);
        let long = Message::Order(crate::wire::message::SignedOrder {
            order: vec![0; 200],
            signature: vec![0; 2000],
            hosts: None,
        });
        (0..100_000).for_each(|_| control.send(Dest::Group, &long));
        assert!(
            control.queued_bytes() < MAX_QUEUED_BYTES + 4096,
            "{}",
            control.queued_bytes()
        );
        let sent = sizes(&mut control).len();
        assert_eq!(control.queued_bytes(), 0);
        control.send(Dest::Group, &long);

        assert!(
            sent > 1000 && control.queued_bytes() > 2000,
            "later messages are queued"
        );
    }

    #[test]
    fn messages_are_cut_small_before_the_path_is_known_and_as_small_as_it_needs_then() {
        let long = Message::Order(crate::wire::message::SignedOrder {
            order: vec![0; 200],
            signature: vec![0; 2000],
            hosts: None,
        });

        let largest = |control: &mut Control| {
            control.send(Dest::Group, &long);
            sizes(control).into_iter().max()
        };

        let mut control = Control::new(InstanceId(1), 8972, 0);
        assert_eq!(largest(&mut control), Some(CONTROL_DATAGRAM));
        control.fit(600);
        assert_eq!(largest(&mut control), Some(600));
        control.fit(10);
        assert_eq!(largest(&mut control), Some(MIN_DATAGRAM));
        control.fit(8972);

        assert_eq!(largest(&mut control), Some(CONTROL_DATAGRAM));
        assert_eq!(
            largest(&mut Control::new(InstanceId(1), 500, 0)),
            Some(500),
            "the interface allows no more"
        );

        let mut sealed = Control::new(InstanceId(1), 8952, 20);
        assert_eq!(
            largest(&mut sealed),
            Some(CONTROL_DATAGRAM),
            "with the room to seal it"
        );
    }
}
