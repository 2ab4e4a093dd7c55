//! Errors for people from the faults of a store and the ends of the machines, with a remedy each.

use crate::error::{Error, Kind};
use crate::repository::gc::GcError;
use crate::repository::head::{HeadError, head_object};
use crate::repository::object::StoreFault;
use crate::repository::publish::PublishError;
use crate::repository::pull::PullError;

/// Remedy for a head by a key that is not authorized.
const UNLISTED_KEY: &str =
    "if its key may release the tree, list it there, or name a list by --authorized-keys";

/// What mends a repository where something is missing or damaged.
pub(super) const REPAIR_HINT: &str = "`makuo publish SPEC --to URL --repair` stores it again: do \
     that for each tree that needs it";

/// Error for a fault of the store.
pub(super) fn of_fault(fault: &StoreFault) -> Error {
    Error::new(Kind::Io, fault.to_string())
}

/// Error for a head that cannot be followed.
pub(super) fn of_head(error: &HeadError) -> Error {
    let refused = Error::refused(format!("the repository cannot be followed: {error}"));
    match error {
        HeadError::Denied(_) => refused.hint(UNLISTED_KEY),
        _ => refused,
    }
}

/// Error for a pull that cannot go on.
pub(super) fn of_pull(error: &PullError) -> Error {
    match error {
        PullError::Head(head) => of_head(head),
        PullError::Store(fault) => of_fault(fault),
        PullError::NoTree(_) | PullError::NoRepository => Error::refused(error.to_string())
            .hint("`makuo publish SPEC --to URL` makes it: is the URL the same?"),
        PullError::Missing(_) | PullError::Damaged(_) | PullError::Record(_) => {
            Error::refused(error.to_string()).hint(REPAIR_HINT)
        }
        PullError::Misplaced | PullError::Unsteady => Error::refused(error.to_string()),
    }
}

/// Error for a publication that cannot go on.
pub(super) fn of_publish(error: &PublishError) -> Error {
    match error {
        PublishError::Head(head) => of_head(head),
        PublishError::Store(fault) => of_fault(fault),
        PublishError::NoRepository => Error::refused(error.to_string())
            .hint("publish to an empty directory or prefix, or to that of a repository"),
        PublishError::Outdated(_) | PublishError::OtherTree(_) | PublishError::SourceChanged => {
            Error::refused(error.to_string())
        }
    }
}

/// Error for a gc or check that cannot go on.
pub(super) fn of_gc(error: &GcError) -> Error {
    let refused = Error::refused(error.to_string());
    match error {
        GcError::Store(fault) => of_fault(fault),
        GcError::Missing(_) | GcError::Damaged(_) | GcError::Record(_) => refused.hint(REPAIR_HINT),
        GcError::Head(_, HeadError::Denied(_)) => refused.hint(UNLISTED_KEY),

        GcError::Head(tree, _) => refused.hint(format!(
            "nothing is deleted, because {tree} may need any pack: put its head back from a copy, \
             or delete {} and publish {tree} again",
            head_object(tree)
        )),
        GcError::NoTrees => refused.hint(
            "if its first publication never ended: publish again, or delete what is old with \
             `makuo repo gc --no-trees`",
        ),
        GcError::OtherTree(..) | GcError::TooLarge(..) | GcError::Changed(_) => refused,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::sentence::repetition;
    use crate::id::{Serial, TreeName};
    use crate::keys::SignatureError;
    use crate::repository::object::FaultKind;
    use crate::repository::pack::{Extent, PackName};
    use crate::repository::record::RecordError;

    fn tree(name: &str) -> TreeName {
        TreeName::new(name).expect("legal")
    }

    fn pack() -> PackName {
        PackName(crate::block::BlockHash::of(b"a pack"))
    }

    fn extent() -> Extent {
        Extent {
            pack: pack(),
            offset: 7,
            len: 9,
        }
    }

    fn fault() -> StoreFault {
        StoreFault::new(
            FaultKind::Permanent,
            "cannot list objects at s3://fleet: no",
        )
    }

    fn heads() -> [HeadError; 4] {
        [
            HeadError::Illegal("unexpected end".into()),
            HeadError::Format(9),
            HeadError::OtherTree(tree("db")),
            HeadError::Signature(SignatureError::Malformed),
        ]
    }

    fn records() -> [RecordError; 3] {
        [
            RecordError::Hash,
            RecordError::OtherTree(tree("www"), tree("db")),
            RecordError::Illegal("unexpected end".into()),
        ]
    }

    #[test]
    fn no_error_says_a_thing_twice() {
        let mut errors = vec![of_fault(&fault())];
        errors.extend(heads().iter().map(of_head));
        let pulls = [
            PullError::Store(fault()),
            PullError::NoRepository,
            PullError::NoTree(tree("www")),
            PullError::Missing(pack()),
            PullError::Damaged(extent()),
            PullError::Misplaced,
            PullError::Unsteady,
        ];
        let pulls = pulls
            .into_iter()
            .chain(records().map(PullError::Record))
            .chain(heads().map(PullError::Head));
        errors.extend(pulls.map(|error| of_pull(&error)));

        let publications = [
            PublishError::Store(fault()),
            PublishError::NoRepository,
            PublishError::Outdated(Serial(3)),
            PublishError::OtherTree(tree("db")),
            PublishError::SourceChanged,
        ];
        let publications = publications
            .into_iter()
            .chain(heads().map(PublishError::Head));
        errors.extend(publications.map(|error| of_publish(&error)));

        let collections = [
            GcError::Store(fault()),
            GcError::NoTrees,
            GcError::OtherTree(tree("www"), tree("db")),
            GcError::TooLarge(pack(), 1 << 40),
            GcError::Damaged(extent()),
            GcError::Missing(pack()),
            GcError::Changed(tree("www")),
        ];
        let collections = collections
            .into_iter()
            .chain(records().map(GcError::Record))
            .chain(heads().map(|head| GcError::Head(tree("www"), head)));
        errors.extend(collections.map(|error| of_gc(&error)));

        let texts = errors.iter().map(Error::with_hint);
        let found: Vec<String> = texts
            .filter_map(|text| Some(format!("{:?} in: {text}", repetition(&text)?)))
            .collect();
        assert!(found.is_empty(), "{}", found.join("\n"));
    }
}
