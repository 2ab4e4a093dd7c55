//! The states of a host in a session.

use serde::{Deserialize, Serialize};

/// A host's state in a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum HostState {
    /// Expected or known, and did not answer.
    Absent,
    /// Refused the release.
    Refused,
    /// Answered and takes part.
    Joined,
    /// Knows the differences between its tree and the release. A diff ends here.
    Diffed,
    /// Receives and stages blocks.
    Staging,
    /// Staged and verified everything.
    Ready,
    /// Ran its hook before the commit, which succeeded.
    Prepared,
    /// Has the release and runs its checks after the commit.
    Checking,
    /// Has the new release. A deploy ends here.
    Committed,
    /// Had the release already.
    Unchanged,
    /// Has the release, and its hook after the commit or its health check failed.
    Unhealthy,
    /// Had the release and went back to the previous one.
    Reverted,
    /// Could not go back as ordered and still has the release.
    Stuck,
    /// Failed to commit and to undo the commit: the tree is part new, part old.
    Torn,
    /// Fell silent after an order to commit or to go back; the result is unknown.
    Unknown,
    /// Was ready or receiving when the session ended without a commit; the tree is unchanged.
    Aborted,
    /// Took part and failed; the tree is unchanged.
    Failed,
    /// Keeps the release staged for a later commit; the tree is unchanged.
    Staged,
}

impl HostState {
    /// Every state, in the order of a session.
    pub const ALL: [HostState; 18] = [
        HostState::Absent,
        HostState::Refused,
        HostState::Joined,
        HostState::Diffed,
        HostState::Staging,
        HostState::Ready,
        HostState::Prepared,
        HostState::Checking,
        HostState::Committed,
        HostState::Unchanged,
        HostState::Unhealthy,
        HostState::Reverted,
        HostState::Stuck,
        HostState::Torn,
        HostState::Unknown,
        HostState::Aborted,
        HostState::Failed,
        HostState::Staged,
    ];

    /// Word for the state in output and JSON.
    pub fn word(self) -> &'static str {
        match self {
            HostState::Absent => "absent",
            HostState::Refused => "refused",
            HostState::Joined => "joined",
            HostState::Diffed => "diffed",
            HostState::Staging => "staging",
            HostState::Ready => "ready",
            HostState::Prepared => "prepared",
            HostState::Checking => "checking",
            HostState::Committed => "committed",
            HostState::Unchanged => "unchanged",
            HostState::Unhealthy => "unhealthy",
            HostState::Reverted => "reverted",
            HostState::Stuck => "stuck",
            HostState::Torn => "torn",
            HostState::Unknown => "unknown",
            HostState::Aborted => "aborted",
            HostState::Failed => "failed",
            HostState::Staged => "staged",
        }
    }

    /// Returns whether the host has the release, healthy or not.
    pub fn has_release(self) -> bool {
        self.is_well()
            || matches!(
                self,
                HostState::Checking | HostState::Unhealthy | HostState::Stuck
            )
    }

    /// Returns whether the host's tree is known to be unchanged.
    pub fn is_as_before(self) -> bool {
        !self.has_release() && !matches!(self, HostState::Torn | HostState::Unknown)
    }

    /// Returns whether the host has the release and is healthy: the goal of a deploy.
    pub fn is_well(self) -> bool {
        matches!(self, HostState::Committed | HostState::Unchanged)
    }

    /// Returns whether the state is a failure, to be reported at once.
    pub fn is_trouble(self) -> bool {
        use HostState::{
            Aborted, Absent, Failed, Refused, Reverted, Stuck, Torn, Unhealthy, Unknown,
        };
        matches!(
            self,
            Absent | Refused | Aborted | Failed | Unhealthy | Reverted | Stuck | Torn | Unknown
        )
    }
}
