//! Follows the members' beacons with tombstones, reverts and requests for releases.

use super::Receiver;
use crate::proto::Dest;
use crate::proto::receiver::disk::DiskRequest;
use crate::proto::receiver::notice::HostNotice;
use crate::units::Moment;
use crate::wire::Message;

impl Receiver {
    /// Looks at the members' releases if the time has come: sends tombstones, reverts releases and
    /// requests missing ones.
    pub(super) fn check_members(&mut self, now: Moment) {
        if self.releases.begin_check(now) {
            self.send_tombstones(now);
            self.revert_local_releases();
            self.request_missing(now);
        }
    }

    /// Sends tombstones that other hosts lack.
    fn send_tombstones(&mut self, now: Moment) {
        let me = self.instance();
        let members = self.presence.table();
        for order in self.releases.due_tombstones(now, me, members) {
            self.control.send(Dest::Group, &Message::Order(order));
        }
    }

    /// Reverts local releases with a tombstone.
    fn revert_local_releases(&mut self) {
        let reverts = self
            .releases
            .due_reverts(|tree| self.sessions.is_ordering(tree));

        for (tree, release, order) in reverts {
            // The replaced release is kept as long as the session.
            if !self.sessions.revert(&tree, release, &order) {
                self.effects.request(DiskRequest::GoBack(tree));
            }
        }
    }

    /// Requests missing releases from the members that have them.
    fn request_missing(&mut self, now: Moment) {
        let me = self.instance();
        let busy = |tree: &_| self.sessions.at_work(tree).is_some();
        let members = self.presence.table();

        for (to, mut pull) in self.releases.due_requests(now, me, members, busy) {
            if pull.header.is_none() {
                self.effects.notify(HostNotice::Pulls {
                    tree: pull.tree.clone(),
                    from: to,
                });
            }

            pull.host = Some(self.host.name.clone());
            pull.labels = Some(self.host.labels.clone());
            self.control.send(Dest::Host(to), &Message::Pull(pull));
        }
    }
}
