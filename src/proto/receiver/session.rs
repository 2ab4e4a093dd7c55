//! A host's side of one session, and its standing among the other sessions of the host.
//!
//! `exchange` handles messages, data and timers. `staging` leads from the offer to the complete
//! stage: `fetching` requests blocks, and `fetch` has the outstanding ones. `ordering` follows,
//! with the `orders` at work. `peer` is the sender, `state` the reported stage, `messages` the
//! queue to the sender, `intake` the arriving data, and `life` the end.

mod exchange;
mod fetch;
mod fetching;
mod intake;
mod life;
mod messages;
mod ordering;
mod orders;
mod peer;
mod signer;
mod staging;
mod state;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use fetch::Fetch;
use intake::Intake;
use life::Life;
use messages::SenderMessages;
use orders::Orders;
use peer::SenderPeer;
use state::SessionState;

use super::disk::{Ask, DiskRequest, OfferedRelease, ReasonText, ScanMode};
use super::drift::DriftList;
use super::effects::Effects;
use super::generations::SymbolCounts;
use super::notice::HostNotice;
use super::proof::Proof;
use super::setup::SessionHost;
use crate::id::{InstanceId, SessionId, TreeName};
use crate::manifest::{Intent, Release};
use crate::units::Moment;
use crate::wire::HostStage;
use crate::wire::message::Announce;
use crate::wire::query::{FetchProgress, TreeActivity};
use crate::wire::relay::RelayTargets;

/// One session of a host.
#[derive(Debug)]
pub(super) struct Session {
    id: SessionId,
    release: Release,
    /// True once the release is verified.
    authenticated: bool,
    /// True if the session is for other hosts.
    for_others: bool,
    sender: SenderPeer,
    life: Life,
    state: SessionState,
    messages: SenderMessages,
    fetch: Fetch,
    intake: Intake,
    /// Hosts to pass data on to, once the sender has named any.
    targets: Option<Arc<RelayTargets>>,
    drift: DriftList,
    orders: Orders,
    rng: fastrand::Rng,
    effects: Effects,
    began: Moment,
    /// Time of the last change of the stage.
    entered: Moment,
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
        host: &SessionHost,
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

        let name = signed_sender.unwrap_or_else(|| announce.sender.clone());
        let proof = Proof::new(now, announce.proves == Some(true), seed ^ 1);
        let hosts = announce.hosts;
        let audit = release.header().intent == Intent::Audit;
        let mut rng = fastrand::Rng::with_seed(seed);

        let mut session = Self {
            id: announce.session,
            release,
            authenticated: false,
            for_others: false,
            sender: SenderPeer::new(now, instance, address, name, proof, hosts),
            life: Life::default(),
            state: SessionState::new(host.name.clone(), host.key.clone(), audit),
            messages: SenderMessages::new(now, hosts, rng.f64()),
            fetch: Fetch::new(now, announce.symbol),
            intake: Intake::new(now, hosts, host.window, part_of(seed)),
            targets: None,
            drift: DriftList::new(now),
            orders: Orders::new(announce.grant.clone()),
            rng,
            effects: Effects::default(),
            began: now,
            entered: now,
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
            sender: sender.unwrap_or_else(|| self.sender.name().clone()),
            grant: announce.grant,
            staged: announce.staged == Some(true),
        };

        self.effects.request(DiskRequest::Open(self.id, offer));
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

    pub(super) fn sender(&self) -> &SenderPeer {
        &self.sender
    }

    /// Returns true if a message of the process `instance` from address `from` belongs to the
    /// sender.
    pub(super) fn accepts(&mut self, now: Moment, instance: InstanceId, from: SocketAddr) -> bool {
        self.sender.accepts(now, instance, from)
    }

    /// Returns true if the closed session has nothing left to do.
    pub(super) fn is_finished(&self) -> bool {
        self.life.is_closed() && !self.is_ordering() && self.effects.is_empty()
    }

    /// Returns true once the release was found rightful, if the host takes part.
    pub(super) fn is_rightful(&self) -> bool {
        self.state.stage().is_rightful()
    }

    /// Hosts to pass data on to; `None` unless the release was found rightful.
    pub(super) fn targets(&self) -> Option<&Arc<RelayTargets>> {
        self.targets.as_ref().filter(|_| self.is_rightful())
    }

    /// Returns whether this host passes on what others passed on to it.
    pub(super) fn is_second_hop(&self) -> bool {
        self.targets()
            .is_some_and(|targets| targets.group_len() > 1)
    }

    /// Returns true if the session is open and has neither requests nor notices.
    pub(super) fn is_calm(&self) -> bool {
        !self.life.is_closed() && self.effects.is_empty()
    }

    /// Moves the queued requests and notices to the host's queues.
    pub(super) fn take_effects(&mut self, effects: &mut Effects) {
        effects.append(&mut self.effects);
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
            self.state.is_in_place() && self.life.is_untouched()
        } else {
            !self.life.is_closing()
        }
    }

    /// Returns true if the session only compares.
    pub(super) fn is_audit(&self) -> bool {
        self.state.is_audit()
    }

    /// Returns true if the stage is final, apart from a revert of the commit.
    pub(super) fn is_over(&self) -> bool {
        self.state.is_over()
    }

    /// Names the session for people: release, sender and address.
    pub(super) fn describe(&self) -> ReasonText {
        format!(
            "{} from {} ({})",
            self.release,
            self.sender.name(),
            self.sender.address()
        )
    }

    /// Summarizes the work in progress for people.
    pub(super) fn work(&self) -> TreeActivity {
        let word = match self.state.stage() {
            _ if self.is_ordering() => "committing".to_string(),
            HostStage::Diffing => "checking".to_string(),
            stage => format!("{stage:?}").to_lowercase(),
        };

        let total = self.state.fetch_bytes();
        let is_fetching = self.state.stage() == HostStage::Staging;
        TreeActivity {
            word,
            serial: self.release.header().serial,
            sender: self.sender.name().clone(),
            fetch: total.filter(|_| is_fetching).map(|total| FetchProgress {
                total,
                left: total.saturating_sub(self.fetch.received()),
            }),
        }
    }

    /// Counts packets lost in the receive buffer.
    pub(super) fn count_dropped(&mut self, packets: u64) {
        self.state.count_dropped(packets);
    }

    /// Counts `dropped` datagrams that were to be passed on, and notes how long others waited.
    pub(super) fn on_relay_load(&mut self, dropped: u64, wait: Option<Duration>) {
        self.intake.on_relay_load(dropped, wait);
    }

    /// Counts a message of the sender as a sign of life.
    pub(super) fn on_message(&mut self, now: Moment, counter: u64) {
        self.sender.on_message(now, counter);
    }

    /// Closes the session in favour of another sender.
    pub(super) fn give_way(&mut self) {
        self.close();
    }

    /// Gives way to a release: ends a running audit, but keeps the result of a finished one for
    /// the sender.
    pub(super) fn give_way_to(&mut self, now: Moment, other: &str) {
        if !self.is_audit() {
            self.close();
        } else if !self.is_over() {
            self.effects.request(DiskRequest::Close(self.id));
            self.refuse(now, format!("gave way to {other}; try again"));
        }
    }

    /// Sums the session up for the owner of the host.
    pub(super) fn summary(&self) -> HostNotice {
        HostNotice::Over {
            stage: self.state.stage(),
            is_audit: self.is_audit(),
            lasted: self.entered.since(self.began),
        }
    }

    /// Takes the counts of lost symbols and of repairs.
    pub(super) fn take_symbol_counts(&mut self) -> SymbolCounts {
        self.fetch.take_symbol_counts()
    }

    fn close(&mut self) {
        if self.life.close() {
            self.effects.request(DiskRequest::Close(self.id));
        }
    }

    /// Hands work to the disk.
    fn ask(&mut self, ask: Ask) {
        self.effects.request(DiskRequest::Session(self.id, ask));
    }

    /// Enters a stage and reports it to the sender, from `due` on until acknowledged.
    fn enter(&mut self, due: Moment, stage: HostStage) {
        self.state.set_stage(stage);
        self.entered = due;
        self.queue_state(due);
        self.effects.notify(HostNotice::Stage {
            tree: self.tree().clone(),
            serial: self.release.header().serial,
            sender: self.sender.address(),
            stage,
            text: self.state.text().cloned(),
            proven: self.authenticated,
            for_others: self.for_others,
        });
    }

    /// Reports the state to the sender, from `due` on until acknowledged.
    fn queue_state(&mut self, due: Moment) {
        self.messages.queue_state(due, |due, number| {
            let nonce = self.sender.nonce_to_echo(due);
            self.state
                .report(self.id, number, self.fetch.received(), nonce)
        });
    }

    fn refuse(&mut self, now: Moment, text: ReasonText) {
        self.end(now, HostStage::Refused, text);
    }

    fn end(&mut self, now: Moment, stage: HostStage, text: ReasonText) {
        self.state.explain(text);
        self.orders.finish();
        self.fetch.stop();
        self.messages.clear();
        self.enter(now, stage);
    }
}

/// Beginning of the reason of a host whose tree another session holds. Senders of any version read
/// it.
const BUSY: &str = "busy with ";

/// Returns whether a host refused since another session holds its tree.
pub fn is_busy(reason: &str) -> bool {
    reason.starts_with(BUSY)
}

/// Formats the refusal of a session whose tree is taken.
pub(super) fn busy_with(other: &str) -> ReasonText {
    format!("{BUSY}{other}; try again when it is over")
}

/// Returns a number from 0 to 1 by the random `seed`.
fn part_of(seed: u64) -> f64 {
    seed as f64 / u64::MAX as f64
}
