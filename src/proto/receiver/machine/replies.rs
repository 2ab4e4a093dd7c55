//! Replies of the disk: changed trees, checked signatures, and answers for sessions.

use super::Receiver;
use crate::id::SessionId;
use crate::proto::receiver::disk::{Answer, DiskReply, OfferRefusal};
use crate::units::Moment;

impl Receiver {
    /// Handles a reply of the disk.
    pub fn handle_reply(&mut self, now: Moment, reply: DiskReply) {
        match reply {
            DiskReply::Trees(trees) => {
                self.presence.set_trees(now, trees.clone());
                self.releases.set_own(now, trees);
            }
            DiskReply::Shown(shown) => self.presence.set_shown(shown),
            DiskReply::Headers(headers) => self.releases.set_headers(headers),
            DiskReply::Verified(release, holds) => {
                self.releases.on_header_checked(now, release, holds);
            }
            DiskReply::Buried(order, holds) => {
                self.releases.on_tombstone_checked(now, order, holds);
            }
            DiskReply::OrderKept(order, holds) => self.releases.on_order_kept(&order, holds),
            DiskReply::Rests(tree, release, pause) => {
                self.releases.rest(now, tree, release, pause);
            }
            DiskReply::Resumes(tree) => self.releases.resume(now, &tree),
            DiskReply::CatchesUp(tree, gives) => self.releases.catch_up(now, tree, gives),
            DiskReply::Drifted(tree) => self.releases.repair(now, tree),
            DiskReply::Opened(id, outcome) => self.on_opened(now, id, outcome),
            DiskReply::Session(id, answer) => self.on_answer(now, id, answer),
        }

        self.settle();
    }

    fn on_opened(&mut self, now: Moment, id: SessionId, outcome: Result<(), OfferRefusal>) {
        let outcome = outcome.and_then(|()| self.sessions.take_tree(now, id));
        if let Some(session) = self.sessions.get_mut(id) {
            session.on_opened(now, outcome);
        }
    }

    fn on_answer(&mut self, now: Moment, id: SessionId, answer: Answer) {
        let Some(session) = self.sessions.get_mut(id) else {
            return;
        };

        if let Answer::Ordered(Some(_)) = answer {
            self.releases.end_repair(session.tree());
        }

        session.on_answer(now, answer);
    }
}
