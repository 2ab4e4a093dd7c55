//! File times, and the test for changes too recent to be trusted.

use std::time::{Duration, SystemTime};

use crate::manifest::Mtime;
use crate::tree::fs::stat::Version;

/// Error bound of coarse kernel clocks: a tick of 10 ms, doubled.
pub(in crate::tree) const CLOCK_GRANULARITY: Duration = Duration::from_millis(20);
/// Like [`CLOCK_GRANULARITY`], for file systems with whole seconds (or FAT's two).
const COARSE_CLOCK_GRANULARITY: Duration = Duration::from_secs(2);

/// Converts a system time to a manifest time.
pub(super) fn to_mtime(time: SystemTime) -> Mtime {
    let (secs, nanos) = match time.duration_since(SystemTime::UNIX_EPOCH) {
        Ok(after) => (
            i64::try_from(after.as_secs()).unwrap_or(i64::MAX),
            after.subsec_nanos(),
        ),
        Err(before) => (
            -i64::try_from(before.duration().as_secs()).unwrap_or(i64::MAX),
            0,
        ),
    };

    Mtime { secs, nanos }
}

/// Returns whether a file may have changed after the read without a change of its times.
///
/// Only the kernel sets the change time. A modification time in the future proves nothing and must
/// not cost a read at every scan.
pub(in crate::tree) fn is_racy(version: &Version, started: Mtime) -> bool {
    let tick = if version.ctime.nanos == 0 {
        COARSE_CLOCK_GRANULARITY
    } else {
        CLOCK_GRANULARITY
    };

    let nanos = |t: Mtime| i128::from(t.secs) * 1_000_000_000 + i128::from(t.nanos);
    let limit = nanos(started) - tick.as_nanos() as i128;
    nanos(version.ctime) >= limit || (version.mtime <= started && nanos(version.mtime) >= limit)
}
