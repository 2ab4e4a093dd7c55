//! The live mode: deploys a release for each batch of changes to a source.
//!
//! [`batch`] decides when a batch is complete, [`dir_table`] maps watches to directories, and
//! [`inotify`] reads events. [`polled_files`] covers files that change without an event, and
//! [`check`] schedules full checks for changes missed otherwise. [`listener`] is the thread that
//! reads events; [`coordinator`] joins it with the signals and this loop. The loop runs the
//! equivalent of `makuo deploy` once a batch, with the paths that may have changed. Owns the
//! schedule of deploys and retries; does not know how a deploy works.

pub mod backoff;
pub mod batch;
pub mod check;
pub mod coordinator;
pub mod dir_table;
mod dir_watch;
pub mod exclusion;
pub mod inotify;
pub mod limits;
pub mod listener;
pub mod mounts;
pub mod polled_files;
#[cfg(test)]
mod rounds_tests;
pub mod signals;
mod source;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use self::backoff::Backoff;
use self::batch::{ChangeBatch, Pace, RescanCause};
use self::coordinator::{Coordinator, ListenerCommand, Until, Wake};
use self::exclusion::WatchTarget;
use self::limits::shown;
use self::listener::Listener;
use crate::block::BlockHash;
use crate::drive::clock;
use crate::drive::deploy::source::SourceScan;
use crate::drive::deploy::{self, DeployOptions, Interrupt, ReleaseConditions, ReleaseOrigin};
use crate::drive::endpoint::GroupLinks;
use crate::drive::survey;
use crate::id::HostName;
use crate::manifest::TreePath;
use crate::outcome::{Event, ExitStatus, Observer, Outcome};
use crate::report::Report;
use crate::tree::scan::{Exposures, Hints, ScanWindows};
use crate::units::Moment;
use crate::{Error, Result};

/// Time to search for missing hosts before another attempt.
const MEMBER_SEARCH: Duration = Duration::from_secs(1);

/// Options of a watch.
#[derive(Debug, Clone)]
pub struct WatchModes {
    /// Timing of batches.
    pub pace: Pace,
    /// Whether to end as soon as the source is quiet.
    pub once: bool,
    /// Whether to deploy the source before the first change.
    pub initial: bool,
    /// While this file exists nothing is deployed.
    pub pause: Option<PathBuf>,
}

/// Everything a watch needs.
pub struct WatchSetup<'a> {
    /// Options of each deploy, completed per deploy. The cache must be an existing directory.
    pub options: DeployOptions,
    /// Options of the watch.
    pub modes: WatchModes,
    /// Joins the network.
    pub dial: Box<dyn FnMut() -> Result<GroupLinks> + 'a>,
    /// Reloads the spec.
    pub reload: Box<dyn FnMut() -> Result<DeployOptions> + 'a>,
}

/// Watches and deploys until a signal or a permanent error; returns the exit code.
pub fn run(mut setup: WatchSetup<'_>, report: &mut Report) -> Result<u8> {
    // Network errors show up before the watch starts.
    drop((setup.dial)()?);
    let coordinator = Arc::new(Coordinator::new(setup.modes.pace)?);
    signals::follow(&coordinator)?;
    let listener = Listener::start(&coordinator, target(&setup.options)?)?;

    // Fails harmlessly without a service manager.
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
    let attempt = setup.modes.initial.then(|| coordinator.now());
    let ended = WatchLoop {
        checksum: setup.options.scan.checksum,
        setup,
        coordinator: &coordinator,
        report,
        attempt,
        released: None,
        needs_full_scan: true,
        backoff: Backoff::default(),
        quiet: None,
        code: ExitStatus::Success.code(),
        hosts: BTreeSet::new(),
        missing: Vec::new(),
        deploys: 0,
        looks: ScanWindows::default(),
    }
    .run();

    let _ = sd_notify::notify(&[sd_notify::NotifyState::Stopping]);
    drop(listener);
    ended
}

fn target(options: &DeployOptions) -> Result<WatchTarget> {
    let excluded = options.spec.rules().excluded().map_err(Error::usage)?;
    Ok(WatchTarget {
        source: options.spec.source.clone(),
        excluded,
        own: options.cache.clone(),
    })
}

/// Inputs of one deploy.
struct DeployTask {
    /// Paths of the source that may have changed; `None` for anywhere.
    hints: Option<Hints>,
    /// Whether to release unchanged content again.
    force: bool,
    /// Whether no change is known: nothing is reported until the check finds one.
    silent: bool,
}

struct WatchLoop<'a> {
    setup: WatchSetup<'a>,
    coordinator: &'a Coordinator,
    report: &'a mut Report,
    /// Time of the next deploy of everything, independent of collected changes.
    attempt: Option<Moment>,
    /// Content that every host has.
    released: Option<BlockHash>,
    /// Whether the index lags behind the source at unknown paths.
    needs_full_scan: bool,
    /// Whether the next deploy reads every file.
    checksum: bool,
    backoff: Backoff,
    /// Time from which a quiet source ends the watch, with `once`.
    quiet: Option<Moment>,
    /// Exit code of the last deploy.
    code: u8,
    /// Hosts that took part in any deploy.
    hosts: BTreeSet<HostName>,
    /// Hosts among them that do not answer, if nothing else is wrong.
    missing: Vec<HostName>,
    /// Number of deploys that sent something.
    deploys: u64,
    /// Scans of the source since the last one that left nothing out.
    looks: ScanWindows,
}

/// Forwards events and records the duration of the scan.
struct ScanTimer<'a> {
    report: &'a mut Report,
    scan: Option<Duration>,
}

impl Observer for ScanTimer<'_> {
    fn event(&mut self, event: &Event) {
        if let Event::Scanned(scanned) = event {
            self.scan = Some(scanned.took);
        }
        self.report.event(event);
    }
}

impl WatchLoop<'_> {
    fn run(mut self) -> Result<u8> {
        loop {
            let pause = self.setup.modes.pause.clone();
            let checks = !self.needs_full_scan && self.released.is_some();

            match self.coordinator.wait(&Until {
                attempt: self.attempt,
                checks,
                quiet: self.quiet,
                pause,
            }) {
                Wake::Batch(batch) => {
                    let task = self.task(batch);
                    self.deploy(task)?;
                }
                Wake::Check(held) => self.check(held)?,
                Wake::Attempt => self.attempt()?,
                Wake::Reload => self.reload()?,
                Wake::Quiet => return Ok(self.code),
                Wake::Stop => return Ok(ExitStatus::Success.code()),
                Wake::Ended(error) => return Err(error),
            }
        }
    }

    fn task(&self, batch: ChangeBatch) -> DeployTask {
        match batch {
            ChangeBatch::Paths(paths) => {
                tracing::info!("{} paths may have changed", paths.paths.len());
                DeployTask {
                    hints: Some(paths.hints()).filter(|_| !self.needs_full_scan),
                    force: false,
                    silent: false,
                }
            }
            ChangeBatch::Everything(why) => DeployTask {
                hints: None,
                force: why == RescanCause::Asked,
                silent: false,
            },
        }
    }

    /// Deploys everything again. Waits for missing hosts instead of sending the same release to the
    /// others.
    fn attempt(&mut self) -> Result<()> {
        if !self.missing.is_empty() && !self.is_missing_host_back() {
            self.attempt = Some(self.coordinator.now() + self.backoff.next_wait());
            return Ok(());
        }

        self.deploy(DeployTask {
            hints: None,
            force: true,
            silent: false,
        })
    }

    /// Scans the needs_full_scan source for changes without events.
    fn check(&mut self, held: BTreeSet<TreePath>) -> Result<()> {
        let everything = Hints {
            held,
            everywhere: Some(self.looks.clone()),
            ..Hints::default()
        };

        let began = self.coordinator.now();
        let before = self.deploys;
        self.deploy(DeployTask {
            hints: Some(everything),
            force: false,
            silent: true,
        })?;
        let took = self.coordinator.now().since(began);
        self.coordinator
            .note_check(Some(took).filter(|_| self.deploys == before));

        Ok(())
    }

    fn is_missing_host_back(&mut self) -> bool {
        let Ok(around) = (self.setup.dial)().and_then(|door| survey::members(door, MEMBER_SEARCH))
        else {
            return false;
        };
        around
            .members
            .iter()
            .any(|member| self.missing.contains(&member.host))
    }

    fn deploy(&mut self, task: DeployTask) -> Result<()> {
        let pending = self.attempt.take();
        let silent = task.silent;
        match self.session(task) {
            Ok(outcome) if outcome.exit == ExitStatus::Success && outcome.serial.is_none() => {
                if silent {
                    tracing::debug!("full check: no change was missed");
                } else {
                    self.report.unchanged(&outcome);
                }
                self.needs_full_scan = false;
                // A pending attempt stays pending.
                self.attempt = pending;
            }
            Ok(outcome) => {
                if silent {
                    tracing::info!("full check: found a missed change");
                }
                self.deploys += 1;
                self.record_outcome(&outcome);
            }
            Err(error) => {
                // The source may be gone, with the event still queued.
                self.check_source()?;
                self.record_failure(error)?;
            }
        }

        if self.setup.modes.once {
            self.quiet = Some(self.coordinator.now() + self.setup.modes.pace.settle);
        }

        Ok(())
    }

    fn session(&mut self, task: DeployTask) -> Result<Outcome> {
        let spec = &self.setup.options.spec;
        if !task.silent {
            self.report
                .start(&format!("{}: {}", spec.tree, shown(&spec.source)));
        }

        let exposures = Exposures::default();
        let began = clock::wall();
        let leaves_out = |hints: &Hints| hints.everywhere.is_none() || !hints.held.is_empty();
        if !task.hints.as_ref().is_some_and(leaves_out) {
            self.looks = ScanWindows::default();
        }

        let everything = task
            .hints
            .as_ref()
            .is_none_or(|hints| hints.everywhere.is_some());
        let first = &self.setup.options;
        let options = DeployOptions {
            known: if task.hints.is_some() {
                self.hosts.len()
            } else {
                0
            },
            conditions: ReleaseConditions {
                unless: self.released.filter(|_| !task.force),
                ..first.conditions
            },
            scan: SourceScan {
                checksum: self.checksum,
                hints: task.hints,
                exposures: Some(exposures.clone()),
                directory: self.coordinator.id(),
                ..first.scan.clone()
            },
            ..first.clone()
        };

        let door = (self.setup.dial)()?;
        let interrupt = Interrupt::default();
        self.coordinator.set_running(Some(interrupt.clone()));
        let mut timed = ScanTimer {
            report: self.report,
            scan: None,
        };

        let outcome = deploy::run(door, options, ReleaseOrigin::Scan, &interrupt, &mut timed);
        if let Some(took) = timed.scan.filter(|_| everything) {
            self.coordinator.set_check_duration(took);
        }

        self.coordinator.set_running(None);
        self.coordinator.expose(exposures.take());
        self.looks.add(began, clock::wall());

        outcome
    }

    fn record_outcome(&mut self, outcome: &Outcome) {
        self.report.outcome(outcome);
        self.code = outcome.exit.code();

        // Without a content hash the scan may be incomplete.
        self.needs_full_scan = outcome.content.is_none();
        self.checksum &= self.needs_full_scan;
        let well = outcome.exit == ExitStatus::Success;
        let missing = self.missing(outcome);
        self.released = outcome.content.filter(|_| well);
        let bad = outcome.hosts.iter().filter(|host| !host.state.is_well());

        let mut names: Vec<String> = bad
            .map(|host| format!("{} ({})", host.host, host.state.word()))
            .collect();
        names.extend(
            missing
                .iter()
                .map(|host| format!("{host} (does not answer)")),
        );

        self.missing = if well { missing } else { Vec::new() };
        match names.is_empty() {
            true if well => self.backoff.reset(),
            true => self.schedule_retry("the deploy"),
            false => self.schedule_retry(&names.join(", ")),
        }
    }

    /// Hosts of earlier deploys that were absent from this one.
    fn missing(&mut self, outcome: &Outcome) -> Vec<HostName> {
        let now: BTreeSet<HostName> = outcome.hosts.iter().map(|host| host.host.clone()).collect();
        let missing = self.hosts.difference(&now).cloned().collect();
        self.hosts.extend(now);
        missing
    }

    fn record_failure(&mut self, error: Error) -> Result<()> {
        self.needs_full_scan = true;
        self.missing.clear();
        if self.setup.modes.once && !self.coordinator.is_dirty() {
            return Err(error);
        }

        self.code = error.kind().exit_code();
        self.report.failure(&error);
        self.schedule_retry("the deploy");

        Ok(())
    }

    fn schedule_retry(&mut self, what: &str) {
        if self.setup.modes.once {
            return;
        }

        let wait = self.backoff.next_wait();
        self.attempt = Some(self.coordinator.now() + wait);
        let text = format!(
            "{what}: retrying in {} s, or on the next change",
            wait.as_secs()
        );

        self.report.event(&Event::Note(text));
    }

    fn check_source(&self) -> Result<()> {
        let root = crate::tree::Root::open(&self.setup.options.spec.source);
        match (root, self.coordinator.id()) {
            (Ok(root), Some(id)) if root.id() == id => Ok(()),
            _ => Err(source::source_gone(
                &self.setup.options.spec.source,
                "is gone or was replaced",
            )),
        }
    }

    /// Reloads the spec; a broken one leaves the old one in force.
    fn reload(&mut self) -> Result<()> {
        let read = (self.setup.reload)()
            .and_then(|options| target(&options).map(|target| (options, target)));
        let (options, target) = match read {
            Ok(read) => read,
            Err(error) => {
                self.report
                    .event(&Event::Note(format!("keeping the old spec: {error}")));
                return Ok(());
            }
        };

        tracing::info!("the spec was read again");
        // Hosts that no longer exist are not waited for either.
        self.hosts.clear();
        self.missing.clear();
        self.setup.options = options;
        self.coordinator.send(ListenerCommand::Watch(target));

        Ok(())
    }
}
