//! Verdict on the clock of a host.

use super::facts::HostFacts;
use crate::outcome::{Check, Finding, Severity};
use crate::units::shown_age;

/// Difference that is worth a look, in milliseconds.
const OFF: u64 = 10_000;
/// Difference that makes releases or keys count as expired, in milliseconds.
const FAR_OFF: u64 = 300_000;

/// Judges the clock of a host; `None` without a measurement.
pub fn judge(host: &HostFacts) -> Option<Finding> {
    let clock = host.clock?;
    // The true difference is at least this.
    let off = clock.ahead.unsigned_abs().saturating_sub(clock.error);
    let level = match off {
        off if off >= FAR_OFF => Severity::Fail,
        off if off >= OFF => Severity::Warn,
        _ => {
            let what = "its clock agrees with the one here";
            return Some(Finding::new(Check::Clock, Severity::Ok, what).of(&host.host));
        }
    };

    let direction = if clock.ahead > 0 {
        "ahead of"
    } else {
        "behind"
    };
    let shown = shown_age(clock.ahead.unsigned_abs().saturating_add(500) / 1000);
    let what = format!("its clock is {shown} {direction} the one here");
    let todo = "set the clock of the wrong one (timedatectl set-ntp true): releases and keys \
                expire by it, and heads of repositories become stale";
    Some(
        Finding::new(Check::Clock, level, what)
            .todo(todo)
            .of(&host.host),
    )
}

#[cfg(test)]
mod tests {
    use super::super::facts::ClockOffset;
    use super::super::facts::testing::host;
    use super::*;

    fn judged(ahead: i64, error: u64) -> Finding {
        let clock = Some(ClockOffset { ahead, error });
        judge(&HostFacts {
            clock,
            ..host("web1")
        })
        .expect("judged")
    }

    #[test]
    fn ten_minutes_are_a_failure_and_a_slow_answer_is_none() {
        let found = judged(600_400, 30);
        assert_eq!(found.level, Severity::Fail);
        assert!(found.what.contains("10 min ahead"), "{found:?}");
        let found = judged(-600_400, 30);
        assert!(found.what.contains("10 min behind"), "{found:?}");

        assert_eq!(judged(20_000, 30).level, Severity::Warn);
        assert_eq!(judged(20_000, 15_000).level, Severity::Ok);
        assert_eq!(judged(-900, 0).level, Severity::Ok);
        assert_eq!(judged(i64::MIN, u64::MAX).level, Severity::Ok);
        assert_eq!(judged(i64::MIN, 0).level, Severity::Fail);
    }
}
