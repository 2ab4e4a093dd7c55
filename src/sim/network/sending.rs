//! Sending of all nodes: to the group at once, or a copy for each over the uplinks of a network
//! without multicast.

use std::sync::Arc;

use super::Network;
use crate::proto::{Dest, Transmit};
use crate::sim::event::NetworkEvent;
use crate::sim::feedback::{FeedbackKind, is_counted};
use crate::sim::node::NodeId;
use crate::sim::unicast::{CopyTo, DepartedCopy, PendingTrain, TrainKind, Uplinks};
use crate::sim::wires::Passing;
use crate::units::Moment;
use crate::wire::datagram::is_data;

impl Network {
    /// Writes the next datagrams of a node into `out`.
    pub(super) fn poll_transmit(&mut self, node: NodeId, out: &mut Vec<u8>) -> Option<Transmit> {
        match node.host_number() {
            None => self.sender.poll_transmit(self.now, out),
            Some(host) => self.hosts.get(host).poll_transmit(out),
        }
    }

    /// Sends what a node without multicast has to send, until its uplink has no room: its own
    /// datagrams, then those that it passes on. Returns whether its own ones have left.
    pub(super) fn flush(&mut self, node: NodeId, uplinks: &mut Uplinks, out: &mut Vec<u8>) -> bool {
        if node.is_sender() {
            self.sender.set_roster(self.now, uplinks.roster(self.now));
        }

        if let Some(host) = node.host_number() {
            self.hosts.get(host).set_relay_load(uplinks.take_load(node));
        }

        let mut departures = Vec::new();
        let wait = loop {
            if uplinks.is_sent(node) {
                match self.poll_transmit(node, out) {
                    Some(transmit) => {
                        let train = self.address(uplinks, node, transmit, out);
                        uplinks.push_own(node, train);
                    }
                    None => break uplinks.send_relayed(self.now, node, &mut departures),
                }
            }

            let wait = uplinks.send_own(self.now, node, &mut departures);
            if wait.is_some() {
                break wait;
            }
        };

        for DepartedCopy { at, to, bytes } in departures {
            let from = node;
            match self.wires.has_rate(to) && at > self.now {
                true => self.at(at, NetworkEvent::Departed { to, from, bytes }),
                false => self.pass(at, &Passing { from, bytes }, [to].into_iter()),
            }
        }

        if let Some(retry) = wait
            && uplinks.begins_wait(self.now, node, retry)
        {
            self.at(retry, NetworkEvent::Room(node));
        }

        uplinks.is_sent(node)
    }

    /// Chooses the destinations of a node's datagrams in a network where multicast does not reach
    /// all.
    fn address(
        &mut self,
        uplinks: &Uplinks,
        from: NodeId,
        transmit: Transmit,
        out: &[u8],
    ) -> PendingTrain {
        let dest = transmit.dest;
        let datagrams: Vec<Arc<[u8]>> = out.chunks(transmit.segment).map(Arc::from).collect();
        for bytes in &datagrams {
            let bytes = Arc::clone(bytes);
            let passing = Passing { from, bytes };
            self.log
                .on_sent(self.now, &passing, dest, self.setup.observe);
        }

        let kind = match is_data(out) {
            true => TrainKind::Data,
            false => TrainKind::Control,
        };

        let targets = self.sender.data_targets();
        let targets = targets.filter(|_| kind == TrainKind::Data);
        let mut to: Vec<NodeId> = match (dest, targets) {
            (Dest::Group, Some(targets)) => {
                let hosts = targets.hosts.iter();
                hosts.filter_map(|at| NodeId::at(*at)).collect()
            }
            (Dest::Group, None) => {
                let all = NodeId::all(self.reach(from));
                all.filter(|to| !uplinks.are_near([from, *to])).collect()
            }
            (Dest::Multicast, _) => Vec::new(),
            (Dest::Host(to) | Dest::Relay(to), _) => NodeId::at(to).into_iter().collect(),
        };
        let multicast = match dest {
            Dest::Host(_) => false,
            Dest::Group | Dest::Multicast | Dest::Relay(_) => {
                targets.is_none_or(|targets| targets.multicast)
            }
        };
        to.retain(|to| *to != from);
        to.reverse();

        let segment = uplinks.segment(from).filter(|_| multicast);
        let to: Vec<CopyTo> = to.into_iter().map(CopyTo::Node).chain(segment).collect();
        if from.is_sender() {
            let messages = &mut self.log.sent_messages;
            datagrams
                .iter()
                .for_each(|bytes| messages.record(bytes, to.len()));
        }

        PendingTrain {
            kind,
            from,
            targets: None,
            datagrams,
            to,
            is_begun: false,
            since: self.now,
        }
    }

    /// Returns the number of hosts that a node's messages to all reach.
    fn reach(&self, from: NodeId) -> usize {
        match self.setup.strangers && !from.is_sender() {
            true => 0,
            false => self.hosts.len(),
        }
    }

    /// Sends datagrams of a node to the group, or to one node.
    pub(super) fn send(&mut self, from: NodeId, transmit: Transmit, out: &[u8]) {
        let hosts = self.reach(from);

        for bytes in out.chunks(transmit.segment) {
            let datagram = Passing {
                from,
                bytes: bytes.into(),
            };
            self.log
                .on_sent(self.now, &datagram, transmit.dest, self.setup.observe);
            match transmit.dest {
                Dest::Group | Dest::Multicast => {
                    let to = NodeId::all(hosts).filter(|to| *to != from);
                    self.pass(self.now, &datagram, to);
                }
                Dest::Host(to) | Dest::Relay(to) => {
                    self.pass(self.now, &datagram, NodeId::at(to).into_iter())
                }
            }
        }
    }

    /// Sends a datagram over the wires to nodes at the time `when`.
    pub(super) fn pass(
        &mut self,
        when: Moment,
        datagram: &Passing,
        to: impl Iterator<Item = NodeId>,
    ) {
        let from = datagram.from;
        let to: Vec<NodeId> = to.filter(|to| !self.wires.is_cut(from, *to)).collect();
        if let Some(host) = from.host_number()
            && to.contains(&NodeId::SENDER)
            && is_counted(&datagram.bytes, self.setup.sending.datagram)
        {
            let kind = FeedbackKind::of(&datagram.bytes, self.sender.nodes());
            self.log.feedback.record(self.now, host, kind);
        }

        let queue = &mut self.queue;
        self.wires.pass(
            when,
            datagram,
            to.into_iter(),
            &mut self.rng,
            |when, event| queue.push(when, event),
        );
    }
}
