//! The facts of a release, known before the signature.

use crate::block::BlockHash;
use crate::drive::clock;
use crate::id::{HostName, Serial, SessionId};
use crate::manifest::node::to_vec;
use crate::manifest::{Header, Intent, NodeRef, ReleaseMessage, Rules, Top, TreePath};
use crate::outcome::ScanSummary;
use crate::spec::Spec;
use crate::units::WallTime;

/// A prepared release: the result of a scan of the source.
#[derive(Debug, Clone)]
pub struct PreparedRelease {
    /// Root of the manifest.
    pub root: NodeRef,
    /// The tree's own directory, if part of the release.
    pub top: Option<Top>,
    /// Governed path prefixes; empty for the whole tree.
    pub scope: Vec<TreePath>,
    /// The spec's rules with the patterns of ignore files.
    pub rules: Rules,
    /// Totals for people, if anything was scanned.
    pub scanned: Option<ScanSummary>,
    /// Notes on omitted paths.
    pub notes: Vec<String>,
    /// Paths of all entries except directories, if requested.
    pub files: Vec<Vec<u8>>,
}

impl PreparedRelease {
    /// The facts of an existing release, by its header; `notes` are for people.
    pub fn of(header: &Header, notes: Vec<String>) -> Self {
        Self {
            root: header.root,
            top: header.top.clone(),
            scope: header.scope.clone(),
            rules: header.rules.clone(),
            scanned: None,
            notes,
            files: Vec::new(),
        }
    }

    /// Header of a new release of the source of `spec`, made now.
    pub fn header(&self, spec: &Spec, new: NewRelease) -> Header {
        let created = clock::wall_seconds();
        let expires = spec
            .expires
            .map(|d| WallTime(created.0.saturating_add_unsigned(d.as_secs())));

        let is_deploy = new.intent == Intent::Deploy;

        Header {
            format: self.rules.format(),
            tree: spec.tree.clone(),
            serial: new.serial,
            created,
            expires,
            intent: new.intent,
            scope: self.scope.clone(),
            targets: new.targets,
            root: self.root,
            rules: self.rules.clone(),
            top: self.top.clone(),
            again: new.again,
            session: Some(new.session),
            sender: Some(new.sender),
            checksum: Some(new.checksum),
            quick: Some(new.quick),
            message: new.message,
            paused: is_deploy.then(|| spec.commit.paused()).flatten(),
        }
    }

    /// Hash of the release's effect on a tree: two with the same hash have the same effect on every
    /// host.
    pub fn name(&self) -> BlockHash {
        BlockHash::of(&to_vec(&(&self.root, &self.top, &self.scope, &self.rules)))
    }
}

/// The facts of a new release that its source does not have.
#[derive(Debug, Clone)]
pub struct NewRelease {
    /// Number of the release.
    pub serial: Serial,
    /// Purpose of the release.
    pub intent: Intent,
    /// Globs on host names; empty for all hosts.
    pub targets: Vec<String>,
    /// Earlier release restored by this one.
    pub again: Option<Serial>,
    /// Session for which it is signed.
    pub session: SessionId,
    /// Name of the sender's host.
    pub sender: HostName,
    /// Whether every file was read.
    pub checksum: bool,
    /// Whether only hinted places were scanned.
    pub quick: bool,
    /// What it changes, in its author's words.
    pub message: Option<ReleaseMessage>,
}
