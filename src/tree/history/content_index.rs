//! The index of kept content: its owner, then the location of each block.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use crate::block::BlockHash;
use crate::error::Result;
use crate::id::Serial;
use crate::manifest::Release;
use crate::tree::state::block_log::{BlockLocation, each_record};

/// File with the location of each block.
pub(super) const INDEX: &str = "index";
const KEPT_INDEX_MAGIC: &[u8; 16] = b"makuo kept v0001";

/// Magic for kept content of a part of the tree.
const KEPT_PART_INDEX_MAGIC: &[u8; 16] = b"makuo kept v0002";

/// Bytes of magic and one serial.
const HEAD_BYTES: usize = 16 + 8;

/// Release that an undo directory or kept content belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ContentOwner {
    /// Release before the commit.
    pub(super) serial: Serial,
    /// Whole release that it is a part of; itself for a whole release.
    pub(super) base: Serial,
}

impl ContentOwner {
    /// Owner of the content replaced after the releases `before`, newest first.
    pub(super) fn of(before: &[&Release]) -> Self {
        let serial = |release: Option<&&Release>| release.map_or(Serial(0), |r| r.header().serial);
        Self {
            serial: serial(before.first()),
            base: serial(before.last()),
        }
    }

    /// Beginning of an index.
    pub(super) fn head(&self) -> Vec<u8> {
        let serial = self.serial.0.to_be_bytes();
        let base = self.base.0.to_be_bytes();
        match self.serial == self.base {
            true => [KEPT_INDEX_MAGIC.as_slice(), &serial].concat(),
            false => [KEPT_PART_INDEX_MAGIC.as_slice(), &serial, &base].concat(),
        }
    }

    /// Owner that an index names; `None` without an index.
    pub(super) fn read(index: &Path) -> Option<Self> {
        let mut file = File::open(index).ok()?;
        let mut head = [0; HEAD_BYTES];
        file.read_exact(&mut head).ok()?;
        let (magic, serial) = head.split_at(KEPT_INDEX_MAGIC.len());
        let serial = Serial(u64::from_be_bytes(serial.try_into().ok()?));

        if magic == KEPT_INDEX_MAGIC {
            return Some(Self {
                serial,
                base: serial,
            });
        }

        let mut base = [0; 8];
        file.read_exact(&mut base).ok()?;
        (magic == KEPT_PART_INDEX_MAGIC).then_some(Self {
            serial,
            base: Serial(u64::from_be_bytes(base)),
        })
    }
}

/// Calls back with the location of each block of the kept content in `dir`.
pub(crate) fn each_block(dir: &Path, found: impl FnMut(BlockHash, BlockLocation)) -> Result<()> {
    let index = dir.join(INDEX);
    let start = ContentOwner::read(&index).map_or(HEAD_BYTES, |owner| owner.head().len());
    each_record(&index, start as u64, found)
}
