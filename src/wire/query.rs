//! Queries about the contents of hosts and the answers, outside of any session.
//!
//! A query goes to the group and is repeated to hosts that have not answered; an answer goes to the
//! querying process. Both are unsigned: they inform people. A release is authenticated by its own
//! signature, which an answer can carry.

use minicbor::{Decode, Encode};

use super::caps::{MAX_MESSAGE_TREES, MAX_TEXT, clean_text, within};
use super::hold::{HeldReport, SignedHold};
use super::machine::MachineReport;
use super::order::{MAX_SIGNATURE_FIELD, Tombstone};
use crate::block::BlockHash;
use crate::id::{HostName, Labels, Serial, TreeName};
use crate::manifest::header::MAX_HEADER_BYTES;
use crate::manifest::{PausedCommit, ReleaseId, ReleaseMessage};
use crate::units::WallTime;

/// Largest number of releases of one tree in an answer: the newest.
pub const MAX_ANSWER_RELEASES: usize = 64;
/// Largest number of tombstones of one tree in an answer: the newest.
pub const MAX_ANSWER_TOMBSTONES: usize = 32;
/// Largest number of characters of all texts of an answer together.
pub const MAX_ANSWER_CHARS: usize = 32 << 10;
/// Largest number of host name globs for one tree in an answer.
pub const MAX_ANSWER_TARGETS: usize = 32;
/// Largest number of parts of one tree in an answer: the newest.
pub const MAX_ANSWER_PARTS: usize = 256;
/// Largest number of bytes of padding of a query.
pub const MAX_QUERY_PADDING: usize = 8 << 10;
/// Largest number of characters of a fingerprint or a word.
const MAX_WORD_CHARS: usize = 64;

/// Query about the contents of hosts.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Query {
    /// Number of the query, drawn by the querying process; answers repeat it.
    #[n(0)]
    pub number: u64,
    /// Tree to report, with its kept releases; `None` means all trees, without releases.
    #[n(1)]
    pub tree: Option<TreeName>,
    /// Release of that tree whose header and signature are wanted.
    #[n(2)]
    pub serial: Option<Serial>,
    /// Whether the machine of the host is wanted as well.
    #[n(3)]
    pub machine: Option<bool>,
    /// Order that the host follows before it answers.
    #[n(4)]
    pub order: Option<SignedHold>,
    /// Bytes that the report of the machine may have: a small forged query must not cause a large
    /// answer.
    #[n(5)]
    #[cbor(default, with = "minicbor::bytes")]
    pub padding: Vec<u8>,
}

impl Query {
    /// Checks the caps.
    pub(super) fn check(&self) -> Result<(), String> {
        within(self.padding.len() <= MAX_QUERY_PADDING, "too much padding")?;
        self.order.as_ref().map_or(Ok(()), SignedHold::check)
    }
}

/// Contents of a host.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
pub struct QueryAnswer {
    /// Number of the query.
    #[n(0)]
    pub number: u64,
    /// The host.
    #[n(1)]
    pub host: HostName,
    /// Requested trees that the host has.
    #[n(2)]
    pub trees: Vec<TreeReport>,
    /// The requested release, if the host keeps it.
    #[n(3)]
    pub release: Option<ReleaseBytes>,
    /// Labels of the host, if it has any.
    #[n(4)]
    pub labels: Option<Labels>,
    /// The host's machine, if the query asks for it; an older makuo does not tell.
    #[n(5)]
    pub machine: Option<MachineReport>,
    /// Whether the host followed the order of the query; `None` without one, and from an older
    /// makuo.
    #[n(6)]
    pub followed: Option<bool>,
    /// Reason why it did not.
    #[n(7)]
    pub refusal: Option<String>,
}

/// Contents of one tree on a host. It stays one flat struct, because every field is a position of
/// the array in the answer.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
pub struct TreeReport {
    /// The tree.
    #[n(0)]
    pub tree: TreeName,
    /// Current release.
    #[n(1)]
    pub running: Option<Serial>,
    /// Highest accepted serial; 0 is none.
    #[n(2)]
    pub highest: Serial,
    /// Session at work on the tree now, if any.
    #[n(3)]
    pub work: Option<TreeActivity>,
    /// Last failure, unless a commit followed.
    #[n(4)]
    pub trouble: Option<Trouble>,
    /// Kept releases, the newest first.
    #[n(5)]
    pub releases: Vec<ReleaseReport>,
    /// Set if the release is older than the host allows.
    #[n(6)]
    pub stale: Option<Stale>,
    /// Results of the host's drift checks since its start.
    #[n(7)]
    pub drifted: Option<Drifted>,
    /// Identity of the current release: a serial does not distinguish two releases of the same
    /// number.
    #[n(8)]
    pub release: Option<ReleaseId>,
    /// Releases known to be aborted or reverted, the newest first.
    #[n(9)]
    pub tombstones: Option<Vec<Tombstone>>,
    /// Newest release that was sent from this tree: the tree itself has its contents.
    #[n(12)]
    pub sent: Option<Serial>,
    /// Set if the tree has a release of a part, but the host no longer keeps the full release: it
    /// cannot supply a new host.
    #[n(13)]
    #[cbor(default)]
    pub parts_only: bool,
    /// The full release that the current one belongs to; the current one itself if it is full.
    #[n(14)]
    pub base: Option<FullRelease>,
    /// Signed part of the current release, if the query names the tree.
    #[n(15)]
    pub shown: Option<ReleaseBytes>,
    /// Globs on the names of the hosts that the release is for; `None` means all hosts. An older
    /// makuo says it only of parts.
    #[n(16)]
    pub targets: Option<Vec<String>>,
    /// Releases of parts for all hosts since the full release, as far as records are kept, the
    /// newest last.
    #[n(17)]
    pub parts: Option<Vec<PartRelease>>,
    /// What keeps the tree from following its repository.
    #[n(18)]
    pub repository: Option<RepositoryTrouble>,
    /// What the current release changes, in its author's words.
    #[n(24)]
    pub message: Option<ReleaseMessage>,
    /// Release that the host keeps staged.
    #[n(19)]
    pub staged: Option<StagedReport>,
    /// Hold of the tree.
    #[n(20)]
    pub held: Option<HeldReport>,
    /// Whether the current release fails its checks.
    #[n(25)]
    pub unhealthy: Option<bool>,
}

/// Release that a host keeps staged until it is committed or aborted.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct StagedReport {
    /// Serial of the release.
    #[n(0)]
    pub serial: Serial,
    /// Identity of the release.
    #[n(1)]
    pub id: ReleaseId,
    /// Seconds since it was staged, because clocks differ.
    #[n(2)]
    pub age: u64,
    /// Seconds until it expires, if it does.
    #[n(3)]
    pub left: Option<u64>,
    /// Batches of a commit with pauses.
    #[n(4)]
    pub paused: Option<PausedCommit>,
}

/// Trouble with a repository.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct RepositoryTrouble {
    /// Seconds since it began, because clocks differ.
    #[n(0)]
    pub age: u64,
    /// Description for people.
    #[n(1)]
    pub text: String,
}

/// Release of a part of a tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct PartRelease {
    /// Serial of the release.
    #[n(0)]
    pub serial: Serial,
    /// Whether a later release replaces all its effects.
    #[n(1)]
    pub replaced: bool,
}

/// Release of a whole tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct FullRelease {
    /// Serial of the release.
    #[n(0)]
    pub serial: Serial,
    /// Hash of the release's effect on a tree, independent of the serial.
    #[n(1)]
    pub content: BlockHash,
}

/// Counts of a host's drift checks of a tree and their results.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct Drifted {
    /// Number of checks.
    #[n(0)]
    pub looks: u64,
    /// Number of checks that found drift.
    #[n(1)]
    pub drifted: u64,
    /// Number of repairs.
    #[n(2)]
    pub repaired: u64,
    /// Paths that differed from the release at the last check.
    #[n(3)]
    pub paths: Option<u64>,
}

/// A release older than its host allows: somebody may be withholding deploys from that host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct Stale {
    /// Age of the release in seconds, by the host's clock.
    #[n(0)]
    pub age: u64,
    /// Allowed age in seconds.
    #[n(1)]
    pub max_age: u64,
}

/// Session at work on a tree.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct TreeActivity {
    /// One-word description of the work.
    #[n(0)]
    pub word: String,
    /// Release of the session.
    #[n(1)]
    pub serial: Serial,
    /// Sender of the release.
    #[n(2)]
    pub sender: HostName,
    /// Progress of the transfer, while the host fetches what it lacks.
    #[n(3)]
    pub fetch: Option<FetchProgress>,
}

/// Progress of a host that fetches blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct FetchProgress {
    /// Bytes to fetch in the whole session.
    #[n(0)]
    pub total: u64,
    /// Bytes of them that are still missing.
    #[n(1)]
    pub left: u64,
}

impl FetchProgress {
    /// Share of the bytes that are there, rounded down.
    pub fn percent(self) -> u8 {
        let there = u128::from(self.total.saturating_sub(self.left)) * 100;
        let percent = there.checked_div(u128::from(self.total)).unwrap_or(100);
        u8::try_from(percent).unwrap_or(100)
    }
}

/// Failure on a tree.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Trouble {
    /// Release that failed.
    #[n(0)]
    pub serial: Serial,
    /// Seconds since the failure, because clocks differ.
    #[n(1)]
    pub age: u64,
    /// Description for people.
    #[n(2)]
    pub text: String,
}

/// Release kept by a host.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct ReleaseReport {
    /// Serial of the release.
    #[n(0)]
    pub serial: Serial,
    /// Identity of the release.
    #[n(1)]
    pub id: ReleaseId,
    /// Creation time, by the sender's clock.
    #[n(2)]
    pub created: WallTime,
    /// Fingerprint of the signing key; `None` if the kept signature is invalid.
    #[n(3)]
    pub key: Option<String>,
    /// Entries of the tree.
    #[n(4)]
    pub entries: u64,
    /// Bytes of the files.
    #[n(5)]
    pub bytes: u64,
    /// Whether this is the tree's current release.
    #[n(6)]
    pub running: bool,
    /// Hash of the release's effect on a tree, independent of the serial; `None` from older hosts.
    #[n(7)]
    pub content: Option<BlockHash>,
    /// Whether the release governs only a part of the tree.
    #[n(8)]
    #[cbor(default)]
    pub part: bool,
    /// What it changes, in its author's words.
    #[n(9)]
    pub message: Option<ReleaseMessage>,
    /// Whether it stays until somebody ends its pin.
    #[n(10)]
    #[cbor(default)]
    pub pinned: bool,
}

/// Signed part of a release.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct ReleaseBytes {
    /// Exact bytes of the header.
    #[n(0)]
    #[cbor(with = "minicbor::bytes")]
    pub header: Vec<u8>,
    /// Signature of the header.
    #[n(1)]
    #[cbor(with = "minicbor::bytes")]
    pub signature: Vec<u8>,
}

impl ReleaseBytes {
    /// Returns whether header and signature are within their caps.
    pub(super) fn fits(&self) -> bool {
        self.header.len() <= MAX_HEADER_BYTES && self.signature.len() <= MAX_SIGNATURE_FIELD
    }
}

impl QueryAnswer {
    /// Checks every cap and makes all text for people printable.
    pub(super) fn check(&mut self) -> Result<(), String> {
        within(self.trees.len() <= MAX_MESSAGE_TREES, "too many trees")?;
        for tree in &self.trees {
            tree.check_counts()?;
        }

        let shown = self.trees.iter().filter_map(|tree| tree.shown.as_ref());
        within(
            self.release.iter().chain(shown).all(ReleaseBytes::fits),
            "too long a header or signature",
        )?;

        self.trees.iter_mut().for_each(TreeReport::clean);
        let refusal = self.refusal.as_deref();
        self.refusal = refusal.map(|text| clean_text(text, MAX_TEXT));
        self.machine.as_mut().map_or(Ok(()), MachineReport::check)
    }
}

impl TreeReport {
    /// Report about a tree of which nothing is known.
    pub fn nothing(tree: TreeName) -> Self {
        Self {
            tree,
            running: None,
            highest: Serial::default(),
            work: None,
            trouble: None,
            releases: Vec::new(),
            stale: None,
            drifted: None,
            release: None,
            tombstones: None,
            sent: None,
            parts_only: false,
            base: None,
            shown: None,
            targets: None,
            parts: None,
            repository: None,
            message: None,
            staged: None,
            held: None,
            unhealthy: None,
        }
    }

    fn check_counts(&self) -> Result<(), String> {
        let tombstones = self.tombstones.as_ref().map_or(0, Vec::len);
        let targets = self.targets.as_ref().map_or(0, Vec::len);
        let parts = self.parts.as_ref().map_or(0, Vec::len);

        within(tombstones <= MAX_ANSWER_TOMBSTONES, "too many tombstones")?;
        within(
            self.releases.len() <= MAX_ANSWER_RELEASES,
            "too many releases",
        )?;
        within(targets <= MAX_ANSWER_TARGETS, "too many targets")?;
        within(parts <= MAX_ANSWER_PARTS, "too many parts")?;
        let staged = self.staged.as_ref();
        let paused = staged.and_then(|staged| staged.paused.as_ref());
        paused.map_or(Ok(()), PausedCommit::check)
    }

    /// Makes all text for people printable.
    fn clean(&mut self) {
        if let Some(work) = &mut self.work {
            work.word = clean_text(&work.word, MAX_WORD_CHARS);
        }

        if let Some(trouble) = &mut self.trouble {
            trouble.text = clean_text(&trouble.text, MAX_TEXT);
        }

        if let Some(held) = &mut self.held {
            held.clean();
        }

        if let Some(trouble) = &mut self.repository {
            trouble.text = clean_text(&trouble.text, MAX_TEXT);
        }

        let keys = self.releases.iter_mut().filter_map(|r| r.key.as_mut());
        keys.for_each(|key| *key = clean_text(key, MAX_WORD_CHARS));
    }
}

#[cfg(test)]
mod tests;
