//! A host: its presence in the group and its part in sessions.
//!
//! | stage | entered when | asks the disk | leaves by |
//! |---|---|---|---|
//! | Joined | an announcement for one of our trees, addressed to us | `Open` | `Opened` |
//! | Fetching | the release is accepted | `Explore`, `Deliver` | nothing of the manifest is missing |
//! | Diffing | the manifest is complete | `Diff` | `Diffed` |
//! | Staging | there is a plan; an audit ends here | `Deliver`, `Recall`, `Finish` | `Finished` |
//! | Ready | everything is staged, verified, durable | `Order` for each of the sender's signed orders | what became of it |
//! | Prepared | what runs before a commit agreed | the same | the same |
//! | Checking | the release is in place; what runs after it is under way | `Check` | `Checked` |
//! | Committed, Unhealthy | the release is in place | `Order`, when it is to be taken back | the sender closes, or is silent for long |
//! | Reverted, Stuck, Refused, Aborted, Failed | | | the same |
//!
//! The machine believes nothing that is not signed: it hands header, order and signatures to the disk side, which
//! checks them against the authorized keys and answers.

mod assembly;
mod buffer;
mod drift;
mod effects;
mod fetch;
mod headers;
mod measure;
mod names;
mod orders;
mod proof;
mod pulls;
mod session;
mod tombstones;
mod waiting;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crate::block::BlockHash;
use crate::id::{HostName, InstanceId, Serial, SessionId, TreeName};
use crate::keys::HostKey;
use crate::manifest::{Release, ReleaseId};
use crate::proto::control::Control;
use crate::proto::members::{Presence, Table, Trust};
use crate::proto::queries::QueryQueue;
use crate::proto::{Dest, Transmit};
use crate::units::Moment;
use crate::wire::fragment::Reassembly;
use crate::wire::message::{Announce, Pull, SerialProof, SignedOrder, StageReport, TreeState};
use crate::wire::query::{Query, QueryAnswer, ReleaseBytes, TreeActivity};
use crate::wire::{DATA_OVERHEAD, Datagram, Front, HostStage, Message};

pub use buffer::Part;
pub use effects::{Denied, Look, Ordered, Reason, Reply, Request};
pub use names::{is_target, matches_name};

use headers::{Answer, Headers};
use pulls::{Found, Pulls};
use session::Session;
use tombstones::Tombstones;
use waiting::{Verdict, Waiting};

/// The most sessions at one time whose release was found rightful.
pub const MAX_SESSIONS: usize = 16;
/// The most others: offers whose signature is being checked, and those that were refused for it.
const MAX_UNPROVEN: usize = 8;
/// The most of these from one address.
const MAX_UNPROVEN_EACH: usize = 2;
/// The most sessions of this process's own senders that are remembered.
const MAX_IGNORED: usize = 64;
/// The most sessions without a sender that are remembered.
const MAX_GHOSTS: usize = 256;
/// What others have is looked at so long after one of them spoke.
const LOOK: Duration = Duration::from_millis(500);
/// The most releases that others lack and wait for.
const MAX_PULLED: usize = 16;
/// A session whose sender is silent for this long gives way to another sender of the same tree.
const GIVE_WAY: Duration = Duration::from_secs(5);

/// What a host is.
#[derive(Debug, Clone)]
pub struct HostSetup {
    /// Its name.
    pub name: HostName,
    /// Its trees and what they have.
    pub trees: Vec<TreeState>,
    /// Those of them that take from others what they missed.
    pub takes: BTreeSet<TreeName>,
    /// Those of them that are given to others that missed a release.
    pub gives: BTreeSet<TreeName>,
    /// The orders to abort or revert a release that are kept.
    pub tombstones: Vec<SignedOrder>,
    /// Its key, in this process.
    pub key: HostKey,
    /// What shows the highest serial of each of them to others.
    pub shown: BTreeMap<TreeName, SerialProof>,
    /// The signed part of the release that each of them has.
    pub headers: BTreeMap<TreeName, ReleaseBytes>,
    /// How easily other hosts are reckoned with.
    pub trust: Trust,
    /// The seed of everything random.
    pub seed: u64,
    /// The most bytes of a datagram.
    pub datagram: usize,
    /// Bytes that are left free behind every datagram, see [`crate::wire::seal`].
    pub room: usize,
    /// How long a silent sender is waited for.
    pub patience: Duration,
    /// Bytes that may be under way to this host: a part of its receive buffer.
    pub window: u32,
}

/// What a host tells whoever runs it.
#[derive(Debug, Clone, PartialEq)]
pub enum Notice {
    /// A session moved on.
    Stage {
        /// The tree.
        tree: TreeName,
        /// The release's serial.
        serial: Serial,
        /// The sender's address.
        sender: SocketAddr,
        /// Where it stands.
        stage: HostStage,
        /// Why, when it refused or failed.
        text: Option<String>,
        /// Whether the release was found rightful; else all of this is anybody's word.
        proven: bool,
    },
    /// Data was not what the release says: some source of it is broken, or forges. It is asked for again.
    Damaged {
        /// The tree.
        tree: TreeName,
        /// The release's serial.
        serial: Serial,
        /// Where data came from, by its own word.
        sources: Vec<IpAddr>,
    },
    /// This host lacks a release, and asks a member for it.
    Pulls {
        /// The tree.
        tree: TreeName,
        /// Who is asked.
        from: SocketAddr,
    },
    /// Datagrams of a version that we do not speak are on the network.
    Version(u8, SocketAddr),
    /// An offer is no legal release, for this reason. It is anybody's word.
    Illegal(SocketAddr, Reason),
}

/// A host.
#[derive(Debug)]
pub struct Receiver {
    setup: HostSetup,
    control: Control,
    presence: Presence,
    questions: QueryQueue,
    reassembly: Reassembly,
    sessions: BTreeMap<SessionId, Session>,
    waiting: Waiting,
    /// Sessions of senders in this process, whose source is this host's own tree; the newest last.
    ignored: VecDeque<SessionId>,
    /// Sessions that gave way because their sender never showed that it is there: it may be a recorded one.
    ghosts: VecDeque<SessionId>,
    pulls: Pulls,
    headers: Headers,
    tombstones: Tombstones,
    /// When it is looked what others have, once that may have changed.
    look: Option<Moment>,
    /// What others lack and ask this host for.
    pulled: VecDeque<Pull>,
    requests: VecDeque<Request>,
    notices: VecDeque<Notice>,
    rng: fastrand::Rng,
    effort: names::Effort,
    warned_version: bool,
    /// Packets that the receive buffer has lost.
    dropped: u64,
}

impl Receiver {
    /// A host that starts now.
    pub fn new(now: Moment, setup: HostSetup) -> Self {
        let mut control = Control::new(setup.key.instance(), setup.datagram, setup.room);
        let mut presence = Presence::new(
            now,
            setup.name.clone(),
            setup.trees.clone(),
            setup.trust,
            setup.seed ^ 1,
            &mut control,
        );

        presence.set_shown(setup.shown.clone());
        presence.set_identity(setup.key.identity());
        let rng = fastrand::Rng::with_seed(setup.seed);
        let seed = setup.seed ^ 2;
        let pulls = Pulls::new(setup.takes.clone(), setup.seed ^ 3);
        let mut headers = Headers::default();
        headers.set(setup.headers.clone());

        let tombstones = Tombstones::new(setup.tombstones.clone(), setup.seed ^ 4);
        Self {
            setup,
            control,
            presence,
            questions: QueryQueue::new(now, seed),
            reassembly: Reassembly::default(),
            sessions: BTreeMap::new(),
            waiting: Waiting::default(),
            ignored: VecDeque::new(),
            ghosts: VecDeque::new(),
            pulls,
            headers,
            tombstones,
            // What was taken back while this host was away may be here.
            look: Some(now),
            pulled: VecDeque::new(),
            requests: VecDeque::new(),
            notices: VecDeque::new(),
            rng,
            effort: names::Effort::default(),
            warned_version: false,
            dropped: 0,
        }
    }

    /// The members that this host knows.
    pub fn members(&self) -> &Table {
        self.presence.table()
    }

    /// This process.
    pub fn instance(&self) -> InstanceId {
        self.setup.key.instance()
    }

    /// How many sessions are under way.
    pub fn sessions(&self) -> usize {
        self.sessions.len()
    }

    /// Takes no part in `session`: its sender is in this process, and its source this host's own tree.
    pub fn ignore(&mut self, session: SessionId) {
        if self.ignored.len() >= MAX_IGNORED {
            self.ignored.pop_front();
        }
        self.ignored.push_back(session);
    }

    /// Reckons with `hosts` hosts before they are heard: for fleets that are simulated without hearing each other.
    pub fn reckon_with(&mut self, hosts: u32) {
        self.presence.assume_fleet(hosts);
    }

    /// Takes a datagram. `arrival` is when the kernel had it, in microseconds of any steady clock.
    pub fn handle_datagram(&mut self, now: Moment, from: SocketAddr, bytes: &[u8], arrival: u64) {
        match Datagram::parse(bytes) {
            Ok(Datagram::Data(front, symbol)) => {
                // The hot path: most symbols have no consequence yet.
                let Some(session) = self.sessions.get_mut(&symbol.header.session) else {
                    return;
                };
                if !session.is_from(front.source) {
                    return;
                }
                session.data(
                    now,
                    from.ip(),
                    front.counter,
                    &symbol,
                    arrival,
                    &mut self.control,
                );
                if session.is_calm() {
                    return;
                }
            }
            Ok(Datagram::Control(front, piece)) => {
                if let Some(whole) = self.reassembly.add(now, front.source, piece)
                    && let Ok(message) = Message::decode(&whole)
                {
                    self.message(now, from, front, message);
                }
            }
            Err(crate::wire::datagram::DatagramError::Version(version)) if !self.warned_version => {
                self.warned_version = true;
                self.notices.push_back(Notice::Version(version, from));
            }
            Err(_) => {}
        }

        self.settle();
    }

    fn message(&mut self, now: Moment, from: SocketAddr, front: Front, message: Message) {
        let source = front.source;
        match message {
            Message::Announce(announce) => self.announced(now, from, front, announce),
            Message::Ack(id, number, echo) => self.with(now, (from, front), id, |session, _| {
                session.acknowledged(now, number, echo)
            }),
            Message::Status(status) => {
                self.with(now, (from, front), status.session, |session, _| {
                    session.status(now, &status)
                })
            }
            Message::Order(order) => {
                if let Some(id) =
                    crate::wire::message::Order::decode(&order.order).map(|o| o.session)
                {
                    self.with(now, (from, front), id, |session, _| {
                        session.order(order.clone())
                    });
                }
                self.hear_tombstone(now, order);
            }
            Message::DriftAsk(id, offset) => {
                self.with(now, (from, front), id, |session, control| {
                    session.drift(now, offset, control)
                })
            }
            Message::Query(ask) => {
                self.questions
                    .handle(now, from, ask, self.presence.table().len() as u32)
            }
            Message::Pull(pull) => self.pulled(now, pull),
            Message::Header(told) => self.told_header(&told),
            presence => {
                self.presence.handle(now, from, source, &presence);
                self.look.get_or_insert(now + LOOK);
            }
        }
    }

    /// Does what the sender of a session says; what somebody else says in its name is not heard.
    fn with(
        &mut self,
        now: Moment,
        (from, front): (SocketAddr, Front),
        id: SessionId,
        act: impl FnOnce(&mut Session, &mut Control),
    ) {
        if let Some(session) = self.sessions.get_mut(&id)
            && session.is_said_by(now, front.source, from)
        {
            session.heard(now, front.counter);
            act(session, &mut self.control);
        }
    }

    fn announced(&mut self, now: Moment, from: SocketAddr, front: Front, announce: Announce) {
        if let Some(session) = self.sessions.get_mut(&announce.session) {
            if session.is_said_by(now, front.source, from) {
                session.heard(now, front.counter);
            }
            return;
        }

        self.presence.cancel_answer(front.source);
        if self.ignored.contains(&announce.session) || self.ghosts.contains(&announce.session) {
            return;
        }

        let release = match Release::from_bytes(&announce.header) {
            Ok(release) => release,
            // It may still be for us; but whoever cannot name a tree gets no answer.
            Err(why) => {
                return self
                    .notices
                    .push_back(Notice::Illegal(from, why.to_string()));
            }
        };

        let tree = &release.header().tree;
        let Some(own) = self.setup.trees.iter().find(|t| t.tree == *tree) else {
            return;
        };

        let found = Found::of(&release);
        let running = own.running.unwrap_or_default();
        if announce.after.is_some_and(|oldest| running < oldest) {
            return;
        }

        let fits = announce.follows.is_none_or(|base| running == base)
            && announce
                .only
                .as_ref()
                .is_none_or(|only| *only == self.setup.name);

        let is_wanted = || fits && self.pulls.wants(own, &found, &self.tombstones);
        if announce.grant.is_some() && (at_work(&self.sessions, tree).is_some() || !is_wanted()) {
            return;
        }

        if !self.is_target(now, from.ip(), &release) {
            if announce.grant.is_some() {
                self.pulls.is_unfit(tree, release.id());
            }
            return;
        }

        let silent = |s: &Session| {
            if s.is_fresh(now) {
                s.silent(now)
            } else {
                s.age(now)
            }
        };

        let busy = self
            .busy(now, tree, announce.session)
            .map(|s| (s.describe(), silent(s)));

        if let Some((other, silent)) = &busy {
            match self.waiting.weigh(now, announce.session, *silent) {
                Verdict::Refuse => {}
                Verdict::Hesitate => return,
                Verdict::Wait => return self.ask_to_wait(from, announce.session, other),
            }
        }

        if !self.admit(now, from.ip()) {
            return;
        }

        // What comes to us in datagrams of this size goes back in them.
        self.control
            .fit(usize::from(announce.symbol) + DATA_OVERHEAD);
        let (seed, window) = (self.rng.u64(..), self.setup.window);
        let (me, busy) = (
            (self.setup.key.clone(), self.setup.name.clone()),
            busy.map(|b| b.0),
        );

        let session = Session::new(
            now,
            me,
            from,
            front.source,
            announce,
            release,
            seed,
            window,
            busy,
        );

        self.sessions.insert(session.id(), session);
    }

    /// Somebody shows the header of a release, which this host may have asked for.
    fn told_header(&mut self, told: &ReleaseBytes) {
        // Others ask as well: what is not for us is not read.
        if !self.pulls.asks_for(ReleaseId(BlockHash::of(&told.header))) {
            return;
        }

        let Ok(release) = Release::from_bytes(&told.header) else {
            return;
        };

        if self.pulls.check(&release) {
            self.requests
                .push_back(Request::Verify(release, told.signature.as_slice().into()));
        }
    }

    /// Somebody lacks a release that this host may have: its header is shown, when that is what is asked for, or it is
    /// offered when nothing is done with the tree.
    fn pulled(&mut self, now: Moment, pull: Pull) {
        let well = |t: &TreeState| {
            t.unhealthy != Some(true) && self.tombstones.of(&t.tree, pull.release).is_none()
        };

        let has = |t: &TreeState| t.tree == pull.tree && t.release == Some(pull.release) && well(t);
        let serves = self.setup.gives.contains(&pull.tree) && self.setup.trees.iter().any(has);
        if serves && pull.header == Some(true) {
            match self.headers.show(now, &pull) {
                Answer::Show(header) => return self.control.send(Dest::Group, &header),
                Answer::Shown => return,
                // An offer shows it too.
                Answer::Unknown => {}
            }
        }

        let holds = |s: &Session| {
            s.is_proven() && *s.tree() == pull.tree && !s.is_audit() && s.holds_the_tree()
        };

        let idle = !self.sessions.values().any(holds);
        let same = |p: &Pull| {
            (&p.tree, p.release, p.have, p.base) == (&pull.tree, pull.release, pull.have, pull.base)
        };

        if serves && idle && self.pulled.len() < MAX_PULLED && !self.pulled.iter().any(same) {
            self.pulled.push_back(pull);
        }
    }

    /// Asks for what this host lacks, when that is due.
    fn pull(&mut self, now: Moment) {
        let due = [self.look, self.pulls.timeout(), self.tombstones.timeout()];
        if due.into_iter().flatten().all(|at| at > now) {
            return;
        }

        self.look = None;
        self.settle_tombstones(now);
        let sessions = &self.sessions;
        let busy = |tree: &TreeName| at_work(sessions, tree).is_some();
        let (own, me, members) = (
            &self.setup.trees,
            self.setup.key.instance(),
            self.presence.table(),
        );

        for (to, pull) in self
            .pulls
            .poll(now, own, me, members, &self.tombstones, busy)
        {
            if pull.header.is_none() {
                self.notices.push_back(Notice::Pulls {
                    tree: pull.tree.clone(),
                    from: to,
                });
            }
            let pull = Pull {
                host: Some(self.setup.name.clone()),
                ..pull
            };
            self.control.send(Dest::Host(to), &Message::Pull(pull));
        }
    }

    /// The next release that others lack and that is to be offered to them.
    pub fn poll_pulled(&mut self) -> Option<Pull> {
        self.pulled.pop_front()
    }

    /// Whether `release` is addressed to us. What costs is counted: anybody can offer anything.
    fn is_target(&mut self, now: Moment, from: IpAddr, release: &Release) -> bool {
        let targets = &release.header().targets;
        let costly = targets.iter().filter(|t| names::is_costly(t)).count();
        (costly == 0 || self.effort.may_spend(now, from, costly as u32))
            && is_target(release, &self.setup.name)
    }

    /// The session other than `id` that has the tree `tree`: it works on an order, or its sender is there. One whose
    /// release is not known to be rightful has nothing: whoever can send a datagram could keep others out otherwise.
    fn busy(&self, now: Moment, tree: &TreeName, id: SessionId) -> Option<&Session> {
        let others = self
            .sessions
            .values()
            .filter(|s| s.id() != id && s.tree() == tree && s.is_proven());

        // One that only makes up for what was missed gives way, unless it has come to the commit; one that compares, always.
        let gives_way = |s: &Session| s.is_granted() || s.is_audit() || !s.may_be_there(now);
        let holds = |s: &&Session| !gives_way(s) && s.holds_the_tree() && s.silent(now) < GIVE_WAY;
        let mut busy = others.filter(|s| s.is_ordering() || holds(s));

        busy.next()
    }

    /// Tells a sender that it is heard, and whom it waits for.
    fn ask_to_wait(&mut self, sender: SocketAddr, session: SessionId, other: &str) {
        let state = StageReport {
            session,
            number: 0,
            name: self.setup.name.clone(),
            stage: HostStage::Joined,
            text: Some(format!("waiting for {other}, which is silent")),
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

    /// Whether there is room for one more offer, from `from`: refused ones give way, those that are being checked and
    /// those that were found rightful do not.
    fn admit(&mut self, now: Moment, from: IpAddr) -> bool {
        let unproven = || {
            self.sessions
                .values()
                .filter(|s| !s.is_proven() && !s.has_closed())
        };

        let of_one = unproven().filter(|s| s.sender.ip() == from).count() >= MAX_UNPROVEN_EACH;
        if !of_one && unproven().count() < MAX_UNPROVEN {
            return true;
        }

        let sessions = self.sessions.values_mut();
        let refused = sessions.filter(|s| !s.is_proven() && s.is_over() && !s.has_closed());
        let oldest = refused
            .filter(|s| !of_one || s.sender.ip() == from)
            .max_by_key(|s| s.silent(now));

        oldest.map(Session::give_way).is_some()
    }

    /// Ends the rightful session that has been over for longest, when there are too many; false when none is over.
    fn make_room(&mut self, now: Moment) -> bool {
        let proven = |s: &&mut Session| s.is_proven() && !s.has_closed();
        if self.sessions.values_mut().filter(proven).count() < MAX_SESSIONS {
            return true;
        }

        let idle = |s: &&mut Session| !s.is_ordering() && (s.is_over() || !s.may_be_there(now));
        let over = self.sessions.values_mut().filter(proven).filter(idle);
        over.max_by_key(|s| s.silent(now))
            .map(Session::give_way)
            .is_some()
    }

    /// A release is rightful: the tree is its session's from now on, and others of that tree give way. Not before:
    /// whoever can send a datagram could end a session otherwise. An answer `Err` when the tree was taken meanwhile.
    fn opened(&mut self, now: Moment, id: SessionId) -> Result<(), Denied> {
        let Some(tree) = self.sessions.get(&id).map(|s| s.tree().clone()) else {
            return Ok(());
        };

        // Of two senders that have shown nothing yet the later one has the tree, until the other is heard again.
        if let Some(other) = self
            .busy(now, &tree, id)
            .filter(|other| other.is_ordering() || other.is_fresh(now))
        {
            return Err(Denied {
                why: session::busy_with(&other.describe()),
                proven: true,
            });
        }

        if !self.make_room(now) {
            let why = format!(
                "this host has {MAX_SESSIONS} sessions already; try again when one is over"
            );
            return Err(Denied { why, proven: true });
        }

        let Some((taker, compares)) = self.sessions.get(&id).map(|s| (s.describe(), s.is_audit()))
        else {
            return Ok(());
        };

        let others = self
            .sessions
            .values_mut()
            .filter(|s| s.id() != id && *s.tree() == tree);

        // Comparisons are made one after the other.
        for other in others.filter(|s| !(compares && s.is_audit())) {
            if other.is_proven() && other.is_ghost(now) {
                self.ghosts.push_back(other.id());
            }
            other.give_way_to(now, &taker);
        }

        self.ghosts
            .drain(..self.ghosts.len().saturating_sub(MAX_GHOSTS));
        Ok(())
    }

    /// Takes an answer of the disk.
    pub fn handle_reply(&mut self, now: Moment, reply: Reply) {
        match reply {
            Reply::Trees(trees) => {
                self.setup.trees.clone_from(&trees);
                self.presence.set_trees(now, trees);
                self.look.get_or_insert(now + LOOK);
            }
            Reply::Shown(shown) => self.presence.set_shown(shown),
            Reply::Headers(headers) => self.headers.set(headers),
            Reply::Verified(release, holds) => self.pulls.checked(now, release, holds),
            Reply::Buried(order, holds) => self.buried(now, order, holds),
            Reply::CatchesUp(tree, gives) => {
                self.setup.takes.insert(tree.clone());
                self.setup
                    .gives
                    .extend(Some(tree.clone()).filter(|_| gives));
                self.pulls.catch_up(tree);
                self.look = Some(now);
            }
            Reply::Drifted(tree) => {
                self.pulls.repair(tree);
                self.look = Some(now);
            }
            reply => {
                let id = reply.session();
                let reply = match reply {
                    Reply::Opened(id, Ok(())) => Reply::Opened(id, self.opened(now, id)),
                    other => other,
                };
                if let Some(session) = id.and_then(|id| self.sessions.get_mut(&id)) {
                    if let Reply::Ordered(_, Some(_)) = reply {
                        self.pulls.ended(session.tree());
                    }
                    session.reply(now, reply);
                }
            }
        }

        self.settle();
    }

    /// Those who were heard of late without the group key that this host has: others will hear of them.
    pub fn strangers(&mut self, strangers: impl Iterator<Item = IpAddr>) {
        self.presence.set_strangers(strangers);
    }

    /// The receive buffer has lost `total` packets since this host started: senders will hear of it.
    pub fn dropped(&mut self, total: u64) {
        let more = total.saturating_sub(std::mem::replace(&mut self.dropped, total));
        self.sessions
            .values_mut()
            .for_each(|session| session.dropped += more);
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Moment) {
        self.presence.handle_timeout(now, &mut self.control);
        self.pull(now);
        for session in self.sessions.values_mut() {
            session.handle_timeout(now, &mut self.control, self.setup.patience);
        }
        self.settle();
    }

    /// Moves what the sessions have to say into the queues, and drops those that are over.
    fn settle(&mut self) {
        let (requests, notices) = (&mut self.requests, &mut self.notices);
        self.sessions.retain(|_, session| {
            requests.extend(session.requests.drain(..));
            notices.extend(session.notices.drain(..));
            !session.is_gone()
        });
    }

    /// Whether the disk works on an order, and whether a sender has not confirmed yet that it heard what became of one.
    pub fn orders(&self) -> (bool, bool) {
        let mut sessions = self.sessions.values();
        (
            sessions.clone().any(Session::is_ordering),
            sessions.any(Session::is_unheard),
        )
    }

    /// Says goodbye; the last datagrams are to be sent after this.
    pub fn leave(&mut self) {
        self.presence.leave(&mut self.control);
    }

    /// The next datagrams to send, written into `out`.
    pub fn poll_transmit(&mut self, out: &mut Vec<u8>) -> Option<Transmit> {
        self.control.poll(out)
    }

    /// The next request to the disk.
    pub fn poll_request(&mut self) -> Option<Request> {
        self.requests.pop_front()
    }

    /// The next question that is to be answered now, and who asks; the answer is given with [`Receiver::tell`].
    pub fn poll_question(&mut self, now: Moment) -> Option<(SocketAddr, Query)> {
        self.questions.due(now)
    }

    /// Answers a question.
    pub fn tell(&mut self, to: SocketAddr, answer: QueryAnswer) {
        self.control.send(Dest::Host(to), &Message::Answer(answer));
    }

    /// The session that works on `tree` now.
    pub fn work(&self, tree: &TreeName) -> Option<TreeActivity> {
        let mut works = self
            .sessions
            .values()
            .filter(|s| s.tree() == tree && s.is_at_work());
        works.next().map(Session::work)
    }

    /// The next thing to tell.
    pub fn poll_notice(&mut self) -> Option<Notice> {
        self.notices.pop_front()
    }

    /// Bytes that it holds of what others sent, about: they are bounded whatever comes.
    pub fn held(&self) -> usize {
        let sessions: usize = self.sessions.values().map(Session::held).sum();
        sessions + self.reassembly.held() + self.control.queued_bytes()
    }

    /// Whether there is nothing to send, to ask or to tell.
    pub fn is_calm(&self) -> bool {
        self.control.is_empty() && self.requests.is_empty() && self.notices.is_empty()
    }

    /// When [`Receiver::handle_timeout`] is due.
    pub fn poll_timeout(&self, now: Moment) -> Moment {
        let sessions = self
            .sessions
            .values()
            .map(|s| s.timeout(now, self.setup.patience));
        let own = [
            self.look,
            self.pulls.timeout(),
            self.tombstones.timeout(),
            self.questions.timeout(),
        ]
        .into_iter()
        .flatten();

        sessions
            .chain([self.presence.timeout()])
            .chain(own)
            .min()
            .unwrap_or(now)
    }
}

/// The session that is to change `tree` now, when its release is rightful.
fn at_work<'a>(sessions: &'a BTreeMap<SessionId, Session>, tree: &TreeName) -> Option<&'a Session> {
    sessions
        .values()
        .find(|s| s.tree() == tree && s.is_at_work() && !s.is_audit())
}
