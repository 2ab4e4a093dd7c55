//! Packs: immutable objects of stored pieces, one after another, named by the SHA-256 of the whole.
//!
//! A piece is a manifest node, a block, a places page or a release record. It is stored as it is,
//! or as one zstd frame if that is shorter. The reader knows the plain size, so a stored length
//! below it means a frame.

use std::collections::HashMap;

use minicbor::{Decode, Encode};

use super::object::ObjectPath;
use crate::block::frame::{Compressor, Expander, Level, may_shrink};
use crate::block::{BlockHash, BlockRef};

/// Largest pack that is written, in bytes: two requests of [`super::fetch::PART_BYTES`].
pub const PACK_BYTES: u32 = 16 << 20;
/// Largest pack that is read, in bytes: a later makuo may write larger ones.
pub const MAX_PACK_BYTES: u32 = 64 << 20;
/// Largest stored piece in bytes.
pub const MAX_PIECE_BYTES: u32 = 4 << 20;

/// Name of a pack: the SHA-256 of its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(transparent)]
pub struct PackName(#[n(0)] pub BlockHash);

impl PackName {
    /// Path of the pack: `packs/ab/SHA256.pack`.
    pub fn object(&self) -> ObjectPath {
        let hex = self.0.to_string();
        let path = format!("packs/{}/{hex}.pack", &hex[..2]);
        ObjectPath::new(&path).expect("hexadecimal digits are legal")
    }

    /// The pack under this path; `None` if it is another object.
    pub fn of_object(object: &ObjectPath) -> Option<Self> {
        let (_, file) = object.as_str().rsplit_once('/')?;
        let name = Self(BlockHash::from_hex(file.strip_suffix(".pack")?)?);
        (name.object() == *object).then_some(name)
    }
}

/// Bytes of a pack.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Extent {
    /// The pack.
    pub pack: PackName,
    /// First byte.
    pub offset: u32,
    /// Number of bytes.
    pub len: u32,
}

impl Extent {
    /// First byte past the extent.
    pub fn end(&self) -> u32 {
        self.offset.saturating_add(self.len)
    }

    /// Returns whether the extent may exist: not empty, and within the caps.
    pub fn is_legal(&self) -> bool {
        (1..=MAX_PIECE_BYTES).contains(&self.len)
            && self
                .offset
                .checked_add(self.len)
                .is_some_and(|end| end <= MAX_PACK_BYTES)
    }
}

/// Bytes of a pack by its number in a [`PackTable`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Piece {
    /// Number of the pack.
    pub(super) pack: u32,
    /// First byte.
    pub(super) offset: u32,
    /// Number of bytes.
    pub(super) len: u32,
}

/// The packs of a writer by number. A pack that is still open has no name.
#[derive(Debug, Default)]
pub(super) struct PackTable {
    names: Vec<Option<PackName>>,
    numbers: HashMap<PackName, u32>,
}

impl PackTable {
    /// Returns the number of the pack `name`.
    pub(super) fn number(&mut self, name: PackName) -> u32 {
        *self.numbers.entry(name).or_insert_with(|| {
            self.names.push(Some(name));
            self.names.len() as u32 - 1
        })
    }

    /// Returns the number of a further pack without a name.
    pub(super) fn open(&mut self) -> u32 {
        self.names.push(None);
        self.names.len() as u32 - 1
    }

    /// Returns whether the pack has a number.
    pub(super) fn has(&self, name: &PackName) -> bool {
        self.numbers.contains_key(name)
    }

    /// Names the pack `number`.
    pub(super) fn close(&mut self, number: u32, name: PackName) {
        self.names[number as usize] = Some(name);
        self.numbers.entry(name).or_insert(number);
    }

    /// Name of the closed pack `number`.
    pub(super) fn name(&self, number: u32) -> PackName {
        self.names[number as usize].expect("one pack is open, and nothing else refers to it")
    }

    /// Returns the piece with these bytes.
    pub(super) fn piece(&mut self, extent: &Extent) -> Piece {
        Piece {
            pack: self.number(extent.pack),
            offset: extent.offset,
            len: extent.len,
        }
    }

    /// Returns the bytes of a piece in a closed pack.
    pub(super) fn extent(&self, piece: &Piece) -> Extent {
        Extent {
            pack: self.name(piece.pack),
            offset: piece.offset,
            len: piece.len,
        }
    }
}

/// Packs pieces: compresses those that shrink.
#[derive(Debug, Default)]
pub struct PiecePacker {
    compressor: Compressor,
}

impl PiecePacker {
    /// Returns the stored form of `plain`; without a level it is `plain` itself.
    pub fn pack<'a>(&'a mut self, level: Option<Level>, plain: &'a [u8]) -> &'a [u8] {
        let Some(level) = level.filter(|_| may_shrink(plain)) else {
            return plain;
        };

        let framed = self
            .compressor
            .begin(level, Some(plain.len()))
            .and_then(|()| self.compressor.add(plain))
            .is_some();
        match framed.then(|| self.compressor.end()).flatten() {
            Some(frame) if frame.len() < plain.len() => frame,
            _ => plain,
        }
    }
}

/// Returns the content of `block` from its stored form; `None` unless it is that block.
pub fn unpack(expander: &mut Expander, stored: Vec<u8>, block: &BlockRef) -> Option<Vec<u8>> {
    let size = block.size as usize;
    let plain = if stored.len() < size && size <= MAX_PIECE_BYTES as usize {
        expander.expand(&stored, size)?.to_vec()
    } else {
        stored
    };

    block.matches(&plain).then_some(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pack_has_one_path() {
        let name = PackName(BlockHash::of(b"pack"));
        let path = name.object();
        assert_eq!(PackName::of_object(&path), Some(name));

        let other = path.as_str().replacen(&path.as_str()[6..8], "00", 1);
        for wrong in [other.as_str(), "trees/www/head", "packs/ab/ab.pack"] {
            let wrong = ObjectPath::new(wrong).expect("legal");
            assert_eq!(PackName::of_object(&wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_piece_comes_back_and_no_other_bytes_do() {
        let mut packer = PiecePacker::default();
        let mut expander = Expander::default();
        let mut noise = vec![0; 5000];
        fastrand::Rng::with_seed(1).fill(&mut noise);

        for plain in [
            b"abc".to_vec(),
            b"some words ".repeat(900),
            noise,
            vec![0; 70_000],
        ] {
            let block = BlockRef::of(&plain);
            let stored = packer.pack(Level::new(3), &plain).to_vec();
            assert!(stored.len() <= plain.len());
            let again = unpack(&mut expander, stored.clone(), &block);
            assert_eq!(again.as_ref(), Some(&plain));

            for at in [0, stored.len() / 2, stored.len() - 1] {
                let mut wrong = stored.clone();
                wrong[at] ^= 1;
                assert_ne!(unpack(&mut expander, wrong, &block), Some(vec![]));
            }
            assert_eq!(unpack(&mut expander, stored[1..].to_vec(), &block), None);
        }
    }
}
