//! What a sender knows of each host once orders are out, and what it does not.

use std::net::SocketAddr;

use super::hosts::{Beacon, Host};
use super::{Notice, Phase, Sender};
use crate::id::{HostName, InstanceId, NamedHost};
use crate::wire::HostStage;
use crate::wire::message::{Hello, OrderKind};

/// How far a host's last word can be trusted at the end of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It holds: no order that came later can have changed it.
    Said,
    /// The host runs the release by its beacon; how its checks ended was not heard.
    Runs,
    /// The host does not run the release by its beacon, and follows no order of this session any more.
    Lacks,
    /// An order was sent that the host may have followed or not.
    Unknown,
}

impl Fate {
    /// Whether the host has the release; none when that is not known.
    pub fn has_release(self, host: &Host) -> Option<bool> {
        match self {
            Fate::Said if host.torn => None,
            Fate::Said => Some(host.stage.is_some_and(HostStage::has_release)),
            Fate::Runs => Some(true),
            Fate::Lacks => Some(false),
            Fate::Unknown => None,
        }
    }
}

impl Sender {
    /// How far the last word of `host` holds, with all orders that were sent since.
    pub fn fate(&self, host: &Host) -> Fate {
        let reverting = self.is_reverting(host);
        match host.stage {
            // Nothing follows these.
            Some(HostStage::Reverted | HostStage::Stuck) => return Fate::Said,
            Some(HostStage::Refused | HostStage::Aborted | HostStage::Failed) => return Fate::Said,
            Some(stage) if stage.has_release() && !reverting => return Fate::Said,
            _ if !self.was_sent(OrderKind::Commit, &host.name) => return Fate::Said,
            _ => {}
        }

        let had = host.stage.is_some_and(HostStage::has_release);
        match host.beacon {
            Some(Beacon { has: true, .. }) if !reverting => Fate::Runs,
            // A daemon that has not committed yet may still do so; one that had the release has gone back.
            Some(Beacon {
                has: false,
                restarted,
            }) if restarted || had => Fate::Lacks,
            _ => Fate::Unknown,
        }
    }

    /// The host as it is shown: with its address when another one has its name.
    pub fn shown(&self, host: &Host) -> NamedHost {
        self.hosts.shown(host)
    }

    /// Whether an order to go back was sent that is for `host`.
    pub fn is_reverting(&self, host: &Host) -> bool {
        self.was_sent(OrderKind::Revert, &host.name)
    }

    /// Whether an order of this kind was sent that is for the host `name`.
    fn was_sent(&self, kind: OrderKind, name: &HostName) -> bool {
        self.sent
            .iter()
            .any(|(order, named)| order.kind == kind && order.is_for(name, named.as_ref()))
    }

    /// Takes a beacon that came after the announcement. A daemon that was restarted has no part in the session.
    pub(super) fn beacon(&mut self, from: SocketAddr, source: InstanceId, hello: &Hello) {
        let Some(offer) = &self.offer else { return };
        let Some(tree) = hello.trees.iter().find(|t| t.tree == self.setup.tree) else {
            return;
        };

        let has = tree.release == Some(offer.release.id());
        let Some(id) = self.hosts.beacon(source, &hello.name, from, has) else {
            return;
        };

        if id != source
            && matches!(self.phase, Phase::Signing(_) | Phase::Ordering(_))
            && self.hosts.left(id, self.awaited())
            && let Some(host) = self.hosts.get(id)
        {
            self.notices.push_back(Notice::Lost(host.clone()));
        }
    }
}
