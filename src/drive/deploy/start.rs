//! Starts a session for a new release, an earlier one, or one committed elsewhere.

use super::known_hosts::HostKeys;
use super::options::{DeployOptions, Granted, Interrupt, Prepare, ReleaseOrigin};
use super::rollback::EarlierRelease;
use super::session::{DeploySession, Machinery};
use super::source::{ReleaseSource, SourceScan};
use super::worker::{SourceWorker, WorkerAnswer};
use crate::Result;
use crate::drive::clock::{self, Clock};
use crate::drive::endpoint::{GroupEndpoint, GroupLinks};
use crate::drive::host::HostHandle;
use crate::net::sharpen_timers;
use crate::outcome::{Event, ExitStatus, Observer, Outcome};
use crate::proto::sender::{
    CommitRules, CompareRules, DatagramSizes, ExpectedHosts, KeyRules, RateLimits, ReleaseGrant,
    Sender, SenderSetup, TargetRules,
};
use crate::spec::OnFailure;

/// Runs a session to its end. Returns an error only before any host was asked to change; later
/// failures are in the outcome.
pub fn run(
    network: impl Into<GroupLinks>,
    options: DeployOptions,
    interrupt: &Interrupt,
    observer: &mut dyn Observer,
) -> Result<Outcome> {
    options.spec.check_source()?;
    let spec = options.spec.clone();
    let part = options.part.clone();
    let how = SourceScan {
        checksum: options.checksum,
        hints: options.hints.clone(),
        exposures: options.exposures.clone(),
        directory: options.directory,
        root: options.root.clone(),
        unmounted: options.unmounted,
    };

    let cache = options.cache.clone();
    let prepare = move || ReleaseSource::prepare(&spec, &part, how, cache.as_deref());
    run_with(
        network.into(),
        options,
        Box::new(prepare),
        ReleaseOrigin::New,
        interrupt,
        observer,
    )
}

/// Like [`run`], with the source from `prepare`.
pub fn put(
    network: impl Into<GroupLinks>,
    options: DeployOptions,
    prepare: Prepare,
    interrupt: &Interrupt,
    observer: &mut dyn Observer,
) -> Result<Outcome> {
    run_with(
        network.into(),
        options,
        prepare,
        ReleaseOrigin::New,
        interrupt,
        observer,
    )
}

/// Like [`run`], to restore an earlier release under a new serial. The spec names targets and
/// options, not the content.
pub fn rollback(
    network: impl Into<GroupLinks>,
    options: DeployOptions,
    earlier: EarlierRelease,
    interrupt: &Interrupt,
    observer: &mut dyn Observer,
) -> Result<Outcome> {
    let to = earlier.release.header().serial;
    let compress = options.spec.transfer.compress;
    let prepare = move || earlier.prepare(compress);
    run_with(
        network.into(),
        options,
        Box::new(prepare),
        ReleaseOrigin::Again(to),
        interrupt,
        observer,
    )
}

/// Like [`run`], to offer a release committed elsewhere to the hosts that lack it.
pub fn grant(
    network: impl Into<GroupLinks>,
    options: DeployOptions,
    granted: Granted,
    prepare: Prepare,
    interrupt: &Interrupt,
    observer: &mut dyn Observer,
) -> Result<Outcome> {
    run_with(
        network.into(),
        options,
        prepare,
        ReleaseOrigin::Granted(granted),
        interrupt,
        observer,
    )
}

fn run_with(
    network: GroupLinks,
    options: DeployOptions,
    prepare: Prepare,
    origin: ReleaseOrigin,
    interrupt: &Interrupt,
    observer: &mut dyn Observer,
) -> Result<Outcome> {
    sharpen_timers();
    let clock = Clock::start();

    // Hosts pull such a release by themselves, so no host keys are stored.
    let cache = options
        .cache
        .as_deref()
        .filter(|_| origin.granted().is_none());

    let note = |text| observer.event(&Event::Note(text));
    let (host_keys, known) = HostKeys::begin(cache, &network.keys, options.strict, note)?;
    let endpoint = GroupEndpoint::new(network)?;
    *interrupt.waker() = Some(endpoint.waker());
    let mut worker = SourceWorker::start(
        &options,
        prepare,
        origin.granted().is_some(),
        endpoint.waker(),
    )?;

    let began = clock.now();
    if options.unless.is_some() || origin.granted().is_some() {
        // Do not contact any host before the source is known to differ.
        let answer = worker.wait()?;
        if let WorkerAnswer::Prepared(Ok(facts)) = answer
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
    }

    let keys = KeyRules {
        known,
        strict: options.strict,
    };
    let setup = setup(&options, origin.granted(), &endpoint, keys);

    let machine = Sender::new(clock.now(), setup);
    if let Some(host) = &options.beside {
        host.ignore(machine.session());
    }

    let session = DeploySession::new(
        options,
        origin,
        Machinery {
            clock,
            endpoint,
            machine,
            host_keys,
            worker,
        },
        observer,
        interrupt,
        began,
    );

    session.run()
}

fn setup(
    options: &DeployOptions,
    granted: Option<&Granted>,
    endpoint: &GroupEndpoint,
    keys: KeyRules,
) -> SenderSetup {
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

    let grant = granted.map(|granted| ReleaseGrant {
        order: granted.grant.clone(),
        fleet: granted.fleet,
        follows: granted.follows,
        only: granted.only.clone(),
    });

    SenderSetup {
        name: options.name.clone(),
        instance: endpoint.instance(),
        seed: clock::seed(),
        sizes: DatagramSizes {
            datagram: endpoint.datagram(),
            room: endpoint.room(),
            overhead: endpoint.overhead(),
        },
        rates: RateLimits {
            ceiling: spec.transfer.rate,
            floor: spec.transfer.floor,
        },
        targets: TargetRules {
            tree: spec.tree.clone(),
            lists: options.lists().into_iter().cloned().collect(),
            without: options.beside.as_ref().map(HostHandle::instance),
            expect,
            known: options.known,
        },
        keys,
        commit: CommitRules {
            quorum: spec.commit.require,
            batches: spec.commit.batches.clone(),
            revert: spec.commit.on_failure == OnFailure::Revert,
            lists: options.lists,
        },
        patience: options.timeout,
        compare: CompareRules {
            checksum: options.checksum,
            quick: options.hints.is_some(),
            recheck: options.recheck,
        },
        grant,
    }
}
