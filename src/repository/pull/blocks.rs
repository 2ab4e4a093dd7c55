//! Ranges of wanted ordinals.

use std::ops::Range;

/// Adds ordinals to sorted ranges.
pub(super) fn put_back(ranges: &mut Vec<Range<u64>>, mut ordinals: Vec<u64>) {
    ordinals.sort_unstable();
    ordinals.dedup();
    let mut all: Vec<Range<u64>> = std::mem::take(ranges);
    all.extend(ordinals.into_iter().map(|at| at..at.saturating_add(1)));
    *ranges = merged(all);
}

/// Sorts ranges and joins those that touch or overlap.
pub(super) fn merged(mut ranges: Vec<Range<u64>>) -> Vec<Range<u64>> {
    ranges.retain(|range| !range.is_empty());
    ranges.sort_unstable_by_key(|range| range.start);
    let mut out: Vec<Range<u64>> = Vec::new();
    for range in ranges {
        match out.last_mut() {
            Some(last) if last.end >= range.start => last.end = last.end.max(range.end),
            _ => out.push(range),
        }
    }

    out
}

/// Returns the part of sorted `ranges` within `bounds`.
pub(super) fn within<'a>(
    ranges: &'a [Range<u64>],
    bounds: Range<u64>,
) -> impl Iterator<Item = Range<u64>> + 'a {
    let first = ranges.partition_point(|range| range.end <= bounds.start);
    let end = bounds.end;
    ranges[first..]
        .iter()
        .take_while(move |range| range.start < end)
        .map(move |range| range.start.max(bounds.start)..range.end.min(end))
}

/// Returns whether one of the sorted `ranges` has `ordinal`.
pub(super) fn has(ranges: &[Range<u64>], ordinal: u64) -> bool {
    let at = ranges.partition_point(|range| range.end <= ordinal);
    ranges.get(at).is_some_and(|range| range.contains(&ordinal))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ordinals_go_back_to_their_place() {
        let mut ranges = vec![2..4, 10..12];
        put_back(&mut ranges, vec![12, 4, 7, 4]);
        assert_eq!(ranges, [2..5, 7..8, 10..13]);
        assert_eq!(
            within(&ranges, 4..11).collect::<Vec<_>>(),
            [4..5, 7..8, 10..11]
        );
        assert_eq!(within(&ranges, 5..7).count(), 0);
        assert!(has(&ranges, 7) && !has(&ranges, 8) && !has(&ranges, 13));
    }
}
