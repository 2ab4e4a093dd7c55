//! The things that the server shows.

use std::sync::Arc;

use crate::drive::adhoc::AdhocService;
use crate::drive::host::HostHandle;
use crate::metrics::StoreFigures;
use crate::units::WallTime;

/// What the server shows.
#[derive(Debug)]
pub struct WebFacts {
    /// The running host.
    pub handle: HostHandle,
    /// Asks the fleet.
    pub desk: Arc<AdhocService>,
    /// Stores with their counters.
    pub stores: Vec<(String, Arc<StoreFigures>)>,
    /// Time at which the daemon started.
    pub started: WallTime,
    /// Names of this host, beside its addresses.
    pub names: Vec<String>,
}
