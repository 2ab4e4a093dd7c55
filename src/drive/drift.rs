//! The list of differences of one host, as it travels: CBOR, capped, the same bytes for the same drift.

use minicbor::{Decode, Encode};

use super::outcome::{DriftLine, What};
use crate::block::BlockHash;
use crate::diff::{Action, Change, Delta, Plan, Shape, TopChange};
use crate::manifest::node::to_vec;
use crate::proto::sender::drift::MAX_DRIFT;

/// The most lines that travel; the counts beside them are true all the same.
pub const MAX_LINES: usize = 500_000;
/// As many are enough where they are not asked for: a deploy that goes on to put them right.
pub const FEW_LINES: usize = 1000;

#[derive(Debug, Encode, Decode)]
struct Line {
    #[n(0)]
    #[cbor(with = "minicbor::bytes")]
    path: Vec<u8>,
    #[n(1)]
    itemized: String,
    #[n(2)]
    what: u8,
}

#[derive(Debug, Default, Encode, Decode)]
struct Report {
    #[n(0)]
    lines: Vec<Line>,
    #[n(1)]
    changed: u64,
    #[n(2)]
    extra: u64,
    #[n(3)]
    missing: u64,
}

/// A decoded report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Drift {
    /// The differences in the order of paths, perhaps cut off.
    pub lines: Vec<DriftLine>,
    /// Paths that both have and that differ.
    pub changed: u64,
    /// Paths beyond the release.
    pub extra: u64,
    /// Paths that are not there.
    pub missing: u64,
}

/// The report of what `plan` found to differ, at most so many lines of it, and its identity (0 when nothing does).
pub fn encode(plan: &Plan, max_lines: usize) -> (Vec<u8>, u64) {
    let mut report = Report::default();
    let mut bytes = 0;
    if let Some(top) = plan.top.as_ref().filter(|t| t.differs()) {
        report.changed += 1;
        let path = TopChange::PATH.as_bytes().to_vec();
        report.lines.push(Line { path, itemized: top.itemized(), what: number(differing(&top.delta)) });
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
            report.lines.push(Line { path, itemized: change.itemized(), what: number(what) });
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

/// The report that a host sent, checked.
pub fn decode(bytes: &[u8]) -> Option<Drift> {
    let report: Report = minicbor::decode(bytes).ok()?;
    let lines = report.lines.into_iter().map(|line| {
        let legal = line.itemized.len() <= 16 && line.itemized.bytes().all(|b| b.is_ascii_graphic() || b == b' ');
        let what = ALL.get(usize::from(line.what)).copied().filter(|_| legal)?;
        Some(DriftLine { path: line.path, itemized: line.itemized, what })
    });
    let lines = lines.collect::<Option<Vec<_>>>()?;
    Some(Drift { lines, changed: report.changed, extra: report.extra, missing: report.missing })
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
        Action::Update if change.shape() == Shape::Hardlink && change.was == Some(Shape::Hardlink) => What::Content,
        Action::Update if change.shape() == Shape::Hardlink || change.was == Some(Shape::Hardlink) => What::Link,
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
