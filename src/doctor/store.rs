//! Verdict on the server of a repository: byte ranges, and its clock.

use crate::id::TreeName;
use crate::outcome::{Check, Finding, Severity};
use crate::store::StoreManners;
use crate::units::{WallTime, shown_age};

/// Difference of the clocks that is worth a look, in seconds.
const NOTED_OFF: u64 = 60;
/// Difference beyond which stores refuse signed requests, in seconds.
const REFUSED_OFF: u64 = 900;

/// Judges how the server of a tree's repository behaves, at `now`.
pub fn judge_manners(tree: &TreeName, manners: StoreManners, now: WallTime) -> Vec<Finding> {
    let finding = |level, what: String| {
        let what = format!("tree {tree}: {what}");
        Finding::new(Check::Repository, level, what)
    };

    let ranges = manners.ranges.map(|honoured| match honoured {
        true => {
            let what = "the server of its repository honours byte ranges";
            finding(Severity::Ok, what.into())
        }
        false => {
            let what = "the server of its repository sends whole files where parts are asked for";
            let todo = "let it, and each cache before it, answer requests with Range: a host \
                        loads whole packs otherwise";
            finding(Severity::Warn, what.into()).todo(todo)
        }
    });

    let ahead = manners.clock.map(|clock| clock.0.saturating_sub(now.0));
    let clock = ahead.map(|ahead| {
        let off = ahead.unsigned_abs();
        let level = match off {
            off if off >= REFUSED_OFF => Severity::Fail,
            off if off >= NOTED_OFF => Severity::Warn,
            _ => {
                let what = "the clock of its repository's server agrees with the one here";
                return finding(Severity::Ok, what.into());
            }
        };

        let direction = if ahead > 0 { "ahead of" } else { "behind" };
        let shown = shown_age(off);
        let what =
            format!("the clock of its repository's server is {shown} {direction} the one here");
        let todo = "set the wrong one, here: timedatectl set-ntp true. Stores refuse requests \
                    signed 15 minutes off, and heads become stale by the clock here";
        finding(level, what).todo(todo)
    });

    ranges.into_iter().chain(clock).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(ranges: Option<bool>, ahead: Option<i64>) -> Vec<Severity> {
        let now = WallTime(1_800_000_000);
        let manners = StoreManners {
            ranges,
            clock: ahead.map(|ahead| WallTime(now.0 + ahead)),
        };
        let tree = TreeName::new("www").expect("legal");
        let found = judge_manners(&tree, manners, now);
        found.iter().map(|finding| finding.level).collect()
    }

    #[test]
    fn a_server_without_ranges_or_with_a_wrong_clock_is_told() {
        use Severity::{Fail, Ok, Warn};
        assert_eq!(judged(None, None), []);
        assert_eq!(judged(Some(true), Some(-3)), [Ok, Ok]);
        assert_eq!(judged(Some(false), Some(120)), [Warn, Warn]);
        assert_eq!(judged(None, Some(-3600)), [Fail]);
    }
}
