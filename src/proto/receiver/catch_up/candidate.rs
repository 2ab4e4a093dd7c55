//! A release that a member claims to have.

use crate::id::Serial;
use crate::manifest::{Release, ReleaseId};
use crate::units::WallTime;
use crate::wire::message::TreeState;

/// A claimed release. Of two with the same serial the later one is greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Candidate {
    pub(super) serial: Serial,
    pub(super) created: Option<WallTime>,
    pub(super) release: ReleaseId,
}

impl Candidate {
    /// Describes an offered release.
    pub fn of(release: &Release) -> Self {
        let header = release.header();
        Self {
            serial: header.serial,
            created: Some(header.created),
            release: release.id(),
        }
    }

    /// Returns true if the claim matches `release`.
    pub(super) fn matches(&self, release: &Release) -> bool {
        let actual = Self::of(release);
        *self
            == Self {
                created: self.created.and(actual.created),
                ..actual
            }
    }

    /// Describes the release in a host's beacon.
    pub(super) fn in_beacon(state: &TreeState) -> Option<Self> {
        Some(Self {
            serial: state.running?,
            created: state.created,
            release: state.release?,
        })
    }
}
