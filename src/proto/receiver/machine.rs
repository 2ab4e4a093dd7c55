//! The state machine of a host: dispatches datagrams, replies of the disk and timers.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::catch_up::{Candidate, MissingReleases};
use super::contention::Verdict;
use super::disk::{Answer, DiskReply, DiskRequest, OfferRefusal, ReasonText};
use super::headers::{HeaderAnswer, Headers};
use super::notice::HostNotice;
use super::session::{Session, SessionOffer};
use super::sessions::Sessions;
use super::setup::HostSetup;
use super::targets::{self, MatcherBudget};
use super::tombstones::Tombstones;
use crate::block::BlockHash;
use crate::id::{InstanceId, Serial, SessionId, TreeName};
use crate::manifest::{Release, ReleaseId};
use crate::proto::control::Control;
use crate::proto::members::{Presence, Table};
use crate::proto::queries::QueryQueue;
use crate::proto::{Dest, Transmit};
use crate::units::Moment;
use crate::wire::datagram::DatagramError;
use crate::wire::fragment::Reassembly;
use crate::wire::message::{Announce, Order, Pull, SignedOrder, StageReport, TreeState};
use crate::wire::query::{Query, QueryAnswer, ReleaseBytes, TreeActivity};
use crate::wire::{DATA_OVERHEAD, Datagram, Front, HostStage, Message};

/// Delay between a beacon and the next look at the members' releases.
const MEMBER_CHECK_DELAY: Duration = Duration::from_millis(500);
/// Largest number of queued releases requested by other hosts.
const MAX_QUEUED_PULLS: usize = 16;

/// State machine of one host, without input or output of its own.
#[derive(Debug)]
pub struct Receiver {
    setup: HostSetup,
    control: Control,
    presence: Presence,
    queries: QueryQueue,
    reassembly: Reassembly,
    sessions: Sessions,
    missing: MissingReleases,
    headers: Headers,
    tombstones: Tombstones,
    /// Due time of the next look at the members' releases, after a change.
    member_check: Option<Moment>,
    /// Releases that other hosts lack and request from this host.
    pulls: VecDeque<Pull>,
    requests: VecDeque<DiskRequest>,
    notices: VecDeque<HostNotice>,
    rng: fastrand::Rng,
    matcher_budget: MatcherBudget,
    warned_version: bool,
    /// Packets lost in the receive buffer since the start.
    dropped: u64,
}

impl Receiver {
    /// Creates a host that starts at `now`.
    pub fn new(now: Moment, setup: HostSetup) -> Self {
        let seed = setup.seed;
        let mut control = Control::new(setup.key.instance(), setup.datagram, setup.room);
        let mut presence = Presence::new(
            now,
            setup.name.clone(),
            setup.trees.clone(),
            setup.trust,
            seed ^ 1,
            &mut control,
        );

        presence.set_shown(setup.shown.clone());
        presence.set_identity(setup.key.identity());

        let mut headers = Headers::default();
        headers.set(setup.headers.clone());

        Self {
            control,
            presence,
            queries: QueryQueue::new(now, seed ^ 2),
            reassembly: Reassembly::default(),
            sessions: Sessions::default(),
            missing: MissingReleases::new(setup.takes.clone(), seed ^ 3),
            headers,
            tombstones: Tombstones::new(setup.tombstones.clone(), seed ^ 4),
            // Tombstones issued during an absence may apply to the local trees.
            member_check: Some(now),
            pulls: VecDeque::new(),
            requests: VecDeque::new(),
            notices: VecDeque::new(),
            rng: fastrand::Rng::with_seed(seed),
            matcher_budget: MatcherBudget::default(),
            warned_version: false,
            dropped: 0,
            setup,
        }
    }

    /// Returns the known members.
    pub fn members(&self) -> &Table {
        self.presence.table()
    }

    /// Returns the id of this process.
    pub fn instance(&self) -> InstanceId {
        self.setup.key.instance()
    }

    /// Returns the number of sessions.
    pub fn sessions(&self) -> usize {
        self.sessions.len()
    }

    /// Ignores `session`: a sender in this process reads this host's own tree.
    pub fn ignore(&mut self, session: SessionId) {
        self.sessions.ignore(session);
    }

    /// Assumes a fleet of `hosts` hosts before hearing from them, for simulations without beacons.
    pub fn assume_fleet(&mut self, hosts: u32) {
        self.presence.assume_fleet(hosts);
    }

    /// Sets the peers recently heard without the group key of this host; beacons name them.
    pub fn set_unheard(&mut self, strangers: impl Iterator<Item = IpAddr>) {
        self.presence.set_strangers(strangers);
    }

    /// Records that the receive buffer lost `total` packets since the start, for reports to
    /// senders.
    pub fn set_dropped(&mut self, total: u64) {
        let more = total.saturating_sub(std::mem::replace(&mut self.dropped, total));
        for session in self.sessions.iter_mut() {
            session.count_dropped(more);
        }
    }

    /// Handles a datagram. `arrival` is the kernel's receive time in microseconds of any steady
    /// clock.
    pub fn handle_datagram(&mut self, now: Moment, from: SocketAddr, bytes: &[u8], arrival: u64) {
        match Datagram::parse(bytes) {
            Ok(Datagram::Data(front, symbol)) => {
                // Hot path: most symbols have no consequence yet.
                let Some(session) = self.sessions.get_mut(symbol.header.session) else {
                    return;
                };

                if !session.is_from(front.source) {
                    return;
                }

                let counter = front.counter;
                session.on_data(now, from.ip(), counter, &symbol, arrival, &mut self.control);

                if session.is_calm() {
                    return;
                }
            }
            Ok(Datagram::Control(front, piece)) => {
                if let Some(whole) = self.reassembly.add(now, front.source, piece)
                    && let Ok(message) = Message::decode(&whole)
                {
                    self.on_message(now, from, front, message);
                }
            }
            Err(DatagramError::Version(version)) if !self.warned_version => {
                self.warned_version = true;
                self.notices.push_back(HostNotice::Version(version, from));
            }
            Err(_) => {}
        }

        self.settle();
    }

    fn on_message(&mut self, now: Moment, from: SocketAddr, front: Front, message: Message) {
        match message {
            Message::Announce(announce) => self.on_announce(now, from, front, announce),
            Message::Ack(id, number, echo) => self.with(now, from, front, id, |session, _| {
                session.on_ack(now, number, echo);
            }),
            Message::Status(status) => {
                self.with(now, from, front, status.session, |session, _| {
                    session.on_status(now, &status);
                });
            }
            Message::Order(order) => {
                if let Some(decoded) = Order::decode(&order.order) {
                    self.with(now, from, front, decoded.session, |session, _| {
                        session.on_order(order.clone());
                    });
                }
                self.on_tombstone(now, order);
            }
            Message::DriftAsk(id, offset) => {
                self.with(now, from, front, id, |session, control| {
                    session.send_drift(now, offset, control);
                });
            }

            Message::Query(ask) => {
                let hosts = self.presence.table().len() as u32;
                self.queries.handle(now, from, ask, hosts);
            }
            Message::Pull(pull) => self.on_pull(now, pull),
            Message::Header(header) => self.on_header(&header),

            presence => {
                self.presence.handle(now, from, front.source, &presence);
                self.member_check.get_or_insert(now + MEMBER_CHECK_DELAY);
            }
        }
    }

    /// Applies `act` to a session if the message comes from its sender.
    fn with(
        &mut self,
        now: Moment,
        from: SocketAddr,
        front: Front,
        id: SessionId,
        act: impl FnOnce(&mut Session, &mut Control),
    ) {
        if let Some(session) = self.sessions.get_mut(id)
            && session.accepts(now, front.source, from)
        {
            session.on_message(now, front.counter);
            act(session, &mut self.control);
        }
    }

    fn on_announce(&mut self, now: Moment, from: SocketAddr, front: Front, announce: Announce) {
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
                return self.notices.push_back(notice);
            }
        };

        let tree = &release.header().tree;
        if !self.is_wanted(&announce, &release) {
            return;
        }

        if !self.is_target(now, from.ip(), &release) {
            if announce.grant.is_some() {
                self.missing.mark_unfit(tree, release.id());
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
        let session = Session::new(now, &self.setup, offer, seed, busy);
        self.sessions.insert(session);
    }

    /// Returns true if an offer concerns this host: its tree is managed here, and the current
    /// release meets the offer's conditions.
    fn is_wanted(&self, announce: &Announce, release: &Release) -> bool {
        let tree = &release.header().tree;
        let Some(own) = self.setup.trees.iter().find(|t| t.tree == *tree) else {
            return false;
        };

        let running = own.running.unwrap_or_default();
        if announce.after.is_some_and(|oldest| running < oldest) {
            return false;
        }

        if announce.grant.is_none() {
            return true;
        }

        let fits_base = announce.follows.is_none_or(|base| running == base);
        let fits_host = announce
            .only
            .as_ref()
            .is_none_or(|only| *only == self.setup.name);

        fits_base
            && fits_host
            && self.sessions.at_work(tree).is_none()
            && self
                .missing
                .wants(own, &Candidate::of(release), &self.tombstones)
    }

    /// Returns true if `release` is addressed to this host. Costly patterns are rate limited
    /// because offers are unauthenticated.
    fn is_target(&mut self, now: Moment, from: IpAddr, release: &Release) -> bool {
        let targets = &release.header().targets;
        let costly = targets.iter().filter(|t| targets::is_costly(t)).count();
        if costly > 0 && !self.matcher_budget.may_spend(now, from, costly as u32) {
            return false;
        }

        targets::is_target(release, &self.setup.name)
    }

    /// Acknowledges a sender and names the session that blocks it.
    fn send_wait(&mut self, sender: SocketAddr, session: SessionId, holder: &ReasonText) {
        let state = StageReport {
            session,
            number: 0,
            name: self.setup.name.clone(),
            stage: HostStage::Joined,
            text: Some(format!("waiting for {holder}, which is silent")),
            summary: None,
            received: 0,
            serial: Serial(0),
            dropped: None,
            torn: None,
            identity: Some(self.setup.key.identity()),
            signature: None,
            nonce: None,
        };

        self.control
            .send(Dest::Host(sender), &Message::State(state));
    }

    /// Handles a release header, possibly one that this host requested.
    fn on_header(&mut self, header: &ReleaseBytes) {
        // Headers requested by other hosts are not parsed.
        let id = ReleaseId(BlockHash::of(&header.header));
        if !self.missing.is_requested(id) {
            return;
        }

        let Ok(release) = Release::from_bytes(&header.header) else {
            return;
        };

        if self.missing.on_header(&release) {
            let signature = header.signature.as_slice().into();
            self.requests
                .push_back(DiskRequest::Verify(release, signature));
        }
    }

    /// Handles a request for a release that this host may have. Shows the header if the request
    /// asks for one, otherwise queues an offer while the tree is idle.
    fn on_pull(&mut self, now: Moment, pull: Pull) {
        let has = |t: &TreeState| t.tree == pull.tree && t.release == Some(pull.release);
        let is_well = |t: &TreeState| t.unhealthy != Some(true);
        let serves = self.setup.gives.contains(&pull.tree)
            && self.setup.trees.iter().any(|t| has(t) && is_well(t))
            && self.tombstones.of(&pull.tree, pull.release).is_none();

        if !serves {
            return;
        }

        if pull.header == Some(true) {
            match self.headers.show(now, &pull) {
                HeaderAnswer::Show(header) => return self.control.send(Dest::Group, &header),
                HeaderAnswer::RecentlyShown => return,
                // An offer includes the header.
                HeaderAnswer::Unknown => {}
            }
        }

        let is_same = |p: &Pull| {
            (&p.tree, p.release, p.have, p.base) == (&pull.tree, pull.release, pull.have, pull.base)
        };

        if self.pulls.len() < MAX_QUEUED_PULLS
            && !self.pulls.iter().any(is_same)
            && self.sessions.is_idle(&pull.tree)
        {
            self.pulls.push_back(pull);
        }
    }

    /// Handles an order to abort or revert a release, from any session.
    fn on_tombstone(&mut self, now: Moment, order: SignedOrder) {
        if self.tombstones.on_order(now, &order, &self.setup.trees) {
            self.requests.push_back(DiskRequest::Bury(order));
        }
    }

    /// Looks at the members' releases if the time has come: sends tombstones, reverts releases and
    /// requests missing ones.
    fn check_members(&mut self, now: Moment) {
        let due = [
            self.member_check,
            self.missing.timeout(),
            self.tombstones.timeout(),
        ];

        if due.into_iter().flatten().all(|at| at > now) {
            return;
        }

        self.member_check = None;
        self.send_tombstones(now);
        self.revert_local_releases();
        self.request_missing(now);
    }

    /// Sends tombstones that other hosts lack.
    fn send_tombstones(&mut self, now: Moment) {
        let me = self.instance();
        for order in self.tombstones.poll(now, me, self.presence.table()) {
            self.control.send(Dest::Group, &Message::Order(order));
        }
    }

    /// Reverts local releases with a tombstone.
    fn revert_local_releases(&mut self) {
        for own in &self.setup.trees {
            let Some(release) = own.release else { continue };
            if self.sessions.is_ordering(&own.tree) {
                continue;
            }

            let Some(order) = self.tombstones.try_revert(&own.tree, release) else {
                continue;
            };

            // The replaced release is kept as long as the session.
            if !self.sessions.revert(&own.tree, release, order) {
                self.requests
                    .push_back(DiskRequest::GoBack(own.tree.clone()));
            }
        }
    }

    /// Requests missing releases from the members that have them.
    fn request_missing(&mut self, now: Moment) {
        let sessions = &self.sessions;
        let pulls = self.missing.poll(
            now,
            &self.setup.trees,
            self.setup.key.instance(),
            self.presence.table(),
            &self.tombstones,
            |tree| sessions.at_work(tree).is_some(),
        );

        for (to, mut pull) in pulls {
            if pull.header.is_none() {
                self.notices.push_back(HostNotice::Pulls {
                    tree: pull.tree.clone(),
                    from: to,
                });
            }

            pull.host = Some(self.setup.name.clone());
            self.control.send(Dest::Host(to), &Message::Pull(pull));
        }
    }

    /// Handles a reply of the disk.
    pub fn handle_reply(&mut self, now: Moment, reply: DiskReply) {
        match reply {
            DiskReply::Trees(trees) => {
                self.setup.trees.clone_from(&trees);
                self.presence.set_trees(now, trees);
                self.member_check.get_or_insert(now + MEMBER_CHECK_DELAY);
            }
            DiskReply::Shown(shown) => self.presence.set_shown(shown),
            DiskReply::Headers(headers) => self.headers.set(headers),
            DiskReply::Verified(release, holds) => {
                self.missing.on_header_checked(now, release, holds)
            }
            DiskReply::Buried(order, holds) => {
                self.tombstones.on_checked(order, holds);
                self.member_check = Some(now);
            }
            DiskReply::CatchesUp(tree, gives) => {
                self.setup.takes.insert(tree.clone());
                if gives {
                    self.setup.gives.insert(tree.clone());
                }
                self.missing.catch_up(tree);
                self.member_check = Some(now);
            }
            DiskReply::Drifted(tree) => {
                self.missing.repair(tree);
                self.member_check = Some(now);
            }
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
            self.missing.end_repair(session.tree());
        }

        session.on_answer(now, answer);
    }

    /// Runs all timers that are due.
    pub fn handle_timeout(&mut self, now: Moment) {
        self.presence.handle_timeout(now, &mut self.control);
        self.check_members(now);

        for session in self.sessions.iter_mut() {
            session.handle_timeout(now, &mut self.control, self.setup.patience);
        }

        self.settle();
    }

    /// Returns the due time of the next [`Receiver::handle_timeout`].
    pub fn poll_timeout(&self, now: Moment) -> Moment {
        let sessions = self
            .sessions
            .iter()
            .map(|s| s.timeout(now, self.setup.patience));

        let own = [
            self.member_check,
            self.missing.timeout(),
            self.tombstones.timeout(),
            self.queries.timeout(),
        ];

        sessions
            .chain(own.into_iter().flatten())
            .fold(self.presence.timeout(), Moment::min)
    }

    /// Collects requests and notices of the sessions and drops closed sessions.
    fn settle(&mut self) {
        let requests = &mut self.requests;
        let notices = &mut self.notices;

        self.sessions.retain(|session| {
            session.take_output(requests, notices);
            !session.is_finished()
        });
    }

    /// Returns whether an order is in progress, and whether a sender has yet to acknowledge an
    /// outcome.
    pub fn orders(&self) -> (bool, bool) {
        (
            self.sessions.iter().any(Session::is_ordering),
            self.sessions.iter().any(Session::is_unheard),
        )
    }

    /// Queues a goodbye; the caller sends the remaining datagrams afterwards.
    pub fn leave(&mut self) {
        self.presence.leave(&mut self.control);
    }

    /// Writes the next datagrams to send into `out`.
    pub fn poll_transmit(&mut self, out: &mut Vec<u8>) -> Option<Transmit> {
        self.control.poll(out)
    }

    /// Returns the next request to the disk.
    pub fn poll_request(&mut self) -> Option<DiskRequest> {
        self.requests.pop_front()
    }

    /// Returns the next release to offer to hosts that lack it.
    pub fn poll_pull(&mut self) -> Option<Pull> {
        self.pulls.pop_front()
    }

    /// Returns the next due query and its sender; [`Receiver::answer`] sends the answer.
    pub fn poll_query(&mut self, now: Moment) -> Option<(SocketAddr, Query)> {
        self.queries.due(now)
    }

    /// Sends the answer to a query.
    pub fn answer(&mut self, to: SocketAddr, answer: QueryAnswer) {
        self.control.send(Dest::Host(to), &Message::Answer(answer));
    }

    /// Returns the next notice.
    pub fn poll_notice(&mut self) -> Option<HostNotice> {
        self.notices.pop_front()
    }

    /// Returns the work in progress on `tree`.
    pub fn work_on(&self, tree: &TreeName) -> Option<TreeActivity> {
        self.sessions
            .iter()
            .find(|s| s.tree() == tree && s.is_at_work())
            .map(Session::work)
    }

    /// Approximate number of buffered bytes received from others, bounded for any input.
    pub fn held(&self) -> usize {
        let sessions: usize = self.sessions.iter().map(Session::held).sum();
        sessions + self.reassembly.held() + self.control.queued_bytes()
    }

    /// Returns true if no datagram, request or notice is queued.
    pub fn is_calm(&self) -> bool {
        self.control.is_empty() && self.requests.is_empty() && self.notices.is_empty()
    }
}
