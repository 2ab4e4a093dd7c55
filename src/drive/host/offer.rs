//! The facts of a session: a release, its sender and its key. Constant during the session.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use super::managed::ManagedTree;
use super::rules::TreeRules;
use super::shared::LocalHost;
use crate::id::HostName;
use crate::keys::PublicKey;
use crate::manifest::Release;
use crate::proto::receiver::{OfferedRelease, ScanMode};
use crate::wire::message::SignedOrder;

/// A request to open a session.
pub(super) struct Opening {
    pub(super) offer: OfferedRelease,
    /// Set when the daemon ends.
    pub(super) ending: Arc<AtomicBool>,
    /// Set when the session is closed.
    pub(super) closed: Arc<AtomicBool>,
}

/// An admitted opening with its tree.
pub(super) struct AdmittedOffer<'a> {
    pub(super) host: &'a LocalHost,
    pub(super) managed: &'a ManagedTree,
    /// The host's rules for the tree at the start of the session.
    pub(super) rules: Arc<TreeRules>,
    pub(super) release: Release,
    pub(super) signature: Arc<[u8]>,
    /// Signing key of the release.
    pub(super) key: PublicKey,
    pub(super) sender: HostName,
    pub(super) how: ScanMode,
    /// Commit order of a release missed by this host.
    pub(super) grant: Option<SignedOrder>,
    /// Whether the release has to be staged here already.
    pub(super) staged: bool,
    /// Set when the daemon ends.
    pub(super) ending: Arc<AtomicBool>,
    /// Set when the session is closed.
    pub(super) closed: Arc<AtomicBool>,
}

impl<'a> AdmittedOffer<'a> {
    /// The offer of `opening`, signed by `key`.
    pub(super) fn new(
        host: &'a LocalHost,
        managed: &'a ManagedTree,
        opening: Opening,
        key: PublicKey,
    ) -> Self {
        let Opening {
            offer,
            ending,
            closed,
        } = opening;

        let OfferedRelease {
            release,
            signature,
            look: how,
            sender,
            grant,
            staged,
        } = offer;

        Self {
            host,
            managed,
            rules: managed.rules(),
            release,
            signature,
            key,
            sender,
            how,
            grant,
            staged,
            ending,
            closed,
        }
    }
}
