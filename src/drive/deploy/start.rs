//! Starts a session: opens the network, prepares the source and sets the sender machine up.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::driver::SenderDriver;
use super::known_hosts::HostKeys;
use super::last_hosts::LastHosts;
use super::options::{DeployOptions, Interrupt};
use super::origin::{ReleaseKind, ReleaseOrigin};
use super::progress::ProgressMeter;
use super::release::SessionRelease;
use super::reporter::SessionReporter;
use super::session::DeploySession;
use super::worker::{SourceWorker, WorkerAnswer};
use crate::Result;
use crate::drive::clock::{self, Clock};
use crate::drive::endpoint::{GroupEndpoint, GroupLinks};
use crate::drive::host::HostHandle;
use crate::keys::GroupKey;
use crate::net::sharpen_timers;
use crate::outcome::{Event, ExitStatus, Observer, Outcome};
use crate::proto::sender::{
    CommitRules, CompareRules, DatagramSizes, ExpectedHosts, KeyRules, RateLimits, ReleaseGrant,
    Sender, SenderSetup, TargetRules,
};
use crate::spec::{Expect, OnFailure};

/// Runs a session to its end. Returns an error only before any host was asked to change; later
/// failures are in the outcome.
pub fn run(
    network: impl Into<GroupLinks>,
    mut options: DeployOptions,
    origin: ReleaseOrigin,
    interrupt: &Interrupt,
    observer: &mut dyn Observer,
) -> Result<Outcome> {
    let counts = Arc::default();
    options.scan.counts = Some(Arc::clone(&counts));
    let (prepare, kind) = origin.into_parts(&options)?;
    let network = network.into();
    sharpen_timers();
    let clock = Clock::start();

    // Hosts pull a granted release by themselves, so no host keys are stored.
    let is_granted = kind.granted().is_some();
    let cache = options.cache.as_deref().filter(|_| !is_granted);
    let note = |text| observer.event(&Event::Note(text));
    let (host_keys, known_hosts) = HostKeys::begin(cache, &network.keys, options.strict, note)?;
    let last_hosts = last_hosts(&options, cache, &network.keys);
    let endpoint = GroupEndpoint::new(network)?;
    *interrupt.waker() = Some(endpoint.waker());
    let mut worker = SourceWorker::start(&options, prepare, is_granted, endpoint.waker())?;

    let began = clock.now();
    if options.conditions.need_content() || is_granted {
        // Do not contact any host before the source is known to differ.
        let answer = worker.wait()?;
        if let WorkerAnswer::Prepared(Ok(facts)) = answer
            && options.conditions.is_released(facts.name())
        {
            return Ok(unchanged(options, clock.now().since(began)));
        }
    }

    let keys = KeyRules {
        known: known_hosts,
        strict: options.strict,
    };
    let setup = setup(&options, &kind, &endpoint, keys, &last_hosts);

    let meter = ProgressMeter::new(began, !options.purpose.is_audit(), Some(counts));
    let machine = Sender::new(clock.now(), setup);
    if let Some(host) = &options.beside {
        host.ignore(machine.session());
    }

    let session = DeploySession::new(
        options,
        interrupt,
        SenderDriver::new(clock, endpoint, machine, worker),
        SessionReporter::new(observer, began, meter),
        SessionRelease::new(kind),
        host_keys,
        last_hosts,
    );

    session.run()
}

/// Outcome of a session for content released before.
fn unchanged(options: DeployOptions, took: Duration) -> Outcome {
    Outcome {
        content: options.conditions.unless,
        exit: ExitStatus::Success,
        took,
        ..Outcome::new(options.purpose, options.spec.tree)
    }
}

fn setup(
    options: &DeployOptions,
    kind: &ReleaseKind,
    endpoint: &GroupEndpoint,
    keys: KeyRules,
    last_hosts: &LastHosts,
) -> SenderSetup {
    let spec = &options.spec;
    let grant = kind.granted().map(|granted| ReleaseGrant {
        order: granted.grant.clone(),
        fleet: granted.fleet,
        follows: granted.follows,
        only: granted.only.clone(),
        asking: granted.asking.clone(),
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
            expect: expected(options, last_hosts),
            known: options.known,
        },
        keys,
        commit: CommitRules {
            goal: kind.goal(options.purpose),
            quorum: spec.commit.require,
            batches: spec.commit.batches.clone(),
            revert: spec.commit.on_failure == OnFailure::Revert,
            lists: options.lists,
            names: options.names,
        },
        patience: options.timeout,
        compare: CompareRules {
            checksum: options.scan.checksum,
            quick: options.scan.is_quick(),
            recheck: options.recheck,
        },
        grant,
    }
}

/// The hosts of earlier deploys; none for parts of a tree, which concern any hosts.
fn last_hosts(options: &DeployOptions, cache: Option<&Path>, keys: &[GroupKey]) -> LastHosts {
    let is_whole = options.part.scope.is_empty() && options.beside.is_none();
    let cache = cache.filter(|_| is_whole);
    LastHosts::load(cache, keys, &options.spec.tree, clock::wall_seconds())
}

fn expected(options: &DeployOptions, last_hosts: &LastHosts) -> ExpectedHosts {
    match &options.spec.targets.expect {
        None => ExpectedHosts::default(),
        Some(Expect::Count(n)) => ExpectedHosts {
            count: *n as usize,
            names: Vec::new(),
        },
        Some(Expect::Known) => {
            let names = last_hosts.matching(&options.lists());
            ExpectedHosts {
                count: names.len(),
                names,
            }
        }
        Some(Expect::Names(names)) => ExpectedHosts {
            count: names.len(),
            names: names.clone(),
        },
    }
}
