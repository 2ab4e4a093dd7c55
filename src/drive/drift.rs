//! Wire format of a host's list of differences: CBOR, capped, the same bytes for the same drift.
//!
//! A list may come from a malicious host: count and names are checked while decoding, before memory
//! is allocated.

use minicbor::bytes::ByteVec;
use minicbor::{Decode, Encode};

use crate::block::BlockHash;
use crate::diff::{Action, Change, Delta, Plan, ProtectedPaths, Shape, TopChange};
use crate::manifest::node::to_vec;
use crate::manifest::{EntryKind, TreePath};
use crate::outcome::{DriftKind, DriftLine};
use crate::proto::sender::drift::MAX_DRIFT;
use crate::units::printable;

/// Largest number of lines on the wire; the counts remain exact beyond it.
pub const MAX_LINES: usize = 500_000;
/// Number of lines for a deploy, which did not request them and repairs the drift anyway.
pub const FEW_LINES: usize = 1000;

/// Largest number of protected paths.
const MAX_PROTECTED: usize = 1000;
/// Largest number of characters of a text.
const MAX_LIMIT_CHARS: usize = 500;
/// Largest number of bytes of the `--itemize-changes` columns.
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

/// Decodes the lines of a list, checking each.
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
    let path = d.bytes()?;
    let itemized = d.str()?;
    let what = d.u8()?;

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

/// A decoded list.
#[derive(Debug, Clone, Default, PartialEq, Eq, Encode, Decode)]
pub struct HostDrift {
    /// Differences sorted by path, possibly truncated.
    #[n(0)]
    #[cbor(encode_with = "encode_lines", decode_with = "decode_lines")]
    pub lines: Vec<DriftLine>,
    /// Paths on both sides that differ.
    #[n(1)]
    pub changed: u64,
    /// Paths that only the host has.
    #[n(2)]
    pub extra: u64,
    /// Paths that only the release has.
    #[n(3)]
    pub missing: u64,
    /// Limit for which the host would refuse the release.
    #[n(4)]
    pub over_limit: Option<String>,
    /// First paths of the release that the host protects.
    #[n(5)]
    pub protected: Option<Vec<ByteVec>>,
    /// Number of these paths.
    #[n(6)]
    pub protected_count: Option<u64>,
}

/// Encodes the differences in `plan`, at most `max_lines` of them, and the `protected` paths.
/// Returns the bytes and their identity, 0 without either.
pub fn encode(plan: &Plan, protected: &ProtectedPaths, max_lines: usize) -> (Vec<u8>, u64) {
    let mut report = HostDrift {
        over_limit: plan.over_limit.clone(),
        ..HostDrift::default()
    };
    if protected.count > 0 {
        let bytes = |path: &TreePath| ByteVec::from(path.as_bytes().to_vec());
        report.protected = Some(protected.paths.iter().map(bytes).collect());
        report.protected_count = Some(protected.count);
    }

    let mut bytes = 0;
    if let Some(top) = top_line(plan) {
        report.changed += 1;
        report.lines.push(top);
    }

    for change in &plan.changes {
        let Some(what) = what(&change) else { continue };
        match what {
            DriftKind::Extra => report.extra += 1,
            DriftKind::Missing => report.missing += 1,
            _ => report.changed += 1,
        }
        bytes += change.path.as_bytes().len() as u64 + 24;
        if report.lines.len() < max_lines && bytes < MAX_DRIFT {
            report.lines.push(line_of(plan, &change, what));
        }
    }

    if report.lines.is_empty() && report.protected.is_none() {
        return (Vec::new(), 0);
    }

    let encoded = to_vec(&report);
    let hash = BlockHash::of(&encoded);
    let identity = hash.0[..8].iter().fold(0, |n, &b| n << 8 | u64::from(b));

    (encoded, identity.max(1))
}

/// The differences in `plan`.
pub fn differences(plan: &Plan) -> impl Iterator<Item = DriftLine> {
    let changes = plan.changes.into_iter();
    let lines = changes.filter_map(|change| Some(line_of(plan, &change, what(&change)?)));
    top_line(plan).into_iter().chain(lines)
}

fn top_line(plan: &Plan) -> Option<DriftLine> {
    let top = plan.top.as_ref().filter(|top| top.differs())?;
    Some(DriftLine {
        path: TopChange::PATH.as_bytes().to_vec(),
        itemized: top.itemized(),
        what: differing(&top.delta),
    })
}

fn line_of(plan: &Plan, change: &Change, what: DriftKind) -> DriftLine {
    DriftLine {
        path: change.path.as_bytes().to_vec(),
        itemized: change.itemized_as(first_of(plan, change)),
        what,
    }
}

/// Shape of the first name of a hard link, if the plan creates it too.
fn first_of(plan: &Plan, change: &Change) -> Option<Shape> {
    let EntryKind::Hardlink(first) = &change.want.as_ref()?.entry.kind else {
        return None;
    };
    plan.changes
        .find(first)
        .map(|at| plan.changes.get(at).shape())
}

/// Decodes and checks a host's list.
pub fn decode(bytes: &[u8]) -> Option<HostDrift> {
    let mut drift: HostDrift = minicbor::decode(bytes).ok()?;
    let protected = drift.protected.iter().flatten();
    if protected.count() > MAX_PROTECTED
        || !drift
            .protected
            .iter()
            .flatten()
            .all(|path| TreePath::new(path.as_slice()).is_ok())
    {
        return None;
    }

    let text = drift.over_limit.as_mut();
    text.into_iter().for_each(|text| {
        *text = printable(text.as_bytes())
            .chars()
            .take(MAX_LIMIT_CHARS)
            .collect()
    });
    Some(drift)
}

const ALL: [DriftKind; 9] = [
    DriftKind::Missing,
    DriftKind::Kind,
    DriftKind::Content,
    DriftKind::Mode,
    DriftKind::Owner,
    DriftKind::Time,
    DriftKind::Xattrs,
    DriftKind::Extra,
    DriftKind::Link,
];

fn number(what: DriftKind) -> u8 {
    ALL.iter().position(|w| *w == what).unwrap_or(0) as u8
}

/// Difference of the host's path behind a change; `None` for paths kept by rule.
fn what(change: &Change) -> Option<DriftKind> {
    Some(match change.action {
        Action::Create => DriftKind::Missing,
        Action::Replace => DriftKind::Kind,
        Action::Delete | Action::Extra => DriftKind::Extra,
        Action::Keep => return None,
        // A further name of a file with other content is linked again.
        Action::Update
            if change.shape() == Shape::Hardlink && change.was == Some(Shape::Hardlink) =>
        {
            DriftKind::Content
        }
        Action::Update
            if change.shape() == Shape::Hardlink || change.was == Some(Shape::Hardlink) =>
        {
            DriftKind::Link
        }
        Action::Update | Action::Meta => differing(&change.delta),
    })
}

/// The first difference of an entry.
fn differing(delta: &Delta) -> DriftKind {
    match delta {
        Delta { content: true, .. } | Delta { size: true, .. } => DriftKind::Content,
        Delta { mode: true, .. } => DriftKind::Mode,
        Delta { user: true, .. } | Delta { group: true, .. } => DriftKind::Owner,
        Delta { mtime: true, .. } => DriftKind::Time,
        _ => DriftKind::Xattrs,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A list of `count` equal lines for `path`.
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
            (1, DriftKind::Content, 3)
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

        // A count without bytes behind it allocates no memory.
        let mut e = minicbor::Encoder::new(Vec::new());
        e.array(4)
            .and_then(|e| e.array(MAX_LINES as u64))
            .expect("a Vec");

        assert!(decode(&e.into_writer()).is_none());
    }
}
