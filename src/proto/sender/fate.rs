//! The outcome at each host once orders are out, as far as the sender can know it.

use super::Sender;
use super::hosts::{Beacon, Host};
use crate::id::NamedHost;
use crate::wire::HostStage;
use crate::wire::message::OrderKind;

/// Reliability of a host's last state at the end of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// Final: no later order can have changed the state.
    Said,
    /// The host runs the release by its beacon; the result of its checks was not received.
    Runs,
    /// By its beacon the host does not have the release, and it follows no more orders of this
    /// session.
    Lacks,
    /// The host may or may not have followed an order.
    Unknown,
}

impl Fate {
    /// Returns whether the host has the release, if known.
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
    /// Returns the reliability of the last state of `host`, given all orders sent since.
    pub fn fate(&self, host: &Host) -> Fate {
        let reverting = self.is_reverting(host);
        match host.stage {
            // Nothing follows these stages.
            Some(HostStage::Reverted | HostStage::Stuck) => return Fate::Said,
            Some(HostStage::Refused | HostStage::Aborted | HostStage::Failed) => return Fate::Said,
            Some(stage) if stage.has_release() && !reverting => return Fate::Said,
            _ if !self
                .decision
                .issued()
                .was_sent(OrderKind::Commit, &host.name) =>
            {
                return Fate::Said;
            }
            _ => {}
        }

        let had = host.stage.is_some_and(HostStage::has_release);
        match host.beacon {
            Some(Beacon { has: true, .. }) if !reverting => Fate::Runs,
            // A daemon that has not committed yet may still do so; one that had the release has
            // reverted.
            Some(Beacon {
                has: false,
                restarted,
            }) if restarted || had => Fate::Lacks,
            _ => Fate::Unknown,
        }
    }

    /// Returns the host's display name, with the address if another host has the same name.
    pub fn shown(&self, host: &Host) -> NamedHost {
        self.hosts.shown(host)
    }

    /// Returns whether a revert order for `host` was sent.
    pub fn is_reverting(&self, host: &Host) -> bool {
        self.decision
            .issued()
            .was_sent(OrderKind::Revert, &host.name)
    }
}
