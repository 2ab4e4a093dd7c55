//! Events and results of deploys, audits and surveys: plain data.
//!
//! Owns the states of a host and the rule that turns them into an exit code. Must not know how
//! results are shown (`report`) or produced (socket, disk, clock).
//!
//! `event` has the events of a session, `session` the results, `state` and `drift` the details of
//! one host. `member` and `stranger` are the hosts of the network, `fleet` has the releases of
//! members, and `names` lists hosts and warns of shared names. `progress` is a snapshot of a
//! session under way, `finding` a result of a search for the cause of a trouble, and `rollout` a
//! commit with pauses that waits.

mod drift;
mod event;
mod finding;
mod fleet;
mod member;
mod names;
mod progress;
mod rollout;
mod session;
mod state;
mod stranger;

pub use drift::{DriftGroup, DriftKind, DriftLine, ProtectedList};
pub use event::{Event, HostChange, MadeRelease, Observer, PathDifference, ScanSummary, Silent};
pub use finding::{Check, Finding, Severity, findings_exit, ordered};
pub use fleet::{LogRelease, ReleaseLog, Standing, TreeStatus, log_status, standings_status};
pub use member::{MemberInfo, MemberTree, Silence, Survey};
pub use names::{named_hosts, shared_names};
pub use progress::{PendingHost, ProgressReport, SessionPhase};
pub use rollout::{PausedRollout, paused_rollouts, rollout_host};
pub use session::{
    BatchResult, ExitStatus, HostResult, Outcome, Purpose, RepositoryResult, exit_status,
};
pub use state::HostState;
pub use stranger::Stranger;
