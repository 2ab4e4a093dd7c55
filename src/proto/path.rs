//! How large a datagram may be on the way from a sender to every host.
//!
//! A sender knows its own interface's MTU; a host may stand behind a narrower one, a narrower switch or a tunnel, where
//! larger datagrams vanish without a word. So a sender multicasts probes of several sizes before each solicit, each in
//! one datagram, and a host says in its answer which was the largest that it heard. Where that is less than the sender's
//! own size it solicits again: a probe may have been lost by chance. One that is lost each time makes one session's
//! datagrams smaller than they could be, and nothing worse.

use std::collections::VecDeque;

use crate::id::InstanceId;

/// What every path takes: an IPv4 host has to take packets of 576 bytes. No datagram is cut smaller than this.
pub const MIN_DATAGRAM: usize = 548;
/// The most bytes of a message's piece: what fits the least MTU of IPv6 (1280), so that it passes nearly every tunnel
/// before anything is known of the path.
pub const CONTROL_DATAGRAM: usize = 1232;

/// The sizes that are tried below a sender's own: a page in a jumbo frame, Ethernet under IPv4 and IPv6, the usual
/// tunnels, the least MTU of IPv6, the least of all.
const LADDER: [usize; 6] = [4_052, 1_472, 1_452, 1_392, CONTROL_DATAGRAM, MIN_DATAGRAM];
/// The senders whose probes are remembered.
const MAX_SENDERS: usize = 64;

/// The sizes to probe when a datagram may have `most` bytes with `room` bytes more to seal it, in the order in which they
/// are sent. What they are on the network is a path's size, sealed or not.
pub fn ladder(most: usize, room: usize) -> impl Iterator<Item = usize> {
    let below = LADDER
        .into_iter()
        .map(move |size| size.saturating_sub(room))
        .filter(move |&size| size < most);
    std::iter::once(most)
        .chain(below)
        .filter(move |&size| size >= least(room))
}

/// [`MIN_DATAGRAM`] less the `room` to seal it.
pub fn least(room: usize) -> usize {
    MIN_DATAGRAM.saturating_sub(room)
}

/// The largest probe that a host heard from each sender of late.
#[derive(Debug, Default)]
pub struct Heard {
    senders: VecDeque<(InstanceId, u16)>,
}

impl Heard {
    /// A probe of `size` bytes came from `sender`.
    pub fn probe(&mut self, sender: InstanceId, size: u16) {
        match self.senders.iter_mut().find(|(id, _)| *id == sender) {
            Some((_, largest)) => *largest = size.max(*largest),
            None => {
                if self.senders.len() == MAX_SENDERS {
                    self.senders.pop_front();
                }
                self.senders.push_back((sender, size));
            }
        }
    }

    /// The largest from `sender`; none when none was heard.
    pub fn largest(&self, sender: InstanceId) -> Option<u16> {
        self.senders
            .iter()
            .find(|(id, _)| *id == sender)
            .map(|(_, size)| *size)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ladder_goes_down_from_ones_own_size() {
        let sizes = |most| ladder(most, 0).collect::<Vec<_>>();
        assert_eq!(sizes(8972), [8972, 4052, 1472, 1452, 1392, 1232, 548]);
        assert_eq!(sizes(1472), [1472, 1452, 1392, 1232, 548]);
        assert_eq!(sizes(1372), [1372, 1232, 548]);
        assert_eq!(sizes(500), [] as [usize; 0]);

        assert_eq!(
            ladder(1452, 20).collect::<Vec<_>>(),
            [1452, 1432, 1372, 1212, 528],
            "sealed they are as large"
        );
    }

    #[test]
    fn the_largest_probe_of_each_sender_counts_and_a_flood_of_senders_stays_bounded() {
        let mut heard = Heard::default();
        for size in [1392, 1472, 548] {
            heard.probe(InstanceId(1), size);
        }

        heard.probe(InstanceId(2), 1232);
        assert_eq!(
            (heard.largest(InstanceId(1)), heard.largest(InstanceId(2))),
            (Some(1472), Some(1232))
        );
        assert_eq!(heard.largest(InstanceId(3)), None);
        (10..1000).for_each(|id| heard.probe(InstanceId(id), 548));

        assert_eq!(
            (heard.senders.len(), heard.largest(InstanceId(1))),
            (MAX_SENDERS, None)
        );
    }
}
