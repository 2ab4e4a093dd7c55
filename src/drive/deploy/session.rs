//! The loop of a session: the driver of the sender machine between worker and observer.

use std::collections::HashMap;
use std::net::SocketAddr;

use super::arrivals::ArrivalWait;
use super::driver::SenderDriver;
use super::known_hosts::HostKeys;
use super::last_hosts::LastHosts;
use super::options::{DeployOptions, Interrupt};
use super::publisher::Publisher;
use super::release::SessionRelease;
use super::reporter::SessionReporter;
use super::results::{self, EndedSession};
use super::worker::{WorkerAnswer, WorkerTask};
use super::{narrate, serials};
use crate::drive::clock;
use crate::drive::host::HostHandle;
use crate::drive::unproven;
use crate::id::{HostName, Labels};
use crate::manifest::{Intent, Release};
use crate::outcome::{Event, HostState, MadeRelease, Outcome, Purpose, shared_names};
use crate::proto::sender::hosts::Host;
use crate::proto::sender::{SenderNotice, SenderReply};
use crate::wire::message::OrderKind;
use crate::{Error, Result};

/// A session in progress.
pub(super) struct DeploySession<'a> {
    options: DeployOptions,
    interrupt: &'a Interrupt,
    driver: SenderDriver,
    reporter: SessionReporter<'a>,
    release: SessionRelease,
    host_keys: HostKeys,
    last_hosts: LastHosts,
    arrivals: ArrivalWait,
    finished: bool,
    decision: Option<(OrderKind, String)>,
    /// End of the publication, if there was one.
    published: Option<Result<()>>,
}

impl<'a> DeploySession<'a> {
    /// A session that has sent nothing.
    pub(super) fn new(
        options: DeployOptions,
        interrupt: &'a Interrupt,
        driver: SenderDriver,
        reporter: SessionReporter<'a>,
        release: SessionRelease,
        host_keys: HostKeys,
        last_hosts: LastHosts,
    ) -> Self {
        Self {
            options,
            interrupt,
            driver,
            reporter,
            release,
            host_keys,
            last_hosts,
            arrivals: ArrivalWait::default(),
            finished: false,
            decision: None,
            published: None,
        }
    }

    /// Runs the session to its end.
    pub(super) fn run(mut self) -> Result<Outcome> {
        loop {
            match self.turn() {
                Ok(None) if self.finished => {
                    self.reporter.notes(narrate::drops(&self.driver.machine));
                    if let Some(host) = self.own_host().cloned() {
                        self.release.keep(&host, &self.driver);
                    }
                    self.keep_hosts();
                    // Last: it may take long, and a second interrupt ends the process.
                    self.publish();
                    return Ok(self.outcome());
                }
                Ok(None) => {}
                Ok(Some(outcome)) => return Ok(outcome),

                // Hosts may have been ordered to change: report their known states.
                Err(e) if self.release.announced().is_some() => {
                    let error = e.to_string();
                    let hint = e.hint_text().map(str::to_string);
                    self.published = Some(Err(Error::refused("the deploy ended by an error")));
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
        if self.interrupt.is_asked() {
            self.driver.abort("interrupted");
            if self.release.announced().is_none() {
                return Err(Error::refused("interrupted before anything was sent"));
            }
        }

        self.driver.send()?;
        let outcome = self.take_notices()?;
        if outcome.is_some() || self.finished {
            return Ok(outcome);
        }

        self.report_trouble();
        self.reporter
            .progress(&self.driver.machine, self.driver.now());
        self.driver.receive()?;

        Ok(None)
    }

    fn take_answers(&mut self) -> Result<()> {
        while let Some(answer) = self.driver.worker.try_next()? {
            match answer {
                WorkerAnswer::Prepared(facts) => {
                    let facts = facts?;
                    self.reporter.source(&facts, self.options.part.listed);
                    self.release.set_prepared(facts);
                    self.sign_when_known()?;
                }
                WorkerAnswer::Signed(signed) => {
                    let (release, signature) = signed?;
                    self.announce(release, signature);
                }
                WorkerAnswer::Machine(SenderReply::Packed(Err(why))) => {
                    let why = self.unreadable(why);
                    self.driver.reply(SenderReply::Packed(Err(why)));
                }
                WorkerAnswer::Machine(reply) => self.driver.reply(reply),
                WorkerAnswer::OwnRelease(_)
                | WorkerAnswer::Publishing(_)
                | WorkerAnswer::Published(_) => {}
            }
        }

        Ok(())
    }

    /// Reason of an unreadable source; for a rollback with the hosts in need of the data.
    fn unreadable(&self, why: String) -> String {
        match self.release.rollback_to() {
            Some(to) => {
                let tree = &self.options.spec.tree;
                narrate::without_data(&self.driver.machine, tree, to, &why)
            }
            None => why,
        }
    }

    /// The host in this process, if its tree is the source of the release.
    fn own_host(&self) -> Option<&HostHandle> {
        let host = self.options.beside.as_ref();
        host.filter(|_| self.release.granted().is_none())
    }

    /// Hands the release on, if hosts have committed it.
    fn publish(&mut self) {
        let committed = self.release.committed(&self.driver);
        if let Some((publisher, committed)) = self.options.publisher.clone().zip(committed) {
            let reporter = &mut self.reporter;
            let tell = |event: &Event| reporter.event(event);
            let published = self.driver.worker.publish(publisher, committed, tell);
            self.published = Some(published);
        }
    }

    /// Stores the keys of hosts, and who took part.
    fn keep_hosts(&mut self) {
        let machine = &self.driver.machine;
        let told = self.host_keys.end(machine.known_hosts(), machine.hosts());
        self.reporter.notes(told);

        let hosts = machine.hosts().filter(|host| host.stage.is_some());
        let labels: HashMap<&HostName, &Labels> = machine
            .target_states()
            .map(|(_, hello, _)| (&hello.name, hello.labels()))
            .collect();
        let hosts = hosts.map(|host| {
            let labels = labels.get(&host.name).copied();
            (&host.name, labels.unwrap_or(Labels::none()))
        });
        let now = clock::wall_seconds();
        if matches!(self.options.purpose, Purpose::Deploy | Purpose::Stage)
            && let Err(e) = self.last_hosts.keep(hosts, now)
        {
            let note = format!("later deploys do not miss the hosts of this one: {e}");
            self.reporter.notes(Some(note));
        }
    }

    /// Says which hosts of earlier deploys are not among the targets. A watch looks after its own.
    fn missed(&self, targets: &[(HostName, SocketAddr)]) -> Option<String> {
        let names: Vec<HostName> = targets.iter().map(|(name, _)| name.clone()).collect();
        let missed = self.last_hosts.missed(&self.options.lists(), &names);
        missed.filter(|_| self.options.known == 0)
    }

    fn sign_when_known(&mut self) -> Result<()> {
        if let Some(granted) = self.release.granted().cloned() {
            self.announce(granted.release, granted.signature);
            return Ok(());
        }

        let Some(highest) = self.release.highest_when_prepared() else {
            return Ok(());
        };

        if let Some(staged) = self.release.staged().cloned() {
            self.announce(staged.release, staged.signature);
            return Ok(());
        }

        serials::check_none_later(&self.options, highest)?;
        let published = self.options.publisher.as_ref().map(Publisher::newest);
        let highest = highest.max(published.unwrap_or_default());

        // An audit uses up no serial.
        let serial = match self.release.intent(&self.options) {
            Intent::Audit => highest.next(),
            _ => serials::next(&self.options, highest, |why| self.reporter.note(why)),
        };

        let machine = &self.driver.machine;
        let targets = self.options.targets(machine.hosts().map(|h| &h.name));
        let found = machine.hosts().count();
        let header = self
            .release
            .header(&self.options, serial, targets, machine.session());

        match header {
            Some(mut header) => {
                if let Some(paused) = &mut header.paused {
                    paused.hosts = u32::try_from(found).ok();
                }
                self.driver.worker.send(WorkerTask::Sign(Box::new(header)))
            }
            None => Ok(()),
        }
    }

    fn announce(&mut self, release: Release, signature: Vec<u8>) {
        self.reporter.event(&Event::Released(MadeRelease {
            tree: release.header().tree.clone(),
            serial: release.header().serial,
            fingerprint: self.options.keys.fingerprint(),
            rollback_to: self.release.rollback_to(),
        }));

        let is_own = self.release.announce(&release, &signature);
        if let Some(host) = self.options.beside.as_ref().filter(|_| is_own) {
            host.sent(&release);
        }

        let now = self.driver.now();
        self.reporter.announced(now);

        self.driver.machine.announce(now, release, signature);
    }

    /// Processes the machine's notices. Returns an outcome if there is no host to serve.
    fn take_notices(&mut self) -> Result<Option<Outcome>> {
        while let Some(notice) = self.driver.machine.poll_notice() {
            match notice {
                SenderNotice::Discovered {
                    targets,
                    members,
                    claims,
                    shown,
                    unproven,
                    missing,
                } => {
                    let missing_hosts = self.missing_hosts(&targets, &members, &missing);
                    if missing_hosts.is_none() && self.awaits_arrivals() {
                        continue;
                    }
                    self.reporter.notes(unproven::warning(&unproven));
                    if missing_hosts.is_some() {
                        return Ok(missing_hosts);
                    }
                    let named = targets.iter().map(|(name, at)| (name, at.ip()));
                    self.reporter.notes(shared_names(named));
                    self.reporter.notes(self.missed(&targets));
                    self.release
                        .set_highest(serials::highest(&self.options, &claims, &shown));
                    self.sign_when_known()?;
                }
                SenderNotice::Narrow { datagram, host } => {
                    tracing::info!("{}", self.driver.endpoint.narrowed(datagram, &host));
                }
                SenderNotice::Host(host) => {
                    self.reporter.wait(&self.driver.machine, &host);
                    let state = self.state_of(&host);
                    let aborted = self
                        .decision
                        .as_ref()
                        .filter(|_| state == HostState::Aborted)
                        .filter(|_| self.options.purpose != Purpose::Abort);
                    let why = aborted.map(|(_, why)| results::not_changed(why));
                    self.report_state(&host, state, why.or_else(|| host.text.clone()));
                }
                SenderNotice::Lost(host) => {
                    let state = self.state_of(&host);
                    let why = results::why(&self.driver.machine, self.driver.now(), &host, state);
                    self.report_state(&host, state, why);
                }
                SenderNotice::OtherKey(other) => {
                    let text = self.host_keys.other(&other);
                    self.reporter.notes(text);
                }
                SenderNotice::Slow(name, rate) => self.reporter.note(format!(
                    "{name} receives {rate}, far less than the others: it is served after them"
                )),
                SenderNotice::Decided(kind, why) => self.decision = Some((kind, why)),
                SenderNotice::Finished => self.finished = true,
            }
        }

        Ok(None)
    }

    /// Outcome of a session without its expected hosts; `None` if all answered.
    fn missing_hosts(
        &self,
        targets: &[(HostName, SocketAddr)],
        members: &[(HostName, Labels)],
        missing: &[HostName],
    ) -> Option<Outcome> {
        let mut names: Vec<HostName> = targets.iter().map(|t| t.0.clone()).collect();
        names.sort();
        let took = self.driver.now().since(self.reporter.timeline().began());
        let endpoint = &self.driver.endpoint;
        let remedy = self.last_hosts.remedy();
        narrate::missing_hosts(
            &self.options,
            endpoint,
            &names,
            members,
            missing,
            took,
            remedy,
        )
    }

    /// Repeats discovery while hosts started a moment ago catch up.
    fn awaits_arrivals(&mut self) -> bool {
        let is_part =
            !self.options.part.scope.is_empty() && self.options.purpose == Purpose::Deploy;
        let Some(host) = self.own_host().filter(|_| is_part).cloned() else {
            return false;
        };

        let now = self.driver.now();
        let tree = &self.options.spec.tree;
        let reporter = &mut self.reporter;

        self.arrivals
            .goes_on(&host, tree, &mut self.driver.machine, now, |text| {
                reporter.note(text)
            })
    }

    fn state_of(&self, host: &Host) -> HostState {
        let deploy = !self.options.purpose.is_audit();
        results::state_of(host, self.driver.machine.fate(host), deploy, false)
    }

    fn report_state(&mut self, host: &Host, state: HostState, error: Option<String>) {
        let now = self.driver.now();
        self.reporter
            .state(&self.driver.machine, now, host, state, error);
    }

    fn outcome(mut self) -> Outcome {
        let published = self.published.take();
        let ended = EndedSession {
            options: &self.options,
            machine: &self.driver.machine,
            timeline: self.reporter.timeline(),
            now: self.driver.now(),
            release: self.release.announced(),
            rollback_to: self.release.rollback_to(),
            content: self.release.content(),
            bytes_sent: self.driver.endpoint.sent(),
            decision: self.decision.as_ref(),
        };

        let publisher = self.options.publisher.as_ref();
        let repository = publisher.map(|publisher| publisher.result(published));
        ended.outcome().with_repository(repository)
    }

    /// Aborts once the interface takes no more datagrams, which would never arrive.
    fn report_trouble(&mut self) {
        let Some(trouble) = self.driver.endpoint.take_warning() else {
            return;
        };

        self.reporter.note(trouble.clone());

        if self.release.announced().is_some() {
            self.driver.abort(&trouble);
        }
    }
}
