//! The loop of a watch: waits for the next reason to act, deploys, and schedules retries.

use std::collections::BTreeSet;
use std::time::Duration;

use super::backoff::RetrySchedule;
use super::batch::{ChangeBatch, RescanCause};
use super::coordinator::{Coordinator, ListenerCommand, Until, Wake};
use super::limits::shown;
use super::reached_hosts::ReachedHosts;
use super::source::source_gone;
use super::source_state::SourceState;
use super::{WatchSetup, target};
use crate::drive::clock;
use crate::drive::deploy::source::SourceScan;
use crate::drive::deploy::{self, DeployOptions, Interrupt, ReleaseConditions, ReleaseOrigin};
use crate::drive::survey;
use crate::id::HostName;
use crate::keys::shown_time;
use crate::manifest::TreePath;
use crate::outcome::{Event, ExitStatus, HostState, Observer, Outcome};
use crate::report::{Report, notify};
use crate::tree::scan::{Exposures, Hints};
use crate::units::Moment;
use crate::{Error, Result};

/// Largest number of paths named in a note.
const MAX_NOTED_PATHS: usize = 4;
/// Time to search for missing hosts before another attempt.
const MEMBER_SEARCH: Duration = Duration::from_secs(1);

/// Inputs of one deploy.
struct DeployTask {
    /// Paths of the source that may have changed; `None` for anywhere.
    hints: Option<Hints>,
    /// Whether to release unchanged content again.
    force: bool,
    /// Whether no change is known: nothing is reported until the check finds one.
    silent: bool,
}

/// State of the loop.
pub(super) struct WatchLoop<'a> {
    setup: WatchSetup<'a>,
    coordinator: &'a Coordinator,
    report: &'a mut Report,
    source: SourceState,
    hosts: ReachedHosts,
    retry: RetrySchedule,
    /// Time from which a quiet source ends the watch, with `once`.
    quiet: Option<Moment>,
    /// Exit code of the last deploy.
    code: u8,
    /// Number of deploys that sent something.
    deploys: u64,
    /// Whether the pause file holds changes.
    held: bool,
    /// Last outcome that was not well.
    trouble: Option<DeployTrouble>,
}

/// Exit, and the hosts that are not well, of a deploy.
#[derive(Debug, PartialEq, Eq)]
struct DeployTrouble {
    exit: ExitStatus,
    hosts: Vec<(HostName, HostState, Option<String>)>,
    error: Option<String>,
}

impl DeployTrouble {
    /// The trouble of an outcome, if there is any.
    fn of(outcome: &Outcome) -> Option<Self> {
        let bad = outcome.hosts.iter().filter(|host| !host.state.is_well());
        let hosts: Vec<_> = bad
            .map(|host| (host.host.clone(), host.state, host.error.clone()))
            .collect();
        (outcome.exit != ExitStatus::Success).then(|| Self {
            exit: outcome.exit,
            hosts,
            error: outcome.error.clone(),
        })
    }
}

/// Forwards events and records the duration of the scan. Reports the changes when a release is
/// made.
struct ScanTimer<'a> {
    report: &'a mut Report,
    scan: Option<Duration>,
    changes: Option<String>,
}

impl Observer for ScanTimer<'_> {
    fn event(&mut self, event: &Event) {
        if let Event::Scanned(scanned) = event {
            self.scan = Some(scanned.took);
        }
        if matches!(event, Event::Released(_))
            && let Some(changes) = self.changes.take()
        {
            self.report.event(&Event::Note(changes));
        }
        self.report.event(event);
    }
}

impl<'a> WatchLoop<'a> {
    /// A loop before the first deploy.
    pub(super) fn new(
        setup: WatchSetup<'a>,
        coordinator: &'a Coordinator,
        report: &'a mut Report,
    ) -> Self {
        let first = setup.modes.initial.then(|| coordinator.now());
        Self {
            source: SourceState::new(setup.options.scan.checksum),
            setup,
            coordinator,
            report,
            hosts: ReachedHosts::default(),
            retry: RetrySchedule::new(first),
            quiet: None,
            code: ExitStatus::Success.code(),
            deploys: 0,
            held: false,
            trouble: None,
        }
    }

    /// Runs until a signal or a permanent error; returns the exit code.
    pub(super) fn run(mut self) -> Result<u8> {
        loop {
            let pause = self.setup.modes.pause.clone();

            match self.coordinator.wait(&Until {
                attempt: self.retry.due(),
                checks: self.source.can_check(),
                quiet: self.quiet,
                pause,
                is_held: self.held,
            }) {
                Wake::Held => self.hold(),
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
                    hints: self.source.hints(paths),
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

    /// Tells once that the pause file holds changes.
    fn hold(&mut self) {
        self.held = true;
        if let Some(pause) = &self.setup.modes.pause {
            let text = format!("held by {}: changes wait until it is gone", shown(pause));
            self.report.event(&Event::Note(text));
        }
    }

    /// Deploys everything again. Waits for missing hosts instead of sending the same release to the
    /// others.
    fn attempt(&mut self) -> Result<()> {
        if self.hosts.is_waiting() && !self.is_missing_host_back() {
            self.retry.retry(self.coordinator.now());
            return Ok(());
        }

        self.deploy(DeployTask {
            hints: None,
            force: true,
            silent: false,
        })
    }

    /// Scans the whole source for changes without events.
    fn check(&mut self, held: BTreeSet<TreePath>) -> Result<()> {
        let everything = self.source.everywhere(held);
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
        self.hosts.is_back(&around.found)
    }

    fn deploy(&mut self, task: DeployTask) -> Result<()> {
        let pending = self.retry.cancel();
        let silent = task.silent;
        match self.session(task) {
            Ok(outcome) if outcome.exit == ExitStatus::Success && outcome.serial.is_none() => {
                if silent {
                    tracing::debug!("full check: no change was missed");
                } else {
                    self.report.unchanged(&outcome);
                }
                self.source.is_unchanged();
                // A pending attempt stays pending.
                self.retry.restore(pending);
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
        self.held = false;
        let spec = &self.setup.options.spec;
        if !task.silent {
            self.report
                .start(&format!("{}: {}", spec.tree, shown(&spec.source)));
        }

        let exposures = Exposures::default();
        let changes = changes(task.hints.as_ref());
        let began = clock::wall();
        self.source.begin_scan(task.hints.as_ref());
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
                unless: self.source.released().filter(|_| !task.force),
                ..first.conditions
            },
            scan: SourceScan {
                checksum: self.source.checksum(),
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
            changes,
        };

        let outcome = deploy::run(door, options, ReleaseOrigin::Scan, &interrupt, &mut timed);
        if let Some(took) = timed.scan.filter(|_| everything) {
            self.coordinator.set_check_duration(took);
        }

        self.coordinator.set_running(None);
        self.coordinator.expose(exposures.take());
        self.source.end_scan(began, clock::wall());

        outcome
    }

    fn record_outcome(&mut self, outcome: &Outcome) {
        let trouble = DeployTrouble::of(outcome);
        if trouble.is_some() && trouble == self.trouble {
            self.report.same_outcome(outcome);
        } else {
            self.report.outcome(outcome);
        }
        notify(&self.setup.options.spec, outcome);
        self.trouble = trouble;
        self.code = outcome.exit.code();

        self.source.record(outcome);
        let well = outcome.exit == ExitStatus::Success;
        let missing = self.hosts.add(outcome);
        let bad = outcome.hosts.iter().filter(|host| !host.state.is_well());

        let mut names: Vec<String> = bad
            .map(|host| format!("{} ({})", host.host, host.state.word()))
            .collect();
        names.extend(
            missing
                .iter()
                .map(|host| format!("{host} (does not answer)")),
        );

        self.hosts.wait_for(if well { missing } else { Vec::new() });
        match names.is_empty() {
            true if well => self.retry.succeeded(),
            true => self.schedule_retry("the deploy"),
            false => self.schedule_retry(&names.join(", ")),
        }
    }

    fn record_failure(&mut self, error: Error) -> Result<()> {
        self.source.record_failure();
        self.hosts.wait_for(Vec::new());
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

        let wait = self.retry.retry(self.coordinator.now());
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
            _ => Err(source_gone(
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
        self.hosts.clear();
        self.setup.options = options;
        self.coordinator.send(ListenerCommand::Watch(target));

        Ok(())
    }
}

/// "2026-11-30 16:03 UTC changed: a, b and 3 more", of changes that are known by path.
fn changes(hints: Option<&Hints>) -> Option<String> {
    let hints = hints.filter(|hints| hints.everywhere.is_none())?;
    let mut paths: Vec<String> = hints.paths.iter().map(ToString::to_string).collect();
    paths.sort_unstable();
    let more = paths.len().saturating_sub(MAX_NOTED_PATHS);
    paths.truncate(MAX_NOTED_PATHS);

    let now = shown_time(clock::wall_seconds());
    let paths = paths.join(", ");
    Some(match more {
        0 => format!("{now} changed: {paths}"),
        more => format!("{now} changed: {paths} and {more} more"),
    })
    .filter(|_| !hints.paths.is_empty())
}
