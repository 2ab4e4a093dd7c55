//! The live mode: a release for each quiet batch of changes of a source.
//!
//! [`batch`] says when a batch is over, [`places`] which directory a watch is on, [`inotify`] what the kernel tells;
//! [`links`] are files that change unheard, [`check`] says when everything is looked at for what nobody heard of;
//! [`listen`] is the thread that hears it, [`shared`] where that, the signals and this loop meet. The loop does what
//! `makuo deploy` does, once a batch, with the paths that may have changed. It owns when something is deployed and
//! tried again; what a deploy is, it must not know.

pub mod backoff;
pub mod batch;
pub mod check;
pub mod inotify;
pub mod limits;
pub mod links;
pub mod listen;
pub mod mounts;
pub mod places;
#[cfg(test)]
mod rounds_tests;
pub mod shared;
pub mod signals;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use self::backoff::Backoff;
use self::batch::{Batch, Pace, Why};
use self::inotify::Target;
use self::limits::shown;
use self::listen::Listener;
use self::shared::{Order, Shared, Turn, Until};
use crate::block::BlockHash;
use crate::drive::clock;
use crate::drive::deploy::{self, Interrupt, Options};
use crate::drive::endpoint::Door;
use crate::drive::members;
use crate::drive::outcome::{Event, ExitStatus, Observer, Outcome};
use crate::id::HostName;
use crate::manifest::TreePath;
use crate::report::Report;
use crate::tree::scan::{Exposures, Hints, ScanWindows};
use crate::units::Moment;
use crate::{Error, Result};

/// How long hosts that are away are looked for before they are tried again.
const LOOK: Duration = Duration::from_secs(1);

/// How it is watched.
#[derive(Debug, Clone)]
pub struct Modes {
    /// How long changes are gathered.
    pub pace: Pace,
    /// Whether it ends as soon as it is quiet.
    pub once: bool,
    /// Whether the source is deployed before anything changes.
    pub initial: bool,
    /// While this file exists nothing is deployed.
    pub pause: Option<PathBuf>,
}

/// Everything that a watch needs.
pub struct Setup<'a> {
    /// What each deploy is given, but for what is new with each of them. The cache is a directory that exists.
    pub options: Options,
    /// How it is watched.
    pub modes: Modes,
    /// Reaches the network.
    pub dial: Box<dyn FnMut() -> Result<Door> + 'a>,
    /// Reads the spec again.
    pub reload: Box<dyn FnMut() -> Result<Options> + 'a>,
}

/// Watches and deploys until a signal ends it, or what cannot be mended; the exit code.
pub fn run(mut setup: Setup<'_>, report: &mut Report) -> Result<u8> {
    // What is wrong with the network is found before anything is watched.
    drop((setup.dial)()?);
    let shared = Arc::new(Shared::new(setup.modes.pace)?);
    signals::follow(&shared)?;
    let listener = Listener::start(&shared, target(&setup.options)?)?;

    // Without a service manager there is nobody to tell.
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
    let attempt = setup.modes.initial.then(|| shared.now());
    let ended = Live {
        checksum: setup.options.checksum,
        setup,
        shared: &shared,
        report,
        attempt,
        released: None,
        whole: true,
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

fn target(options: &Options) -> Result<Target> {
    let excluded = options.spec.rules().excluded().map_err(Error::usage)?;
    Ok(Target {
        source: options.spec.source.clone(),
        excluded,
        own: options.cache.clone(),
    })
}

/// What a deploy is made of.
struct Task {
    /// Where the source may have changed; `None`: anywhere.
    hints: Option<Hints>,
    /// Whether the same is released again.
    again: bool,
    /// Whether nobody changed anything, as far as it is known: nothing is said before something turns out to be.
    quiet: bool,
}

struct Live<'a> {
    setup: Setup<'a>,
    shared: &'a Shared,
    report: &'a mut Report,
    /// When everything is deployed, whatever was gathered.
    attempt: Option<Moment>,
    /// What every host has.
    released: Option<BlockHash>,
    /// Whether the index is behind the source in places that nobody knows any more.
    whole: bool,
    /// Whether every file is read by the next deploy.
    checksum: bool,
    backoff: Backoff,
    /// From when on it is quiet, when it is to end then.
    quiet: Option<Moment>,
    /// How the last deploy ended.
    code: u8,
    /// The hosts that ever took part.
    hosts: BTreeSet<HostName>,
    /// Those of them that do not answer, when nothing else is wrong.
    missing: Vec<HostName>,
    /// How many deploys had something to send.
    deploys: u64,
    /// The looks at the source since one that left nothing out.
    looks: ScanWindows,
}

/// Passes events on, and keeps how long the source was looked at.
struct Timed<'a> {
    report: &'a mut Report,
    scan: Option<Duration>,
}

impl Observer for Timed<'_> {
    fn event(&mut self, event: &Event) {
        if let Event::Scanned(scanned) = event {
            self.scan = Some(scanned.took);
        }
        self.report.event(event);
    }
}

impl Live<'_> {
    fn run(mut self) -> Result<u8> {
        loop {
            let pause = self.setup.modes.pause.clone();
            let checks = !self.whole && self.released.is_some();
            match self.shared.wait(&Until {
                attempt: self.attempt,
                checks,
                quiet: self.quiet,
                pause,
            }) {
                Turn::Batch(batch) => {
                    let task = self.task(batch);
                    self.deploy(task)?;
                }
                Turn::Check(held) => self.check(held)?,
                Turn::Attempt => self.attempt()?,
                Turn::Reload => self.reload()?,
                Turn::Quiet => return Ok(self.code),
                Turn::Stop => return Ok(ExitStatus::Success.code()),
                Turn::Ended(error) => return Err(error),
            }
        }
    }

    fn task(&self, batch: Batch) -> Task {
        match batch {
            Batch::Paths(paths) => {
                tracing::info!("{} paths may have changed", paths.paths.len());
                Task {
                    hints: Some(paths.hints()).filter(|_| !self.whole),
                    again: false,
                    quiet: false,
                }
            }
            Batch::Everything(why) => Task {
                hints: None,
                again: why == Why::Asked,
                quiet: false,
            },
        }
    }

    /// Everything once more. Who does not answer is waited for, instead of giving the others the same again.
    fn attempt(&mut self) -> Result<()> {
        if !self.missing.is_empty() && !self.is_somebody_back() {
            self.attempt = Some(self.shared.now() + self.backoff.failed());
            return Ok(());
        }

        self.deploy(Task {
            hints: None,
            again: true,
            quiet: false,
        })
    }

    /// Looks at everything, for what changed unheard.
    fn check(&mut self, held: BTreeSet<TreePath>) -> Result<()> {
        let everything = Hints {
            held,
            everywhere: Some(self.looks.clone()),
            ..Hints::default()
        };

        let (began, before) = (self.shared.now(), self.deploys);
        self.deploy(Task {
            hints: Some(everything),
            again: false,
            quiet: true,
        })?;
        let took = self.shared.now().since(began);
        self.shared
            .checked(Some(took).filter(|_| self.deploys == before));

        Ok(())
    }

    fn is_somebody_back(&mut self) -> bool {
        let Ok(around) = (self.setup.dial)().and_then(|door| members::look(door, LOOK)) else {
            return false;
        };
        around
            .members
            .iter()
            .any(|member| self.missing.contains(&member.host))
    }

    fn deploy(&mut self, task: Task) -> Result<()> {
        let pending = self.attempt.take();
        let quiet = task.quiet;
        match self.session(task) {
            Ok(outcome) if outcome.exit == ExitStatus::Success && outcome.serial.is_none() => {
                if quiet {
                    tracing::debug!("everything was looked at: nothing has changed unheard");
                } else {
                    self.report.unchanged(&outcome);
                }
                self.whole = false;
                // Who waits for another attempt still does.
                self.attempt = pending;
            }
            Ok(outcome) => {
                if quiet {
                    tracing::info!("everything was looked at: something has changed unheard");
                }
                self.deploys += 1;
                self.ended(&outcome);
            }
            Err(error) => {
                // It may be gone, and the word of it on its way.
                self.check_source()?;
                self.failed(error)?;
            }
        }

        if self.setup.modes.once {
            self.quiet = Some(self.shared.now() + self.setup.modes.pace.settle);
        }

        Ok(())
    }

    fn session(&mut self, task: Task) -> Result<Outcome> {
        let spec = &self.setup.options.spec;
        if !task.quiet {
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
        let options = Options {
            known: if task.hints.is_some() {
                self.hosts.len()
            } else {
                0
            },
            hints: task.hints,
            exposures: Some(exposures.clone()),
            unless: self.released.filter(|_| !task.again),
            checksum: self.checksum,
            directory: self.shared.id(),
            ..self.setup.options.clone()
        };

        let door = (self.setup.dial)()?;
        let interrupt = Interrupt::default();
        self.shared.running(Some(interrupt.clone()));
        let mut timed = Timed {
            report: self.report,
            scan: None,
        };

        let outcome = deploy::run(door, options, &interrupt, &mut timed);
        if let Some(took) = timed.scan.filter(|_| everything) {
            self.shared.timed(took);
        }

        self.shared.running(None);
        self.shared.expose(exposures.take());
        self.looks.add(began, clock::wall());

        outcome
    }

    fn ended(&mut self, outcome: &Outcome) {
        self.report.outcome(outcome);
        self.code = outcome.exit.code();

        // Without its name the scan may not have come to its end.
        self.whole = outcome.content.is_none();
        self.checksum &= self.whole;
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
            true => self.again("the deploy"),
            false => self.again(&names.join(", ")),
        }
    }

    /// Hosts that took part before and did not now.
    fn missing(&mut self, outcome: &Outcome) -> Vec<HostName> {
        let now: BTreeSet<HostName> = outcome.hosts.iter().map(|host| host.host.clone()).collect();
        let missing = self.hosts.difference(&now).cloned().collect();
        self.hosts.extend(now);
        missing
    }

    fn failed(&mut self, error: Error) -> Result<()> {
        self.whole = true;
        self.missing.clear();
        if self.setup.modes.once && !self.shared.is_dirty() {
            return Err(error);
        }

        self.code = error.kind().exit_code();
        self.report.failure(&error);
        self.again("the deploy");

        Ok(())
    }

    fn again(&mut self, what: &str) {
        if self.setup.modes.once {
            return;
        }

        let wait = self.backoff.failed();
        self.attempt = Some(self.shared.now() + wait);
        let text = format!(
            "{what}: tried again in {} s, or with the next change",
            wait.as_secs()
        );

        self.report.event(&Event::Note(text));
    }

    fn check_source(&self) -> Result<()> {
        let root = crate::tree::Root::open(&self.setup.options.spec.source);
        match (root, self.shared.id()) {
            (Ok(root), Some(id)) if root.id() == id => Ok(()),
            _ => Err(inotify::gone(
                &self.setup.options.spec.source,
                "is gone, or another directory",
            )),
        }
    }

    /// Reads the spec again; a broken one leaves the old one in force.
    fn reload(&mut self) -> Result<()> {
        let read = (self.setup.reload)()
            .and_then(|options| target(&options).map(|target| (options, target)));
        let (options, target) = match read {
            Ok(read) => read,
            Err(error) => {
                self.report
                    .event(&Event::Note(format!("the spec stays as it was: {error}")));
                return Ok(());
            }
        };

        tracing::info!("the spec was read again");
        // Hosts that are no more are not waited for either.
        self.hosts.clear();
        self.missing.clear();
        self.setup.options = options;
        self.shared.order(Order::Watch(target));

        Ok(())
    }
}
