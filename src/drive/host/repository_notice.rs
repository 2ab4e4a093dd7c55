//! What keeps a tree from following its repository, for the log and for `status`.

use std::sync::Mutex;

use crate::sync::locked;
use crate::units::WallTime;
use crate::wire::query::RepositoryTrouble;

/// Kind of a trouble. One that only changes its words is not logged again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RepositoryFault {
    /// The store does not answer, or what it says cannot be used.
    Unreadable,
    /// The head is past its time, or older than the host allows.
    Stale,
    /// The repository is behind the tree, or behind itself.
    Older,
    /// The newest release is not for this host.
    Refused,
}

/// The present trouble of a tree with its repository.
#[derive(Debug, Default)]
pub struct RepositoryNotice(Mutex<Option<KnownTrouble>>);

#[derive(Debug)]
struct KnownTrouble {
    fault: RepositoryFault,
    text: String,
    since: WallTime,
}

impl RepositoryNotice {
    /// Sets the present trouble, or none; returns whether that is news.
    pub fn set(&self, trouble: Option<(RepositoryFault, &str)>, now: WallTime) -> bool {
        let mut known = locked(&self.0);
        let before = known.as_ref().map(|known| known.fault);
        let is_news = before != trouble.map(|(fault, _)| fault);
        let since = known.as_ref().map(|known| known.since);

        *known = trouble.map(|(fault, text)| KnownTrouble {
            fault,
            text: text.to_string(),
            since: since.filter(|_| !is_news).unwrap_or(now),
        });
        is_news
    }

    /// The trouble as it stands in an answer.
    pub(super) fn report(&self, now: WallTime) -> Option<RepositoryTrouble> {
        let known = locked(&self.0);
        known.as_ref().map(|known| RepositoryTrouble {
            age: u64::try_from(now.0.saturating_sub(known.since.0)).unwrap_or(0),
            text: known.text.clone(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_another_kind_of_trouble_is_news_and_its_age_counts_from_there() {
        let notice = RepositoryNotice::default();
        let set = |trouble, now| notice.set(trouble, WallTime(now));
        let stale = |text| Some((RepositoryFault::Stale, text));
        assert!(!set(None, 0));
        assert!(set(stale("a"), 10) && !set(stale("b"), 20));
        let told = notice.report(WallTime(25)).expect("trouble");
        assert_eq!((told.age, told.text.as_str()), (15, "b"));

        let other = Some((RepositoryFault::Unreadable, "c"));
        assert!(notice.set(other, WallTime(30)) && !notice.set(other, WallTime(31)));
        assert_eq!(notice.report(WallTime(35)).map(|told| told.age), Some(5));
        assert_eq!(notice.report(WallTime(0)).map(|told| told.age), Some(0));
        assert!(notice.set(None, WallTime(40)) && notice.report(WallTime(41)).is_none());
    }
}
