//! Log lines about peers. Each kind has a rate limit, because anyone on the network can trigger
//! most of them.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::drive::log_limit::LogLimit;
use crate::outcome::Stranger;
use crate::proto::receiver::HostNotice;
use crate::units::{Moment, one_line, printable};
use crate::wire::HostStage;
use crate::wire::seal::OpenError;

/// Interval of checks for peers whose datagrams do not open.
const UNHEARD_POLL_INTERVAL: Duration = Duration::from_secs(1);

/// Words of a log line for a step of a session.
fn told(stage: HostStage) -> &'static str {
    match stage {
        HostStage::Joined => "announced",
        HostStage::Fetching => "fetching the list of files",
        HostStage::Diffing => "comparing the tree with it",
        HostStage::Staging => "fetching what is missing",
        HostStage::Ready => "staged",
        HostStage::Prepared => "staged, and the commands before the commit agree",
        HostStage::Checking => "in place, running the commands after the commit",
        HostStage::Committed => "committed",
        HostStage::Unhealthy => "in place and unhealthy",
        HostStage::Reverted => "taken back",
        HostStage::Stuck => "in place, and it could not be taken back",
        HostStage::Refused => "refused",
        HostStage::Aborted => "dropped by order",
        HostStage::Failed => "failed",
        HostStage::Staged => "stays staged until a later order",
    }
}

/// Kinds of lines with a limit of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum LineKind {
    /// A refused release; `true` for a legitimate one.
    Refused(bool),
    /// Data in conflict with the release.
    Damaged,
    Pulls,
    Version,
    Illegal,
    Stranger(OpenError),
}

/// The log of a running host.
#[derive(Debug)]
pub(super) struct PeerLog {
    began: Moment,
    kinds: BTreeMap<LineKind, LogLimit>,
    /// Time of the last check for peers whose datagrams do not open.
    unheard_at: Moment,
}

impl PeerLog {
    pub(super) fn new(now: Moment) -> Self {
        Self {
            began: now,
            kinds: BTreeMap::new(),
            unheard_at: now,
        }
    }

    /// Begins a check for peers whose datagrams do not open. Returns false if none is due.
    pub(super) fn begin_unheard(&mut self, now: Moment) -> bool {
        let due = now.since(self.unheard_at) >= UNHEARD_POLL_INTERVAL;
        if due {
            self.unheard_at = now;
        }

        due
    }

    /// Logs a new peer whose datagrams do not open.
    pub(super) fn on_stranger(&mut self, now: Moment, Stranger { address, kind }: Stranger) {
        let words = Stranger::describe(kind);
        self.log(now, LineKind::Stranger(kind), |more| {
            tracing::warn!("{address} {words}: it is not heard{more}")
        });
    }

    /// Logs a step of a session or another notice.
    pub(super) fn on_notice(&mut self, now: Moment, notice: &HostNotice) {
        match notice {
            HostNotice::Stage {
                tree,
                serial,
                sender,
                stage,
                text,
                proven,
                ..
            } => {
                let why = text
                    .as_deref()
                    .map(|t| format!(": {}", one_line(t)))
                    .unwrap_or_default();
                let step = told(*stage);
                match stage {
                    HostStage::Refused => self.log(now, LineKind::Refused(*proven), |more| {
                        tracing::warn!("{tree}@{serial} from {sender}: {step}{why}{more}");
                    }),
                    HostStage::Failed | HostStage::Unhealthy | HostStage::Stuck => {
                        tracing::warn!("{tree}@{serial} from {sender}: {step}{why}")
                    }
                    // Nothing is proven yet.
                    HostStage::Joined => {
                        tracing::debug!("{tree}@{serial} from {sender}: {step}")
                    }
                    _ => tracing::info!("{tree}@{serial} from {sender}: {step}{why}"),
                }
            }
            HostNotice::Over { .. } => {}
            HostNotice::Damaged {
                tree,
                serial,
                sources,
            } => self.log(now, LineKind::Damaged, |more| {
                let sources: Vec<String> = sources.iter().map(ToString::to_string).collect();
                let sources = sources.join(", ");
                tracing::warn!(
                    "{tree}@{serial}: data is not what the release says, and is asked for again; \
                     it came from {sources}{more}"
                );
            }),
            HostNotice::Pulls { tree, from } => self.log(now, LineKind::Pulls, |more| {
                tracing::info!(
                    "tree {tree}: others have a release that it lacks; \
                     asks {from} for it{more}"
                );
            }),
            HostNotice::Version(version, from) => self.log(now, LineKind::Version, |more| {
                let ours = crate::wire::VERSION;
                tracing::warn!(
                    "{from} sends datagrams of wire format {version}; \
                     this makuo speaks {ours}{more}"
                );
            }),
            HostNotice::Illegal(from, why) => self.log(now, LineKind::Illegal, |more| {
                tracing::warn!(
                    "{from} sends an invalid offer: {}{more}",
                    printable(why.as_bytes())
                );
            }),
        }
    }

    fn log(&mut self, now: Moment, kind: LineKind, line: impl FnOnce(String)) {
        let began = self.began;
        let limit = self
            .kinds
            .entry(kind)
            .or_insert_with(|| LogLimit::new(began));
        limit.log(now, line);
    }
}
