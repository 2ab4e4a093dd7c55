//! A running host: the receiver machine on a real network, with real trees.
//!
//! `run` is the loop of a host. `disk` hands the machine's requests to one thread for each tree;
//! `admission` checks offers first, by the rules of `authorize`, and the `gate` holds back commits.
//! `session` works until a release is staged, `switch` from there on, with the `aftermath` of a
//! commit; `staging` is the content between them, with `readback` for present blocks, and `staged`
//! keeps it after the session. `managed` is a tree with the host's own rules,
//! and a `repository_notice` its trouble with a repository, an `observation` its state for metrics.
//! `own_scan` and `drift_check` compare a tree with its release. `machine_report` describes the
//! machine to a query.

mod admission;
mod aftermath;
mod answer_size;
mod authorize;
mod checks;
mod delivery;
mod disk;
mod drift_check;
mod failures;
mod gate;
mod granted;
mod handle;
mod hooks;
mod machine_report;
mod managed;
mod observation;
mod offer;
mod own_key;
mod own_scan;
mod peer_log;
mod priority;
mod queries;
mod query_reader;
mod readback;
mod repository_notice;
mod rules;
mod run;
mod rx_drops;
mod session;
mod shared;
mod spared;
mod staged;
mod staging;
mod staleness;
mod state_size;
mod switch;
mod tombstones;
mod tree_report;
mod tree_thread;
mod trees;

pub use failures::ReleaseFailures;
pub use granted::Permitted;
pub use handle::HostHandle;
pub use managed::{ManagedTree, open_tree};
pub use observation::{ObservedRelease, TreeObservation};
pub use own_key::OwnKey;
pub use repository_notice::{RepositoryFault, RepositoryNotice};
pub use rules::TreeRules;
pub use run::HostLoop;
pub use shared::LocalHost;
pub use trees::Trees;
