//! The rules of a release, a part of the signed header: paths that a host may delete or keep, and
//! metadata to set.

use std::borrow::Cow;

use minicbor::{Decode, Encode};

use super::node::to_vec;
use super::{FORMAT, FORMAT_PACKED};
use crate::block::frame::{Compressor, Expander, Level};
use crate::units::Limit;

pub use super::exclude::{Exclude, Pattern, lines};
pub use super::path_filter::PathFilter;

/// Largest size of all exclude patterns of a release in bytes, with 8 for each beside its text.
pub const MAX_EXCLUDE_BYTES: usize = 1 << 20;
/// Largest number of excludes in a header of the first format.
const MAX_PLAIN_EXCLUDES: usize = 1000;
/// Largest size of the excludes in a header of the first format, in bytes.
const MAX_PLAIN_BYTES: usize = 32 << 10;
/// Largest size of compressed excludes in bytes: the header has to fit a message.
const MAX_PACKED_BYTES: usize = 48 << 10;
/// Largest size of expanded excludes in bytes: texts, and the overhead of their encoding.
const MAX_UNPACKED_BYTES: usize = MAX_EXCLUDE_BYTES * 2;
/// Compression level of excludes, which are compressed once for the life of the release.
const PACKING: Level = Level::new(19).expect("it is one of zstd's levels");

/// Rules of a host's commit, beside the manifest.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
pub struct Rules {
    /// Remove paths that the release does not have.
    #[n(0)]
    pub delete_extras: bool,
    /// Largest number of deletions on one host.
    #[n(1)]
    pub delete_max: Limit,
    /// Permit an empty manifest to empty a tree.
    #[n(2)]
    pub allow_empty: bool,
    /// Paths that the release excludes: left alone on the hosts.
    #[n(3)]
    pub excludes: Vec<Exclude>,
    /// Remove excluded paths all the same.
    #[n(4)]
    pub delete_excluded: bool,
    /// Set the user.
    #[n(5)]
    pub set_user: bool,
    /// Set the group.
    #[n(6)]
    pub set_group: bool,
    /// Treatment of an owner's name that a host does not know.
    #[n(7)]
    pub unknown_owner: UnknownOwner,
    /// Set times of modification.
    #[n(8)]
    pub mtime: bool,
    /// Set extended attributes and ACLs.
    #[n(9)]
    pub xattrs: bool,
    /// Method by which the commit switches the tree.
    #[n(10)]
    pub layout: Layout,
    /// Preserve hard links of the sender on the hosts.
    #[n(11)]
    pub hardlinks: bool,
    /// Excludes in packed form if there are many; `excludes` is empty then.
    #[n(12)]
    pub packed: Option<PackedExcludes>,
}

/// A compressed list of excludes.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct PackedExcludes {
    /// Bytes of the expanded list.
    #[n(0)]
    pub size: u32,
    /// The list as one zstd frame.
    #[n(1)]
    #[cbor(with = "minicbor::bytes")]
    pub frame: Vec<u8>,
}

/// Treatment of an owner's name that a host does not know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub enum UnknownOwner {
    /// Refuse the release before anything changes.
    #[n(0)]
    Fail,
    /// Use the sender's number.
    #[n(1)]
    Numeric,
}

/// Method by which a commit switches the tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub enum Layout {
    /// Journaled renames within the tree.
    #[n(0)]
    InPlace,
    /// The next tree is built beside the present one, and both are exchanged in one rename.
    #[n(1)]
    Swap,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            delete_extras: false,
            delete_max: Limit::Share(5000),
            allow_empty: false,
            excludes: Vec::new(),
            delete_excluded: false,
            set_user: true,
            set_group: true,
            unknown_owner: UnknownOwner::Fail,
            mtime: true,
            xattrs: false,
            layout: Layout::InPlace,
            hardlinks: true,
            packed: None,
        }
    }
}

impl Rules {
    /// Returns the excludes, packed or not, or the reason for a failed read.
    pub fn patterns(&self) -> Result<Cow<'_, [Exclude]>, String> {
        match &self.packed {
            None => Ok(Cow::Borrowed(&self.excludes)),
            Some(packed) => unpack(packed).map(Cow::Owned),
        }
    }

    /// Returns the matcher of the excludes, or the reason for a failed read.
    pub fn excluded(&self) -> Result<PathFilter, String> {
        self.patterns().map(|patterns| PathFilter::new(&patterns))
    }

    /// Packs the excludes if there are more than every version reads.
    ///
    /// # Errors
    ///
    /// More excludes than a header holds.
    pub fn pack(&mut self) -> Result<(), String> {
        let bytes = self
            .excludes
            .iter()
            .map(Exclude::plain_bytes)
            .sum::<usize>();

        if self.excludes.len() <= MAX_PLAIN_EXCLUDES && bytes <= MAX_PLAIN_BYTES {
            return Ok(());
        }

        check_excludes(&self.excludes)?;

        let plain = to_vec(&self.excludes);
        let mut compressor = Compressor::new();
        let packed = compressor
            .begin(PACKING, Some(plain.len()))
            .and_then(|()| compressor.add(&plain))
            .and_then(|_| compressor.end().map(<[u8]>::to_vec))
            .ok_or("the patterns cannot be compressed: there is no memory")?;

        if packed.len() > MAX_PACKED_BYTES {
            let count = self.excludes.len();
            return Err(format!(
                "{count} patterns take {} bytes of a release header when compressed, \
                 at most {MAX_PACKED_BYTES} fit",
                packed.len()
            ));
        }

        self.packed = Some(PackedExcludes {
            size: plain.len() as u32,
            frame: packed,
        });
        self.excludes = Vec::new();

        Ok(())
    }

    /// Returns the oldest header format that can express all of these rules.
    pub fn format(&self) -> u16 {
        if self.packed.is_some() {
            FORMAT_PACKED
        } else {
            FORMAT
        }
    }

    /// Checks the caps. The patterns are compiled later ([`Rules::excluded`]): compilation is
    /// costly and not done for a stranger.
    pub(super) fn check(&self) -> Result<(), String> {
        check_excludes(&self.excludes)?;
        let Some(packed) = &self.packed else {
            return Ok(());
        };

        if packed.frame.len() > MAX_PACKED_BYTES || packed.size as usize > MAX_UNPACKED_BYTES {
            return Err("the packed excludes are too large".into());
        }

        if !self.excludes.is_empty() {
            return Err("there are excludes of two kinds".into());
        }

        Ok(())
    }
}

/// Refuses more patterns than a release can carry.
pub fn check_excludes(excludes: &[Exclude]) -> Result<(), String> {
    let bytes = excludes.iter().map(Exclude::weight).sum::<usize>();
    if bytes > MAX_EXCLUDE_BYTES {
        let count = excludes.len();
        return Err(format!(
            "{count} patterns take {bytes} bytes, at most {MAX_EXCLUDE_BYTES} are possible"
        ));
    }

    Ok(())
}

fn unpack(packed: &PackedExcludes) -> Result<Vec<Exclude>, String> {
    let broken = || "the packed excludes cannot be read".to_string();
    let mut expander = Expander::default();
    let plain = expander
        .expand(&packed.frame, packed.size as usize)
        .ok_or_else(broken)?;
    let excludes: Vec<Exclude> = minicbor::decode(plain).map_err(|_| broken())?;
    check_excludes(&excludes)?;

    Ok(excludes)
}

#[cfg(test)]
mod tests;
