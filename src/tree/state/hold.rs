//! A hold of a tree: until it ends, the host commits nothing there. Kept over restarts.
//!
//! **On disk.** `hold` in a tree's state: the hold, if there is one, and the time of the last
//! signed order about it, so that an older one is recognized as a replay.

use minicbor::{Decode, Encode};

use super::dir::StateDir;
use super::reader::StateReader;
use crate::error::Result;
use crate::manifest::node::to_vec;
use crate::units::WallTime;

/// File of the record.
const HOLD_RECORD: &str = "hold";

/// The end of the year 9999.
const NO_END: WallTime = WallTime(253_402_300_799);

/// A hold of a tree.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Hold {
    /// End, in seconds of Unix time by this host's clock.
    #[n(0)]
    until: i64,
    /// Name of the person or program that holds the tree.
    #[n(1)]
    pub by: String,
    /// Reason.
    #[n(2)]
    pub why: String,
}

impl Hold {
    /// A hold until `until`.
    pub fn new(until: WallTime, by: String, why: String) -> Self {
        Self {
            until: until.0,
            by,
            why,
        }
    }

    /// End of the hold.
    pub fn until(&self) -> WallTime {
        WallTime(self.until)
    }
}

/// What is recorded of holds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Encode, Decode)]
pub struct HoldRecord {
    /// The hold, which may have ended.
    #[n(0)]
    pub hold: Option<Hold>,
    /// Time of the last signed order, in milliseconds by its signer's clock.
    #[n(1)]
    pub ordered: u64,
}

impl StateReader {
    /// What is recorded of holds; a damaged record counts as a hold without an end.
    pub fn hold_record(&self) -> Result<HoldRecord> {
        let bytes = self.read(HOLD_RECORD)?;
        let read = bytes.map(|bytes| minicbor::decode(&bytes));
        match read.transpose() {
            Ok(record) => Ok(record.unwrap_or_default()),
            Err(_) => {
                let path = self.path().join(HOLD_RECORD);
                tracing::warn!("{} is damaged: the tree is held", path.display());
                let why = "the record of its hold is damaged: `makuo release` ends it";
                let hold = Hold::new(NO_END, "makuo".into(), why.into());
                Ok(HoldRecord {
                    hold: Some(hold),
                    ordered: 0,
                })
            }
        }
    }
}

impl StateDir {
    /// Records a hold, or its end, durably.
    pub fn set_hold(&self, record: &HoldRecord) -> Result<()> {
        self.write(HOLD_RECORD, &to_vec(record))
    }
}
