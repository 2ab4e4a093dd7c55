//! The live mode: deploys a release for each batch of changes to a source.
//!
//! [`batch`] decides when a batch is complete, [`dir_table`] maps watches to directories, and
//! [`inotify`] reads events. [`polled_files`] covers files that change without an event, and
//! [`check`] schedules full checks for changes missed otherwise. [`listener`] is the thread that
//! reads events; [`coordinator`] joins it with the signals and the loop. The loop runs the
//! equivalent of `makuo deploy` once a batch, with the paths that may have changed. Owns the
//! schedule of deploys and retries; does not know how a deploy works.

pub mod backoff;
pub mod batch;
pub mod check;
pub mod coordinator;
pub mod dir_table;
mod dir_watch;
mod events;
pub mod exclusion;
pub mod inotify;
pub mod limits;
pub mod listener;
pub mod mounts;
pub mod polled_files;
mod reached_hosts;
#[cfg(test)]
mod rounds_tests;
pub mod signals;
mod source;
mod source_state;
mod watch_loop;
mod watched_dirs;
mod writing;

use std::path::PathBuf;
use std::sync::Arc;

use self::batch::Pace;
use self::coordinator::Coordinator;
use self::exclusion::WatchTarget;
use self::listener::Listener;
use self::watch_loop::WatchLoop;
use crate::drive::deploy::DeployOptions;
use crate::drive::endpoint::GroupLinks;
use crate::report::Report;
use crate::{Error, Result};

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
    let ended = WatchLoop::new(setup, &coordinator, report).run();

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
