//! The release of a session, from the source to the announcement and the copy kept here.

use super::driver::SenderDriver;
use super::options::DeployOptions;
use super::origin::{Granted, ReleaseKind};
use super::publisher::CommittedRelease;
use super::source::{NewRelease, PreparedRelease};
use super::worker::OwnRelease;
use crate::block::BlockHash;
use crate::drive::host::HostHandle;
use crate::id::{Serial, SessionId};
use crate::manifest::{Header, Intent, Release};
use crate::tree::StoredRelease;

/// The facts of a release, as they become known.
#[derive(Debug)]
pub(super) struct SessionRelease {
    kind: ReleaseKind,
    /// Highest serial accepted by any host, once discovery is over.
    highest: Option<Serial>,
    prepared: Option<Box<PreparedRelease>>,
    announced: Option<Release>,
    /// Release made for this session, with its signature.
    signed: Option<(Release, Vec<u8>)>,
}

impl SessionRelease {
    /// A release of a known kind, and nothing else known.
    pub(super) fn new(kind: ReleaseKind) -> Self {
        Self {
            kind,
            highest: None,
            prepared: None,
            announced: None,
            signed: None,
        }
    }

    /// Earlier release restored by the session.
    pub(super) fn rollback_to(&self) -> Option<Serial> {
        self.kind.rollback_to()
    }

    /// The release, if committed elsewhere.
    pub(super) fn granted(&self) -> Option<&Granted> {
        self.kind.granted()
    }

    /// The release, if hosts keep it staged.
    pub(super) fn staged(&self) -> Option<&StoredRelease> {
        self.kind.staged()
    }

    /// Release known to hosts, if announced.
    pub(super) fn announced(&self) -> Option<&Release> {
        self.announced.as_ref()
    }

    /// Hash of the release's effect on a host, if known.
    pub(super) fn content(&self) -> Option<BlockHash> {
        self.prepared.as_ref().map(|facts| facts.name())
    }

    /// Records the facts of the source.
    pub(super) fn set_prepared(&mut self, facts: Box<PreparedRelease>) {
        self.prepared = Some(facts);
    }

    /// Records the end of discovery, with the highest serial accepted by any host.
    pub(super) fn set_highest(&mut self, highest: Serial) {
        self.highest = Some(highest);
    }

    /// Highest serial accepted by any host, once the source is known as well.
    pub(super) fn highest_when_prepared(&self) -> Option<Serial> {
        self.highest.filter(|_| self.prepared.is_some())
    }

    /// Intent in the header of a new release.
    pub(super) fn intent(&self, options: &DeployOptions) -> Intent {
        self.kind.intent(options.purpose)
    }

    /// Header of a new release of `serial`; `None` before the source is known.
    pub(super) fn header(
        &self,
        options: &DeployOptions,
        serial: Serial,
        targets: Vec<String>,
        session: SessionId,
    ) -> Option<Header> {
        let facts = self.prepared.as_ref()?;
        let new = NewRelease {
            serial,
            intent: self.intent(options),
            targets,
            again: self.rollback_to(),
            session,
            sender: options.name.clone(),
            checksum: options.scan.checksum,
            quick: options.scan.is_quick(),
            message: options.message.clone(),
        };

        Some(facts.header(&options.spec, new))
    }

    /// Records the announcement; returns whether the release was made here, for hosts to commit.
    pub(super) fn announce(&mut self, release: &Release, signature: &[u8]) -> bool {
        let own = self.granted().is_none() && release.header().intent != Intent::Audit;
        self.announced = Some(release.clone());
        self.signed = own.then(|| (release.clone(), signature.to_vec()));
        own
    }

    /// The release made for this session, if hosts committed it.
    pub(super) fn committed(&self, driver: &SenderDriver) -> Option<CommittedRelease> {
        let (release, signature) = self.signed.clone()?;
        let order = driver.machine.committed_by()?.clone();
        Some(CommittedRelease {
            release,
            signature,
            order,
        })
    }

    /// Stores a release that hosts committed in the tree of `host`, if made here.
    pub(super) fn keep(&self, host: &HostHandle, driver: &SenderDriver) {
        let (Some((release, signature)), Some(order)) =
            (self.signed.clone(), driver.machine.committed_by())
        else {
            return;
        };

        let Some(tree) = host.tree(&release.header().tree) else {
            return;
        };

        let kept = OwnRelease {
            tree,
            release: release.clone(),
            signature,
            order: order.clone(),
        };

        match driver.worker.keep(kept) {
            Some(Ok(())) => host.changed(),
            Some(Err(e)) => tracing::warn!("{release}: this host does not keep what it sent: {e}"),
            None => {}
        }
    }
}
