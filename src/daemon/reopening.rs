//! Trees that cannot be opened, or are part new, part old: tried again for as long as the daemon runs.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::config::TreeConfig;
use crate::drive::clock::Clock;
use crate::drive::disk::{Host, open_tree};
use crate::drive::host::Handle;
use crate::units::Moment;
use crate::{Error, Kind, Result};

/// How often it is looked whether there is something to try.
const LOOK: Duration = Duration::from_secs(1);
/// The first wait between two tries of one tree; doubled each time.
const AGAIN: Duration = Duration::from_secs(1);
/// The longest.
const AGAIN_MAX: Duration = Duration::from_secs(30);

/// What is said of a tree that cannot be opened for the reason `e`.
pub(super) fn unserved(tree: &TreeConfig, e: &Error, is_reachable: bool) -> String {
    let hint = e
        .hint_text()
        .map(|hint| format!(" ({hint})"))
        .unwrap_or_default();
    let next = if is_reachable {
        "it is tried again"
    } else {
        "restart the daemon once that is mended"
    };

    format!("tree {} is not served: {e}{hint}; {next}", tree.name)
}

/// Tells the service manager which trees are not served.
pub(super) fn notify(host: &Host) {
    let broken: Vec<String> = host.trees.all_broken().map(|(_, why)| why).collect();
    // Without a service manager there is nobody to tell.
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Status(&broken.join("; "))]);
}

/// Starts the thread that tries.
pub(super) fn start<'a>(
    host: Arc<Host>,
    handle: Handle,
    trees: impl Iterator<Item = &'a TreeConfig>,
    state_dir: Option<PathBuf>,
) -> Result<()> {
    let known = |tree: &&TreeConfig| host.trees.names().any(|name| *name == tree.name);
    let clock = Clock::start();
    let trees = trees.filter(known).cloned();
    let mut trees: Vec<Trying> = trees
        .map(|config| Trying {
            config,
            due: clock.now(),
            again: AGAIN,
        })
        .collect();

    let work = move || {
        loop {
            std::thread::sleep(LOOK);
            trees
                .iter_mut()
                .for_each(|tree| tree.look(clock.now(), &host, &handle, state_dir.as_ref()));
        }
    };

    let thread = std::thread::Builder::new().name("trees".into()).spawn(work);
    thread
        .map(drop)
        .map_err(|e| Error::new(Kind::Io, "cannot start a thread").because(e))
}

/// A tree, and when it is tried next.
struct Trying {
    config: TreeConfig,
    due: Moment,
    again: Duration,
}

impl Trying {
    fn look(&mut self, now: Moment, host: &Host, handle: &Handle, state_dir: Option<&PathBuf>) {
        let is_whole = host
            .trees
            .get(&self.config.name)
            .is_some_and(|managed| managed.tree.torn().is_none());

        if is_whole {
            self.again = AGAIN;
            return;
        }

        if now < self.due {
            return;
        }

        let done = match host.trees.get(&self.config.name) {
            Some(managed) => managed.tree.mend().is_ok(),
            None => self.open(host, state_dir),
        };

        if done {
            handle.opened(&self.config.name);
        }

        self.due = now + self.again;
        self.again = (self.again * 2).min(AGAIN_MAX);
    }

    fn open(&self, host: &Host, state_dir: Option<&PathBuf>) -> bool {
        let name = &self.config.name;
        let opened = match open_tree(&self.config, state_dir.map(PathBuf::as_path)) {
            Ok(managed) => {
                host.serve(name, managed);
                tracing::info!("tree {name}: it could be opened, and is served now");
                true
            }
            Err(e) => {
                let why = unserved(&self.config, &e, true);
                if !host.trees.set_why(name, &why) {
                    return false;
                }
                tracing::error!("{why}");
                false
            }
        };

        notify(host);
        opened
    }
}
