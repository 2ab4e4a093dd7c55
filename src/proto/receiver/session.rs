//! A host's part in one session.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use minicbor::bytes::ByteArray;

use super::assembly::Assembly;
use super::drift::Drift;
use super::measure::Measure;
use super::proof::Proof;
use super::{Look, Notice, Reason, Reply, Request};
use crate::id::{HostName, InstanceId, Nonce, Serial, SessionId, TreeName};
use crate::keys::{HOST_SIGNATURE_BYTES, HostKey};
use crate::manifest::{Intent, Release};
use crate::proto::control::Control;
use crate::proto::duplicates::DuplicateFilter;
use crate::proto::retransmit::RetransmitQueue;
use crate::proto::sender::receiver_reports::REPORTERS;
use crate::proto::{Dest, RangeSet, alive_interval, report_interval, slot_interval};
use crate::units::Moment;
use crate::wire::message::{
    Announce, DiffSummary, ReceiverReport, SenderStatus, SignedOrder, StageReport,
};
use crate::wire::query::TreeActivity;
use crate::wire::{HostStage, Message, StatusPhase, Symbol};

/// A report of measurements after this many bytes of data, or after [`REPORT_EVERY`].
const REPORT_BYTES: u64 = 256 << 10;
/// See [`REPORT_BYTES`].
const REPORT_EVERY: Duration = Duration::from_millis(10);
/// A sender that was silent for so long and is heard from another address has moved there.
const MOVED: Duration = Duration::from_secs(2);
/// A sender that said goodbye is waited for this long: it may have been somebody else who said so.
const FAREWELL: Duration = Duration::from_millis(1500);
/// The most addresses of data that are remembered.
const MAX_SOURCES: usize = 4;
/// A session that is over is kept this long for a sender that has not heard so.
const LINGER: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub(super) struct Session {
    pub(super) id: SessionId,
    key: HostKey,
    /// What was signed last, and its signature.
    signed: Option<(Vec<u8>, [u8; HOST_SIGNATURE_BYTES])>,
    pub(super) name: HostName,
    pub(super) sender: SocketAddr,
    source: InstanceId,
    /// When the sender was heard last from its address.
    spoke: Moment,
    sender_name: HostName,
    pub(super) release: Release,
    pub(super) audit: bool,
    pub(super) hosts: u32,
    /// The release was found rightful.
    proven: bool,
    /// Whether the sender is there.
    pub(super) proof: Proof,
    pub(super) stage: HostStage,
    pub(super) text: Option<String>,
    /// A commit failed and could not be undone.
    pub(super) torn: bool,
    summary: Option<DiffSummary>,
    pub(super) serial: Serial,
    pub(super) received: u64,
    pub(super) outbox: RetransmitQueue,
    /// What is asked for and has not arrived.
    pub(super) wants: RangeSet,
    pub(super) assembly: Assembly,
    /// Payloads that the disk has not answered for.
    pub(super) delivering: u32,
    /// Payloads of which some block was not what its hash says.
    pub(super) damaged: u32,
    /// Where data came from, by its own word; at most [`MAX_SOURCES`].
    sources: Vec<IpAddr>,
    /// Some of it was wrong: only the announced sender's own is taken.
    strict: bool,
    /// Whether the disk works on an order.
    pub(super) ordering: bool,
    /// An order of the sender that came meanwhile.
    pub(super) next_order: Option<SignedOrder>,
    /// The order to commit that came with the release; no other is followed.
    grant: Option<SignedOrder>,
    /// Somebody said that the sender is gone; it is when nothing else comes until then.
    closing: Option<Moment>,
    /// It was said once: another sender may have the tree when this session is over.
    left: bool,
    drift: Drift,
    pub(super) heard: Moment,
    pub(super) data_at: Moment,
    /// When it said last what it wants.
    pub(super) asked_at: Moment,
    alive_at: Moment,
    pub(super) measure: Measure,
    counters: DuplicateFilter,
    /// How often measurements are due: chosen hosts report, others only in distress.
    reporting: Reporting,
    /// The sender's pass over the hosts.
    pass: u32,
    /// Bytes that may be under way to us.
    window: u32,
    /// Packets that the receive buffer lost since the session began.
    pub(super) dropped: u64,
    pub(super) gone: bool,
    pub(super) rng: fastrand::Rng,
    pub(super) requests: VecDeque<Request>,
    pub(super) notices: VecDeque<Notice>,
}

/// Who reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reporting {
    /// One of so many that do.
    Among(u32),
    /// Others do.
    InDistress,
}

impl Reporting {
    fn first(hosts: u32) -> Self {
        if hosts as usize <= REPORTERS {
            Reporting::Among(hosts)
        } else {
            Reporting::InDistress
        }
    }
}

impl Session {
    #[expect(
        clippy::too_many_arguments,
        reason = "made in one place, out of one announcement"
    )]
    pub(super) fn new(
        now: Moment,
        (key, name): (HostKey, HostName),
        sender: SocketAddr,
        source: InstanceId,
        announce: Announce,
        release: Release,
        seed: u64,
        window: u32,
        busy: Option<Reason>,
    ) -> Self {
        let (id, signature) = (announce.session, Arc::from(announce.signature));
        // Who passes a release on is not who signed it.
        let named = release
            .header()
            .sender
            .clone()
            .filter(|_| announce.grant.is_none());

        let mut rng = fastrand::Rng::with_seed(seed);
        let outbox = RetransmitQueue::new(rng.f64(), slot_interval(announce.hosts));
        let mut session = Self {
            id,
            key,
            signed: None,
            name,
            sender,
            source,
            spoke: now,
            sender_name: named.unwrap_or(announce.sender),
            hosts: announce.hosts,
            proven: false,
            proof: Proof::new(now, announce.proves == Some(true), seed ^ 1),
            stage: HostStage::Joined,
            text: None,
            torn: false,
            summary: None,
            serial: Serial(0),
            received: 0,
            outbox,
            wants: RangeSet::default(),
            assembly: Assembly::new(announce.symbol),
            delivering: 0,
            damaged: 0,
            sources: Vec::new(),
            strict: false,
            ordering: false,
            next_order: None,
            grant: announce.grant,
            closing: None,
            left: false,
            drift: Drift::new(now),
            heard: now,
            data_at: now,
            asked_at: now,
            alive_at: now + alive_interval(announce.hosts),
            counters: DuplicateFilter::default(),
            measure: Measure::new(now),
            reporting: Reporting::first(announce.hosts),
            pass: 0,
            window,
            dropped: 0,
            gone: false,
            rng,
            requests: VecDeque::new(),
            notices: VecDeque::new(),
            audit: release.header().intent == Intent::Audit,
            release,
        };

        match busy {
            Some(other) => session.refuse(now, busy_with(&other)),
            None => {
                session.enter(now, HostStage::Joined);
                let release = session.release.clone();
                let header = release.header();
                let look = Look {
                    // A sender of before does not sign how it is looked.
                    checksum: header.checksum.unwrap_or(announce.checksum),
                    quick: header.quick.or(announce.quick) == Some(true),
                    recheck: announce.recheck == Some(true),
                };
                let sender = header
                    .sender
                    .clone()
                    .unwrap_or_else(|| session.sender_name.clone());
                let grant = session.grant.clone();
                session.requests.push_back(Request::Open {
                    session: id,
                    release,
                    signature,
                    look,
                    sender,
                    grant,
                });
            }
        }

        session
    }

    pub(super) fn id(&self) -> SessionId {
        self.id
    }

    pub(super) fn tree(&self) -> &TreeName {
        &self.release.header().tree
    }

    pub(super) fn is_from(&self, source: InstanceId) -> bool {
        self.source == source
    }

    /// Whether a message of the process `source` at `from` is the sender's: nobody else speaks in its name from elsewhere
    /// while it speaks itself.
    pub(super) fn is_said_by(&mut self, now: Moment, source: InstanceId, from: SocketAddr) -> bool {
        if self.source != source || (from.ip() != self.sender.ip() && now.since(self.spoke) < MOVED)
        {
            return false;
        }

        if from.ip() != self.sender.ip() {
            self.sender = from;
        }

        self.spoke = now;
        true
    }

    pub(super) fn is_gone(&self) -> bool {
        self.gone && !self.ordering && self.requests.is_empty() && self.notices.is_empty()
    }

    /// Nothing is to be handed on.
    pub(super) fn is_calm(&self) -> bool {
        !self.gone && self.requests.is_empty() && self.notices.is_empty()
    }

    /// Bytes that it holds of what others sent.
    pub(super) fn held(&self) -> usize {
        self.assembly.held() + self.release.bytes().len() + self.drift.held()
    }

    /// Whether its release was found rightful.
    pub(super) fn is_proven(&self) -> bool {
        self.proven
    }

    /// Whether its release is rightful, and something is done for it.
    pub(super) fn is_at_work(&self) -> bool {
        self.proven && (self.ordering || !self.is_over())
    }

    /// Whether it only waits for the disk to let go.
    pub(super) fn has_closed(&self) -> bool {
        self.gone
    }

    /// Whether the tree is this session's, as far as it goes by what was heard: its sender is there, or may come back to
    /// what it committed.
    pub(super) fn holds_the_tree(&self) -> bool {
        if self.is_over() {
            self.may_go_back() && !self.left
        } else {
            !self.is_closing()
        }
    }

    /// Whether the sender is said to be gone.
    pub(super) fn is_closing(&self) -> bool {
        self.closing.is_some()
    }

    /// Whether it is one for hosts that missed a release: any other has precedence.
    pub(super) fn is_granted(&self) -> bool {
        self.grant.is_some()
    }

    /// Whether it only compares.
    pub(super) fn is_audit(&self) -> bool {
        self.audit
    }

    pub(super) fn silent(&self, now: Moment) -> Duration {
        now.since(self.heard)
    }

    /// For how long it has been here.
    pub(super) fn age(&self, now: Moment) -> Duration {
        self.proof.age(now)
    }

    /// Whether the sender has shown lately that it is there.
    pub(super) fn is_fresh(&self, now: Moment) -> bool {
        self.proof.is_fresh(now, self.hosts)
    }

    /// Whether the sender is there, or may be about to show so.
    pub(super) fn may_be_there(&self, now: Moment) -> bool {
        self.is_fresh(now) || self.proof.is_young(now, self.hosts)
    }

    /// Whether the sender never showed that it is there, and had time to.
    pub(super) fn is_ghost(&self, now: Moment) -> bool {
        !self.proof.has_proved() && !self.proof.is_young(now, self.hosts)
    }

    pub(super) fn describe(&self) -> Reason {
        format!(
            "{} from {} ({})",
            self.release, self.sender_name, self.sender
        )
    }

    /// What it does, for people who ask.
    pub(super) fn work(&self) -> TreeActivity {
        let word = match self.stage {
            _ if self.ordering => "committing".to_string(),
            HostStage::Diffing => "checking".to_string(),
            stage => format!("{stage:?}").to_lowercase(),
        };

        TreeActivity {
            word,
            serial: self.release.header().serial,
            sender: self.sender_name.clone(),
        }
    }

    /// A message of the sender came, with this counter: a sign of life when it is newer than all before. Data is none:
    /// it does not matter when that was sent.
    pub(super) fn heard(&mut self, now: Moment, counter: u64) {
        if self.proof.is_news(counter) {
            self.heard = now;
        }
    }

    /// Another sender takes over the tree.
    pub(super) fn give_way(&mut self) {
        self.close();
    }

    /// A release comes first: a comparison that is made ends, one that was made stays to be told of.
    pub(super) fn give_way_to(&mut self, now: Moment, other: &str) {
        if !self.audit {
            self.close();
        } else if !self.is_over() {
            self.requests.push_back(Request::Close(self.id));
            self.refuse(now, format!("gave way to {other}: ask again"));
        }
    }

    fn close(&mut self) {
        if !self.gone {
            self.gone = true;
            self.requests.push_back(Request::Close(self.id));
        }
    }

    /// The sender has a message of this host, and repeats what shows that it is there.
    pub(super) fn acknowledged(&mut self, now: Moment, number: u32, echo: Option<Nonce>) {
        self.outbox.on_ack(number);
        if self.proof.repeated(now, echo)
            && self.stage == HostStage::Ready
            && !self.ordering
            && let Some(grant) = self.grant.clone()
        {
            self.follow(grant);
        }
    }

    /// Enters a stage and tells the sender, from `due` on until it is acknowledged.
    pub(super) fn enter(&mut self, due: Moment, stage: HostStage) {
        self.stage = stage;
        // The newest word makes those before it needless, and is said when they were to be.
        let is_state = |m: &Message| matches!(m, Message::State(_));
        let due = self
            .outbox
            .first_unsent(is_state)
            .map_or(due, |unsaid| due.min(unsaid));

        self.outbox.remove_if(is_state);
        let number = self.outbox.next_number();
        let state = self.state(due, number);
        self.outbox.push(number, Message::State(state), due);

        self.notices.push_back(Notice::Stage {
            tree: self.tree().clone(),
            serial: self.release.header().serial,
            sender: self.sender,
            stage,
            text: self.text.clone(),
            proven: self.proven,
        });
    }

    /// Bytes that are missing here, once that is known.
    pub(super) fn to_fetch(&self) -> Option<u64> {
        self.summary.map(|summary| summary.fetch)
    }

    /// Where the host stands; signed where that decides something.
    fn state(&mut self, now: Moment, number: u32) -> StageReport {
        let mut state = StageReport {
            session: self.id,
            number,
            name: self.name.clone(),
            stage: self.stage,
            text: self.text.clone(),
            summary: self.summary,
            received: self.received,
            serial: self.serial,
            dropped: Some(self.dropped).filter(|n| *n > 0),
            torn: Some(true).filter(|_| self.torn),
            identity: None,
            signature: None,
            nonce: self.proof.asks(now),
        };

        // A sign of life goes without.
        if number != 0 || state.is_decisive(self.audit) {
            state.identity = Some(self.key.identity());
        }

        if state.is_decisive(self.audit) {
            let word = state.statement(self.key.instance());
            // It is repeated, and signed once.
            let (_, signature) = match self.signed.take_if(|(signed, _)| *signed == word) {
                Some(signed) => self.signed.insert(signed),
                None => {
                    let signature = self.key.sign(&word);
                    self.signed.insert((word, signature))
                }
            };
            state.signature = Some(ByteArray::from(*signature));
        }

        state
    }

    pub(super) fn refuse(&mut self, now: Moment, text: Reason) {
        self.end(now, HostStage::Refused, text);
    }

    pub(super) fn end(&mut self, now: Moment, stage: HostStage, text: Reason) {
        self.text = Some(text);
        self.ordering = false;
        self.wants = RangeSet::default();
        self.assembly.rest();
        self.outbox.clear();
        self.enter(now, stage);
    }

    pub(super) fn reply(&mut self, now: Moment, reply: Reply) {
        if self.is_over()
            && !matches!(
                reply,
                Reply::Delivered(..) | Reply::Ordered(..) | Reply::Checked(..)
            )
        {
            return;
        }

        match reply {
            Reply::Opened(_, Ok(())) => {
                self.proven = true;
                self.enter(now, HostStage::Fetching);
                self.requests.push_back(Request::Explore(self.id));
            }
            Reply::Explored(_, Ok(missing)) if missing.is_empty() => {
                self.enter(now, HostStage::Diffing);
                self.requests.push_back(Request::Diff(self.id));
            }
            Reply::Explored(_, Ok(missing)) => self.want(now, missing),
            Reply::Diffed(_, Ok((summary, wants, drift))) => {
                self.diffed(now, summary, wants, drift)
            }
            Reply::Delivered(_, buffer, outcome) => self.delivered(now, buffer, outcome),
            Reply::Recalled(_, generation, parts) => self.recalled(now, generation, &parts),
            Reply::Finished(_, Ok(())) => {
                self.enter(now, HostStage::Ready);
                if let Some(grant) = self.grant.clone().filter(|_| self.proof.may_order()) {
                    self.follow(grant);
                }
            }
            Reply::Opened(_, Err(denied)) => {
                self.proven = denied.proven;
                self.refuse(now, denied.why);
            }
            Reply::Explored(_, Err(why))
            | Reply::Diffed(_, Err(why))
            | Reply::Finished(_, Err(why)) => self.refuse(now, why),
            Reply::Ordered(_, outcome) => self.ordered(now, outcome),
            Reply::Checked(_, outcome) => self.checked(now, outcome),
            Reply::Buried(..) | Reply::Verified(..) | Reply::Trees(_) | Reply::Shown(_) => {}
            Reply::Headers(_) | Reply::Drifted(_) | Reply::CatchesUp(..) => {}
        }
    }

    fn diffed(&mut self, now: Moment, summary: DiffSummary, wants: RangeSet, drift: Arc<[u8]>) {
        self.summary = Some(summary);
        self.drift.found(drift);
        self.enter(now, HostStage::Staging);

        if self.audit {
            // The list is here: the tree is free for others.
            self.requests.push_back(Request::Close(self.id));
            return;
        }

        if wants.is_empty() {
            self.requests.push_back(Request::Finish(self.id));
        } else {
            self.want(now, wants);
        }
    }

    pub(super) fn data(
        &mut self,
        now: Moment,
        from: IpAddr,
        counter: u64,
        symbol: &Symbol<'_>,
        arrival: u64,
        control: &mut Control,
    ) {
        if !self.takes_from(from) {
            return;
        }

        self.data_at = now;
        if !self.counters.is_new(counter) {
            return;
        }

        self.measure.arrived(counter, symbol, arrival);
        if let Some(delivery) = self.assembly.symbol(now, symbol, &self.wants) {
            self.hand_on(delivery);
        }

        if self.report_is_due(now) {
            self.report(now, control);
        }
    }

    /// Whether data from the address `from` is taken: anybody's, until some of it was wrong.
    fn takes_from(&mut self, from: IpAddr) -> bool {
        if !self.sources.contains(&from) && self.sources.len() < MAX_SOURCES {
            self.sources.push(from);
        }
        !self.strict || from == self.sender.ip()
    }

    /// Data was not what the release says: it may be somebody else's than the sender's, as far as addresses tell.
    pub(super) fn doubt(&mut self) {
        self.strict |= self.sources.contains(&self.sender.ip());
        let (tree, serial) = (self.tree().clone(), self.release.header().serial);
        self.notices.push_back(Notice::Damaged {
            tree,
            serial,
            sources: self.sources.clone(),
        });
    }

    fn report_is_due(&self, now: Moment) -> bool {
        let m = &self.measure;
        let fresh = m.bytes - m.last.2;
        let waited = now.since(m.reported_at);
        if waited < self.report_least() || fresh == 0 && m.backlog == 0 {
            return false;
        }

        if self.reporting == Reporting::InDistress {
            return m.is_distressed();
        }

        let drained = m.backlog > REPORT_BYTES && self.assembly.delivered() < m.backlog / 2;
        drained || fresh >= REPORT_BYTES || (fresh > 0 && waited >= REPORT_EVERY)
    }

    /// The least time between two reports.
    fn report_least(&self) -> Duration {
        match self.reporting {
            Reporting::Among(hosts) => report_interval(hosts),
            Reporting::InDistress => report_interval(self.hosts),
        }
    }

    fn report(&mut self, now: Moment, control: &mut Control) {
        let m = &mut self.measure;
        let report = ReceiverReport {
            session: self.id,
            seen: m.seen,
            datagrams: m.datagrams,
            bytes: m.bytes,
            delay: m.delay.take().unwrap_or(0),
            backlog: self.assembly.delivered(),
            window: self.window,
            at: m.at,
        };

        m.last = (m.seen, m.datagrams, m.bytes);
        m.reported_at = now;
        m.backlog = self.assembly.delivered();

        control.send(Dest::Host(self.sender), &Message::Report(report));
    }

    pub(super) fn status(&mut self, now: Moment, status: &SenderStatus) {
        self.hosts = status.hosts;
        self.outbox.set_slot_interval(slot_interval(status.hosts));
        self.measure.seen = self.measure.seen.max(status.counter);
        self.assembly.sent(status.sent);
        self.reporting = match &status.reporters[..] {
            [] => Reporting::first(status.hosts),
            chosen if chosen.contains(&self.key.instance()) => {
                Reporting::Among(chosen.len() as u32)
            }
            _ => Reporting::InDistress,
        };

        // Anybody could say so: a sender that is heard again is there.
        self.closing = match (status.phase, self.closing) {
            (StatusPhase::Closed, closing) => closing.or(Some(now + FAREWELL)),
            _ => None,
        };

        if self.closing.is_some() {
            self.left = true;
            return;
        }

        if status.pass > self.pass {
            self.pass = status.pass;
            self.ask_for_rest(now);
        }
    }

    /// The sender asks for what follows `offset` in the list of differences.
    pub(super) fn drift(&mut self, now: Moment, offset: u64, control: &mut Control) {
        self.drift
            .answer(now, self.id, offset, Dest::Host(self.sender), control);
    }

    pub(super) fn handle_timeout(
        &mut self,
        now: Moment,
        control: &mut Control,
        patience: Duration,
    ) {
        if now.since(self.heard) >= self.limit(patience) || self.closing.is_some_and(|at| at <= now)
        {
            return self.close();
        }

        while let Some(message) = self.outbox.poll(now, self.rng.f64()) {
            control.send(Dest::Host(self.sender), message);
            self.alive_at = now + alive_interval(self.hosts).mul_f64(0.75 + self.rng.f64() / 2.0);
        }

        if self.alive_at <= now {
            self.alive_at = now + alive_interval(self.hosts).mul_f64(0.75 + self.rng.f64() / 2.0);
            if !self.gone {
                let state = self.state(now, 0);
                control.send(Dest::Host(self.sender), &Message::State(state));
            }
        }

        if self.report_is_due(now) {
            self.report(now, control);
        }

        self.repair(now, control);
    }

    fn limit(&self, patience: Duration) -> Duration {
        if self.is_over() {
            LINGER.min(patience)
        } else {
            patience
        }
    }

    pub(super) fn timeout(&self, now: Moment, patience: Duration) -> Moment {
        if self.gone {
            // Nothing is due any more: the disk's last answer ends the session.
            return now + patience;
        }

        let mut next = self.alive_at.min(self.heard + self.limit(patience));
        if let Some(at) = self.closing {
            next = next.min(at);
        }

        if let Some(due) = self.outbox.timeout() {
            next = next.min(due);
        }

        if self.reporting != Reporting::InDistress && self.measure.bytes > self.measure.last.2
            || self.report_is_due(now)
        {
            next = next.min(self.measure.reported_at + REPORT_EVERY.max(self.report_least()));
        }

        self.fetch_timeout(now).map_or(next, |due| next.min(due))
    }
}

/// Why a session cannot have a tree.
pub(super) fn busy_with(other: &str) -> Reason {
    format!("busy with {other}; try again when it is over")
}
