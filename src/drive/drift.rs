//! The list of differences of one host, as it travels: CBOR, capped, the same bytes for the same drift.
//!
//! A list comes from a host that may mean harm: count and names are checked while it is read, before memory is taken.

use minicbor::{Decode, Encode};

use super::outcome::{DriftLine, What};
use crate::block::BlockHash;
use crate::diff::{Action, Change, Delta, Plan, Shape, TopChange};
use crate::manifest::node::to_vec;
use crate::manifest::{EntryKind, TreePath};
use crate::proto::sender::drift::MAX_DRIFT;

/// The most lines that travel; the counts beside them are true all the same.
pub const MAX_LINES: usize = 500_000;
/// As many are enough where they are not asked for: a deploy that goes on to put them right.
pub const FEW_LINES: usize = 1000;

/// Bytes that the columns of `--itemize-changes` never exceed.
const MAX_ITEMIZED: usize = 16;

fn encode_lines<C, W: minicbor::encode::Write>(
    lines: &[DriftLine],
    e: &mut minicbor::Encoder<W>,
    _: &mut C,
) -> Result<(), minicbor::encode::Error<W::Error>> {
    e.array(lines.len() as u64)?;
    for line in lines {
        e.array(3)?
            .bytes(&line.path)?
            .str(&line.itemized)?
            .u8(number(line.what))?;
    }

    Ok(())
}

/// The lines of a report, checked one by one.
fn decode_lines<C>(
    d: &mut minicbor::Decoder<'_>,
    _: &mut C,
) -> Result<Vec<DriftLine>, minicbor::decode::Error> {
    let refuse = |why| minicbor::decode::Error::message(why);
    let count = d
        .array()?
        .ok_or_else(|| refuse("a list of unknown length"))?;

    if count > MAX_LINES as u64 {
        return Err(refuse("too long a list"));
    }

    let mut lines = Vec::new();
    for _ in 0..count {
        lines.push(line(d)?);
    }

    Ok(lines)
}

fn line(d: &mut minicbor::Decoder<'_>) -> Result<DriftLine, minicbor::decode::Error> {
    let refuse = |why| minicbor::decode::Error::message(why);
    let fields = d
        .array()?
        .filter(|fields| *fields >= 3)
        .ok_or_else(|| refuse("a line that lacks a part"))?;
    let (path, itemized, what) = (d.bytes()?, d.str()?, d.u8()?);

    for _ in 3..fields {
        d.skip()?;
    }

    if path != TopChange::PATH.as_bytes() && TreePath::new(path).is_err() {
        return Err(refuse("an illegal path"));
    }

    if itemized.len() > MAX_ITEMIZED || !itemized.bytes().all(|b| b.is_ascii_graphic() || b == b' ')
    {
        return Err(refuse("columns that no comparison has"));
    }

    let what = ALL
        .get(usize::from(what))
        .copied()
        .ok_or_else(|| refuse("an unknown difference"))?;

    Ok(DriftLine {
        path: path.to_vec(),
        itemized: itemized.to_string(),
        what,
    })
}

/// A report.
#[derive(Debug, Clone, Default, PartialEq, Eq, Encode, Decode)]
pub struct Drift {
    /// The differences in the order of paths, perhaps cut off.
    #[n(0)]
    #[cbor(encode_with = "encode_lines", decode_with = "decode_lines")]
    pub lines: Vec<DriftLine>,
    /// Paths that both have and that differ.
    #[n(1)]
    pub changed: u64,
    /// Paths beyond the release.
    #[n(2)]
    pub extra: u64,
    /// Paths that are not there.
    #[n(3)]
    pub missing: u64,
}

/// The report of what `plan` found to differ, at most so many lines of it, and its identity (0 when nothing does).
pub fn encode(plan: &Plan, max_lines: usize) -> (Vec<u8>, u64) {
    let mut report = Drift::default();
    let mut bytes = 0;
    if let Some(top) = plan.top.as_ref().filter(|t| t.differs()) {
        report.changed += 1;
        let path = TopChange::PATH.as_bytes().to_vec();
        report.lines.push(DriftLine {
            path,
            itemized: top.itemized(),
            what: differing(&top.delta),
        });
    }

    for change in &plan.changes {
        let Some(what) = what(&change) else { continue };
        match what {
            What::Extra => report.extra += 1,
            What::Missing => report.missing += 1,
            _ => report.changed += 1,
        }
        bytes += change.path.as_bytes().len() as u64 + 24;
        if report.lines.len() < max_lines && bytes < MAX_DRIFT {
            let path = change.path.as_bytes().to_vec();
            report.lines.push(DriftLine {
                path,
                itemized: change.itemized_as(first_of(plan, &change)),
                what,
            });
        }
    }

    if report.lines.is_empty() {
        return (Vec::new(), 0);
    }

    let encoded = to_vec(&report);
    let hash = BlockHash::of(&encoded);
    let identity = hash.0[..8].iter().fold(0, |n, &b| n << 8 | u64::from(b));

    (encoded, identity.max(1))
}

/// What the first name of a hard link is, as far as the plan makes it, too.
fn first_of(plan: &Plan, change: &Change) -> Option<Shape> {
    let EntryKind::Hardlink(first) = &change.want.as_ref()?.entry.kind else {
        return None;
    };
    plan.changes
        .find(first)
        .map(|at| plan.changes.get(at).shape())
}

/// The report that a host sent, checked.
pub fn decode(bytes: &[u8]) -> Option<Drift> {
    minicbor::decode(bytes).ok()
}

const ALL: [What; 9] = [
    What::Missing,
    What::Kind,
    What::Content,
    What::Mode,
    What::Owner,
    What::Time,
    What::Xattrs,
    What::Extra,
    What::Link,
];

fn number(what: What) -> u8 {
    ALL.iter().position(|w| *w == what).unwrap_or(0) as u8
}

/// What a change says of the host's tree; `None` for what is kept by rule.
fn what(change: &Change) -> Option<What> {
    Some(match change.action {
        Action::Create => What::Missing,
        Action::Replace => What::Kind,
        Action::Delete | Action::Extra => What::Extra,
        Action::Keep => return None,
        // A further name of a file with other content is linked again.
        Action::Update
            if change.shape() == Shape::Hardlink && change.was == Some(Shape::Hardlink) =>
        {
            What::Content
        }
        Action::Update
            if change.shape() == Shape::Hardlink || change.was == Some(Shape::Hardlink) =>
        {
            What::Link
        }
        Action::Update | Action::Meta => differing(&change.delta),
    })
}

/// The first of what differs.
fn differing(delta: &Delta) -> What {
    match delta {
        Delta { content: true, .. } | Delta { size: true, .. } => What::Content,
        Delta { mode: true, .. } => What::Mode,
        Delta { user: true, .. } | Delta { group: true, .. } => What::Owner,
        Delta { mtime: true, .. } => What::Time,
        _ => What::Xattrs,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A list of `count` lines of `path`, all the same.
    fn list(count: u64, path: &[u8], itemized: &str, what: u8) -> Vec<u8> {
        let mut e = minicbor::Encoder::new(Vec::new());
        e.array(4).and_then(|e| e.array(count)).expect("a Vec");
        for _ in 0..count {
            e.array(3)
                .and_then(|e| e.bytes(path))
                .and_then(|e| e.str(itemized))
                .and_then(|e| e.u8(what))
                .expect("a Vec");
        }

        e.u64(1)
            .and_then(|e| e.u64(2))
            .and_then(|e| e.u64(3))
            .expect("a Vec");

        e.into_writer()
    }

    #[test]
    fn a_list_that_is_too_long_or_names_no_path_is_refused() {
        let one = decode(&list(1, b"etc/motd", ">f.st......", 2)).expect("legal");
        assert_eq!(
            (one.lines.len(), one.lines[0].what, one.missing),
            (1, What::Content, 3)
        );
        assert_eq!(to_vec(&one), list(1, b"etc/motd", ">f.st......", 2));
        assert!(
            decode(&list(2, TopChange::PATH.as_bytes(), ".d...p.....", 3)).is_some(),
            "the top of the tree"
        );

        assert!(decode(&list(MAX_LINES as u64, b"a", "", 0)).is_some());
        let most = list(MAX_LINES as u64 + 1, b"a", "", 0);
        assert!(decode(&most).is_none());
        for path in [&b""[..], b"/etc/passwd", b"a/../b", b"a\0b", b"a//b"] {
            assert!(decode(&list(1, path, "", 0)).is_none(), "{path:?}");
        }

        assert!(
            decode(&list(1, b"a", "\x1b[2J", 0)).is_none()
                && decode(&list(1, b"a", &"x".repeat(17), 0)).is_none()
        );
        assert!(decode(&list(1, b"a", "", 200)).is_none());

        // A count that the bytes do not have takes no memory.
        let mut e = minicbor::Encoder::new(Vec::new());
        e.array(4)
            .and_then(|e| e.array(MAX_LINES as u64))
            .expect("a Vec");

        assert!(decode(&e.into_writer()).is_none());
    }
}
