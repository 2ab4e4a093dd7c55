//! Signed headers of this host's releases, shown to hosts that missed one.
//!
//! A header goes to the whole group, because many hosts miss the same release. Further requests
//! cost nothing while the last answer is recent.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::block::BlockHash;
use crate::id::TreeName;
use crate::manifest::ReleaseId;
use crate::units::Moment;
use crate::wire::Message;
use crate::wire::message::Pull;
use crate::wire::query::ReleaseBytes;

/// Minimum interval between two answers for one tree.
const SHOW_INTERVAL: Duration = Duration::from_millis(250);

/// Headers of the trees, with the time of their last broadcast.
#[derive(Debug, Default)]
pub(super) struct Headers {
    by_tree: BTreeMap<TreeName, (ReleaseId, ReleaseBytes)>,
    shown_at: BTreeMap<TreeName, Moment>,
}

/// Outcome of a header request.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum HeaderAnswer {
    /// Send this message to the group.
    Show(Box<Message>),
    /// The group got the header a moment ago.
    RecentlyShown,
    /// This host does not have the header.
    Unknown,
}

impl Headers {
    /// Replaces the headers.
    pub(super) fn set(&mut self, headers: BTreeMap<TreeName, ReleaseBytes>) {
        let id = |bytes: &ReleaseBytes| ReleaseId(BlockHash::of(&bytes.header));
        self.by_tree = headers
            .into_iter()
            .map(|(tree, bytes)| (tree, (id(&bytes), bytes)))
            .collect();
        self.shown_at.clear();
    }

    /// Answers a request for the header of a release.
    pub(super) fn show(&mut self, now: Moment, pull: &Pull) -> HeaderAnswer {
        let Some((_, bytes)) = self
            .by_tree
            .get(&pull.tree)
            .filter(|(id, _)| *id == pull.release)
        else {
            return HeaderAnswer::Unknown;
        };

        if self
            .shown_at
            .get(&pull.tree)
            .is_some_and(|at| now.since(*at) < SHOW_INTERVAL)
        {
            return HeaderAnswer::RecentlyShown;
        }

        self.shown_at.insert(pull.tree.clone(), now);
        HeaderAnswer::Show(Box::new(Message::Header(bytes.clone())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::Serial;

    #[test]
    fn one_answer_serves_all_requests_of_an_interval() {
        let www = TreeName::new("www").expect("legal");
        let bytes = ReleaseBytes {
            header: b"header".to_vec(),
            signature: b"signature".to_vec(),
        };

        let mut headers = Headers::default();
        headers.set([(www.clone(), bytes.clone())].into());
        let pull = |of: &[u8]| Pull {
            tree: www.clone(),
            release: ReleaseId(BlockHash::of(of)),
            have: Serial(1),
            base: None,
            host: None,
            header: Some(true),
            labels: None,
        };

        let at = |ms: u64| Moment(1) + Duration::from_millis(ms);
        assert_eq!(
            headers.show(at(0), &pull(b"another")),
            HeaderAnswer::Unknown
        );
        let shown = (0..2000u64)
            .filter(|ms| {
                matches!(
                    headers.show(at(*ms), &pull(b"header")),
                    HeaderAnswer::Show(_)
                )
            })
            .count();
        assert_eq!(shown, 8);
        assert_eq!(
            headers.show(at(2000), &pull(b"header")),
            HeaderAnswer::Show(Box::new(Message::Header(bytes)))
        );

        headers.set(BTreeMap::new());
        assert_eq!(
            headers.show(at(3000), &pull(b"header")),
            HeaderAnswer::Unknown
        );
    }
}
