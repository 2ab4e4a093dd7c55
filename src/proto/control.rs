//! Writing messages as datagrams: counters, message numbers, cutting. Shared by all machines of a process.

use std::collections::VecDeque;

use super::path::{CONTROL_DATAGRAM, MIN_DATAGRAM, least};
use super::{Dest, Transmit};
use crate::id::InstanceId;
use crate::wire::datagram::{CONTROL_OVERHEAD, Front, Piece, write_piece};
use crate::wire::message::Probe;
use crate::wire::{Message, fragment};

/// The most bytes that are queued; beyond it messages are dropped as the network drops them, and said again by whom they
/// matter to.
pub const MAX_QUEUED: usize = 8 << 20;

/// Numbers what one process sends, and queues its messages.
#[derive(Debug)]
pub struct Control {
    instance: InstanceId,
    counter: u64,
    message: u32,
    /// The most bytes of a datagram that this machine can send.
    most: usize,
    /// The most bytes of a piece.
    datagram: usize,
    /// Bytes that are left free behind every datagram.
    room: usize,
    queue: VecDeque<(Dest, Vec<u8>)>,
    /// Bytes in the queue.
    queued: usize,
    /// Datagrams that were taken from it.
    taken: u64,
}

impl Control {
    /// For a process `instance` whose datagrams have at most `datagram` bytes and `room` free ones behind them.
    pub fn new(instance: InstanceId, datagram: usize, room: usize) -> Self {
        let (most, queue) = (datagram, VecDeque::new());
        let mut control = Self {
            instance,
            counter: 0,
            message: 0,
            most,
            datagram,
            room,
            queue,
            queued: 0,
            taken: 0,
        };

        control.fit(CONTROL_DATAGRAM);
        control
    }

    /// Who we are.
    pub fn instance(&self) -> InstanceId {
        self.instance
    }

    /// The most bytes of a message's datagram.
    pub fn datagram(&self) -> usize {
        self.datagram
    }

    /// Cuts messages so that they pass where datagrams of `datagram` bytes do, from now on.
    pub fn fit(&mut self, datagram: usize) {
        let largest = CONTROL_DATAGRAM.saturating_sub(self.room);
        self.datagram = datagram.clamp(least(self.room), largest).min(self.most);
    }

    /// Queues a probe: one datagram of `size` bytes, at least the [`least`].
    pub fn probe(&mut self, dest: Dest, size: usize) {
        let Ok(told) = u16::try_from(size.max(least(self.room))) else {
            return;
        };

        let message = |padding: usize| {
            Message::Probe(Probe {
                size: told,
                padding: vec![0; padding],
            })
        };

        // The length of the padding is itself told in as many bytes at every size from here on.
        let least = MIN_DATAGRAM / 2;
        let bare = message(least).encode().len() - least + CONTROL_OVERHEAD;
        let bytes = message(usize::from(told) - bare).encode();
        self.message = self.message.wrapping_add(1);
        let Some(pieces) = fragment::cut(&bytes, self.message, usize::from(told)) else {
            return;
        };

        pieces.for_each(|piece| self.queue(dest, piece));
    }

    fn queue(&mut self, dest: Dest, piece: Piece<'_>) {
        let front = self.front();
        let mut out = Vec::with_capacity(piece.bytes.len() + CONTROL_OVERHEAD);
        write_piece(&mut out, front, piece);
        self.queued += out.len();
        self.queue.push_back((dest, out));
    }

    /// The front of the next datagram.
    pub fn front(&mut self) -> Front {
        self.counter += 1;
        Front {
            source: self.instance,
            counter: self.counter,
        }
    }

    /// Datagrams numbered so far.
    pub fn counter(&self) -> u64 {
        self.counter
    }

    /// Queues `message`. One that would not fit 255 datagrams is dropped; no message of ours is near that. So is one that
    /// finds [`MAX_QUEUED`] bytes before it.
    pub fn send(&mut self, dest: Dest, message: &Message) {
        if self.queued >= MAX_QUEUED {
            return;
        }

        let bytes = message.encode();
        self.message = self.message.wrapping_add(1);
        let Some(pieces) = fragment::cut(&bytes, self.message, self.datagram) else {
            return;
        };

        pieces.for_each(|piece| self.queue(dest, piece));
    }

    /// The end of the queue as it is now, for [`Control::is_past`].
    pub fn mark(&self) -> u64 {
        self.taken + self.queue.len() as u64
    }

    /// Whether everything before `mark` was taken.
    pub fn is_past(&self, mark: u64) -> bool {
        self.taken >= mark
    }

    /// Bytes that are queued.
    pub fn held(&self) -> usize {
        self.queued
    }

    /// Whether nothing is queued.
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// The next queued datagram, written into `out`.
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
        let (mut control, mut out) = (Control::new(InstanceId(1), 8972, 0), Vec::new());
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
        assert!(control.held() < MAX_QUEUED + 4096, "{}", control.held());
        let sent = sizes(&mut control).len();
        assert_eq!(control.held(), 0);
        control.send(Dest::Group, &long);

        assert!(
            sent > 1000 && control.held() > 2000,
            "what comes later is queued"
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
            "one's own interface takes no more"
        );

        let mut sealed = Control::new(InstanceId(1), 8952, 20);
        assert_eq!(
            largest(&mut sealed),
            Some(CONTROL_DATAGRAM),
            "with the room to seal it"
        );
    }
}
