//! Iteration over a list from either end, which unpacks each chunk once.

use super::{CHUNK_LEN, Pack, Packed};
use crate::block::frame::Expander;

/// Iterator over the elements of a list.
pub struct Iter<'a, T> {
    list: &'a Packed<T>,
    front: std::vec::IntoIter<T>,
    back: std::vec::IntoIter<T>,
    /// Chunks not yet reached from either end; the unpacked rest counts as the last one.
    next: std::ops::Range<usize>,
    expander: Expander,
}

impl<'a, T> Iter<'a, T> {
    /// Creates the iterator of a whole list.
    pub(super) fn of(list: &'a Packed<T>) -> Self {
        Self {
            list,
            front: Vec::new().into_iter(),
            back: Vec::new().into_iter(),
            next: 0..list.chunks.len() + 1,
            expander: Expander::default(),
        }
    }
}

impl<T: Pack + Clone> Iter<'_, T> {
    fn unpack(&mut self, number: usize) -> std::vec::IntoIter<T> {
        match self.list.chunks.get(number) {
            Some(chunk) => chunk.unpack(&mut self.expander),
            None => self.list.rest.clone(),
        }
        .into_iter()
    }
}

impl<T: Pack + Clone> Iterator for Iter<'_, T> {
    type Item = T;

    fn next(&mut self) -> Option<T> {
        loop {
            if let Some(element) = self.front.next() {
                return Some(element);
            }
            match self.next.next() {
                Some(number) => self.front = self.unpack(number),
                None => return self.back.next(),
            }
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let whole: usize = self
            .next
            .clone()
            .map(|n| {
                if n < self.list.chunks.len() {
                    CHUNK_LEN
                } else {
                    self.list.rest.len()
                }
            })
            .sum();
        let left = self.front.len() + whole + self.back.len();
        (left, Some(left))
    }
}

impl<T: Pack + Clone> ExactSizeIterator for Iter<'_, T> {}

impl<T: Pack + Clone> DoubleEndedIterator for Iter<'_, T> {
    fn next_back(&mut self) -> Option<T> {
        loop {
            if let Some(element) = self.back.next_back() {
                return Some(element);
            }
            match self.next.next_back() {
                Some(number) => self.back = self.unpack(number),
                None => return self.front.next_back(),
            }
        }
    }
}
