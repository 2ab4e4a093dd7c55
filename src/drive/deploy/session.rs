//! The loop of a session: the sender machine between network, worker and observer.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use super::known_hosts::HostKeys;
use super::options::{DeployOptions, Interrupt, ReleaseOrigin};
use super::results::{self, EndedSession, Timeline};
use super::source::PreparedRelease;
use super::worker::{OwnRelease, WorkerAnswer, WorkerHandle, WorkerTask};
use super::{narrate, serials};
use crate::drive::clock::{self, Clock};
use crate::drive::endpoint::GroupEndpoint;
use crate::drive::unproven;
use crate::id::{HostName, InstanceId, NamedHost, Serial};
use crate::keys::{PublicKey, Role};
use crate::manifest::{Header, Intent, Release};
use crate::outcome::{
    Event, HostChange, HostState, Observer, Outcome, Purpose, SignedRelease, shared_names,
};
use crate::proto::sender::hosts::Host;
use crate::proto::sender::{Sender, SenderNotice, SenderReply};
use crate::tree::{Arriving, Lacking};
use crate::units::{Moment, WallTime};
use crate::wire::message::{OrderKind, SerialProof};
use crate::{Error, Result};

/// Longest wait for new hosts to catch up, without progress.
const MAX_ARRIVAL_WAIT: Duration = Duration::from_secs(5);
/// Interval of checks for new hosts.
const ARRIVAL_POLL_INTERVAL: Duration = Duration::from_millis(100);
/// Largest number of sends before the next read.
const MAX_SENDS: usize = 16;
/// Interval of progress reports.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(100);
/// Largest number of reported reasons for a host's wait.
const MAX_WAITS: usize = 16;

/// Network, machine and worker of a session.
pub(super) struct Machinery {
    pub(super) clock: Clock,
    pub(super) endpoint: GroupEndpoint,
    pub(super) machine: Sender,
    pub(super) host_keys: HostKeys,
    pub(super) worker: WorkerHandle,
}

/// A session in progress.
pub(super) struct DeploySession<'a> {
    options: DeployOptions,
    origin: ReleaseOrigin,
    clock: Clock,
    endpoint: GroupEndpoint,
    machine: Sender,
    host_keys: HostKeys,
    worker: WorkerHandle,
    observer: &'a mut dyn Observer,
    interrupt: &'a Interrupt,
    timeline: Timeline,
    /// Time of the last progress report.
    reported: Moment,
    /// Highest serial accepted by any host, once discovery is over.
    discovered: Option<Serial>,
    /// Oldest release of the hosts that catch up first, and the deadline.
    arrivals: Option<(Serial, Moment)>,
    prepared: Option<Box<PreparedRelease>>,
    release: Option<Release>,
    /// Release made for this session, with its signature.
    signed: Option<(Release, Vec<u8>)>,
    /// Reported reasons for a host's wait.
    waits: BTreeSet<String>,
    finished: bool,
    decision: Option<(OrderKind, String)>,
}

impl<'a> DeploySession<'a> {
    /// A session for `origin` that began at `began` and has sent nothing.
    pub(super) fn new(
        options: DeployOptions,
        origin: ReleaseOrigin,
        machinery: Machinery,
        observer: &'a mut dyn Observer,
        interrupt: &'a Interrupt,
        began: Moment,
    ) -> Self {
        let Machinery {
            clock,
            endpoint,
            machine,
            host_keys,
            worker,
        } = machinery;

        Self {
            options,
            origin,
            clock,
            endpoint,
            machine,
            host_keys,
            worker,
            observer,
            interrupt,
            timeline: Timeline::new(began),
            reported: began,
            discovered: None,
            arrivals: None,
            prepared: None,
            release: None,
            signed: None,
            waits: BTreeSet::new(),
            finished: false,
            decision: None,
        }
    }

    /// Runs the session to its end.
    pub(super) fn run(mut self) -> Result<Outcome> {
        loop {
            match self.turn() {
                Ok(None) if self.finished => {
                    self.report_drops();
                    self.keep_own();
                    self.keep_hosts();
                    return Ok(self.outcome());
                }
                Ok(None) => {}
                Ok(Some(outcome)) => return Ok(outcome),

                // Hosts may have been ordered to change: report their known states.
                Err(e) if self.release.is_some() => {
                    let error = e.to_string();
                    let hint = e.hint_text().map(str::to_string);
                    return Ok(Outcome {
                        error: Some(error),
                        hint,
                        ..self.outcome()
                    });
                }
                Err(e) => return Err(e),
            }
        }
    }

    /// Processes answers, timers and notices, sends, and waits. Returns an outcome if there is no
    /// host to serve.
    fn turn(&mut self) -> Result<Option<Outcome>> {
        self.take_answers()?;
        let now = self.clock.now();
        if self.interrupt.is_asked() {
            self.machine.abort(now, "interrupted");
            if self.release.is_none() {
                return Err(Error::refused("interrupted before anything was sent"));
            }
        }

        if self.machine.poll_timeout(now).is_some_and(|due| due <= now) {
            self.machine.handle_timeout(now);
        }

        // Before sending, so that the next generation is packed meanwhile.
        while let Some(request) = self.machine.poll_request() {
            self.worker.send(WorkerTask::Machine(request))?;
        }

        let machine = &mut self.machine;
        let clock = &self.clock;
        let mut turn = 0..MAX_SENDS;
        self.endpoint.flush(|out| {
            turn.next()
                .and_then(|_| machine.poll_transmit(clock.now(), out))
        });
        let outcome = self.take_notices()?;
        if outcome.is_some() || self.finished {
            return Ok(outcome);
        }

        self.report_trouble();
        self.report_progress();

        let now = self.clock.now();
        let wait = self.machine.poll_timeout(now).map(|due| due.since(now));
        self.endpoint.wait(wait)?;
        let machine = &mut self.machine;
        let clock = &self.clock;

        self.endpoint
            .receive(|d| machine.handle_datagram(clock.now(), d.from, d.bytes));
        Ok(None)
    }

    fn take_answers(&mut self) -> Result<()> {
        while let Some(answer) = self.worker.try_next()? {
            match answer {
                WorkerAnswer::Prepared(facts) => {
                    let facts = facts?;
                    if let Some(scanned) = facts.scanned {
                        self.observer.event(&Event::Scanned(scanned));
                    }
                    if self.options.part.listed {
                        self.observer.event(&Event::Files(facts.files.clone()));
                    }
                    for note in &facts.notes {
                        self.observer.event(&Event::Note(note.clone()));
                    }
                    self.prepared = Some(facts);
                    self.sign_when_known()?;
                }
                WorkerAnswer::Signed(signed) => {
                    let (release, signature) = signed?;
                    self.announce(release, signature);
                }
                WorkerAnswer::Machine(SenderReply::Packed(Err(why))) => {
                    let why = match self.origin.rollback_to() {
                        Some(to) => {
                            narrate::without_data(&self.machine, &self.options.spec.tree, to, &why)
                        }
                        None => why,
                    };
                    self.machine
                        .handle_reply(self.clock.now(), SenderReply::Packed(Err(why)));
                }
                WorkerAnswer::Machine(reply) => self.machine.handle_reply(self.clock.now(), reply),
                WorkerAnswer::OwnRelease(_) => {}
            }
        }

        Ok(())
    }

    /// Stores a release that hosts committed in this host's tree, if the tree was its source.
    fn keep_own(&mut self) {
        let Some(host) = self
            .options
            .beside
            .as_ref()
            .filter(|_| self.origin.granted().is_none())
        else {
            return;
        };

        let (Some((release, signature)), Some(order)) =
            (self.signed.take(), self.machine.committed_by())
        else {
            return;
        };

        let Some(tree) = host.tree(&release.header().tree) else {
            return;
        };

        let kept = OwnRelease {
            tree,
            release: release.clone(),
            signature,
            order: order.clone(),
        };

        match self.worker.keep(kept) {
            Some(Ok(())) => host.changed(),
            Some(Err(e)) => tracing::warn!("{release}: this host does not keep what it sent: {e}"),
            None => {}
        }
    }

    /// Stores the keys of hosts.
    fn keep_hosts(&mut self) {
        let told = self
            .host_keys
            .end(self.machine.known_hosts(), self.machine.hosts());
        told.into_iter()
            .for_each(|text| self.observer.event(&Event::Note(text)));
    }

    fn sign_when_known(&mut self) -> Result<()> {
        if let Some(granted) = self.origin.granted().cloned() {
            self.announce(granted.release, granted.signature);
            return Ok(());
        }

        let (Some(highest), Some(_)) = (self.discovered, &self.prepared) else {
            return Ok(());
        };

        self.check_none_later(highest)?;
        let spec = &self.options.spec;
        let created = clock::wall_seconds();
        let expires = spec
            .expires
            .map(|d| WallTime(created.0.saturating_add_unsigned(d.as_secs())));
        let intent = match (self.options.purpose, &self.origin) {
            (Purpose::Deploy, ReleaseOrigin::Again(_)) => Intent::Rollback,
            (Purpose::Deploy, _) => Intent::Deploy,
            _ => Intent::Audit,
        };

        // An audit uses up no serial.
        let serial = match intent {
            Intent::Audit => highest.next(),
            _ => self.take_serial(highest),
        };

        let (Some(facts), spec) = (&self.prepared, &self.options.spec) else {
            return Ok(());
        };

        let header = Header {
            format: facts.rules.format(),
            tree: spec.tree.clone(),
            serial,
            created,
            expires,
            intent,
            scope: facts.scope.clone(),
            targets: self.targets(),
            root: facts.root,
            rules: facts.rules.clone(),
            top: facts.top.clone(),
            again: self.origin.rollback_to(),
            session: Some(self.machine.session()),
            sender: Some(self.options.name.clone()),
            checksum: Some(self.options.checksum),
            quick: Some(self.options.hints.is_some()),
        };

        self.worker.send(WorkerTask::Sign(Box::new(header)))
    }

    /// Refuses if hosts or the own tree have a later release than `only_after`.
    fn check_none_later(&self, highest: Serial) -> Result<()> {
        let Some(last) = self.options.only_after else {
            return Ok(());
        };

        let tree = &self.options.spec.tree;
        let own = self
            .options
            .beside
            .as_ref()
            .and_then(|host| host.tree(tree));

        let own = own
            .map(|tree| tree.state().current())
            .transpose()?
            .flatten()
            .map(|mark| mark.serial);

        let newest = highest.max(own.unwrap_or_default());
        if newest > last {
            return Err(Error::refused(format!(
                "{tree}@{newest} came after {tree}@{last}"
            )));
        }

        Ok(())
    }

    /// Highest believable serial accepted by hosts.
    fn highest(&self, claims: &[(IpAddr, Serial)], shown: &[SerialProof]) -> Serial {
        let tree = &self.options.spec.tree;
        let now = clock::wall_seconds();
        let listed = |key: &PublicKey| {
            let keys = self.options.authorized.as_ref();
            keys.is_some_and(|keys| keys.allows(key, tree, Role::Rollback, now).is_ok())
        };

        serials::believed(tree, claims, shown, |key| {
            key == self.options.signer.public() || listed(key)
        })
    }

    /// Takes a serial without a known release of the tree.
    fn take_serial(&mut self, highest: Serial) -> Serial {
        let Some(cache) = &self.options.cache else {
            return highest.next();
        };

        serials::take(cache, &self.options.spec.tree, highest).unwrap_or_else(|e| {
            let why = format!(
                "the last serial is not kept in {} ({e}): a host that is away may have another \
                release of the next one",
                cache.display()
            );
            self.observer.event(&Event::Note(why));
            highest.next()
        })
    }

    /// Targets in the header: the only list of globs, or the names of the hosts that match both
    /// lists.
    fn targets(&self) -> Vec<String> {
        match self.options.lists().as_slice() {
            [] => Vec::new(),
            [list] => (*list).clone(),
            _ => self.machine.hosts().map(|h| h.name.to_string()).collect(),
        }
    }

    fn announce(&mut self, release: Release, signature: Vec<u8>) {
        self.observer.event(&Event::Released(SignedRelease {
            tree: release.header().tree.clone(),
            serial: release.header().serial,
            fingerprint: self.options.signer.public().fingerprint().to_string(),
            rollback_to: self.origin.rollback_to(),
        }));
        let own = self.origin.granted().is_none() && release.header().intent != Intent::Audit;
        if let Some(host) = self.options.beside.as_ref().filter(|_| own) {
            host.sent(&release);
        }

        let now = self.clock.now();
        self.timeline.announced(now);
        self.release = Some(release.clone());
        self.signed = Some((release.clone(), signature.clone())).filter(|_| own);

        self.machine.announce(now, release, signature);
    }

    /// Processes the machine's notices. Returns an outcome if there is no host to serve.
    fn take_notices(&mut self) -> Result<Option<Outcome>> {
        while let Some(notice) = self.machine.poll_notice() {
            match notice {
                SenderNotice::Discovered {
                    targets,
                    members,
                    claims,
                    shown,
                    unproven,
                    missing,
                } => {
                    let mut names: Vec<HostName> = targets.iter().map(|t| t.0.clone()).collect();
                    names.sort();
                    let took = self.clock.now().since(self.timeline.began());
                    let missing_hosts = narrate::missing_hosts(
                        &self.options,
                        &self.endpoint,
                        &names,
                        members,
                        &missing,
                        took,
                    );
                    if missing_hosts.is_none() && self.awaits_arrivals() {
                        continue;
                    }
                    unproven::warning(&unproven)
                        .into_iter()
                        .for_each(|text| self.observer.event(&Event::Note(text)));
                    if missing_hosts.is_some() {
                        return Ok(missing_hosts);
                    }
                    shared_names(targets.iter().map(|(name, at)| (name, at.ip())))
                        .into_iter()
                        .for_each(|text| self.observer.event(&Event::Note(text)));
                    self.discovered = Some(self.highest(&claims, &shown));
                    self.sign_when_known()?;
                }
                SenderNotice::Narrow { datagram, host } => {
                    tracing::info!("{}", self.endpoint.narrowed(datagram, &host));
                }
                SenderNotice::Host(host) => {
                    self.report_wait(&host);
                    let state = self.state_of(&host);
                    self.on_host_state(&host, state, host.text.clone());
                }
                SenderNotice::Lost(host) => {
                    let state = self.state_of(&host);
                    self.on_host_state(
                        &host,
                        state,
                        results::why(&self.machine, self.clock.now(), &host, state),
                    );
                }
                SenderNotice::OtherKey(other) => {
                    let text = self.host_keys.other(&other);
                    text.into_iter()
                        .for_each(|text| self.observer.event(&Event::Note(text)));
                }
                SenderNotice::Slow(name, rate) => {
                    let text = format!(
                        "{name} receives {rate}, far less than the others: it is served after them"
                    );
                    self.observer.event(&Event::Note(text));
                }
                SenderNotice::Decided(kind, why) => self.decision = Some((kind, why)),
                SenderNotice::Finished => self.finished = true,
            }
        }

        Ok(None)
    }

    /// Repeats discovery while hosts started a moment ago catch up.
    ///
    /// A host that takes a part of the tree before the parts it missed would never get those.
    fn awaits_arrivals(&mut self) -> bool {
        let is_part =
            !self.options.part.scope.is_empty() && self.options.purpose == Purpose::Deploy;
        let Some(host) = self
            .options
            .beside
            .as_ref()
            .filter(|_| is_part && self.origin.granted().is_none())
        else {
            return false;
        };

        let Some(tree) = host.tree(&self.options.spec.tree) else {
            return false;
        };

        let new = host.new_ones(self.machine.target_states().map(|(id, ..)| id).collect());
        let new: BTreeSet<InstanceId> = new.into_iter().collect();
        let lacking = self
            .machine
            .target_states()
            .filter(|(id, ..)| new.contains(id))
            .map(|(_, name, state)| Lacking {
                have: state.running.unwrap_or_default(),
                base: state.base,
                host: Some(name),
            });

        let arriving = tree.arriving(lacking).unwrap_or_else(|e| {
            tracing::warn!(
                "tree {}: it is not known which hosts are to catch up first: {e}",
                tree.name()
            );
            Arriving::default()
        });

        let Some(oldest) = arriving.oldest else {
            // An older host will not catch up any more.
            let present = self
                .machine
                .target_states()
                .map(|(.., state)| state.running.unwrap_or_default())
                .min();
            self.machine
                .requires(arriving.needed.min(present.unwrap_or_default()));
            return false;
        };

        let now = self.clock.now();

        let (known, until) = self.arrivals.unwrap_or_else(|| {
            self.observer.event(&Event::Note(
                "waiting for new hosts to catch up".to_string(),
            ));
            (oldest, now + MAX_ARRIVAL_WAIT)
        });

        // Wait on while the hosts make progress.
        let until = if known == oldest {
            until
        } else {
            now + MAX_ARRIVAL_WAIT
        };

        self.arrivals = Some((oldest, until));
        if now < until {
            self.machine.discover_again(now + ARRIVAL_POLL_INTERVAL);
        }

        now < until
    }

    fn on_host_state(&mut self, host: &Host, state: HostState, error: Option<String>) {
        let key = (host.name.clone(), host.address.ip());
        if self.timeline.reached(key, state, self.clock.now()) {
            let NamedHost {
                name: host,
                address,
            } = self.machine.shown(host);
            self.observer.event(&Event::Host(HostChange {
                host,
                address,
                state,
                error,
            }));
        }
    }

    fn state_of(&self, host: &Host) -> HostState {
        let deploy = self.options.purpose == Purpose::Deploy;
        results::state_of(host, self.machine.fate(host), deploy, false)
    }

    fn outcome(self) -> Outcome {
        let ended = EndedSession {
            options: &self.options,
            machine: &self.machine,
            timeline: &self.timeline,
            now: self.clock.now(),
            release: self.release.as_ref(),
            rollback_to: self.origin.rollback_to(),
            content: self.prepared.as_ref().map(|facts| facts.name()),
            bytes_sent: self.endpoint.sent(),
            decision: self.decision.as_ref(),
        };

        ended.outcome()
    }

    /// Aborts once the interface takes no more datagrams, which would never arrive.
    fn report_trouble(&mut self) {
        let Some(trouble) = self.endpoint.take_warning() else {
            return;
        };

        self.observer.event(&Event::Note(trouble.clone()));
        if self.timeline.is_announced() {
            self.machine.abort(self.clock.now(), &trouble);
        }
    }

    /// Reports each reason for a host's wait once.
    fn report_wait(&mut self, host: &Host) {
        let Some(reason) = narrate::waits_for(host) else {
            return;
        };

        if self.waits.len() < MAX_WAITS && self.waits.insert(reason.to_string()) {
            let note = format!("{}: {reason}", self.machine.shown(host));
            self.observer.event(&Event::Note(note));
        }
    }

    fn report_drops(&mut self) {
        if let Some(note) = narrate::drops(&self.machine) {
            self.observer.event(&Event::Note(note));
        }
    }

    fn report_progress(&mut self) {
        let now = self.clock.now();
        if !self.timeline.is_announced() || now.since(self.reported) < PROGRESS_INTERVAL {
            return;
        }

        self.reported = now;
        self.observer
            .event(&Event::Progress(narrate::progress(&self.machine)));
    }
}
