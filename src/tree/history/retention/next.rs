//! The next release for a host that lacks the present one.

use super::ReleaseHistory;
use super::known::KnownRelease;
use crate::id::{HostName, Labels, Serial};
use crate::proto::receiver::is_target;

/// Next release for a host that lacks the present one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NextRelease {
    /// This release. A part is valid only for hosts that run the release `follows`.
    Release {
        /// Serial.
        serial: Serial,
        /// Release that the host must run.
        follows: Option<Serial>,
        /// Whether other hosts may need an earlier part that this host does not.
        alone: bool,
    },
    /// The present release is a part, and its whole release is not kept.
    NoWhole,
    /// The present release is a part, and the host's release is unknown.
    Unknown,
    /// There is no release.
    Nothing,
}

/// A host that lacks the present release.
#[derive(Debug, Clone, Copy)]
pub struct Lacking<'a> {
    /// Release of the host; 0 is none.
    pub have: Serial,
    /// Whole release of the host's part, if it runs a part.
    pub base: Option<Serial>,
    /// Name of the host, if known.
    pub host: Option<&'a HostName>,
    /// Labels of the host, if known.
    pub labels: Option<&'a Labels>,
}

impl Lacking<'_> {
    /// Returns whether the release `known` is meant for this host.
    fn is_target(&self, known: &KnownRelease) -> bool {
        self.host
            .is_none_or(|host| is_target(&known.release, host, self.labels))
    }
}

/// Hosts that have to catch up before they take a part of the tree.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Arriving {
    /// Oldest release among these hosts; 0 is none.
    pub oldest: Option<Serial>,
    /// Newest release that was for all hosts: a host with an older one lacks it.
    pub needed: Serial,
}

impl ReleaseHistory<'_> {
    /// Next release for a host on its way to the present one. Skips parts for other hosts.
    pub(crate) fn next_for(&self, host: Lacking<'_>) -> NextRelease {
        let Some(present) = self.current else {
            return NextRelease::Nothing;
        };

        let base = self.base_for(host);
        let Some((next, skips)) = self.next_needed(host) else {
            return NextRelease::Release {
                serial: present,
                follows: None,
                alone: false,
            };
        };

        let serial = self.known[next].serial();

        // A part follows only the release that it followed here.
        let of_this_base = base.is_some_and(|base| host.base == Some(self.known[base].serial()));

        match base {
            Some(base) if next <= base => NextRelease::Release {
                serial,
                follows: None,
                alone: false,
            },
            _ if self.at(host.have).is_some() => NextRelease::Release {
                serial,
                follows: Some(host.have),
                alone: skips,
            },
            // The host's other parts of the same whole release were not for this host.
            Some(_) if of_this_base => NextRelease::Release {
                serial,
                follows: Some(host.have),
                alone: true,
            },
            Some(_) => NextRelease::Unknown,
            None => NextRelease::NoWhole,
        }
    }

    /// Finds those of `hosts` that lack a release meant for them.
    pub(crate) fn arriving<'h>(&self, hosts: impl IntoIterator<Item = Lacking<'h>>) -> Arriving {
        let lacking = hosts
            .into_iter()
            .filter(|host| self.next_needed(*host).is_some());
        let for_all = self.known[..self.upto_present()]
            .iter()
            .rev()
            .find(|known| known.header().targets.is_empty());
        Arriving {
            oldest: lacking.map(|host| host.have).min(),
            needed: for_all.map(KnownRelease::serial).unwrap_or_default(),
        }
    }

    /// Number of releases up to the present one.
    pub(super) fn upto_present(&self) -> usize {
        self.known
            .iter()
            .take_while(|k| Some(k.serial()) <= self.current)
            .count()
    }

    /// Last release of the whole tree for `host`.
    fn base_for(&self, host: Lacking<'_>) -> Option<usize> {
        self.known[..self.upto_present()]
            .iter()
            .rposition(|k| k.is_whole() && host.is_target(k))
    }

    /// First release that `host` lacks and needs, and whether earlier parts for other hosts are
    /// skipped.
    fn next_needed(&self, host: Lacking<'_>) -> Option<(usize, bool)> {
        let upto = self.upto_present();
        let base = self.base_for(host);
        let is_needed = |at: usize| match base {
            Some(base) if at <= base => {
                at == base || (!self.known[at].is_whole() && self.is_left(at))
            }
            _ => Some(at) == base || !self.known[at].is_whole(),
        };

        let after = (0..upto).filter(|&at| self.known[at].serial() > host.have);

        let mut needed =
            after.filter(|&at| is_needed(at) && (Some(at) == base || !self.is_replaced(at)));
        let mut skips = false;
        let next = needed.find(|&at| {
            let is_for_it = host.is_target(&self.known[at]);
            skips |= !is_for_it;
            is_for_it
        })?;

        Some((next, skips))
    }
}
