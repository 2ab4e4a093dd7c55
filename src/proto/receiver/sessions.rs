//! The sessions of a host: which offers get in, and which session holds a tree.

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;
use std::time::Duration;

use super::contention::{Contenders, Verdict};
use super::disk::{OfferRefusal, ReasonText};
use super::session::{self, Session};
use crate::id::{SessionId, TreeName};
use crate::manifest::ReleaseId;
use crate::units::Moment;
use crate::wire::message::SignedOrder;

/// Largest number of concurrent sessions with a verified release.
pub const MAX_SESSIONS: usize = 16;
/// Largest number of unverified sessions: signature check pending or refused.
const MAX_UNPROVEN_SESSIONS: usize = 8;
/// Largest number of unverified sessions per sender address.
const MAX_UNPROVEN_PER_ADDRESS: usize = 2;
/// Number of sessions remembered as started by senders in this process.
const MAX_IGNORED_SESSIONS: usize = 64;
/// Number of remembered sessions without a live sender.
const MAX_GHOST_SESSIONS: usize = 256;
/// Silence after which a session gives way to another sender of the same tree.
const GIVE_WAY_SILENCE: Duration = Duration::from_secs(5);

/// All sessions of a host.
#[derive(Debug, Default)]
pub(super) struct Sessions {
    by_id: BTreeMap<SessionId, Session>,
    contenders: Contenders,
    /// Sessions of senders in this process, which read this host's own tree; newest last.
    ignored: VecDeque<SessionId>,
    /// Closed sessions whose sender never proved its presence: possibly replays.
    ghosts: VecDeque<SessionId>,
}

impl Sessions {
    /// Returns the number of sessions.
    pub(super) fn len(&self) -> usize {
        self.by_id.len()
    }

    /// Returns a session.
    pub(super) fn get_mut(&mut self, id: SessionId) -> Option<&mut Session> {
        self.by_id.get_mut(&id)
    }

    /// Iterates over all sessions.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Session> {
        self.by_id.values()
    }

    /// Iterates over all sessions.
    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Session> {
        self.by_id.values_mut()
    }

    /// Adds a session.
    pub(super) fn insert(&mut self, session: Session) {
        self.by_id.insert(session.id(), session);
    }

    /// Keeps the sessions for which `keep` returns true.
    pub(super) fn retain(&mut self, mut keep: impl FnMut(&mut Session) -> bool) {
        self.by_id.retain(|_, session| keep(session));
    }

    /// Ignores all messages of `session`.
    pub(super) fn ignore(&mut self, session: SessionId) {
        if self.ignored.len() >= MAX_IGNORED_SESSIONS {
            self.ignored.pop_front();
        }
        self.ignored.push_back(session);
    }

    /// Returns true if announcements of `session` are ignored.
    pub(super) fn is_ignored(&self, session: SessionId) -> bool {
        self.ignored.contains(&session) || self.ghosts.contains(&session)
    }

    /// Returns the verified session about to change `tree`.
    pub(super) fn at_work(&self, tree: &TreeName) -> Option<&Session> {
        self.iter()
            .find(|s| s.tree() == tree && s.is_at_work() && !s.is_audit())
    }

    /// Returns true if no verified session holds `tree`.
    pub(super) fn is_idle(&self, tree: &TreeName) -> bool {
        let holds = |s: &Session| s.is_authenticated() && !s.is_audit() && s.holds_the_tree();

        !self.iter().any(|s| s.tree() == tree && holds(s))
    }

    /// Returns true if the disk works on an order for `tree`.
    pub(super) fn is_ordering(&self, tree: &TreeName) -> bool {
        self.iter()
            .any(|s| s.tree() == tree && s.is_authenticated() && s.is_ordering())
    }

    /// Passes the signed revert of `release` to the session that committed the release. Returns
    /// false if that session has ended.
    pub(super) fn revert(
        &mut self,
        tree: &TreeName,
        release: ReleaseId,
        order: &SignedOrder,
    ) -> bool {
        let session = self
            .iter_mut()
            .filter(|s| s.tree() == tree && s.is_authenticated())
            .find(|s| s.release().id() == release && s.may_go_back());

        session.map(|s| s.follow(order.clone())).is_some()
    }

    /// Returns the session that holds `tree` against the offer `id`, with the verdict on the offer.
    pub(super) fn contend(
        &mut self,
        now: Moment,
        tree: &TreeName,
        id: SessionId,
    ) -> Option<(ReasonText, Verdict)> {
        let holder = self.holder(now, tree, id)?;
        let name = holder.describe();
        let silent = if holder.sender().is_fresh(now) {
            holder.sender().silent(now)
        } else {
            holder.sender().age(now)
        };

        Some((name, self.contenders.verdict(now, id, silent)))
    }

    /// Returns the session other than `id` that holds `tree`: its order is in progress or its
    /// sender is present.
    ///
    /// Sessions without a verified release hold nothing; otherwise one forged datagram could block
    /// every sender.
    fn holder(&self, now: Moment, tree: &TreeName, id: SessionId) -> Option<&Session> {
        // Audits always give way, and a catch-up session gives way until its commit starts.
        let gives_way =
            |s: &Session| s.is_granted() || s.is_audit() || !s.sender().may_be_there(now);
        let holds = |s: &Session| {
            !gives_way(s) && s.holds_the_tree() && s.sender().silent(now) < GIVE_WAY_SILENCE
        };

        self.iter()
            .filter(|s| s.id() != id && s.tree() == tree && s.is_authenticated())
            .find(|s| s.is_ordering() || holds(s))
    }

    /// Returns true if there is room for another offer from `from`. Refused sessions make room,
    /// pending and verified ones do not.
    pub(super) fn make_room_for_offer(&mut self, now: Moment, from: IpAddr) -> bool {
        let is_unproven = |s: &Session| !s.is_authenticated() && !s.has_closed();
        let is_from = |s: &Session| s.sender().address().ip() == from;

        let unproven = self.iter().filter(|s| is_unproven(s)).count();
        let of_address = self.iter().filter(|s| is_unproven(s) && is_from(s)).count();
        let same_address = of_address >= MAX_UNPROVEN_PER_ADDRESS;
        if !same_address && unproven < MAX_UNPROVEN_SESSIONS {
            return true;
        }

        let oldest = self
            .iter_mut()
            .filter(|s| is_unproven(s) && s.is_over())
            .filter(|s| !same_address || is_from(s))
            .max_by_key(|s| s.sender().silent(now));

        oldest.map(Session::give_way).is_some()
    }

    /// Closes the verified session that ended longest ago if there are too many. Returns false if
    /// none has ended.
    fn make_room(&mut self, now: Moment) -> bool {
        let is_proven = |s: &Session| s.is_authenticated() && !s.has_closed();
        if self.iter().filter(|s| is_proven(s)).count() < MAX_SESSIONS {
            return true;
        }

        let is_idle =
            |s: &Session| !s.is_ordering() && (s.is_over() || !s.sender().may_be_there(now));
        let oldest = self
            .iter_mut()
            .filter(|s| is_proven(s) && is_idle(s))
            .max_by_key(|s| s.sender().silent(now));

        oldest.map(Session::give_way).is_some()
    }

    /// Gives the tree to a session whose release is verified and closes the other sessions of the
    /// tree.
    ///
    /// Runs after verification only, because a forged datagram could close sessions otherwise.
    /// Fails if another session took the tree in the meantime.
    pub(super) fn take_tree(&mut self, now: Moment, id: SessionId) -> Result<(), OfferRefusal> {
        let Some(tree) = self.by_id.get(&id).map(|s| s.tree().clone()) else {
            return Ok(());
        };

        // Of two senders without proof of presence the later one gets the tree, until the other
        // one is heard again.
        if let Some(other) = self
            .holder(now, &tree, id)
            .filter(|other| other.is_ordering() || other.sender().is_fresh(now))
        {
            let why = session::busy_with(&other.describe());
            return Err(OfferRefusal::proven(why));
        }

        if !self.make_room(now) {
            let why = format!(
                "this host has {MAX_SESSIONS} sessions already; try again when one is over"
            );
            return Err(OfferRefusal::proven(why));
        }

        let Some(taker) = self.by_id.get(&id) else {
            return Ok(());
        };

        let name = taker.describe();
        let audit = taker.is_audit();
        let others = self
            .by_id
            .values_mut()
            .filter(|s| s.id() != id && *s.tree() == tree);

        // Audits run one after the other.
        for other in others.filter(|s| !(audit && s.is_audit())) {
            if other.is_authenticated() && other.sender().is_ghost(now) {
                self.ghosts.push_back(other.id());
            }
            other.give_way_to(now, &name);
        }

        let excess = self.ghosts.len().saturating_sub(MAX_GHOST_SESSIONS);
        self.ghosts.drain(..excess);

        Ok(())
    }
}
