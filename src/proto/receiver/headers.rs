//! The signed parts of the releases that this host has, shown to hosts that missed one.
//!
//! A header goes to all: many hosts miss the same release, and one answer is for all of them. So a question costs nothing
//! as long as the last answer is young.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::id::TreeName;
use crate::manifest::ReleaseId;
use crate::units::Moment;
use crate::wire::Message;
use crate::wire::message::Pull;
use crate::wire::query::ReleaseBytes;

/// The header of one tree is shown once in this time.
const SHOW_AGAIN: Duration = Duration::from_millis(250);

/// The headers of a host's trees.
#[derive(Debug, Default)]
pub(super) struct Headers {
    of: BTreeMap<TreeName, (ReleaseId, ReleaseBytes)>,
    shown: BTreeMap<TreeName, Moment>,
}

/// What becomes of a question for a header.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Answer {
    /// It goes to all.
    Show(Box<Message>),
    /// It went to all a moment ago.
    Shown,
    /// The header is not here.
    Unknown,
}

impl Headers {
    /// Shows these from now on.
    pub(super) fn set(&mut self, headers: BTreeMap<TreeName, ReleaseBytes>) {
        let known = |bytes: &ReleaseBytes| ReleaseId(crate::block::BlockHash::of(&bytes.header));
        self.of = headers
            .into_iter()
            .map(|(tree, bytes)| (tree, (known(&bytes), bytes)))
            .collect();
        self.shown.clear();
    }

    /// Answers a question for the header of a release.
    pub(super) fn show(&mut self, now: Moment, pull: &Pull) -> Answer {
        let Some((_, bytes)) = self
            .of
            .get(&pull.tree)
            .filter(|(id, _)| *id == pull.release)
        else {
            return Answer::Unknown;
        };

        if self
            .shown
            .get(&pull.tree)
            .is_some_and(|at| now.since(*at) < SHOW_AGAIN)
        {
            return Answer::Shown;
        }

        self.shown.insert(pull.tree.clone(), now);
        Answer::Show(Box::new(Message::Header(bytes.clone())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::BlockHash;
    use crate::id::Serial;

    #[test]
    fn one_answer_is_for_all_who_ask_within_a_moment() {
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
        };

        let at = |ms: u64| Moment(1) + Duration::from_millis(ms);
        assert_eq!(headers.show(at(0), &pull(b"another")), Answer::Unknown);
        let shown = (0..2000u64)
            .filter(|ms| matches!(headers.show(at(*ms), &pull(b"header")), Answer::Show(_)))
            .count();
        assert_eq!(shown, 8);
        assert_eq!(
            headers.show(at(2000), &pull(b"header")),
            Answer::Show(Box::new(Message::Header(bytes)))
        );

        headers.set(BTreeMap::new());
        assert_eq!(headers.show(at(3000), &pull(b"header")), Answer::Unknown);
    }
}
