//! A host's side of one session: its stage, its messages to the sender, and its timers.

mod fetch;
mod life;
mod orders;
mod peer;
mod signer;

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use fetch::Fetch;
use life::Life;
use orders::Orders;
use peer::{DataSources, SenderPeer};
use signer::StateSigner;

use super::disk::{Answer, Ask, DiskRequest, OfferRefusal, OfferedRelease, ReasonText, ScanMode};
use super::drift::DriftList;
use super::measurements::Measurements;
use super::notice::HostNotice;
use super::proof::Proof;
use super::setup::HostSetup;
use crate::id::{HostName, InstanceId, Nonce, Serial, SessionId, TreeName};
use crate::manifest::{Intent, Release};
use crate::proto::control::Control;
use crate::proto::duplicates::DuplicateFilter;
use crate::proto::retransmit::RetransmitQueue;
use crate::proto::{Dest, RangeSet, alive_interval, slot_interval};
use crate::units::Moment;
use crate::wire::message::{Announce, DiffSummary, SenderStatus, StageReport};
use crate::wire::query::TreeActivity;
use crate::wire::{HostStage, Message, StatusPhase, Symbol};

/// Time for which an ended session waits for a sender that missed the outcome.
const LINGER_TIME: Duration = Duration::from_secs(10);

/// One session of a host.
#[derive(Debug)]
pub(super) struct Session {
    id: SessionId,
    name: HostName,
    signer: StateSigner,
    release: Release,
    audit: bool,

    // The sender.
    sender: SenderPeer,
    sender_name: HostName,
    /// Evidence of the sender's presence.
    proof: Proof,
    /// True once the release is verified.
    authenticated: bool,
    last_heard: Moment,
    life: Life,
    /// Number of hosts in the session.
    hosts: u32,
    /// The sender's pass over the hosts.
    pass: u32,

    // The state reported to the sender.
    stage: HostStage,
    text: Option<String>,
    /// A commit failed and could not be undone.
    torn: bool,
    summary: Option<DiffSummary>,
    serial: Serial,
    /// Packets lost in the receive buffer since the session began.
    dropped: u64,
    outbox: RetransmitQueue,
    /// Due time of the next heartbeat.
    alive_at: Moment,

    // The data.
    fetch: Fetch,
    sources: DataSources,
    counters: DuplicateFilter,
    measurements: Measurements,
    /// Bytes in flight that this host accepts.
    window: u32,
    drift: DriftList,

    orders: Orders,
    rng: fastrand::Rng,
    requests: VecDeque<DiskRequest>,
    notices: VecDeque<HostNotice>,
}

/// A sender's offer of a release.
#[derive(Debug)]
pub(super) struct SessionOffer {
    /// The sender's process.
    pub(super) instance: InstanceId,
    /// The sender's address.
    pub(super) address: SocketAddr,
    /// The announcement.
    pub(super) announce: Announce,
    /// The release in the announcement.
    pub(super) release: Release,
}

impl Session {
    /// Joins an offered session, or refuses the offer if the session `busy` holds the tree.
    pub(super) fn new(
        now: Moment,
        setup: &HostSetup,
        offer: SessionOffer,
        seed: u64,
        busy: Option<ReasonText>,
    ) -> Self {
        let SessionOffer {
            instance,
            address,
            announce,
            release,
        } = offer;

        // A host that forwards a release is not its signer.
        let signed_sender = release
            .header()
            .sender
            .clone()
            .filter(|_| announce.grant.is_none());

        let mut rng = fastrand::Rng::with_seed(seed);
        let outbox = RetransmitQueue::new(rng.f64(), slot_interval(announce.hosts));

        let mut session = Self {
            id: announce.session,
            name: setup.name.clone(),
            signer: StateSigner::new(setup.key.clone()),
            audit: release.header().intent == Intent::Audit,
            release,
            sender: SenderPeer::new(now, instance, address),
            sender_name: signed_sender.unwrap_or_else(|| announce.sender.clone()),
            proof: Proof::new(now, announce.proves == Some(true), seed ^ 1),
            authenticated: false,
            last_heard: now,
            life: Life::default(),
            hosts: announce.hosts,
            pass: 0,
            stage: HostStage::Joined,
            text: None,
            torn: false,
            summary: None,
            serial: Serial(0),
            dropped: 0,
            outbox,
            alive_at: now + alive_interval(announce.hosts),
            fetch: Fetch::new(now, announce.symbol),
            sources: DataSources::default(),
            counters: DuplicateFilter::default(),
            measurements: Measurements::new(now, announce.hosts),
            window: setup.window,
            drift: DriftList::new(now),
            orders: Orders::new(announce.grant.clone()),
            rng,
            requests: VecDeque::new(),
            notices: VecDeque::new(),
        };

        match busy {
            Some(other) => session.refuse(now, busy_with(&other)),
            None => session.open(now, announce),
        }

        session
    }

    /// Enters the first stage and asks the disk to check the offer.
    fn open(&mut self, now: Moment, announce: Announce) {
        self.enter(now, HostStage::Joined);

        let header = self.release.header();
        let look = ScanMode {
            // Older senders do not sign the scan mode.
            checksum: header.checksum.unwrap_or(announce.checksum),
            quick: header.quick.or(announce.quick) == Some(true),
            recheck: announce.recheck == Some(true),
        };

        let sender = header.sender.clone();
        let offer = OfferedRelease {
            release: self.release.clone(),
            signature: Arc::from(announce.signature),
            look,
            sender: sender.unwrap_or_else(|| self.sender_name.clone()),
            grant: announce.grant,
        };

        self.requests.push_back(DiskRequest::Open(self.id, offer));
    }

    pub(super) fn id(&self) -> SessionId {
        self.id
    }

    pub(super) fn tree(&self) -> &TreeName {
        &self.release.header().tree
    }

    pub(super) fn release(&self) -> &Release {
        &self.release
    }

    pub(super) fn sender_address(&self) -> SocketAddr {
        self.sender.address()
    }

    /// Returns true if `instance` is the sender's process.
    pub(super) fn is_from(&self, instance: InstanceId) -> bool {
        self.sender.is(instance)
    }

    /// Returns true if a message of the process `instance` from address `from` belongs to the
    /// sender.
    pub(super) fn accepts(&mut self, now: Moment, instance: InstanceId, from: SocketAddr) -> bool {
        self.sender.accepts(now, instance, from)
    }

    /// Returns true if the closed session has nothing left to do.
    pub(super) fn is_finished(&self) -> bool {
        self.life.is_closed() && !self.is_ordering() && self.is_output_empty()
    }

    /// Returns true if the session is open and has neither requests nor notices.
    pub(super) fn is_calm(&self) -> bool {
        !self.life.is_closed() && self.is_output_empty()
    }

    fn is_output_empty(&self) -> bool {
        self.requests.is_empty() && self.notices.is_empty()
    }

    /// Moves the queued requests and notices to the host's queues.
    pub(super) fn take_output(
        &mut self,
        requests: &mut VecDeque<DiskRequest>,
        notices: &mut VecDeque<HostNotice>,
    ) {
        requests.append(&mut self.requests);
        notices.append(&mut self.notices);
    }

    /// Number of buffered bytes received from others.
    pub(super) fn held(&self) -> usize {
        self.fetch.held() + self.release.bytes().len() + self.drift.held()
    }

    /// Returns true if the release is verified.
    pub(super) fn is_authenticated(&self) -> bool {
        self.authenticated
    }

    /// Returns true if the release is verified and work on it goes on.
    pub(super) fn is_at_work(&self) -> bool {
        self.authenticated && (self.is_ordering() || !self.is_over())
    }

    /// Returns true if only the disk's last reply is pending.
    pub(super) fn has_closed(&self) -> bool {
        self.life.is_closed()
    }

    /// Returns true if this session holds the tree: its sender is present, or may return to its
    /// commit.
    pub(super) fn holds_the_tree(&self) -> bool {
        if self.is_over() {
            self.may_go_back() && !self.life.was_goodbye_heard()
        } else {
            !self.life.is_closing()
        }
    }

    /// Returns true if the session only compares.
    pub(super) fn is_audit(&self) -> bool {
        self.audit
    }

    /// Returns the time since the sender's last sign of life.
    pub(super) fn silent(&self, now: Moment) -> Duration {
        now.since(self.last_heard)
    }

    /// Returns the time since the session began.
    pub(super) fn age(&self, now: Moment) -> Duration {
        self.proof.age(now)
    }

    /// Returns true if the sender proved its presence recently.
    pub(super) fn is_fresh(&self, now: Moment) -> bool {
        self.proof.is_fresh(now, self.hosts)
    }

    /// Returns true if the sender is present, or still has time to prove its presence.
    pub(super) fn may_be_there(&self, now: Moment) -> bool {
        self.is_fresh(now) || self.proof.has_time_left(now, self.hosts)
    }

    /// Returns true if the sender had time to prove its presence and never did.
    pub(super) fn is_ghost(&self, now: Moment) -> bool {
        !self.proof.was_proved() && !self.proof.has_time_left(now, self.hosts)
    }

    /// Names the session for people: release, sender and address.
    pub(super) fn describe(&self) -> ReasonText {
        format!(
            "{} from {} ({})",
            self.release,
            self.sender_name,
            self.sender.address()
        )
    }

    /// Summarizes the work in progress for people.
    pub(super) fn work(&self) -> TreeActivity {
        let word = match self.stage {
            _ if self.is_ordering() => "committing".to_string(),
            HostStage::Diffing => "checking".to_string(),
            stage => format!("{stage:?}").to_lowercase(),
        };

        TreeActivity {
            word,
            serial: self.release.header().serial,
            sender: self.sender_name.clone(),
        }
    }

    /// Counts packets lost in the receive buffer.
    pub(super) fn count_dropped(&mut self, packets: u64) {
        self.dropped += packets;
    }

    /// Counts a message of the sender as a sign of life if its counter is higher than all before.
    /// Data is no sign of life: replayed data is as good as new.
    pub(super) fn on_message(&mut self, now: Moment, counter: u64) {
        if self.proof.on_counter(counter) {
            self.last_heard = now;
        }
    }

    /// Closes the session in favour of another sender.
    pub(super) fn give_way(&mut self) {
        self.close();
    }

    /// Gives way to a release: ends a running audit, but keeps the result of a finished one for
    /// the sender.
    pub(super) fn give_way_to(&mut self, now: Moment, other: &str) {
        if !self.audit {
            self.close();
        } else if !self.is_over() {
            self.requests.push_back(DiskRequest::Close(self.id));
            self.refuse(now, format!("gave way to {other}; try again"));
        }
    }

    fn close(&mut self) {
        if self.life.close() {
            self.requests.push_back(DiskRequest::Close(self.id));
        }
    }

    /// Handles an acknowledgement and the nonce that proves the sender's presence.
    pub(super) fn on_ack(&mut self, now: Moment, number: u32, echo: Option<Nonce>) {
        self.outbox.on_ack(number);

        let first = self.proof.on_echo(now, echo);
        if first && self.stage == HostStage::Ready && !self.is_ordering() {
            self.follow_grant();
        }
    }

    /// Enters a stage and reports it to the sender, from `due` on until acknowledged.
    fn enter(&mut self, due: Moment, stage: HostStage) {
        self.stage = stage;

        // The new state replaces all queued ones and keeps the earliest of their due times.
        let is_state = |m: &Message| matches!(m, Message::State(_));
        let due = self
            .outbox
            .first_unsent(is_state)
            .map_or(due, |unsaid| due.min(unsaid));

        self.outbox.remove_if(is_state);
        let number = self.outbox.next_number();
        let state = self.state(due, number);
        self.outbox.push(number, Message::State(state), due);

        self.notices.push_back(HostNotice::Stage {
            tree: self.tree().clone(),
            serial: self.release.header().serial,
            sender: self.sender.address(),
            stage,
            text: self.text.clone(),
            proven: self.authenticated,
        });
    }

    /// Builds the state message, signed if the stage is decisive.
    fn state(&mut self, now: Moment, number: u32) -> StageReport {
        let mut state = StageReport {
            session: self.id,
            number,
            name: self.name.clone(),
            stage: self.stage,
            text: self.text.clone(),
            summary: self.summary,
            received: self.fetch.received(),
            serial: self.serial,
            dropped: Some(self.dropped).filter(|n| *n > 0),
            torn: Some(true).filter(|_| self.torn),
            identity: None,
            signature: None,
            nonce: self.proof.nonce_to_echo(now),
        };

        self.signer.sign(&mut state, self.audit);
        state
    }

    fn refuse(&mut self, now: Moment, text: ReasonText) {
        self.end(now, HostStage::Refused, text);
    }

    fn end(&mut self, now: Moment, stage: HostStage, text: ReasonText) {
        self.text = Some(text);
        self.orders.finish();
        self.fetch.stop();
        self.outbox.clear();
        self.enter(now, stage);
    }

    /// Hands work to the disk.
    fn ask(&mut self, ask: Ask) {
        self.requests.push_back(DiskRequest::Session(self.id, ask));
    }

    /// Handles the disk's verdict on the offer.
    pub(super) fn on_opened(&mut self, now: Moment, outcome: Result<(), OfferRefusal>) {
        if self.is_over() {
            return;
        }

        match outcome {
            Ok(()) => {
                self.authenticated = true;
                self.enter(now, HostStage::Fetching);
                self.ask(Ask::Explore);
            }
            Err(denied) => {
                self.authenticated = denied.proven;
                self.refuse(now, denied.why);
            }
        }
    }

    /// Handles an answer of the disk.
    pub(super) fn on_answer(&mut self, now: Moment, answer: Answer) {
        let always = matches!(
            answer,
            Answer::Delivered(..) | Answer::Ordered(_) | Answer::Checked(_)
        );

        if self.is_over() && !always {
            return;
        }

        match answer {
            Answer::Explored(Ok(missing)) if missing.is_empty() => {
                self.enter(now, HostStage::Diffing);
                self.ask(Ask::Diff);
            }
            Answer::Explored(Ok(missing)) => self.want(now, missing),
            Answer::Diffed(Ok((summary, wants, drift))) => {
                self.on_diffed(now, summary, wants, drift);
            }
            Answer::Delivered(buffer, outcome) => self.on_delivered(now, buffer, outcome),
            Answer::ReadBack(generation, parts) => self.on_read_back(now, generation, &parts),
            Answer::Finished(Ok(())) => {
                self.enter(now, HostStage::Ready);
                if self.proof.may_order() {
                    self.follow_grant();
                }
            }
            Answer::Explored(Err(why)) | Answer::Diffed(Err(why)) | Answer::Finished(Err(why)) => {
                self.refuse(now, why);
            }
            Answer::Ordered(outcome) => self.on_ordered(now, outcome),
            Answer::Checked(outcome) => self.on_checked(now, outcome),
        }
    }

    fn on_diffed(&mut self, now: Moment, summary: DiffSummary, wants: RangeSet, drift: Arc<[u8]>) {
        self.summary = Some(summary);
        self.drift.set(drift);
        self.enter(now, HostStage::Staging);

        if self.audit {
            // The list is complete: the tree is free for others.
            self.requests.push_back(DiskRequest::Close(self.id));
            return;
        }

        if wants.is_empty() {
            self.ask(Ask::Finish);
        } else {
            self.want(now, wants);
        }
    }

    /// Handles a symbol.
    pub(super) fn on_data(
        &mut self,
        now: Moment,
        from: IpAddr,
        counter: u64,
        symbol: &Symbol<'_>,
        arrival: u64,
        control: &mut Control,
    ) {
        if !self.sources.accept(from, self.sender.address()) {
            return;
        }

        self.fetch.on_data(now);
        if !self.counters.is_new(counter) {
            return;
        }

        self.measurements.on_data(counter, symbol, arrival);
        if let Some(delivery) = self.fetch.symbol(now, symbol) {
            self.ask(Ask::Deliver(delivery));
        }

        self.report_if_due(now, control);
    }

    /// Reports invalid data and restricts the sources.
    fn on_invalid_data(&mut self) {
        let sources = self.sources.restrict(self.sender.address());
        self.notices.push_back(HostNotice::Damaged {
            tree: self.tree().clone(),
            serial: self.release.header().serial,
            sources,
        });
    }

    fn report_if_due(&mut self, now: Moment, control: &mut Control) {
        let backlog = self.fetch.backlog();
        if !self.measurements.is_due(now, self.hosts, backlog) {
            return;
        }

        let report = self.measurements.report(now, self.id, backlog, self.window);

        control.send(Dest::Host(self.sender.address()), &Message::Report(report));
    }

    /// Handles the sender's status.
    pub(super) fn on_status(&mut self, now: Moment, status: &SenderStatus) {
        self.hosts = status.hosts;
        self.outbox.set_slot_interval(slot_interval(status.hosts));
        self.fetch.on_sent(status.sent);
        self.measurements.on_counter(status.counter);
        self.measurements
            .on_reporters(self.signer.instance(), &status.reporters, status.hosts);

        if status.phase == StatusPhase::Closed {
            self.life.on_goodbye(now);
            return;
        }

        self.life.on_status();
        if status.pass > self.pass {
            self.pass = status.pass;
            self.want_rest(now);
        }
    }

    /// Sends the part of the drift list that follows `offset`.
    pub(super) fn send_drift(&mut self, now: Moment, offset: u64, control: &mut Control) {
        let to = Dest::Host(self.sender.address());
        self.drift.answer(now, self.id, offset, to, control);
    }

    /// Runs all timers that are due. `patience` is the timeout of a silent sender.
    pub(super) fn handle_timeout(
        &mut self,
        now: Moment,
        control: &mut Control,
        patience: Duration,
    ) {
        let silent = self.silent(now) >= self.silence_limit(patience);
        if silent || self.life.close_at().is_some_and(|at| at <= now) {
            return self.close();
        }

        let to = Dest::Host(self.sender.address());
        while let Some(message) = self.outbox.poll(now, self.rng.f64()) {
            control.send(to, message);
            self.alive_at = now + alive_interval(self.hosts).mul_f64(0.75 + self.rng.f64() / 2.0);
        }

        if self.alive_at <= now {
            self.alive_at = now + alive_interval(self.hosts).mul_f64(0.75 + self.rng.f64() / 2.0);
            if !self.life.is_closed() {
                let state = self.state(now, 0);
                control.send(to, &Message::State(state));
            }
        }

        self.report_if_due(now, control);
        self.repair(now, control);
    }

    fn silence_limit(&self, patience: Duration) -> Duration {
        if self.is_over() {
            LINGER_TIME.min(patience)
        } else {
            patience
        }
    }

    /// Returns the due time of the next [`Session::handle_timeout`].
    pub(super) fn timeout(&self, now: Moment, patience: Duration) -> Moment {
        if self.life.is_closed() {
            // No timer is due: the disk's last reply ends the session.
            return now + patience;
        }

        let silence = self.last_heard + self.silence_limit(patience);
        let report = self
            .measurements
            .timeout(now, self.hosts, self.fetch.backlog());

        [
            self.life.close_at(),
            self.outbox.timeout(),
            report,
            self.fetch_timeout(now),
        ]
        .into_iter()
        .flatten()
        .fold(self.alive_at.min(silence), Moment::min)
    }
}

/// Formats the refusal of a session whose tree is taken.
pub(super) fn busy_with(other: &str) -> ReasonText {
    format!("busy with {other}; try again when it is over")
}
