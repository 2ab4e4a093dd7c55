//! Long lists in little memory. The data of a million files is kept encoded and compressed, some
//! hundred elements at a time, and unpacked on access.
//!
//! A list with fewer elements than [`CHUNK_LEN`] is a plain one. Reading from front to back unpacks
//! each chunk once; so does access to single elements, or a search for them, in approximately that
//! order. Independent of the elements.

mod chunk;
mod iter;
#[cfg(test)]
mod tests;

use std::cmp::Ordering;
use std::ops::Deref;
use std::sync::{Arc, Mutex, PoisonError};

use minicbor::{Decode, Decoder, Encode};

use self::chunk::Chunk;
pub use self::iter::Iter;
use crate::block::frame::{Compressor, Expander};
use crate::recent::Recent;
use crate::sync::locked;

/// Elements packed together.
pub const CHUNK_LEN: usize = 256;
/// Chunks kept unpacked for the next access.
const UNPACKED_CHUNKS: usize = 4;

/// Types that can be packed.
pub trait Pack: Encode<()> + for<'b> Decode<'b, ()> {}

impl<T: Encode<()> + for<'b> Decode<'b, ()>> Pack for T {}

/// Packed list.
pub struct Packed<T> {
    chunks: Vec<Chunk<T>>,
    /// Elements after the chunks; never as many as a chunk.
    rest: Vec<T>,
    kept: Mutex<UnpackedCache<T>>,
    compressor: Compressor,
}

/// Chunks unpacked last.
struct UnpackedCache<T> {
    chunks: Recent<(usize, Arc<[T]>), UNPACKED_CHUNKS>,
    expander: Expander,
    /// Number of chunks unpacked for the cache.
    #[cfg(test)]
    unpacked: usize,
}

/// Reference to an element of a list.
pub enum Ref<'a, T> {
    /// Unpacked element.
    Plain(&'a T),
    /// Element of an unpacked chunk.
    Unpacked(Arc<[T]>, usize),
}

impl<T> Deref for Ref<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        match self {
            Ref::Plain(element) => element,
            Ref::Unpacked(chunk, at) => &chunk[*at],
        }
    }
}

impl<T> Default for Packed<T> {
    fn default() -> Self {
        Self {
            chunks: Vec::new(),
            rest: Vec::new(),
            kept: Mutex::default(),
            compressor: Compressor::new(),
        }
    }
}

impl<T> Default for UnpackedCache<T> {
    fn default() -> Self {
        Self {
            chunks: Recent::default(),
            expander: Expander::default(),
            #[cfg(test)]
            unpacked: 0,
        }
    }
}

impl<T> Packed<T> {
    /// Number of elements.
    pub fn len(&self) -> usize {
        self.chunks.len() * CHUNK_LEN + self.rest.len()
    }

    /// Returns whether the list is empty.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<T: Pack> Packed<T> {
    /// Adds an element at the end.
    pub fn push(&mut self, element: T) {
        self.rest.push(element);
        if self.rest.len() == CHUNK_LEN {
            self.chunks
                .push(Chunk::pack(&mut self.rest, &mut self.compressor));
        }
    }

    /// The element at index `at`, which must be below [`Packed::len`].
    pub fn get(&self, at: usize) -> Ref<'_, T> {
        match at.checked_sub(self.chunks.len() * CHUNK_LEN) {
            Some(at) => Ref::Plain(&self.rest[at]),
            None => Ref::Unpacked(self.chunk(at / CHUNK_LEN), at % CHUNK_LEN),
        }
    }

    /// The first element for which `is_wanted`, among those at index `from` and later in its chunk.
    pub fn find_in_chunk(&self, from: usize, is_wanted: impl Fn(&T) -> bool) -> Option<Ref<'_, T>> {
        if let Some(from) = from.checked_sub(self.chunks.len() * CHUNK_LEN) {
            return self.rest[from..]
                .iter()
                .find(|e| is_wanted(e))
                .map(Ref::Plain);
        }

        let chunk = self.chunk(from / CHUNK_LEN);
        let from = from % CHUNK_LEN;
        let further = chunk[from..].iter().position(is_wanted)?;
        Some(Ref::Unpacked(chunk, from + further))
    }

    /// Index of the equal element in a list sorted by `order` (the ordering of an element relative
    /// to the searched one).
    pub fn search(&self, order: impl Fn(&T) -> Ordering) -> Option<usize> {
        let chunks = self.chunks.len();
        if self.rest.first().is_some_and(|first| order(first).is_le()) {
            return self
                .rest
                .binary_search_by(order)
                .ok()
                .map(|at| chunks * CHUNK_LEN + at);
        }

        // The last chunk that does not begin behind the searched element.
        let number = self
            .chunks
            .partition_point(|chunk| order(&chunk.first).is_le())
            .checked_sub(1)?;

        self.chunk(number)
            .binary_search_by(order)
            .ok()
            .map(|at| number * CHUNK_LEN + at)
    }

    /// Changes the element at index `at`.
    pub fn update(&mut self, at: usize, change: impl FnOnce(&mut T)) {
        let plain = self.chunks.len() * CHUNK_LEN;
        if at >= plain {
            return change(&mut self.rest[at - plain]);
        }
        let mut elements = self.chunks[at / CHUNK_LEN].unpack(&mut Expander::default());
        change(&mut elements[at % CHUNK_LEN]);
        self.replace(at / CHUNK_LEN, &mut elements);
    }

    /// Changes elements, one after another, until an error; `change` returns whether it changed the
    /// element.
    pub fn try_update_all<E>(
        &mut self,
        mut change: impl FnMut(&mut T) -> Result<bool, E>,
    ) -> Result<(), E> {
        let mut expander = Expander::default();
        for number in 0..self.chunks.len() {
            let mut elements = self.chunks[number].unpack(&mut expander);
            let mut changed = false;
            for element in &mut elements {
                changed |= change(element)?;
            }
            if changed {
                self.replace(number, &mut elements);
            }
        }

        self.rest
            .iter_mut()
            .try_for_each(|element| change(element).map(drop))
    }

    /// All elements, in order, from either end.
    pub fn iter(&self) -> Iter<'_, T> {
        Iter::of(self)
    }

    fn replace(&mut self, number: usize, elements: &mut Vec<T>) {
        self.chunks[number] = Chunk::pack(elements, &mut self.compressor);
        self.kept
            .get_mut()
            .unwrap_or_else(PoisonError::into_inner)
            .chunks
            .retain(|(kept, _)| *kept != number);
    }

    /// Number of chunks unpacked for access to single elements.
    #[cfg(test)]
    pub(crate) fn unpacked(&self) -> usize {
        locked(&self.kept).unpacked
    }

    fn chunk(&self, number: usize) -> Arc<[T]> {
        let mut kept = locked(&self.kept);
        if let Some((_, chunk)) = kept.chunks.find(|(n, _)| *n == number) {
            return Arc::clone(chunk);
        }

        let chunk: Arc<[T]> = self.chunks[number].unpack(&mut kept.expander).into();
        #[cfg(test)]
        {
            kept.unpacked += 1;
        }

        kept.chunks.add((number, Arc::clone(&chunk)));
        chunk
    }
}

impl<'a, T: Pack + Clone> IntoIterator for &'a Packed<T> {
    type Item = T;
    type IntoIter = Iter<'a, T>;

    fn into_iter(self) -> Iter<'a, T> {
        self.iter()
    }
}

impl<T: Pack> Extend<T> for Packed<T> {
    fn extend<I: IntoIterator<Item = T>>(&mut self, elements: I) {
        elements.into_iter().for_each(|element| self.push(element));
    }
}

impl<T: Pack> FromIterator<T> for Packed<T> {
    fn from_iter<I: IntoIterator<Item = T>>(elements: I) -> Self {
        let mut list = Self::default();
        list.extend(elements);
        list
    }
}

impl<T: Clone> Clone for Packed<T> {
    fn clone(&self) -> Self {
        Self {
            chunks: self.chunks.clone(),
            rest: self.rest.clone(),
            ..Self::default()
        }
    }
}

impl<T: Pack + Clone + PartialEq> PartialEq for Packed<T> {
    fn eq(&self, other: &Self) -> bool {
        self.len() == other.len() && self.iter().eq(other.iter())
    }
}

impl<T: Pack + Clone + std::fmt::Debug> std::fmt::Debug for Packed<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl<C, T: Pack + Clone> Encode<C> for Packed<T> {
    fn encode<W: minicbor::encode::Write>(
        &self,
        e: &mut minicbor::Encoder<W>,
        _: &mut C,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        e.array(self.len() as u64)?;
        self.iter()
            .try_for_each(|element| e.encode(element).map(drop))
    }
}

impl<'b, C, T: Pack> Decode<'b, C> for Packed<T> {
    fn decode(d: &mut Decoder<'b>, _: &mut C) -> Result<Self, minicbor::decode::Error> {
        d.array_iter::<T>()?.collect()
    }
}
