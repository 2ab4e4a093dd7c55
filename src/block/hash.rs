//! The name of a block: SHA-256 (FIPS 180-4) of the plain content.

use std::fmt;

use minicbor::{Decode, Encode};
use sha2::{Digest, Sha256};

use super::lanes;

/// SHA-256 of a block's plain content.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(transparent)]
pub struct BlockHash(
    #[n(0)]
    #[cbor(with = "minicbor::bytes")]
    pub [u8; 32],
);

impl BlockHash {
    /// Name of `content`.
    pub fn of(content: &[u8]) -> Self {
        Self(Sha256::digest(content).into())
    }

    /// Names of all `contents`, in their order; faster than one after another.
    pub fn many(contents: &[&[u8]]) -> Vec<Self> {
        lanes::hash_all(contents).into_iter().map(Self).collect()
    }

    /// Parses a name of 64 hexadecimal digits.
    pub fn from_hex(text: &str) -> Option<Self> {
        let digits = text.as_bytes();
        if digits.len() != 64 {
            return None;
        }

        let mut out = [0; 32];
        for (byte, pair) in out.iter_mut().zip(digits.chunks_exact(2)) {
            let pair = std::str::from_utf8(pair)
                .ok()
                .filter(|p| p.bytes().all(|b| b.is_ascii_hexdigit()))?;
            *byte = u8::from_str_radix(pair, 16).ok()?;
        }

        Some(Self(out))
    }
}

/// Hashes content that comes in pieces.
#[derive(Debug, Clone, Default)]
pub struct BlockHasher(Sha256);

impl BlockHasher {
    /// Adds the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// Name of the content so far.
    pub fn finish(self) -> BlockHash {
        BlockHash(self.0.finalize().into())
    }
}

impl fmt::Display for BlockHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}

impl fmt::Debug for BlockHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0[..6].iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}

/// Reference to a block by name and plain size in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Encode, Decode)]
pub struct BlockRef {
    /// SHA-256 of the content.
    #[n(0)]
    pub hash: BlockHash,
    /// Size of the content in bytes.
    #[n(1)]
    pub size: u32,
}

impl BlockRef {
    /// Reference to `content`, which is at most 4 GiB long (blocks are far smaller).
    pub fn of(content: &[u8]) -> Self {
        Self {
            hash: BlockHash::of(content),
            size: content.len() as u32,
        }
    }

    /// References to all `contents`, in their order; faster than one after another.
    pub fn many(contents: &[&[u8]]) -> Vec<Self> {
        let hashes = BlockHash::many(contents).into_iter();
        let named = hashes.zip(contents).map(|(hash, content)| Self {
            hash,
            size: content.len() as u32,
        });
        named.collect()
    }

    /// Returns whether `content` is this block.
    pub fn matches(&self, content: &[u8]) -> bool {
        content.len() == self.size as usize && BlockHash::of(content) == self.hash
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hex_is_read_back_and_nothing_else_is() {
        let hash = BlockHash::of(b"abc");
        assert_eq!(
            hash.to_string(),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
        let mut pieces = BlockHasher::default();
        for piece in [&b"ab"[..], b"", b"c"] {
            pieces.update(piece);
        }
        assert_eq!(pieces.finish(), hash);
        assert_eq!(BlockHash::from_hex(&hash.to_string()), Some(hash));
        assert_eq!(BlockHash::from_hex(&"+1".repeat(32)), None);

        assert_eq!(BlockHash::from_hex("ba"), None);
    }
}
