//! Loads pieces for a purpose: from the window at the end of the newest pack if they are there,
//! else with a fetcher.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;

use super::attempt::{Dice, RequestId};
use super::fetch::{Fetched, Fetcher};
use super::object::{Get, GetReply, StoreFault};
use super::pack::{Extent, PackName};
use crate::units::Moment;

/// Progress of a loader.
#[derive(Debug)]
pub(super) enum Loaded<P> {
    /// A piece, with bytes that nobody has verified.
    Piece(Extent, P, Vec<u8>),
    /// The pack is not there any more, and pieces of it with these purposes will not come. It was
    /// asked for before the last [`Loader::clear`] if the last field is true.
    Missing(PackName, Vec<P>, bool),
    /// The store does not answer as it should.
    Failed(StoreFault),
}

/// Loads pieces; `P` says which use a piece has.
#[derive(Debug)]
pub(super) struct Loader<P> {
    fetcher: Fetcher,
    window: Option<(Extent, Vec<u8>)>,
    asked: HashMap<Extent, P>,
    /// Further purposes of pieces under way.
    twins: HashMap<Extent, Vec<P>>,
    ready: VecDeque<(Extent, P, Vec<u8>)>,
}

impl<P: Copy + Eq + Hash> Loader<P> {
    pub(super) fn new() -> Self {
        Self {
            fetcher: Fetcher::default(),
            window: None,
            asked: HashMap::new(),
            twins: HashMap::new(),
            ready: VecDeque::new(),
        }
    }

    /// Asks for a piece, once for each purpose.
    pub(super) fn ask(&mut self, extent: Extent, purpose: P) {
        match self.asked.get(&extent) {
            Some(known) if *known == purpose => {}
            Some(_) => {
                let twins = self.twins.entry(extent).or_default();
                if !twins.contains(&purpose) {
                    twins.push(purpose);
                }
            }
            None => {
                if let Some(bytes) = self.in_window(&extent) {
                    self.ready.push_back((extent, purpose, bytes));
                } else {
                    self.asked.insert(extent, purpose);
                    self.fetcher.want(extent);
                }
            }
        }
    }

    /// Answers later requests within `extent` from these bytes.
    pub(super) fn open_window(&mut self, extent: Extent, bytes: Vec<u8>) {
        self.window = Some((extent, bytes));
    }

    /// Asks again for a piece whose bytes were wrong; returns false if they were too often. The
    /// bytes are the same for all purposes of the piece, and count once.
    pub(super) fn reject(&mut self, extent: Extent, purpose: P) -> bool {
        if self.asked.contains_key(&extent) {
            self.ask(extent, purpose);
            return true;
        }
        if self.in_window(&extent).is_some() {
            self.window = None;
        }
        let again = self.fetcher.reject(extent);
        if again {
            self.asked.insert(extent, purpose);
        }
        again
    }

    /// Begins no further request while `held`.
    pub(super) fn hold(&mut self, held: bool) {
        self.fetcher.hold(held);
    }

    /// Returns whether a piece with such a purpose is under way, or came and was not handed out.
    pub(super) fn is_coming(&self, is_it: impl Fn(&P) -> bool) -> bool {
        let mut extents = self.fetcher.under_way();
        let is_under_way = extents.any(|extent| {
            let twins = self.twins.get(&extent).into_iter().flatten();
            let mut purposes = self.asked.get(&extent).into_iter().chain(twins);
            purposes.any(&is_it)
        });
        is_under_way || self.ready.iter().any(|(_, purpose, _)| is_it(purpose))
    }

    /// Bytes that were asked for and have not come.
    pub(super) fn missing_bytes(&self) -> u64 {
        self.fetcher.missing_bytes()
    }

    /// Returns whether nothing is asked for.
    pub(super) fn is_idle(&self) -> bool {
        self.asked.is_empty() && self.ready.is_empty() && self.fetcher.is_idle()
    }

    /// Forgets all pieces that are not under way and returns their purposes.
    pub(super) fn clear(&mut self) -> Vec<P> {
        self.window = None;
        let left = self.fetcher.clear();
        let mut purposes = self.purposes(left);
        purposes.extend(self.ready.drain(..).map(|(_, purpose, _)| purpose));
        purposes
    }

    /// Forgets these pieces and returns their purposes.
    fn purposes(&mut self, extents: Vec<Extent>) -> Vec<P> {
        let mut purposes = Vec::new();
        for extent in extents {
            purposes.extend(self.asked.remove(&extent));
            purposes.extend(self.twins.remove(&extent).unwrap_or_default());
        }
        purposes
    }

    pub(super) fn poll(&mut self, now: Moment, dice: &mut Dice) -> Option<(RequestId, Get)> {
        self.fetcher.poll(now, dice)
    }

    pub(super) fn timeout(&self) -> Option<Moment> {
        self.fetcher.timeout()
    }

    pub(super) fn reply(&mut self, id: RequestId, reply: GetReply, now: Moment, dice: &mut Dice) {
        self.fetcher.reply(id, reply, now, dice);
    }

    /// Returns the next piece of progress.
    pub(super) fn next(&mut self) -> Option<Loaded<P>> {
        if let Some((extent, purpose, bytes)) = self.ready.pop_front() {
            return Some(Loaded::Piece(extent, purpose, bytes));
        }

        loop {
            match self.fetcher.next()? {
                Fetched::Missing(pack, lost, is_old) => {
                    return Some(Loaded::Missing(pack, self.purposes(lost), is_old));
                }
                Fetched::Failed(fault) => return Some(Loaded::Failed(fault)),
                Fetched::Piece(extent, bytes) => {
                    let Some(purpose) = self.asked.remove(&extent) else {
                        continue;
                    };
                    for twin in self.twins.remove(&extent).unwrap_or_default() {
                        self.ready.push_back((extent, twin, bytes.clone()));
                    }
                    return Some(Loaded::Piece(extent, purpose, bytes));
                }
            }
        }
    }

    /// Bytes that came and were not handed out.
    #[cfg(test)]
    pub(super) fn held(&self) -> usize {
        let ready = self.ready.iter().map(|(_, _, bytes)| bytes.capacity());
        let window = self.window.iter().map(|(_, bytes)| bytes.capacity());
        self.fetcher.held() + ready.chain(window).sum::<usize>()
    }

    fn in_window(&self, extent: &Extent) -> Option<Vec<u8>> {
        let (window, bytes) = self.window.as_ref()?;
        let from = extent.offset.checked_sub(window.offset)? as usize;
        if window.pack != extent.pack {
            return None;
        }
        bytes
            .get(from..from + extent.len as usize)
            .map(<[u8]>::to_vec)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::BlockHash;

    const NOW: Moment = Moment(0);

    /// Gives the answer to the next request, and returns the purposes of the pieces that come.
    fn answered(loader: &mut Loader<u8>, dice: &mut Dice, bytes: &[u8]) -> Vec<u8> {
        let (id, _) = loader.poll(NOW, dice).expect("a request");
        loader.reply(id, GetReply::Bytes(bytes.to_vec()), NOW, dice);
        loader.reply(id, GetReply::End { etag: None }, NOW, dice);
        let mut came = Vec::new();
        while let Some(loaded) = loader.next() {
            let Loaded::Piece(extent, purpose, piece) = loaded else {
                panic!("{loaded:?}");
            };
            if piece != b"right" {
                assert!(loader.reject(extent, purpose));
            }
            came.push(purpose);
        }
        came
    }

    #[test]
    fn all_purposes_of_a_piece_with_wrong_bytes_come_again() {
        for purposes in 1..5 {
            let mut loader = Loader::new();
            let mut dice = Dice::new(1);
            let extent = Extent {
                pack: PackName(BlockHash([1; 32])),
                offset: 9,
                len: 5,
            };
            let all: Vec<u8> = (0..purposes).collect();
            all.iter().for_each(|purpose| loader.ask(extent, *purpose));

            // As often as one purpose alone may.
            for _ in 0..5 {
                let mut came = answered(&mut loader, &mut dice, b"wrong");
                came.sort_unstable();
                assert_eq!(came, all);
                assert!(!loader.is_idle());
            }
            let mut came = answered(&mut loader, &mut dice, b"right");
            came.sort_unstable();
            assert_eq!(came, all);
            assert!(loader.is_idle());
        }
    }
}
