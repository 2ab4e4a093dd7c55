//! What the releases of a repository refer to, as far as a gc knows it.

use std::collections::HashMap;

use super::live::Live;
use crate::repository::head::HeadRelease;
use crate::repository::loader::Loader;
use crate::repository::pack::PackName;
use crate::repository::places::{Places, PlacesRef};
use crate::repository::record::ReleaseRecord;

/// Use of a piece under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum GcMark {
    Record(HeadRelease),
    Places(PlacesRef),
    /// A whole pack that is rewritten.
    Whole(PackName),
}

/// What releases refer to, as far as it is known.
#[derive(Debug)]
pub(super) struct Marks {
    pub(super) loader: Loader<GcMark>,
    pub(super) records: HashMap<HeadRelease, ReleaseRecord>,
    pub(super) pages: HashMap<PlacesRef, Places>,
    pub(super) live: Live,
}

impl Default for Marks {
    fn default() -> Self {
        Self {
            loader: Loader::new(),
            records: HashMap::new(),
            pages: HashMap::new(),
            live: Live::default(),
        }
    }
}
