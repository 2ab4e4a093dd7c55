//! Wires between the nodes: a link into each, and blocked directions.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use super::event::NetworkEvent;
use super::link::{LinkSetup, LinkState, forge};
use super::node::NodeId;
use super::setup::NetworkSetup;
use crate::units::Moment;

/// Links and blocked directions of a network.
#[derive(Debug)]
pub(super) struct Wires {
    /// Link into each node.
    links: Vec<LinkState>,
    /// Blocked directions: from one node to another.
    cuts: BTreeSet<(NodeId, NodeId)>,
    /// Share of datagrams lost at random on a way from one node to another, besides those of its
    /// link.
    losses: BTreeMap<(NodeId, NodeId), f64>,
    /// Delays of a way, besides that of its link.
    delays: BTreeMap<(NodeId, NodeId), Duration>,
}

/// A datagram of a node on its way.
#[derive(Debug, Clone)]
pub(super) struct Passing {
    pub(super) from: NodeId,
    pub(super) bytes: Arc<[u8]>,
}

impl Passing {
    fn arrives_at(&self, to: Vec<NodeId>) -> NetworkEvent {
        NetworkEvent::Datagram {
            to,
            from: self.from,
            bytes: Arc::clone(&self.bytes),
        }
    }
}

impl Wires {
    /// Creates the wires of a network.
    pub(super) fn new(setup: &NetworkSetup) -> Self {
        let link = |node: NodeId| {
            let own = node
                .host_number()
                .and_then(|number| setup.links.get(&number));
            LinkState::new(own.unwrap_or(&setup.link).clone())
        };

        Self {
            links: NodeId::all(setup.hosts).map(link).collect(),
            cuts: BTreeSet::new(),
            losses: BTreeMap::new(),
            delays: BTreeMap::new(),
        }
    }

    /// Replaces the link into a node.
    pub(super) fn set_link(&mut self, to: NodeId, link: LinkSetup) {
        self.links[to.index()].link = link;
    }

    /// Loses a share of the datagrams from one node to another.
    pub(super) fn lose(&mut self, from: NodeId, to: NodeId, share: f64) {
        self.losses.insert((from, to), share);
    }

    /// Delays the datagrams from one node to another.
    pub(super) fn delay(&mut self, from: NodeId, to: NodeId, late: Duration) {
        self.delays.insert((from, to), late);
    }

    /// Returns whether the link into a node has a rate, so that datagrams have to come to it in
    /// order of time.
    pub(super) fn has_rate(&self, to: NodeId) -> bool {
        let link = self.links.get(to.index());
        link.is_some_and(|state| state.link.rate.is_some())
    }

    /// Blocks or unblocks a direction.
    pub(super) fn cut(&mut self, from: NodeId, to: NodeId, cut: bool) {
        match cut {
            true => self.cuts.insert((from, to)),
            false => self.cuts.remove(&(from, to)),
        };
    }

    /// Returns whether a direction is blocked.
    pub(super) fn is_cut(&self, from: NodeId, to: NodeId) -> bool {
        self.cuts.contains(&(from, to))
    }

    /// Sends a datagram over the links to nodes; arrivals at the same moment share an event.
    pub(super) fn pass(
        &mut self,
        now: Moment,
        datagram: &Passing,
        to: impl Iterator<Item = NodeId>,
        rng: &mut fastrand::Rng,
        mut queue: impl FnMut(Moment, NetworkEvent),
    ) {
        let mut arrivals: Vec<(Moment, NodeId)> = Vec::with_capacity(to.size_hint().0);
        for to in to {
            let Some(link) = self.links.get_mut(to.index()) else {
                continue;
            };

            let loss = self.losses.get(&(datagram.from, to));
            if loss.is_some_and(|&loss| rng.f64() < loss) {
                continue;
            }

            let late = self.delays.get(&(datagram.from, to)).copied();
            let late = |at: Moment| at + late.unwrap_or_default();
            let [when, again] = link.pass(now, datagram.bytes.len(), rng);
            let (when, again) = (when.map(late), again.map(late));
            if link.link.forged > 0.0 && rng.f64() < link.link.forged {
                let forged = Passing {
                    bytes: forge(&datagram.bytes, rng).into(),
                    ..datagram.clone()
                };
                queue(now, forged.arrives_at(vec![to]));
            }

            arrivals.extend(when.map(|when| (when, to)));
            if let Some(again) = again {
                queue(again, datagram.arrives_at(vec![to]));
            }
        }

        // Arrivals are mostly in order already, and the sort is then one pass.
        arrivals.sort_by_key(|(when, _)| *when);
        for same in arrivals.chunk_by(|a, b| a.0 == b.0) {
            let to = same.iter().map(|(_, to)| *to).collect();
            queue(same[0].0, datagram.arrives_at(to));
        }
    }
}
