//! What a running host writes into its log about others: a line for what matters, of each kind no more than a reader
//! can take, since nearly all of it anybody can cause.

use std::collections::BTreeMap;

use super::quiet::{Quiet, left_out};
use super::strangers::Stranger;
use crate::proto::receiver::HostNotice;
use crate::units::{Moment, one_line, printable};
use crate::wire::HostStage;
use crate::wire::seal::OpenError;

/// The kinds of lines that are counted apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    /// A release is refused, a rightful one or one that anybody may have offered.
    Refused(bool),
    /// Data is not what a release says.
    Damaged,
    Pulls,
    Version,
    Illegal,
    Stranger(OpenError),
}

/// The log of a running host.
#[derive(Debug)]
pub(super) struct Lines {
    began: Moment,
    kinds: BTreeMap<Kind, Quiet>,
}

impl Lines {
    pub(super) fn new(now: Moment) -> Self {
        Self {
            began: now,
            kinds: BTreeMap::new(),
        }
    }

    /// Somebody was heard for the first time whom this host does not listen to.
    pub(super) fn stranger(&mut self, now: Moment, Stranger { address, kind }: Stranger) {
        let words = Stranger::words(kind);
        self.say(now, Kind::Stranger(kind), |more| {
            tracing::warn!("{address} {words}: it is not heard{more}")
        });
    }

    /// A session moved on, or something else is to be told.
    pub(super) fn notice(&mut self, now: Moment, notice: &HostNotice) {
        match notice {
            HostNotice::Stage { tree, serial, sender, stage, text, proven } => {
                let why = text.as_deref().map(|t| format!(": {}", one_line(t))).unwrap_or_default();
                match stage {
                    HostStage::Refused => self.say(now, Kind::Refused(*proven), |more| {
                        tracing::warn!("{tree}@{serial} from {sender}: {stage:?}{why}{more}");
                    }),
                    HostStage::Failed | HostStage::Unhealthy | HostStage::Stuck => {
                        tracing::warn!("{tree}@{serial} from {sender}: {stage:?}{why}")
                    }
                    // Anybody's word so far.
                    HostStage::Joined => tracing::debug!("{tree}@{serial} from {sender}: announced"),
                    _ => tracing::info!("{tree}@{serial} from {sender}: {stage:?}{why}"),
                }
            }
            HostNotice::Damaged { tree, serial, sources } => self.say(now, Kind::Damaged, |more| {
                let sources: Vec<String> = sources.iter().map(ToString::to_string).collect();
                let sources = sources.join(", ");
                tracing::warn!("{tree}@{serial}: data is not what the release says, and is asked for again; it came from {sources}{more}");
            }),
            HostNotice::Pulls { tree, from } => self.say(now, Kind::Pulls, |more| {
                tracing::info!("tree {tree}: others have a release that it lacks; asks {from} for it{more}");
            }),
            HostNotice::Version(version, from) => self.say(now, Kind::Version, |more| {
                let ours = crate::wire::VERSION;
                tracing::warn!("{from} sends datagrams of wire format {version}; this makuo speaks {ours}{more}");
            }),
            HostNotice::Illegal(from, why) => self.say(now, Kind::Illegal, |more| {
                tracing::warn!("{from} offers what no host takes: {}{more}", printable(why.as_bytes()));
            }),
        }
    }

    fn say(&mut self, now: Moment, kind: Kind, line: impl FnOnce(String)) {
        let began = self.began;
        if let Some(unsaid) = self
            .kinds
            .entry(kind)
            .or_insert_with(|| Quiet::new(began))
            .may_say(now)
        {
            line(left_out(unsaid));
        }
    }
}
