//! Retries trees that could not be opened or are part new, part old, for as long as the daemon
//! runs.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::config::TreeConfig;
use crate::drive::clock::Clock;
use crate::drive::host::HostHandle;
use crate::drive::host::{LocalHost, open_tree};
use crate::error::IoResultExt;
use crate::units::Moment;
use crate::{Error, Result};

/// Interval between checks for due attempts.
const RETRY_POLL_INTERVAL: Duration = Duration::from_secs(1);
/// First wait between two attempts on one tree; doubles each time.
const MIN_REOPEN_WAIT: Duration = Duration::from_secs(1);
/// Longest wait between two attempts.
const MAX_REOPEN_WAIT: Duration = Duration::from_secs(30);

/// Message for a tree that cannot be opened because of `e`.
pub(super) fn unserved(tree: &TreeConfig, e: &Error, is_reachable: bool) -> String {
    let hint = e
        .hint_text()
        .map(|hint| format!(" ({hint})"))
        .unwrap_or_default();
    let next = if is_reachable {
        "retrying"
    } else {
        "restart the daemon once fixed"
    };

    format!("tree {} is not served: {e}{hint}; {next}", tree.name)
}

/// Reports the trees out of service to the service manager.
pub(super) fn notify(host: &LocalHost) {
    let broken: Vec<String> = host.trees.all_broken().map(|(_, why)| why).collect();
    // Fails harmlessly without a service manager.
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Status(&broken.join("; "))]);
}

/// Starts the thread that retries.
pub(super) fn start<'a>(
    host: Arc<LocalHost>,
    handle: HostHandle,
    trees: impl Iterator<Item = &'a TreeConfig>,
    state_dir: Option<PathBuf>,
) -> Result<()> {
    let known = |tree: &&TreeConfig| host.trees.names().any(|name| *name == tree.name);
    let clock = Clock::start();
    let trees = trees.filter(known).cloned();
    let mut trees: Vec<ReopenAttempt> = trees
        .map(|config| ReopenAttempt {
            config,
            due: clock.now(),
            wait: MIN_REOPEN_WAIT,
        })
        .collect();

    let work = move || {
        loop {
            std::thread::sleep(RETRY_POLL_INTERVAL);
            trees.iter_mut().for_each(|tree| {
                tree.retry_if_due(clock.now(), &host, &handle, state_dir.as_ref())
            });
        }
    };

    let thread = std::thread::Builder::new().name("trees".into()).spawn(work);
    thread.map(drop).io_context("cannot start a thread")
}

/// Tree and the schedule of its attempts.
struct ReopenAttempt {
    config: TreeConfig,
    due: Moment,
    wait: Duration,
}

impl ReopenAttempt {
    fn retry_if_due(
        &mut self,
        now: Moment,
        host: &LocalHost,
        handle: &HostHandle,
        state_dir: Option<&PathBuf>,
    ) {
        let is_whole = host
            .trees
            .get(&self.config.name)
            .is_some_and(|managed| managed.tree.torn().is_none());

        if is_whole {
            self.wait = MIN_REOPEN_WAIT;
            return;
        }

        if now < self.due {
            return;
        }

        let done = match host.trees.get(&self.config.name) {
            Some(managed) => managed.tree.finish_undo().is_ok(),
            None => self.open(host, state_dir),
        };

        if done {
            handle.opened(&self.config.name);
        }

        self.due = now + self.wait;
        self.wait = (self.wait * 2).min(MAX_REOPEN_WAIT);
    }

    fn open(&self, host: &LocalHost, state_dir: Option<&PathBuf>) -> bool {
        let name = &self.config.name;
        let opened = match open_tree(&self.config, state_dir.map(PathBuf::as_path)) {
            Ok(managed) => {
                host.serve(name, managed);
                tracing::info!("tree {name}: opened, now served");
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
