//! Offers of senders: this host joins an offer, refuses it, or lets the sender wait.

use std::net::{IpAddr, SocketAddr};

use super::Receiver;
use crate::id::{Serial, SessionId, is_costly};
use crate::manifest::Release;
use crate::proto::Dest;
use crate::proto::receiver::contention::Verdict;
use crate::proto::receiver::disk::ReasonText;
use crate::proto::receiver::notice::HostNotice;
use crate::proto::receiver::session::{Session, SessionOffer};
use crate::proto::receiver::targets;
use crate::units::Moment;
use crate::wire::message::{Announce, StageReport};
use crate::wire::{DATA_OVERHEAD, Front, HostStage, Message};

impl Receiver {
    /// Joins, refuses or ignores the offer of an announcement.
    pub(super) fn on_announce(
        &mut self,
        now: Moment,
        from: SocketAddr,
        front: Front,
        announce: Announce,
    ) {
        if self.sessions.get_mut(announce.session).is_some() {
            return self.with(now, from, front, announce.session, |_, _| {});
        }

        self.presence.cancel_answer(front.source);
        if self.sessions.is_ignored(announce.session) {
            return;
        }

        let release = match Release::from_bytes(&announce.header) {
            Ok(release) => release,
            // The release may be meant for this host, but an offer without a readable tree name
            // gets no reply.
            Err(why) => {
                let notice = HostNotice::Illegal(from, why.to_string());
                return self.effects.notify(notice);
            }
        };

        let tree = &release.header().tree;
        let busy = |tree: &_| self.sessions.at_work(tree).is_some();
        if !self
            .releases
            .is_wanted(now, &announce, &release, &self.host.name, busy)
        {
            return;
        }

        if !self.is_target(now, from.ip(), &release) {
            if announce.grant.is_some() {
                self.releases.mark_unfit(tree, release.id());
            }
            return;
        }

        let busy = match self.sessions.contend(now, tree, announce.session) {
            None => None,
            Some((holder, Verdict::Refuse)) => Some(holder),
            Some((_, Verdict::Undecided)) => return,
            Some((holder, Verdict::Wait)) => {
                return self.send_wait(from, announce.session, &holder);
            }
        };

        if !self.sessions.make_room_for_offer(now, from.ip()) {
            return;
        }

        // Reply in datagrams no larger than those that arrive here.
        self.control
            .fit(usize::from(announce.symbol) + DATA_OVERHEAD);

        let offer = SessionOffer {
            instance: front.source,
            address: from,
            announce,
            release,
        };

        let seed = self.rng.u64(..);
        let session = Session::new(now, &self.host, offer, seed, busy);
        self.sessions.insert(session);
    }

    /// Returns true if `release` is addressed to this host. Costly patterns are rate limited
    /// because offers are unauthenticated.
    fn is_target(&mut self, now: Moment, from: IpAddr, release: &Release) -> bool {
        let targets = &release.header().targets;
        let costly = targets.iter().filter(|t| is_costly(t)).count();
        if costly > 0 && !self.matcher_budget.may_spend(now, from, costly as u32) {
            return false;
        }

        targets::is_target(release, &self.host.name, Some(&self.host.labels))
    }

    /// Acknowledges a sender and names the session that blocks it.
    fn send_wait(&mut self, sender: SocketAddr, session: SessionId, holder: &ReasonText) {
        let state = StageReport {
            session,
            number: 0,
            name: self.host.name.clone(),
            stage: HostStage::Joined,
            text: Some(format!("waiting for {holder}, which is silent")),
            summary: None,
            received: 0,
            serial: Serial(0),
            dropped: None,
            torn: None,
            identity: Some(self.host.key.identity()),
            signature: None,
            nonce: None,
            targets: None,
            tags: None,
            keeps: Some(true),
            held: None,
        };

        self.control
            .send(Dest::Host(sender), &Message::State(state));
    }
}
