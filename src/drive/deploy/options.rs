//! Settings of a session that deploys, compares or rolls back, and the interrupt of one.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use super::publisher::Publisher;
use super::source::{SourcePart, SourceScan};
use crate::block::BlockHash;
use crate::drive::host::HostHandle;
use crate::id::{HostName, Serial, TreeName};
use crate::keys::{AuthorizedKeys, PublicKey, Role, Signer};
use crate::manifest::ReleaseMessage;
use crate::net::Waker;
use crate::outcome::Purpose;
use crate::spec::Spec;
use crate::sync::locked;
use crate::units::WallTime;

/// Settings of a session.
#[derive(Debug, Clone)]
pub struct DeployOptions {
    /// The spec, with overrides of the command line.
    pub spec: Spec,
    /// Purpose of the session.
    pub purpose: Purpose,
    /// What the release changes, in its author's words.
    pub message: Option<ReleaseMessage>,
    /// Globs on host names besides the spec's: a target matches both lists; an empty list matches
    /// all.
    pub only: Vec<String>,
    /// Keys that sign and prove releases.
    pub keys: ReleaseKeys,
    /// Name of this host.
    pub name: HostName,
    /// Timeout for a silent host.
    pub timeout: Duration,
    /// Run health checks even on hosts without changes.
    pub recheck: bool,
    /// Mode of the scan, here and, for `checksum` and `hints`, on hosts.
    pub scan: SourceScan,
    /// Part of the source to release.
    pub part: SourcePart,
    /// Conditions for a new release.
    pub conditions: ReleaseConditions,
    /// Directory for the source's index and the last serial; `None` for a temporary file.
    pub cache: Option<PathBuf>,
    /// Number of hosts in a release a moment ago: once all have answered, discovery ends. 0 if
    /// unknown.
    pub known: usize,
    /// Fetch each host's list of differences before a commit, and not only in an audit.
    pub lists: bool,
    /// Name the hosts in every order to commit, so that no other host of the release follows it.
    pub names: bool,
    /// Host in this process with the source tree; takes no part.
    pub beside: Option<HostHandle>,
    /// Exclude hosts with another key than before.
    pub strict: bool,
    /// Takes the release once hosts have committed it.
    pub publisher: Option<Publisher>,
}

impl DeployOptions {
    /// A session of the whole source for every target in the spec, without prior knowledge.
    pub fn new(
        spec: Spec,
        purpose: Purpose,
        keys: ReleaseKeys,
        name: HostName,
        timeout: Duration,
    ) -> Self {
        Self {
            spec,
            purpose,
            message: None,
            only: Vec::new(),
            keys,
            name,
            timeout,
            recheck: false,
            scan: SourceScan::default(),
            part: SourcePart::default(),
            conditions: ReleaseConditions::default(),
            cache: None,
            known: 0,
            lists: false,
            names: false,
            beside: None,
            strict: false,
            publisher: None,
        }
    }

    /// Lists of globs that a target has to match.
    pub(super) fn lists(&self) -> Vec<&Vec<String>> {
        [&self.spec.targets.hosts, &self.only]
            .into_iter()
            .filter(|list| !list.is_empty())
            .collect()
    }

    /// Targets in the header: the list of globs, if there is one. For two lists these are the names
    /// of the `hosts`, which match both.
    pub(super) fn targets<'a>(&self, hosts: impl Iterator<Item = &'a HostName>) -> Vec<String> {
        match self.lists().as_slice() {
            [] => Vec::new(),
            [list] => (*list).clone(),
            _ => hosts.map(ToString::to_string).collect(),
        }
    }
}

/// Keys of a session.
#[derive(Debug, Clone)]
pub struct ReleaseKeys {
    /// Signing key.
    pub signer: Arc<dyn Signer>,
    /// Keys whose releases prove serials, besides the signing key.
    pub authorized: Option<Arc<AuthorizedKeys>>,
}

impl ReleaseKeys {
    /// The signing key alone.
    pub fn of(signer: Arc<dyn Signer>) -> Self {
        Self {
            signer,
            authorized: None,
        }
    }

    /// Fingerprint of the signing key: `SHA256:...`.
    pub(super) fn fingerprint(&self) -> String {
        self.signer.public().fingerprint().to_string()
    }

    /// Returns whether a release of `tree`, signed by `key`, proves its serial.
    pub(super) fn prove(&self, key: &PublicKey, tree: &TreeName, now: WallTime) -> bool {
        let is_listed = |keys: &Arc<AuthorizedKeys>| {
            let right = keys.allows(key, tree, Role::Rollback, now);
            right.is_ok()
        };
        key == self.signer.public() || self.authorized.as_ref().is_some_and(is_listed)
    }
}

/// Conditions for a new release; by default there are none.
#[derive(Debug, Clone, Copy, Default)]
pub struct ReleaseConditions {
    /// Content of the last release, see [`Outcome::content`](crate::outcome::Outcome::content); the
    /// same content is not released again.
    pub unless: Option<BlockHash>,
    /// Refuse to release if a later release than this one exists, since the content does not
    /// include the later one.
    pub only_after: Option<Serial>,
}

impl ReleaseConditions {
    /// Returns whether the release's content hash has to be compared with the last one's.
    pub(super) fn need_content(&self) -> bool {
        self.unless.is_some()
    }

    /// Returns whether `content` was released last.
    pub(super) fn is_released(&self, content: BlockHash) -> bool {
        self.unless == Some(content)
    }
}

/// Ends a session early, on a signal.
#[derive(Debug, Clone, Default)]
pub struct Interrupt {
    asked: Arc<AtomicBool>,
    /// Waker of the session in progress.
    waker: Arc<Mutex<Option<Waker>>>,
}

impl Interrupt {
    /// Asks the session to abort; returns whether it was asked before.
    pub fn interrupt(&self) -> bool {
        let before = self.asked.swap(true, Ordering::SeqCst);
        if let Some(waker) = &*self.waker() {
            waker.wake();
        }
        before
    }

    /// Returns whether both belong to the same session.
    pub fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.asked, &other.asked)
    }

    /// Returns whether the session was asked to abort.
    pub fn is_asked(&self) -> bool {
        self.asked.load(Ordering::SeqCst)
    }

    /// Waker of the session in progress.
    pub(super) fn waker(&self) -> MutexGuard<'_, Option<Waker>> {
        locked(&self.waker)
    }
}
