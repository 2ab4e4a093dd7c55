//! Settings of a session that deploys, compares or rolls back, and the interrupt of one.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::source::{PreparedRelease, ReleaseSource, SourcePart, Unmounted};
use crate::Result;
use crate::block::BlockHash;
use crate::drive::host::HostHandle;
use crate::id::{HostName, Serial};
use crate::keys::{AuthorizedKeys, Signer};
use crate::manifest::Release;
use crate::net::Waker;
use crate::outcome::Purpose;
use crate::spec::Spec;
use crate::tree::scan::{Exposures, Hints};
use crate::tree::{FileId, Root};
use crate::wire::message::SignedOrder;

/// Settings of a session.
#[derive(Debug, Clone)]
pub struct DeployOptions {
    /// The spec, with overrides of the command line.
    pub spec: Spec,
    /// Purpose of the session.
    pub purpose: Purpose,
    /// Globs on host names besides the spec's: a target matches both lists; an empty list matches
    /// all.
    pub only: Vec<String>,
    /// Signing key.
    pub signer: Arc<dyn Signer>,
    /// Name of this host.
    pub name: HostName,
    /// Timeout for a silent host.
    pub timeout: Duration,
    /// Read every file again, on hosts and in the source.
    pub checksum: bool,
    /// Run health checks even on hosts without changes.
    pub recheck: bool,
    /// Places where the source may have changed since its last release, if known; nothing else is
    /// scanned, here or on hosts. Needs the kept index.
    pub hints: Option<Hints>,
    /// Receiver for files of the source that can change without an event.
    pub exposures: Option<Exposures>,
    /// Number of hosts in a release a moment ago: once all have answered, discovery ends. 0 if
    /// unknown.
    pub known: usize,
    /// Content of the last release, see [`Outcome::content`]; the same content is not released
    /// again.
    pub unless: Option<BlockHash>,
    /// Required directory of the source; `None` for any.
    pub directory: Option<FileId>,
    /// The source, if open already; the path is not resolved then.
    pub root: Option<Arc<Root>>,
    /// Policy for a filesystem of the source no longer mounted.
    pub unmounted: Unmounted,
    /// Directory for the source's index and the last serial; `None` for a temporary file.
    pub cache: Option<PathBuf>,
    /// Part of the source to release.
    pub part: SourcePart,
    /// Fetch each host's list of differences before a commit, and not only in an audit.
    pub lists: bool,
    /// Host in this process with the source tree; takes no part.
    pub beside: Option<HostHandle>,
    /// Exclude hosts with another key than before.
    pub strict: bool,
    /// Keys whose releases prove serials, besides the signing key.
    pub authorized: Option<Arc<AuthorizedKeys>>,
    /// Refuse to release if a later release than this one exists: the content does not include
    /// that.
    pub only_after: Option<Serial>,
}

impl DeployOptions {
    /// A session of the whole source for every target in the spec, without prior knowledge.
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
            part: SourcePart::default(),
            lists: false,
            beside: None,
            strict: false,
            authorized: None,
            only_after: None,
        }
    }

    /// Lists of globs that a target has to match.
    pub(super) fn lists(&self) -> Vec<&Vec<String>> {
        [&self.spec.targets.hosts, &self.only]
            .into_iter()
            .filter(|list| !list.is_empty())
            .collect()
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
    /// Asks the session to abort; returns whether for the first time.
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
        self.waker.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A release committed elsewhere, with its signatures.
#[derive(Debug, Clone)]
pub struct Granted {
    /// The release itself.
    pub release: Release,
    /// Signature of the header.
    pub signature: Vec<u8>,
    /// Order behind the commit.
    pub grant: SignedOrder,
    /// Approximate number of hosts.
    pub fleet: u32,
    /// For a part of the tree: the release required on the host before.
    pub follows: Option<Serial>,
    /// The only host to take the release, if restricted.
    pub only: Option<HostName>,
}

/// Origin of a session's release.
#[derive(Debug)]
pub(super) enum ReleaseOrigin {
    /// A new release of a source.
    New,
    /// An earlier release under a new serial.
    Again(Serial),
    /// A release committed elsewhere.
    Granted(Granted),
}

impl ReleaseOrigin {
    /// Earlier release restored by the session.
    pub(super) fn rollback_to(&self) -> Option<Serial> {
        if let ReleaseOrigin::Again(to) = self {
            Some(*to)
        } else {
            None
        }
    }

    pub(super) fn granted(&self) -> Option<&Granted> {
        if let ReleaseOrigin::Granted(granted) = self {
            Some(granted)
        } else {
            None
        }
    }
}

/// Prepares the source, on the worker's thread.
pub type Prepare = Box<dyn FnOnce() -> Result<(ReleaseSource, PreparedRelease)> + Send>;
