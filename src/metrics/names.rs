//! Every metric that a daemon serves. The page makuo.toml(5) lists the same.

use super::text::{FamilyKind, MetricFamily};

/// Defines the metrics and their list.
macro_rules! families {
    ($($constant:ident = $kind:ident $name:literal: $help:literal;)+) => {
        $(#[doc = $help] pub const $constant: MetricFamily = MetricFamily {
            name: $name,
            kind: FamilyKind::$kind,
            help: $help,
        };)+

        /// Every metric, in the order of the text.
        pub const FAMILIES: &[MetricFamily] = &[$($constant),+];
    };
}

families! {
    BUILD_INFO = Gauge "makuo_build_info":
        "Version of makuo, and format of its datagrams; always 1.";
    START_TIME = Gauge "makuo_start_time_seconds":
        "Time at which the daemon started.";
    MEMBERS = Gauge "makuo_members":
        "Other hosts of the group that were heard lately.";
    TREE_SERIAL = Gauge "makuo_tree_release_serial":
        "Serial of the tree's release; absent without one.";
    TREE_CREATED = Gauge "makuo_tree_release_created_timestamp_seconds":
        "Time at which the release was signed, by the sender's clock.";
    TREE_COMMITTED = Gauge "makuo_tree_committed_timestamp_seconds":
        "Time at which this host put the release in place.";
    TREE_STATE = Gauge "makuo_tree_state":
        "1 for the present state of the tree, 0 for the others.";
    TREE_BEHIND = Gauge "makuo_tree_behind":
        "1 if another host has a newer release of the tree, even one of the same content.";
    TREE_STALE = Gauge "makuo_tree_stale":
        "1 if the release is older than max_age of the tree allows.";
    TREE_ENTRIES = Gauge "makuo_tree_entries":
        "Files, directories and links of the release.";
    TREE_BYTES = Gauge "makuo_tree_bytes":
        "Bytes of the files of the release.";
    STATE_BYTES = Gauge "makuo_state_bytes":
        "Bytes on disk of the tree's state, from the last minute; absent before the first look.";
    SESSIONS = Counter "makuo_sessions_total":
        "Sessions that ended, by the role of this host and by the outcome.";
    SESSION_DURATION = Histogram "makuo_session_duration_seconds":
        "Duration of a session, from the announcement to a receiver or the command of a sender.";
    RECEIVED_BYTES = Counter "makuo_received_bytes_total":
        "Bytes of datagrams (own multicast too) and of objects of stores that this host received.";
    SENT_BYTES = Counter "makuo_sent_bytes_total":
        "Bytes of datagrams that this host sent, those of its own sessions and surveys included.";
    REUSED_BYTES = Counter "makuo_reused_bytes_total":
        "Bytes of committed releases that were not fetched, because the tree had them.";
    SYMBOLS_LOST = Counter "makuo_symbols_lost_total":
        "Symbols of data that this host missed and asked for.";
    REPAIR_SYMBOLS = Counter "makuo_repair_symbols_total":
        "Symbols that this host received to mend losses.";
    RECEIVE_DROPS = Counter "makuo_receive_buffer_drops_total":
        "Packets that were lost because a receive buffer was full.";
    RECEIVE_BUFFER = Gauge "makuo_receive_buffer_bytes":
        "Size of the smallest receive buffer.";
    FILES_WRITTEN = Counter "makuo_files_written_total":
        "Files, links and devices that commits wrote.";
    FILES_DELETED = Counter "makuo_files_deleted_total":
        "Paths that commits deleted.";
    REFUSED = Counter "makuo_refused_total":
        "Offers that this host refused, by the rule that they broke.";
    DRIFT_PATHS = Gauge "makuo_drift_paths":
        "Paths that differed from the release in the last check, and are not repaired yet.";
    DRIFT_REPAIRED = Counter "makuo_drift_repaired_total":
        "Commits that repaired drift.";
    LAST_DRIFT_CHECK = Gauge "makuo_last_drift_check_timestamp_seconds":
        "Time of the last check for drift; absent before the first.";
    HOOK_FAILURES = Counter "makuo_hook_failures_total":
        "Commands around commits that failed.";
    HOOK_DURATION = Histogram "makuo_hook_duration_seconds":
        "Durations of commands around commits.";
    UNSEALED = Counter "makuo_unsealed_datagrams_total":
        "Datagrams that were dropped, because no key of this group sealed them.";
    STORE_REQUESTS = Counter "makuo_store_requests_total":
        "Requests to the repository of a tree, by the kind of the answer.";
    STORE_LAST_SUCCESS = Gauge "makuo_store_last_success_timestamp_seconds":
        "Time of the repository's last answer; absent before the first.";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_rules_of_prometheus() {
        for family in FAMILIES {
            let name = family.name;
            assert!(name.starts_with("makuo_"), "{name}");
            let is_counter = family.kind == FamilyKind::Counter;
            assert_eq!(name.ends_with("_total"), is_counter, "{name}");
            assert!(family.help.ends_with('.'), "{name}");
        }

        let mut names: Vec<&str> = FAMILIES.iter().map(|family| family.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), FAMILIES.len());
    }
}
