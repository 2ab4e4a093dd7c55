//! The origin of a session's release: a source, an earlier release, or one committed elsewhere.

use std::net::SocketAddr;

use super::options::DeployOptions;
use super::rollback::EarlierRelease;
use super::source::{self, PreparedRelease, ReleaseSource};
use crate::Result;
use crate::id::{HostName, Serial};
use crate::manifest::{Intent, Release};
use crate::outcome::Purpose;
use crate::proto::sender::SessionGoal;
use crate::tree::{Nothing, StoredRelease};
use crate::wire::message::SignedOrder;

/// Prepares the source, on the worker's thread.
pub type Prepare = Box<dyn FnOnce() -> Result<(ReleaseSource, PreparedRelease)> + Send>;

/// Origin of a session's release.
pub enum ReleaseOrigin {
    /// A scan of the spec's source.
    Scan,
    /// A new release of another source.
    Prepared(Prepare),
    /// An earlier release under a new serial. The spec names targets and options, not the content.
    Earlier(EarlierRelease),
    /// A release committed elsewhere, with its source, for hosts that lack it.
    Granted(Granted, Prepare),
    /// A release that hosts keep staged.
    Staged(StoredRelease),
}

impl ReleaseOrigin {
    /// Splits the origin into the work of preparing the source and the kind of the release.
    pub(super) fn into_parts(self, options: &DeployOptions) -> Result<(Prepare, ReleaseKind)> {
        Ok(match self {
            ReleaseOrigin::Scan => (scan(options)?, ReleaseKind::New),
            ReleaseOrigin::Prepared(prepare) => (prepare, ReleaseKind::New),
            ReleaseOrigin::Earlier(earlier) => {
                let to = earlier.release.header().serial;
                let compress = options.spec.transfer.compress;
                (
                    Box::new(move || earlier.prepare(compress)),
                    ReleaseKind::Again(to),
                )
            }
            ReleaseOrigin::Granted(granted, prepare) => {
                (prepare, ReleaseKind::Granted(Box::new(granted)))
            }
            ReleaseOrigin::Staged(staged) => {
                let header = staged.release.header().clone();
                let compress = options.spec.transfer.compress;
                let prepare = move || {
                    let source = ReleaseSource::of(Box::new(Nothing), compress);
                    Ok((source, PreparedRelease::of(&header, Vec::new())))
                };
                (Box::new(prepare), ReleaseKind::Staged(Box::new(staged)))
            }
        })
    }
}

fn scan(options: &DeployOptions) -> Result<Prepare> {
    options.spec.check_source()?;
    let spec = options.spec.clone();
    let part = options.part.clone();
    let how = options.scan.clone();
    let cache = options.cache.clone();

    Ok(Box::new(move || {
        source::prepare(&spec, &part, how, cache.as_deref())
    }))
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
    /// Hosts that asked for the release; empty if all are to hear of it.
    pub asking: Vec<SocketAddr>,
}

/// Kind of a session's release.
#[derive(Debug)]
pub(super) enum ReleaseKind {
    /// A new release of a source.
    New,
    /// An earlier release under a new serial.
    Again(Serial),
    /// A release committed elsewhere.
    Granted(Box<Granted>),
    /// A release that hosts keep staged.
    Staged(Box<StoredRelease>),
}

impl ReleaseKind {
    /// Earlier release restored by the session.
    pub(super) fn rollback_to(&self) -> Option<Serial> {
        if let ReleaseKind::Again(to) = self {
            Some(*to)
        } else {
            None
        }
    }

    /// The release, if committed elsewhere.
    pub(super) fn granted(&self) -> Option<&Granted> {
        if let ReleaseKind::Granted(granted) = self {
            Some(granted)
        } else {
            None
        }
    }

    /// The release, if hosts keep it staged.
    pub(super) fn staged(&self) -> Option<&StoredRelease> {
        if let ReleaseKind::Staged(staged) = self {
            Some(staged)
        } else {
            None
        }
    }

    /// Order that a session for `purpose` works toward.
    pub(super) fn goal(&self, purpose: Purpose) -> SessionGoal {
        match (purpose, self) {
            (Purpose::Stage, _) => SessionGoal::Stage,
            (Purpose::Abort, _) => SessionGoal::AbortStaged,
            (_, ReleaseKind::Staged(_)) => SessionGoal::CommitStaged,
            _ => SessionGoal::Commit,
        }
    }

    /// Intent in the header of a release for `purpose`.
    pub(super) fn intent(&self, purpose: Purpose) -> Intent {
        match self {
            _ if purpose.is_audit() => Intent::Audit,
            ReleaseKind::Again(_) => Intent::Rollback,
            _ => Intent::Deploy,
        }
    }
}
