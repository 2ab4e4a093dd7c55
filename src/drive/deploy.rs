//! A deploy, a dry run or an audit: the sender machine on a real network, with a real source and key.

mod results;
mod telling;
mod work;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver as Inbox, Sender as Outbox, TryRecvError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use self::work::{Answer, Work, Worker, worker_gone};
use super::clock::{self, Clock};
use super::endpoint::{Door, Endpoint};
use super::host::Handle;
use super::known_hosts::Acquaintance;
use super::outcome::shared_names;
use super::outcome::{
    Event, ExitStatus, HostChange, HostState, Observer, Outcome, Purpose, Released,
};
use super::rollback::Earlier;
use super::serials;
use super::source::{How, Part, Source, Unmounted};
use super::unproven;
use crate::block::BlockHash;
use crate::id::{HostName, InstanceId, NamedHost, Serial};
use crate::keys::{AuthorizedKeys, KnownHosts, PublicKey, Role, Signer};
use crate::manifest::{Header, Intent, Release};
use crate::net::{Waker, sharpen_timers};
use crate::proto::sender::hosts::Host;
use crate::proto::sender::{ExpectedHosts, Sender, SenderNotice, SenderReply, SenderSetup};
use crate::spec::{OnFailure, Spec};
use crate::tree::scan::{Exposures, Hints};
use crate::tree::{Arriving, FileId, Lacking, Root};
use crate::units::{Moment, WallTime};
use crate::wire::HostStage;
use crate::wire::message::{OrderKind, SerialProof, SignedOrder};
use crate::{Error, Result};

/// The most hosts that one note names.
const NAMED: usize = 8;
/// How long hosts that have just come are waited for when they do not get on.
const ARRIVAL: Duration = Duration::from_secs(5);
/// How often they are looked at.
const LOOK: Duration = Duration::from_millis(100);

/// Sends in a row before it is looked what came in.
const SENDS: usize = 16;

/// What is to be done.
#[derive(Debug, Clone)]
pub struct Options {
    /// The spec, with what the command line overrides.
    pub spec: Spec,
    /// For what.
    pub purpose: Purpose,
    /// Globs on host names beside the spec's: a target matches both; none narrows nothing.
    pub only: Vec<String>,
    /// The key.
    pub signer: Arc<dyn Signer>,
    /// This host's name.
    pub name: HostName,
    /// How long a host may be silent.
    pub timeout: Duration,
    /// Whether hosts, and this one, read every file again.
    pub checksum: bool,
    /// Whether hosts run their health checks also where nothing changes.
    pub recheck: bool,
    /// Where the source may have changed since the last release of it, when that is known: nothing else is looked at,
    /// here and on the hosts. The index has to be kept.
    pub hints: Option<Hints>,
    /// Where files of the source are told of that can change unheard, when somebody wants to know.
    pub exposures: Option<Exposures>,
    /// How many hosts took part in the release before, a moment ago: when all of them have answered, nobody else is
    /// waited for. 0: nobody knows.
    pub known: usize,
    /// What was released last, see [`Outcome::content`]: the same is not released again.
    pub unless: Option<BlockHash>,
    /// The directory that the source has to be; `None`: whichever its path leads to.
    pub directory: Option<FileId>,
    /// The source where it is open already: its path is not looked up.
    pub root: Option<Arc<Root>>,
    /// What to do about a filesystem in the source that is not mounted any more.
    pub unmounted: Unmounted,
    /// Where the source's index is kept, and the last serial; a temporary file when nowhere.
    pub cache: Option<PathBuf>,
    /// Which part of the source is released.
    pub part: Part,
    /// Whether hosts tell what differs before a commit, too, and not only when nothing else is asked of them.
    pub lists: bool,
    /// The host in this process whose tree is the source: it takes no part.
    pub beside: Option<Handle>,
    /// Whether a host with another key than its name had before is kept out.
    pub strict: bool,
    /// Whose releases show how high serials are, beside those of the key that signs.
    pub authorized: Option<Arc<AuthorizedKeys>>,
    /// Nothing is released when a later release than this one is known: what is put was made without it.
    pub only_after: Option<Serial>,
}

impl Options {
    /// A session of the whole source for every target that the spec names, with nothing known from before.
    pub fn new(
        spec: Spec,
        purpose: Purpose,
        signer: Arc<dyn Signer>,
        name: HostName,
        timeout: Duration,
    ) -> Self {
        Self {
            spec,
            purpose,
            only: Vec::new(),
            signer,
            name,
            timeout,
            checksum: false,
            recheck: false,
            hints: None,
            exposures: None,
            known: 0,
            unless: None,
            directory: None,
            root: None,
            unmounted: Unmounted::default(),
            cache: None,
            part: Part::default(),
            lists: false,
            beside: None,
            strict: false,
            authorized: None,
            only_after: None,
        }
    }
}

/// Ends a session early, from a signal.
#[derive(Debug, Clone, Default)]
pub struct Interrupt {
    asked: Arc<AtomicBool>,
    /// Of the session that is under way.
    waker: Arc<Mutex<Option<Waker>>>,
}

impl Interrupt {
    /// Asks the session to abort; says whether that was asked before.
    pub fn interrupt(&self) -> bool {
        let before = self.asked.swap(true, Ordering::SeqCst);
        if let Some(waker) = &*self.waker() {
            waker.wake();
        }
        before
    }

    /// Whether both are of the same session.
    pub fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.asked, &other.asked)
    }

    /// Whether that was asked.
    pub fn is_asked(&self) -> bool {
        self.asked.load(Ordering::SeqCst)
    }

    fn waker(&self) -> MutexGuard<'_, Option<Waker>> {
        self.waker.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Runs the session to its end. An error is one before any host was asked to change; whatever comes later is in the
/// outcome.
pub fn run(
    door: impl Into<Door>,
    options: Options,
    interrupt: &Interrupt,
    observer: &mut dyn Observer,
) -> Result<Outcome> {
    options.spec.check_source()?;
    let (spec, part) = (options.spec.clone(), options.part.clone());
    let how = How {
        checksum: options.checksum,
        hints: options.hints.clone(),
        exposures: options.exposures.clone(),
        directory: options.directory,
        root: options.root.clone(),
        unmounted: options.unmounted,
    };

    let cache = options.cache.clone();
    let prepare = move || Source::prepare(&spec, &part, how, cache.as_deref());
    run_with(
        door.into(),
        options,
        Box::new(prepare),
        Kind::New,
        interrupt,
        observer,
    )
}

/// Runs a session of what `prepare` makes ready, to its end; as [`run`] else.
pub fn put(
    door: impl Into<Door>,
    options: Options,
    prepare: Prepare,
    interrupt: &Interrupt,
    observer: &mut dyn Observer,
) -> Result<Outcome> {
    run_with(
        door.into(),
        options,
        prepare,
        Kind::New,
        interrupt,
        observer,
    )
}

/// Runs the session that puts an earlier release again, under a new serial, to its end; as [`run`] else. The spec says
/// whom and how; what is put, the earlier release.
pub fn rollback(
    door: impl Into<Door>,
    options: Options,
    earlier: Earlier,
    interrupt: &Interrupt,
    observer: &mut dyn Observer,
) -> Result<Outcome> {
    let (to, compress) = (
        earlier.release.header().serial,
        options.spec.transfer.compress,
    );
    let prepare = move || earlier.prepare(compress);
    run_with(
        door.into(),
        options,
        Box::new(prepare),
        Kind::Again(to),
        interrupt,
        observer,
    )
}

/// A release that was committed elsewhere, with all that makes it one.
#[derive(Debug, Clone)]
pub struct Granted {
    /// The release.
    pub release: Release,
    /// The signature of its header.
    pub signature: Vec<u8>,
    /// The order by which it was committed.
    pub grant: SignedOrder,
    /// How many hosts there are, about.
    pub fleet: u32,
    /// Of a part of the tree: the release that a host has to run to take it.
    pub follows: Option<Serial>,
    /// The only host that may take it.
    pub only: Option<HostName>,
}

/// Offers a release that was committed elsewhere to the hosts that lack it, to its end; as [`run`] else.
pub fn grant(
    door: impl Into<Door>,
    options: Options,
    granted: Granted,
    prepare: Prepare,
    interrupt: &Interrupt,
    observer: &mut dyn Observer,
) -> Result<Outcome> {
    run_with(
        door.into(),
        options,
        prepare,
        Kind::Granted(granted),
        interrupt,
        observer,
    )
}

/// What kind of release a session puts.
#[derive(Debug)]
enum Kind {
    /// One out of a source.
    New,
    /// An earlier one, under a new serial.
    Again(Serial),
    /// One that was committed elsewhere.
    Granted(Granted),
}

impl Kind {
    fn granted(&self) -> Option<&Granted> {
        if let Kind::Granted(granted) = self {
            Some(granted)
        } else {
            None
        }
    }
}

/// Makes the source ready, on the worker's thread.
pub type Prepare = Box<dyn FnOnce() -> Result<(Source, super::source::Facts)> + Send>;

fn run_with(
    door: Door,
    options: Options,
    prepare: Prepare,
    kind: Kind,
    interrupt: &Interrupt,
    observer: &mut dyn Observer,
) -> Result<Outcome> {
    sharpen_timers();
    let clock = Clock::start();

    // A release that is passed on is taken by hosts that find themselves what they lack.
    let cache = options
        .cache
        .as_deref()
        .filter(|_| kind.granted().is_none());

    let note = |text| observer.event(&Event::Note(text));
    let (acquaintance, known) = Acquaintance::begin(cache, &door.keys, options.strict, note)?;
    let endpoint = Endpoint::new(door)?;
    *interrupt.waker() = Some(endpoint.waker());
    let (work, answers) = Worker::start(
        &options,
        prepare,
        kind.granted().is_some(),
        endpoint.waker(),
    )?;

    let (began, mut first) = (clock.now(), None);
    if options.unless.is_some() || kind.granted().is_some() {
        // Nobody is asked anything before it is known that there is something to say.
        let answer = answers.recv().map_err(|_| worker_gone())?;
        if let Answer::Prepared(Ok(facts)) = &answer
            && Some(facts.name()) == options.unless
        {
            let nothing = Outcome {
                content: options.unless,
                ..Outcome::new(options.purpose, options.spec.tree)
            };
            return Ok(Outcome {
                exit: ExitStatus::Success,
                took: clock.now().since(began),
                ..nothing
            });
        }
        first = Some(answer);
    }

    let setup = SenderSetup {
        known_hosts: known,
        ..setup(&options, kind.granted(), &endpoint)
    };

    let machine = Sender::new(clock.now(), setup);
    if let Some(host) = &options.beside {
        host.ignore(machine.session());
    }

    Session {
        options,
        kind,
        clock,
        endpoint,
        machine,
        acquaintance,
        work,
        answers,
        first,
        observer,
        interrupt,
        began,
        told: began,
        announced: None,
        discovered: None,
        arrivals: None,
        prepared: None,
        release: None,
        signed: None,
        states: BTreeMap::new(),
        waits: BTreeSet::new(),
        finished: false,
        decision: None,
    }
    .run()
}

fn setup(options: &Options, granted: Option<&Granted>, endpoint: &Endpoint) -> SenderSetup {
    let spec = &options.spec;
    let expect = match &spec.targets.expect {
        None => ExpectedHosts::default(),
        Some(crate::spec::Expect::Count(n)) => ExpectedHosts {
            count: *n as usize,
            names: Vec::new(),
        },
        Some(crate::spec::Expect::Names(names)) => ExpectedHosts {
            count: names.len(),
            names: names.clone(),
        },
    };

    SenderSetup {
        name: options.name.clone(),
        instance: endpoint.instance(),
        seed: clock::seed(),
        datagram: endpoint.datagram(),
        room: endpoint.room(),
        tree: spec.tree.clone(),
        targets: lists(options).into_iter().cloned().collect(),
        without: options.beside.as_ref().map(Handle::instance),
        lists: options.lists,
        expect,
        known_hosts: KnownHosts::default(),
        strict: options.strict,
        known: options.known,
        quorum: spec.commit.require,
        batches: spec.commit.batches.clone(),
        revert: spec.commit.on_failure == OnFailure::Revert,
        patience: options.timeout,
        overhead: endpoint.overhead(),
        ceiling: spec.transfer.rate,
        floor: spec.transfer.floor,
        checksum: options.checksum,
        quick: options.hints.is_some(),
        recheck: options.recheck,
        grant: granted.map(|g| g.grant.clone()),
        fleet: granted.map_or(0, |g| g.fleet),
        follows: granted.and_then(|g| g.follows),
        only: granted.and_then(|g| g.only.clone()),
    }
}

/// The lists of globs that a target has to match.
fn lists(options: &Options) -> Vec<&Vec<String>> {
    [&options.spec.targets.hosts, &options.only]
        .into_iter()
        .filter(|list| !list.is_empty())
        .collect()
}

struct Session<'a> {
    options: Options,
    kind: Kind,
    clock: Clock,
    endpoint: Endpoint,
    machine: Sender,
    acquaintance: Acquaintance,
    work: Outbox<Work>,
    answers: Inbox<Answer>,
    /// The first of them, when it was waited for.
    first: Option<Answer>,
    observer: &'a mut dyn Observer,
    interrupt: &'a Interrupt,
    began: Moment,
    told: Moment,
    announced: Option<Moment>,
    /// The highest serial that any host has accepted, once discovery is over.
    discovered: Option<Serial>,
    /// The oldest release of hosts that catch up first, and how long they are waited for.
    arrivals: Option<(Serial, Moment)>,
    prepared: Option<Box<super::source::Facts>>,
    release: Option<Release>,
    /// The release that was made for this session, with its signature.
    signed: Option<(Release, Vec<u8>)>,
    /// Each host's last state with the moment that it came into it.
    states: BTreeMap<(HostName, IpAddr), (HostState, Moment)>,
    /// What hosts wait for, as far as it was told.
    waits: BTreeSet<String>,
    finished: bool,
    decision: Option<(OrderKind, String)>,
}

impl Session<'_> {
    fn run(mut self) -> Result<Outcome> {
        loop {
            match self.turn() {
                Ok(None) if self.finished => {
                    self.tell_drops();
                    self.keep_own();
                    self.keep_hosts();
                    return Ok(self.outcome());
                }
                Ok(None) => {}
                Ok(Some(outcome)) => return Ok(outcome),
                // Hosts may have been ordered to change: what they are known to have is told.
                Err(e) if self.release.is_some() => {
                    let (error, hint) = (e.to_string(), e.hint_text().map(str::to_string));
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

    /// Takes what came, does what is due, sends, and waits; an outcome when there is nobody to serve.
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

        // Before sending: the next generation is packed while this one goes out.
        while let Some(request) = self.machine.poll_request() {
            self.ask(Work::Machine(request))?;
        }

        let (machine, clock, mut turn) = (&mut self.machine, &self.clock, 0..SENDS);
        self.endpoint.flush(|out| {
            turn.next()
                .and_then(|_| machine.poll_transmit(clock.now(), out))
        });
        let outcome = self.take_notices()?;
        if outcome.is_some() || self.finished {
            return Ok(outcome);
        }

        self.tell_trouble();
        self.tell_progress();

        let now = self.clock.now();
        let wait = self.machine.poll_timeout(now).map(|due| due.since(now));
        self.endpoint.wait(wait)?;
        let (machine, clock) = (&mut self.machine, &self.clock);

        self.endpoint
            .receive(|d| machine.handle_datagram(clock.now(), d.from, d.bytes));
        Ok(None)
    }

    fn take_answers(&mut self) -> Result<()> {
        loop {
            let answer = match self
                .first
                .take()
                .map_or_else(|| self.answers.try_recv(), Ok)
            {
                Ok(answer) => answer,
                Err(TryRecvError::Empty) => return Ok(()),
                Err(TryRecvError::Disconnected) => return Err(worker_gone()),
            };
            match answer {
                Answer::Prepared(facts) => {
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
                Answer::Signed(signed) => {
                    let (release, signature) = signed?;
                    self.announce(release, signature);
                }
                Answer::Machine(SenderReply::Packed(Err(why))) => {
                    let why = self.without_data(why);
                    self.machine
                        .handle_reply(self.clock.now(), SenderReply::Packed(Err(why)));
                }
                Answer::Machine(reply) => self.machine.handle_reply(self.clock.now(), reply),
                Answer::Kept(_) => {}
            }
        }
    }

    /// Records the release with the tree of this host that was its source, when others committed it.
    fn keep_own(&mut self) {
        let Some(host) = self
            .options
            .beside
            .as_ref()
            .filter(|_| self.kind.granted().is_none())
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

        let kept = work::Kept {
            tree,
            release: release.clone(),
            signature,
            order: order.clone(),
        };

        let asked = self.work.send(Work::Keep(Box::new(kept))).is_ok();
        let kept = || {
            self.answers.iter().find_map(|answer| {
                if let Answer::Kept(done) = answer {
                    Some(done)
                } else {
                    None
                }
            })
        };

        match asked.then(kept).flatten() {
            Some(Ok(())) => host.changed(),
            Some(Err(e)) => tracing::warn!("{release}: this host does not keep what it sent: {e}"),
            None => {}
        }
    }

    /// Remembers hosts by their keys.
    fn keep_hosts(&mut self) {
        let told = self
            .acquaintance
            .end(self.machine.known_hosts(), self.machine.hosts());
        told.into_iter()
            .for_each(|text| self.observer.event(&Event::Note(text)));
    }

    /// Why a rollback cannot serve hosts that did not keep the release, with their names.
    fn without_data(&self, why: String) -> String {
        let Kind::Again(to) = self.kind else {
            return why;
        };

        let wants = |h: &&Host| {
            !h.lost
                && h.summary
                    .map_or(h.stage == Some(HostStage::Fetching), |s| s.fetch > 0)
        };

        let mut names: Vec<&str> = self
            .machine
            .hosts()
            .filter(wants)
            .map(|h| h.name.as_str())
            .collect();

        names.sort_unstable();
        let more = names.len().saturating_sub(NAMED);
        names.truncate(NAMED);
        let others = if more > 0 {
            format!(" and {more} more")
        } else {
            String::new()
        };

        format!(
            "{}{others} did not keep all of {}@{to}: {why}; run the rollback on a host that kept it, or deploy",
            names.join(", "),
            self.options.spec.tree
        )
    }

    /// The earlier release that is put again.
    fn rollback_to(&self) -> Option<Serial> {
        if let Kind::Again(to) = self.kind {
            Some(to)
        } else {
            None
        }
    }

    fn ask(&self, work: Work) -> Result<()> {
        // An error that the worker ended with is among its answers: it comes first.
        self.work.send(work).map_err(|_| self.worker_error())
    }

    fn worker_error(&self) -> Error {
        self.answers
            .try_iter()
            .find_map(|answer| match answer {
                Answer::Prepared(Err(e)) => Some(e),
                _ => None,
            })
            .unwrap_or_else(worker_gone)
    }

    fn sign_when_known(&mut self) -> Result<()> {
        if let Some(granted) = self.kind.granted().cloned() {
            self.announce(granted.release, granted.signature);
            return Ok(());
        }

        let (Some(highest), Some(_)) = (self.discovered, &self.prepared) else {
            return Ok(());
        };

        self.check_none_came(highest)?;
        let spec = &self.options.spec;
        let created = clock::wall_seconds();
        let expires = spec
            .expires
            .map(|d| WallTime(created.0.saturating_add_unsigned(d.as_secs())));
        let intent = match (self.options.purpose, &self.kind) {
            (Purpose::Deploy, Kind::Again(_)) => Intent::Rollback,
            (Purpose::Deploy, _) => Intent::Deploy,
            _ => Intent::Audit,
        };

        // An audit uses no number up.
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
            again: self.rollback_to(),
            session: Some(self.machine.session()),
            sender: Some(self.options.name.clone()),
            checksum: Some(self.options.checksum),
            quick: Some(self.options.hints.is_some()),
        };

        self.ask(Work::Sign(Box::new(header)))
    }

    /// Refuses when hosts, or the own tree, have a later release than the one that may be the last.
    fn check_none_came(&self, highest: Serial) -> Result<()> {
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

    /// The highest serial that hosts have accepted, as far as their word is good.
    fn highest(&self, claims: &[(IpAddr, Serial)], shown: &[SerialProof]) -> Serial {
        let (tree, now) = (&self.options.spec.tree, clock::wall_seconds());
        let listed = |key: &PublicKey| {
            let keys = self.options.authorized.as_ref();
            keys.is_some_and(|keys| keys.allows(key, tree, Role::Rollback, now).is_ok())
        };

        serials::believed(tree, claims, shown, |key| {
            key == self.options.signer.public() || listed(key)
        })
    }

    /// A serial that no release of the tree had that hosts or this sender know of.
    fn take_serial(&mut self, highest: Serial) -> Serial {
        let Some(cache) = &self.options.cache else {
            return highest.next();
        };

        serials::take(cache, &self.options.spec.tree, highest).unwrap_or_else(|e| {
            let why = format!(
                "the last serial is not kept in {} ({e}): a host that is away may have another release of the next one",
                cache.display()
            );
            self.observer.event(&Event::Note(why));
            highest.next()
        })
    }

    /// Whom the header names: the one list of globs that there is, or by name the hosts that match both.
    fn targets(&self) -> Vec<String> {
        match lists(&self.options).as_slice() {
            [] => Vec::new(),
            [list] => (*list).clone(),
            _ => self.machine.hosts().map(|h| h.name.to_string()).collect(),
        }
    }

    fn announce(&mut self, release: Release, signature: Vec<u8>) {
        self.observer.event(&Event::Released(Released {
            tree: release.header().tree.clone(),
            serial: release.header().serial,
            fingerprint: self.options.signer.public().fingerprint().to_string(),
            rollback_to: self.rollback_to(),
        }));
        let own = self.kind.granted().is_none() && release.header().intent != Intent::Audit;
        if let Some(host) = self.options.beside.as_ref().filter(|_| own) {
            host.sent(&release);
        }

        let now = self.clock.now();
        self.announced = Some(now);
        self.release = Some(release.clone());
        self.signed = Some((release.clone(), signature.clone())).filter(|_| own);

        self.machine.announce(now, release, signature);
    }

    /// An outcome when there is nobody to serve.
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
                    let nobody = self.nobody(&names, members, &missing);
                    if nobody.is_none() && self.awaits_arrivals() {
                        continue;
                    }
                    unproven::words(&unproven)
                        .into_iter()
                        .for_each(|text| self.observer.event(&Event::Note(text)));
                    if nobody.is_some() {
                        return Ok(nobody);
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
                    self.tell_wait(&host);
                    let state = self.state_of(&host, false);
                    self.came(&host, state, host.text.clone());
                }
                SenderNotice::Lost(host) => {
                    let state = self.state_of(&host, false);
                    self.came(&host, state, self.why(&host, state));
                }
                SenderNotice::OtherKey(other) => {
                    let text = self.acquaintance.other(&other);
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

    /// Looks for hosts once more while some that were started a moment ago catch up: one that took a part before those
    /// that it missed would not get them any more.
    fn awaits_arrivals(&mut self) -> bool {
        let is_part =
            !self.options.part.scope.is_empty() && self.options.purpose == Purpose::Deploy;
        let Some(host) = self
            .options
            .beside
            .as_ref()
            .filter(|_| is_part && self.kind.granted().is_none())
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
            // A host that has been there with an older one will not catch up any more.
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
                "waiting for hosts that have just come to catch up".to_string(),
            ));
            (oldest, now + ARRIVAL)
        });

        // As long as they get on.
        let until = if known == oldest {
            until
        } else {
            now + ARRIVAL
        };

        self.arrivals = Some((oldest, until));
        if now < until {
            self.machine.discover_again(now + LOOK);
        }

        now < until
    }

    fn came(&mut self, host: &Host, state: HostState, error: Option<String>) {
        let key = (host.name.clone(), host.address.ip());
        let before = self.states.insert(key, (state, self.clock.now()));
        if before.is_none_or(|(old, _)| old != state) {
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
}
