//! The state of a host's trees for its metrics, read without a query on the network.

use super::managed::ManagedTree;
use super::shared::LocalHost;
use super::tree_report::tree_report;
use crate::id::{Serial, TreeName};
use crate::metrics::TreeCondition;
use crate::units::WallTime;
use crate::wire::query::{TreeActivity, TreeReport, Trouble};

/// A tree as the loop of the host knows it.
#[derive(Debug)]
pub struct TreeSight {
    /// The tree.
    pub(super) tree: TreeName,
    /// Session at work on it.
    pub(super) work: Option<TreeActivity>,
    /// Whether that session catches up.
    pub(super) catches_up: bool,
    /// Last failure.
    pub(super) trouble: Option<Trouble>,
    /// Whether that was of a legitimate release, or the tree is out of order.
    pub(super) has_failed: bool,
    /// Newest release that another host runs.
    pub(super) newest: Option<Serial>,
}

/// State of a tree of this host.
#[derive(Debug)]
pub struct TreeObservation {
    /// Report as in an answer to a query.
    pub report: TreeReport,
    /// State in one word.
    pub condition: TreeCondition,
    /// Whether another host has a newer release, even one of the same content: beacons name none.
    pub is_behind: bool,
    /// Facts of the release.
    pub release: Option<ObservedRelease>,
}

/// Facts of the release that a tree runs.
#[derive(Debug)]
pub struct ObservedRelease {
    /// Time of creation, by the sender's clock.
    pub created: WallTime,
    /// Time at which it was put in place.
    pub committed: Option<WallTime>,
    /// Number of entries.
    pub entries: u64,
    /// Bytes of files.
    pub bytes: u64,
}

/// Adds the state on disk to a sight.
pub(super) fn observe(host: &LocalHost, sight: TreeSight) -> TreeObservation {
    let condition = |has_failed, is_staged| condition(&sight, has_failed, is_staged);
    let Some(managed) = host.trees.get(&sight.tree) else {
        return TreeObservation {
            condition: condition(true, false),
            is_behind: false,
            release: None,
            report: TreeReport {
                trouble: sight.trouble.clone(),
                ..TreeReport::nothing(sight.tree.clone())
            },
        };
    };

    let report = tree_report(managed, false, sight.work.clone(), sight.trouble.clone());
    // Failed checks from before the start of the daemon are stored with the tree.
    let is_unhealthy = sight.trouble.is_none() && report.trouble.is_some();
    let own = report.running.max(report.sent);
    TreeObservation {
        condition: condition(sight.has_failed || is_unhealthy, report.staged.is_some()),
        is_behind: sight.newest > own,
        release: observed_release(managed),
        report,
    }
}

fn observed_release(managed: &ManagedTree) -> Option<ObservedRelease> {
    let current = managed.tree.current().ok().flatten()?;
    let header = current.release.header();
    Some(ObservedRelease {
        created: header.created,
        committed: managed.tree.state().committed_at(),
        entries: header.root.entries,
        bytes: header.root.bytes,
    })
}

/// The state of a tree in one word.
fn condition(sight: &TreeSight, has_failed: bool, is_staged: bool) -> TreeCondition {
    let Some(work) = &sight.work else {
        return match (has_failed, is_staged) {
            (true, _) => TreeCondition::Failed,
            (false, true) => TreeCondition::Staged,
            (false, false) => TreeCondition::Idle,
        };
    };

    match work.word.as_str() {
        "committing" => TreeCondition::Committing,
        _ if sight.catches_up => TreeCondition::CatchingUp,
        "ready" | "prepared" => TreeCondition::Staged,
        _ => TreeCondition::Staging,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::HostName;

    #[test]
    fn a_tree_is_in_one_state() {
        let sight = |word: Option<&str>, catches_up| TreeSight {
            tree: TreeName::new("www").expect("legal"),
            work: word.map(|word| TreeActivity {
                word: word.into(),
                serial: Serial(1),
                sender: HostName::new("web1").expect("legal"),
                fetch: None,
            }),
            catches_up,
            trouble: None,
            has_failed: false,
            newest: None,
        };

        use TreeCondition::*;
        assert_eq!(condition(&sight(None, false), false, false), Idle);
        assert_eq!(condition(&sight(None, false), false, true), Staged);
        assert_eq!(condition(&sight(None, false), true, true), Failed);
        assert_eq!(
            condition(&sight(Some("joined"), false), true, true),
            Staging
        );
        assert_eq!(
            condition(&sight(Some("ready"), false), false, false),
            Staged
        );
        assert_eq!(
            condition(&sight(Some("staging"), true), false, false),
            CatchingUp
        );
        assert_eq!(
            condition(&sight(Some("committing"), true), false, false),
            Committing
        );
    }
}
