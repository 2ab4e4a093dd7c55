//! Progress of a session or a publication, as a snapshot for people and scripts.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::HostState;
use crate::id::NamedHost;
use crate::units::{ByteSize, Rate};

/// Progress of a session or a publication.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProgressReport {
    /// Present phase.
    #[serde(default)]
    pub phase: SessionPhase,
    /// Bytes of blocks sent, each block counted once.
    pub sent: ByteSize,
    /// Bytes of blocks that some host wants, or a store.
    pub total: ByteSize,
    /// Rate of the pacing: an upper bound of what is measured.
    pub rate: Rate,
    /// Rate measured over the last seconds; `None` until there is data to measure.
    #[serde(default)]
    pub measured: Option<Rate>,
    /// Time left at the measured rate.
    #[serde(default)]
    pub left: Option<Duration>,
    /// Time since the start.
    #[serde(default)]
    pub elapsed: Duration,
    /// Losses repaired.
    #[serde(default)]
    pub repaired: u64,
    /// Targets that have every block.
    pub ready: usize,
    /// All targets; 0 for a publication.
    pub targets: usize,
    /// Hosts that the present phase waits for.
    #[serde(default)]
    pub waiting: usize,
    /// Some of them, the furthest from the end of the phase first.
    #[serde(default)]
    pub pending: Vec<PendingHost>,
}

/// A host that is not done with the present phase.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PendingHost {
    /// The host.
    pub host: NamedHost,
    /// State of the host.
    pub state: HostState,
    /// Received share of what it lacks, if it receives.
    pub percent: Option<u8>,
    /// Time since its last progress.
    pub since: Duration,
    /// Reason of the wait, if the host gave one.
    pub why: Option<String>,
}

/// Phase of a session.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SessionPhase {
    /// The source is scanned.
    Scanning {
        /// Entries found so far.
        entries: u64,
        /// Bytes read so far.
        bytes: ByteSize,
    },
    /// Hosts are discovered.
    Discovering,
    /// Hosts compare their trees with the release.
    Comparing,
    /// Blocks are on their way.
    #[default]
    Sending,
    /// Hosts have all bytes and put them together, or use what an earlier session left.
    Staging,
    /// Hosts run their commands before the commit.
    Preparing,
    /// Hosts switch to the release.
    Committing {
        /// Number of the batch, from 1.
        batch: usize,
        /// Number of batches.
        of: usize,
    },
    /// Hosts run their commands and health checks after the commit.
    Checking {
        /// Number of the batch, from 1.
        batch: usize,
        /// Number of batches.
        of: usize,
    },
    /// Hosts go back to the release before.
    Reverting,
    /// Hosts drop the session.
    Aborting,
    /// The release is stored in a repository.
    Publishing,
}

impl SessionPhase {
    /// Word for the phase in output and JSON.
    pub fn word(self) -> &'static str {
        match self {
            SessionPhase::Scanning { .. } => "scanning",
            SessionPhase::Discovering => "discovering",
            SessionPhase::Comparing => "comparing",
            SessionPhase::Sending => "sending",
            SessionPhase::Staging => "staging",
            SessionPhase::Preparing => "preparing",
            SessionPhase::Committing { .. } => "committing",
            SessionPhase::Checking { .. } => "checking",
            SessionPhase::Reverting => "reverting",
            SessionPhase::Aborting => "aborting",
            SessionPhase::Publishing => "publishing",
        }
    }

    /// Batch and number of batches, if there are several.
    pub fn batch(self) -> Option<(usize, usize)> {
        match self {
            SessionPhase::Committing { batch, of } | SessionPhase::Checking { batch, of }
                if of > 1 =>
            {
                Some((batch, of))
            }
            _ => None,
        }
    }
}
