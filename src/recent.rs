//! A small cache of the values used last.

use std::ops::{Deref, DerefMut};

/// The `N` values used last, the newest at the end.
#[derive(Debug)]
pub(crate) struct Recent<T, const N: usize>(Vec<T>);

impl<T, const N: usize> Recent<T, N> {
    /// Returns the newest value that satisfies `is`. It becomes the last one.
    pub(crate) fn find(&mut self, is: impl FnMut(&T) -> bool) -> Option<&mut T> {
        let at = self.0.iter().rposition(is)?;
        self.0[at..].rotate_left(1);
        self.0.last_mut()
    }

    /// Adds a value at the end. The one that was not used for longest makes room.
    pub(crate) fn add(&mut self, value: T) {
        if self.0.len() >= N {
            self.0.remove(0);
        }
        self.0.push(value);
    }

    /// Keeps only the values that satisfy `is`.
    pub(crate) fn retain(&mut self, is: impl FnMut(&T) -> bool) {
        self.0.retain(is);
    }
}

impl<T, const N: usize> Default for Recent<T, N> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T, const N: usize> Deref for Recent<T, N> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.0
    }
}

impl<T, const N: usize> DerefMut for Recent<T, N> {
    fn deref_mut(&mut self) -> &mut [T] {
        &mut self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_value_unused_for_longest_makes_room() {
        let mut recent: Recent<u32, 3> = Recent::default();
        (1..=3).for_each(|value| recent.add(value));
        assert_eq!(recent.find(|value| *value == 1), Some(&mut 1));
        recent.add(4);

        assert_eq!(recent[..], [3, 1, 4]);
        assert_eq!(recent.find(|value| *value == 2), None);
    }
}
