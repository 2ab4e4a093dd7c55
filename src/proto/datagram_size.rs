//! Finds the largest datagram that passes from a sender to every host.
//!
//! A sender knows the MTU of its own interface. A host may be behind a smaller MTU, an older switch
//! or a tunnel, where larger datagrams vanish silently. So a sender multicasts probes of several
//! sizes before each solicit, each in one datagram, and a host answers with the largest probe
//! received. If a host reports less than the sender's own size, the sender solicits again, because
//! a probe may have been lost by chance. A probe lost every time makes one session's datagrams
//! smaller than necessary, and nothing worse.

use std::collections::VecDeque;

use crate::id::InstanceId;

/// Smallest datagram, which every path carries: an IPv4 host must accept packets of 576 bytes.
pub const MIN_DATAGRAM: usize = 548;
/// Largest datagram of a message, in bytes. Fits the minimum MTU of IPv6 (1280) and so nearly every
/// tunnel, before the path is measured.
pub const CONTROL_DATAGRAM: usize = 1232;

/// Sizes probed below a sender's own: a page in a jumbo frame, Ethernet under IPv4 and IPv6, common
/// tunnels, the minimum MTU of IPv6, the smallest datagram.
const PROBE_SIZES: [usize; 6] = [4_052, 1_472, 1_452, 1_392, CONTROL_DATAGRAM, MIN_DATAGRAM];
/// Bound on the senders with recorded probes.
const MAX_PROBING_SENDERS: usize = 64;

/// Sizes to probe, in order of sending, for datagrams of at most `most` bytes with `room` bytes
/// added by the seal. Sealed or not, the size on the network is a path's size.
pub fn probe_sizes(most: usize, room: usize) -> impl Iterator<Item = usize> {
    let below = PROBE_SIZES
        .into_iter()
        .map(move |size| size.saturating_sub(room))
        .filter(move |&size| size < most);
    std::iter::once(most)
        .chain(below)
        .filter(move |&size| size >= min_datagram(room))
}

/// Returns [`MIN_DATAGRAM`] less the `room` for the seal.
pub fn min_datagram(room: usize) -> usize {
    MIN_DATAGRAM.saturating_sub(room)
}

/// Largest probe that a host recently received from each sender.
#[derive(Debug, Default)]
pub struct ProbeSizes {
    senders: VecDeque<(InstanceId, u16)>,
}

impl ProbeSizes {
    /// Records a probe of `size` bytes from `sender`.
    pub fn probe(&mut self, sender: InstanceId, size: u16) {
        match self.senders.iter_mut().find(|(id, _)| *id == sender) {
            Some((_, largest)) => *largest = size.max(*largest),
            None => {
                if self.senders.len() == MAX_PROBING_SENDERS {
                    self.senders.pop_front();
                }
                self.senders.push_back((sender, size));
            }
        }
    }

    /// Returns the largest probe of `sender`, if any arrived.
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
        let sizes = |most| probe_sizes(most, 0).collect::<Vec<_>>();
        assert_eq!(sizes(8972), [8972, 4052, 1472, 1452, 1392, 1232, 548]);
        assert_eq!(sizes(1472), [1472, 1452, 1392, 1232, 548]);
        assert_eq!(sizes(1372), [1372, 1232, 548]);
        assert_eq!(sizes(500), [] as [usize; 0]);

        assert_eq!(
            probe_sizes(1452, 20).collect::<Vec<_>>(),
            [1452, 1432, 1372, 1212, 528],
            "sealed they are as large"
        );
    }

    #[test]
    fn the_largest_probe_of_each_sender_counts_and_a_flood_of_senders_stays_bounded() {
        let mut sizes = ProbeSizes::default();
        for size in [1392, 1472, 548] {
            sizes.probe(InstanceId(1), size);
        }

        sizes.probe(InstanceId(2), 1232);
        assert_eq!(
            (sizes.largest(InstanceId(1)), sizes.largest(InstanceId(2))),
            (Some(1472), Some(1232))
        );
        assert_eq!(sizes.largest(InstanceId(3)), None);
        (10..1000).for_each(|id| sizes.probe(InstanceId(id), 548));

        assert_eq!(
            (sizes.senders.len(), sizes.largest(InstanceId(1))),
            (MAX_PROBING_SENDERS, None)
        );
    }
}
