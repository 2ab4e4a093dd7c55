//! The simulated sender: its state machine, its release, and its course from the first datagram to
//! the end.

use std::net::SocketAddr;

use super::event::NetworkEvent;
use super::log::NetworkLog;
use super::node::NodeId;
use super::offer::{SimOffer, signature, tree};
use super::setup::{NetworkSetup, SessionStart};
use super::unicast::OVERHEAD;
use crate::id::InstanceId;
use crate::proto::Transmit;
use crate::proto::sender::reach::{DataTargets, RosterView};
use crate::proto::sender::{
    CompareRules, DatagramSizes, OrderSignature, RateLimits, ReleaseGrant, Sender, SenderNotice,
    SenderReply, SenderRequest, SenderSetup, TargetRules,
};
use crate::units::Moment;
use crate::wire::HostStage;

/// State of a simulated sender.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum SimPhase {
    /// Waits for a request.
    Dormant,
    Running,
    Finished,
}

/// The sender of the network.
#[derive(Debug)]
pub(super) struct SimSender {
    pub(super) machine: Sender,
    offer: SimOffer,
    phase: SimPhase,
    announced: Moment,
}

impl SimSender {
    /// Creates a sender of `offer`.
    pub(super) fn new(
        now: Moment,
        setup: &NetworkSetup,
        offer: SimOffer,
        rng: &mut fastrand::Rng,
    ) -> Self {
        let is_granted = setup.start != SessionStart::Discovery;
        let sender = SenderSetup {
            name: NodeId::SENDER.name(),
            instance: InstanceId(rng.u64(1..)),
            seed: rng.u64(..),
            sizes: DatagramSizes {
                datagram: setup.sending.datagram,
                room: 0,
                overhead: OVERHEAD,
            },
            rates: RateLimits {
                ceiling: setup.sending.ceiling,
                ..RateLimits::default()
            },
            targets: TargetRules {
                lists: Some(setup.targets.clone())
                    .into_iter()
                    .filter(|list| !list.is_empty())
                    .collect(),
                ..TargetRules::all_of(tree())
            },
            keys: setup.keys.clone(),
            commit: setup.commit.clone(),
            patience: setup.patience,
            compare: CompareRules::default(),
            grant: is_granted.then(|| ReleaseGrant {
                order: offer.grant(),
                fleet: setup.hosts as u32,
                follows: None,
                only: None,
                asking: setup.asking.iter().map(|node| node.address()).collect(),
            }),
        };

        let is_pulled = setup.start == SessionStart::Pulled;
        Self {
            machine: Sender::new(now, sender),
            offer,
            phase: if is_pulled {
                SimPhase::Dormant
            } else {
                SimPhase::Running
            },
            announced: now,
        }
    }

    /// Returns true while the sender waits for a request.
    pub(super) fn is_dormant(&self) -> bool {
        self.phase == SimPhase::Dormant
    }

    /// Returns true once the session is over.
    pub(super) fn is_finished(&self) -> bool {
        self.phase == SimPhase::Finished
    }

    /// Ends the wait for a request, and returns false if it was over.
    pub(super) fn wake(&mut self) -> bool {
        let was_dormant = self.is_dormant();
        if was_dormant {
            self.phase = SimPhase::Running;
        }
        was_dormant
    }

    /// Time of the announcement.
    pub(super) fn announced(&self) -> Moment {
        self.announced
    }

    /// Number of nodes in the release's manifest.
    pub(super) fn nodes(&self) -> u64 {
        self.offer.release.header().root.nodes
    }

    /// Announces the release.
    pub(super) fn announce(&mut self, now: Moment) {
        self.announced = now;
        let signature = signature(self.offer.release.bytes());
        let release = self.offer.release.clone();
        self.machine.announce(now, release, signature);
    }

    /// Takes a datagram.
    pub(super) fn take(&mut self, now: Moment, from: SocketAddr, bytes: &[u8]) {
        self.machine.handle_datagram(now, from, bytes);
    }

    /// Sets the hosts that are reached by unicast.
    pub(super) fn set_roster(&mut self, now: Moment, roster: RosterView<'_>) {
        self.machine.set_roster(now, roster);
    }

    /// Destinations of data for the group.
    pub(super) fn data_targets(&self) -> Option<&DataTargets> {
        self.machine.data_targets().map(|(_, targets)| targets)
    }

    /// Writes the next datagrams into `out`.
    pub(super) fn poll_transmit(&mut self, now: Moment, out: &mut Vec<u8>) -> Option<Transmit> {
        self.machine.poll_transmit(now, out)
    }

    /// Returns the next answer of disk or key, with its time.
    pub(super) fn poll_reply(
        &mut self,
        now: Moment,
        setup: &NetworkSetup,
        rng: &mut fastrand::Rng,
    ) -> Option<(Moment, NetworkEvent)> {
        let reply = match self.machine.poll_request()? {
            SenderRequest::Pack(_, ordinals, _) => {
                let sending = setup.sending;
                let packed = self
                    .offer
                    .pack(&ordinals, sending.generation, sending.compress);
                SenderReply::Packed(Ok(packed))
            }
            SenderRequest::Sign(order) => {
                let signature = signature(&order);
                SenderReply::Signed(Ok(OrderSignature { order, signature }))
            }
        };

        let when = now + setup.disk.mul_f64(rng.f64());
        Some((when, NetworkEvent::SenderReply(reply)))
    }

    /// Logs all notices, and returns true if the release is to be prepared now.
    pub(super) fn take_notices(&mut self, now: Moment, log: &mut NetworkLog) -> bool {
        let mut prepares = false;
        while let Some(notice) = self.machine.poll_notice() {
            match &notice {
                SenderNotice::Host(host) if host.stage == Some(HostStage::Ready) => {
                    let node = NodeId::at(host.address).and_then(NodeId::host_number);
                    log.ready.extend(node.map(|number| (number, now)));
                }
                SenderNotice::Discovered { .. } if self.machine.hosts().next().is_some() => {
                    prepares = true;
                }
                SenderNotice::Discovered { .. } | SenderNotice::Finished => {
                    self.phase = SimPhase::Finished;
                }
                _ => {}
            }
            log.notices.push(notice);
        }

        prepares
    }
}
