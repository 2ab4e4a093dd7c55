//! Pings at their times, and the processes that do not answer them.

use std::collections::BTreeSet;
use std::time::Duration;

use super::answers::GroupAnswer;
use super::listing::ListState;
use super::peer::PeerState;
use super::{MIN_PING_INTERVAL, Roster};
use crate::units::Moment;
use crate::wire::peer::{PeerMessage, Ping};

/// Wait before a ping beyond the limit of its address.
const BUDGET_WAIT: Duration = Duration::from_millis(250);

impl Roster {
    /// Pings the group, and answers such pings of others.
    fn handle_group_timeout(&mut self, now: Moment) {
        if self.segment.is_due(now) {
            let nonce = self.challenge.group_nonce(now);
            if let Some(ping) = self.segment.ping(now, nonce, self.rng.f64()) {
                self.out.set_group_ping(ping);
            }
        }

        while self.out.takes_answers()
            && let Some(GroupAnswer { to, instance, echo }) = self.group_answers.next(now)
        {
            if !self.is_proven(to, instance) {
                let pong = self.pong(now, to, echo);
                self.out.push_answer(to, PeerMessage::Pong(pong));
            }
        }
    }

    /// Sends due pings, and forgets the processes that do not answer.
    pub fn handle_timeout(&mut self, now: Moment) {
        self.handle_group_timeout(now);
        let is_stale =
            std::mem::replace(&mut self.lists.state, ListState::Idle) == ListState::Stale;
        if is_stale {
            self.relist(now);
        }
        if self.due > now {
            return;
        }

        let mut lost = BTreeSet::new();
        let mut next = None;
        self.peers.retain(|&address, peer| {
            let mut keep = true;
            let was_proven = peer.state == PeerState::Proven;
            let instance = peer.facts.instance;
            let heard = instance.and_then(|instance| self.segment.heard(now, instance, address));
            if was_proven && peer.told != heard.is_some() {
                peer.due = peer.due.min(now);
            }

            if peer.due <= now {
                // Proven addresses have a share of their own, by the interval.
                let may_ping =
                    was_proven || !peer.is_pinged() || self.limits.pings.spend(now, address.ip());
                if may_ping {
                    keep = peer.try_again(now);
                    if was_proven && peer.state != PeerState::Proven {
                        lost.extend(instance);
                    }
                } else {
                    peer.due = now + BUDGET_WAIT;
                }

                if keep && may_ping && peer.is_pinged() {
                    peer.told = heard.is_some();
                    let ping = Ping {
                        nonce: self.challenge.nonce(now, address),
                        echo: peer.challenge,
                        host: self.setup.host,
                        list: peer.takes_list(),
                        heard,
                        segment: self.segment.label(),
                        interval: None,
                    };
                    self.out.push(address, PeerMessage::Ping(ping));
                }
            }

            if keep {
                next = Some(next.map_or(peer.due, |next: Moment| next.min(peer.due)));
            }
            keep
        });

        self.due = next.unwrap_or(now + MIN_PING_INTERVAL);
        if lost.is_empty() {
            return self.update_segment(now);
        }

        // A host with several addresses is gone with the last of them.
        self.lists.add_gone(&self.peers, lost);
        self.relist(now);
    }
}
