//! A host's state machine: presence in the group and its part in sessions.
//!
//! | stage | entered when | disk requests | leaves by |
//! |---|---|---|---|
//! | Joined | announcement for a tree of this host, addressed to it | `Open` | `Opened` |
//! | Fetching | the release is accepted | `Explore`, `Deliver` | the manifest is complete |
//! | Diffing | the manifest is complete | `Diff` | `Diffed` |
//! | Staging | a plan exists; an audit ends here | `Deliver`, `ReadBack`, `Finish` | `Finished` |
//! | Ready | all content is staged, verified, durable | `Order` per order | the order's outcome |
//! | Prepared | the checks before a commit agreed | `Order` | the order's outcome |
//! | Checking | the release is in place, hooks and health check run | `Check` | `Checked` |
//! | Committed, Unhealthy | the release is in place | `Order` to revert | close or long silence |
//! | Reverted, Stuck, Refused, Aborted, Failed | | | close or long silence |
//!
//! The machine believes only signed data. Headers, orders and signatures go to the disk side, which
//! checks them against the authorized keys and replies.

mod buffer;
mod catch_up;
mod contention;
mod disk;
mod drift;
mod effects;
mod generations;
mod headers;
mod machine;
mod measurements;
mod notice;
mod open_orders;
mod order_checks;
mod proof;
mod relay_load;
mod releases;
mod session;
mod sessions;
mod setup;
mod targets;
#[cfg(test)]
mod test_fleet;
mod tombstones;

pub use buffer::BlockPart;
pub use catch_up::failure_pause;
pub use disk::{
    Answer, Ask, DiskReply, DiskRequest, OfferRefusal, OfferedRelease, Ordered, ReasonText,
    ScanMode,
};
pub use generations::{Delivery, SymbolCounts};
pub use machine::Receiver;
pub use notice::HostNotice;
pub use relay_load::RelayLoad;
pub use session::is_busy;
pub use sessions::MAX_SESSIONS;
pub use setup::{HostSetup, HostTrees, SessionHost};
pub use targets::is_target;
