//! Discovery: solicits until all hosts have answered, as far as anybody knows of them.

use super::hosts::Host;
use super::serial::believed;
use super::{DISCOVERY, DISCOVERY_EMPTY, MEASURE, Notice, Phase, QUIET, Sender};
use crate::id::HostName;
use crate::proto::path::{ladder, least};
use crate::proto::{Dest, turn};
use crate::units::Moment;
use crate::wire::Message;

impl Sender {
    pub(super) fn discover(&mut self, now: Moment) {
        if self.repeat.0 <= now {
            // Probes first: a host answers with what it has heard until then. Mostly the largest passes, and the others
            // are needed only when somebody did not hear it.
            let most = if self.solicits == 0 { 1 } else { usize::MAX };
            ladder(self.setup.datagram, self.setup.room)
                .take(most)
                .for_each(|size| self.control.probe(Dest::Group, size));
            self.control.send(Dest::Group, &Message::Solicit);
            self.solicits += 1;
            self.solicited = now;
            self.again(now);
        }
        let waited = now.since(self.began);
        let (found, missing) = (self.hosts.len(), self.missing_names());
        let enough = found > 0 && found >= self.setup.expect.count && missing.is_empty();
        let all = self.is_measured(now) && self.table.len() >= self.table.claimed() && self.is_quiet(now);
        // Hosts of a large fleet take turns, and the answers of some are lost.
        let turns = turn(self.table.claimed() as u32) * 2;
        if (enough && (all || waited >= DISCOVERY + turns)) || waited >= DISCOVERY_EMPTY + turns {
            self.phase = Phase::Waiting;
            self.notices.push_back(Notice::Discovered {
                targets: self.hosts.iter().map(|(_, h)| (h.name.clone(), h.address)).collect(),
                members: self.table.iter().filter(|(id, _)| Some(**id) != self.setup.without).count(),
                serial: believed(self.hosts.iter().map(|(_, h)| h.serial).collect()),
                missing,
            });
        }
    }

    /// Whether nobody else will answer, as far as can be told: all who took part before have, or nobody new for a while.
    fn is_quiet(&self, now: Moment) -> bool {
        let known = self.setup.known > 0 && self.hosts.len() >= self.setup.known;
        known || now.since(self.newest) >= QUIET
    }

    /// Whether datagrams of our own size reach every host, or smaller ones were all that did several times; a host that
    /// has heard none at all is asked once more often. The last solicit has had time to be answered.
    fn is_measured(&self, now: Moment) -> bool {
        let most = self.setup.datagram;
        let full = |h: &Host| h.takes.is_some_and(|takes| usize::from(takes) >= most);
        if most < least(self.setup.room) || self.hosts.iter().all(|(_, h)| full(h)) {
            return true;
        }
        let told = self.hosts.iter().all(|(_, h)| h.takes.is_some());
        let enough = if told { MEASURE } else { MEASURE * 2 };
        self.solicits > enough && now.since(self.solicited) >= QUIET
    }

    fn missing_names(&self) -> Vec<HostName> {
        let known = |name: &&HostName| !self.hosts.iter().any(|(_, h)| h.name == **name);
        self.setup.expect.names.iter().filter(known).cloned().collect()
    }
}
