//! Set of numbers as sorted, disjoint ranges, for wanted ordinals and missing symbols.

use std::collections::BTreeMap;
use std::ops::Range;

/// Sorted ranges that neither overlap nor touch.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RangeSet {
    /// Start to end of each range.
    ranges: BTreeMap<u64, u64>,
    len: u64,
}

impl RangeSet {
    /// Number of numbers in the set.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Returns true for the empty set.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Number of ranges in the set.
    pub fn range_count(&self) -> usize {
        self.ranges.len()
    }

    /// Returns the ranges in ascending order.
    pub fn iter(&self) -> impl Iterator<Item = Range<u64>> + '_ {
        self.ranges.iter().map(|(&start, &end)| start..end)
    }

    /// Returns the smallest number.
    pub fn first(&self) -> Option<u64> {
        self.ranges.first_key_value().map(|(&start, _)| start)
    }

    /// Returns whether `number` is in the set.
    pub fn contains(&self, number: u64) -> bool {
        self.ranges
            .range(..=number)
            .next_back()
            .is_some_and(|(_, &end)| number < end)
    }

    /// Adds a range.
    pub fn insert(&mut self, range: Range<u64>) {
        if range.is_empty() {
            return;
        }

        let mut start = range.start;
        let mut end = range.end;
        if let Some((&s, &e)) = self.ranges.range(..start).next_back()
            && e >= start
        {
            start = s;
        }

        while let Some((&s, &e)) = self.ranges.range(start..=end).next() {
            end = end.max(e);
            self.ranges.remove(&s);
            self.len -= e - s;
        }

        self.ranges.insert(start, end);
        self.len += end - start;
    }

    /// Removes a range.
    pub fn remove(&mut self, range: Range<u64>) {
        if range.is_empty() {
            return;
        }

        if let Some((&s, &e)) = self.ranges.range(..range.start).next_back()
            && e > range.start
        {
            self.ranges.insert(s, range.start);
            self.len -= e - range.start;
            self.put_back(range.end, e);
        }

        while let Some((&s, &e)) = self.ranges.range(range.start..range.end).next() {
            self.ranges.remove(&s);
            self.len -= e - s;
            self.put_back(range.end, e);
        }
    }

    fn put_back(&mut self, start: u64, end: u64) {
        if start < end {
            self.ranges.insert(start, end);
            self.len += end - start;
        }
    }

    /// Adds all numbers of `other`.
    pub fn extend(&mut self, other: &RangeSet) {
        other.iter().for_each(|r| self.insert(r));
    }

    /// Removes all numbers of `other`.
    pub fn subtract(&mut self, other: &RangeSet) {
        other.iter().for_each(|r| self.remove(r));
    }

    /// Returns whether any number of `range` is in the set.
    pub fn intersects(&self, range: &Range<u64>) -> bool {
        !range.is_empty()
            && (self.contains(range.start)
                || self.ranges.range(range.start..range.end).next().is_some())
    }

    /// Returns at most `most` ranges that cover the set. Ranges with small gaps are joined if
    /// necessary, so the cover may be larger than the set.
    pub fn cover(&self, most: usize) -> RangeSet {
        let mut gap = 1;
        let mut cover = self.clone();
        while cover.range_count() > most.max(1) {
            gap *= 2;
            cover = self.joined(gap);
        }
        cover
    }

    fn joined(&self, gap: u64) -> RangeSet {
        let mut out = RangeSet::default();
        let mut open: Option<Range<u64>> = None;
        for range in self.iter() {
            match &mut open {
                Some(o) if range.start - o.end < gap => o.end = range.end,
                _ => open.replace(range).into_iter().for_each(|o| out.insert(o)),
            }
        }

        open.into_iter().for_each(|o| out.insert(o));
        out
    }
}

impl FromIterator<Range<u64>> for RangeSet {
    fn from_iter<I: IntoIterator<Item = Range<u64>>>(ranges: I) -> Self {
        let mut set = Self::default();
        ranges.into_iter().for_each(|r| set.insert(r));
        set
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn behaves_as_a_set_of_numbers(
            ops in prop::collection::vec((any::<bool>(), 0..100u64, 0..20u64), 0..60),
        ) {
            let mut set = RangeSet::default();
            let mut model = BTreeSet::new();
            for (add, start, len) in ops {
                let range = start..start + len;
                if add {
                    set.insert(range.clone());
                    model.extend(range);
                } else {
                    set.remove(range.clone());
                    range.for_each(|n| { model.remove(&n); });
                }
                prop_assert_eq!(set.iter().flatten().collect::<BTreeSet<_>>(), model.clone());
                prop_assert_eq!(set.len(), model.len() as u64);
                let ranges: Vec<_> = set.iter().collect();
                prop_assert!(ranges.windows(2).all(|w| w[0].end < w[1].start));
                for probe in 0..125 {
                    prop_assert_eq!(set.contains(probe), model.contains(&probe));
                    let range = probe..probe + 3;
                    let expected = range.clone().any(|n| model.contains(&n));
                    prop_assert_eq!(set.intersects(&range), expected);
                }
            }

            let cover = set.cover(3);
            prop_assert!(cover.range_count() <= 3);
            prop_assert!(set.iter().flatten().all(|n| cover.contains(n)));
        }
    }
}
