//! The times of a week in which a tree commits releases, in UTC: pure.
//!
//! UTC has neither gaps nor repeated hours, and names the same moment on every host of a fleet.

use std::ops::Range;
use std::str::FromStr;

use crate::units::{WallTime, printable};

const MINUTES_OF_DAY: u32 = 24 * 60;
const MINUTES_OF_WEEK: u32 = 7 * MINUTES_OF_DAY;
/// Names of the days; the week begins with the first.
const DAYS: [&str; 7] = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];
/// Minute of the week at the beginning of Unix time, a Thursday.
const EPOCH: i64 = 3 * MINUTES_OF_DAY as i64;

/// Times of a week in which a tree commits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommitWindow {
    /// As written.
    texts: Vec<String>,
    /// Minutes of the week, sorted by their start; none crosses the end of the week.
    open: Vec<Range<u32>>,
}

impl CommitWindow {
    /// The times that any of `texts` names.
    pub fn of<'a>(texts: impl IntoIterator<Item = &'a str>) -> Result<Self, String> {
        let texts: Vec<String> = texts.into_iter().map(str::to_string).collect();
        let mut open = Vec::new();
        for text in &texts {
            let Weekly { days, minutes } = text.parse()?;
            for day in (0..7).filter(|day| days[*day as usize]) {
                let start = day * MINUTES_OF_DAY + minutes.start;
                let end = day * MINUTES_OF_DAY + minutes.end;
                open.push(start..end.min(MINUTES_OF_WEEK));
                // Sunday night goes on in the first hours of the week.
                open.push(0..end.saturating_sub(MINUTES_OF_WEEK));
            }
        }

        open.retain(|range| !range.is_empty());
        open.sort_by_key(|range| range.start);
        Ok(Self { texts, open })
    }

    /// Returns whether `at` is in the window.
    pub fn is_open(&self, at: WallTime) -> bool {
        let minute = minute_of_week(at);
        self.open.iter().any(|range| range.contains(&minute))
    }

    /// First time in the window that is not before `at`.
    pub fn next_opening(&self, at: WallTime) -> WallTime {
        if self.is_open(at) {
            return at;
        }

        let minute = minute_of_week(at);
        let wait = |start: u32| (start + MINUTES_OF_WEEK - minute) % MINUTES_OF_WEEK;
        let waits = self.open.iter().map(|range| wait(range.start));
        let next = at.0.div_euclid(60) + i64::from(waits.min().unwrap_or(0));
        WallTime(next.saturating_mul(60))
    }

    /// The window as written.
    pub fn shown(&self) -> String {
        self.texts.join(" or ")
    }
}

/// Day and time of `at`, in UTC: "Mon 02:00".
pub fn shown_weekly(at: WallTime) -> String {
    let minute = minute_of_week(at);
    let day = DAYS[(minute / MINUTES_OF_DAY) as usize % 7];
    let minute = minute % MINUTES_OF_DAY;
    format!("{day} {:02}:{:02} UTC", minute / 60, minute % 60)
}

fn minute_of_week(at: WallTime) -> u32 {
    let minute = at.0.div_euclid(60).saturating_add(EPOCH);
    // Within a week, so it fits.
    minute.rem_euclid(i64::from(MINUTES_OF_WEEK)) as u32
}

/// One line of a window: days, and minutes from their beginning, over midnight if need be.
struct Weekly {
    days: [bool; 7],
    minutes: Range<u32>,
}

impl FromStr for Weekly {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            let shown = printable(text.as_bytes());
            format!("{shown:?} is no window: write \"Mon-Fri 02:00-04:00\", in UTC")
        };

        let words: Vec<&str> = text.split_ascii_whitespace().collect();
        let (days, times) = match words.as_slice() {
            [times] => ([true; 7], times),
            [days, times] => (read_days(days).ok_or_else(wrong)?, times),
            _ => return Err(wrong()),
        };

        let (start, end) = times.split_once('-').ok_or_else(wrong)?;
        let start = read_time(start).ok_or_else(wrong)?;
        let end = read_time(end).ok_or_else(wrong)?;
        match start == end || start == MINUTES_OF_DAY {
            true => Err(wrong() + "; the whole day is 00:00-24:00"),
            false if end < start => Ok(Self {
                days,
                minutes: start..end + MINUTES_OF_DAY,
            }),
            false => Ok(Self {
                days,
                minutes: start..end,
            }),
        }
    }
}

/// Reads "Mon", "Mon-Fri", "Sat,Sun", or "Fri-Mon" over the end of the week.
fn read_days(text: &str) -> Option<[bool; 7]> {
    let index = |name: &str| DAYS.iter().position(|day| day.eq_ignore_ascii_case(name));
    let mut days = [false; 7];
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (index(first)?, index(last)?);
        let count = (last + 7 - first) % 7;
        (0..=count).for_each(|nth| days[(first + nth) % 7] = true);
    }

    Some(days)
}

/// Reads "02:00" or "24:00" as minutes of the day.
fn read_time(text: &str) -> Option<u32> {
    let (hours, minutes) = text.split_once(':')?;
    let number = |text: &str| -> Option<u32> {
        let is_short = text.len() == 2 && text.bytes().all(|b| b.is_ascii_digit());
        is_short.then(|| text.parse().ok())?
    };
    let (hours, minutes) = (number(hours)?, number(minutes)?);
    let time = hours * 60 + minutes;
    (minutes < 60 && time <= MINUTES_OF_DAY).then_some(time)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A line of a window, as drawn and not as parsed: day names with Sunday first.
    #[derive(Debug, Clone)]
    struct Drawn {
        days: Vec<&'static str>,
        from: (u32, u32),
        to: (u32, u32),
    }

    const SUNDAY_FIRST: [&str; 7] = ["Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"];

    impl Drawn {
        fn text(&self) -> String {
            let ((h, m), (to_h, to_m)) = (self.from, self.to);
            let days = self.days.join(",");
            format!("{days} {h:02}:{m:02}-{to_h:02}:{to_m:02}")
        }

        /// Judges by counting days and clock hands, without minutes of a week.
        fn has(&self, at: i64) -> bool {
            let day = |at: i64| SUNDAY_FIRST[(at.div_euclid(86_400) + 4).rem_euclid(7) as usize];
            let second = at.rem_euclid(86_400);
            let time = ((second / 3600) as u32, (second / 60 % 60) as u32);
            let today = self.days.contains(&day(at));
            let yesterday = self.days.contains(&day(at - 86_400));
            match self.from < self.to {
                true => today && self.from <= time && time < self.to,
                false => (today && self.from <= time) || (yesterday && time < self.to),
            }
        }
    }

    fn drawn() -> impl Strategy<Value = Drawn> {
        let days = prop::sample::subsequence(SUNDAY_FIRST.to_vec(), 1..=7);
        let time = || (0..24u32, prop::sample::select(vec![0, 1, 15, 30, 59u32]));
        (days, time(), time())
            .prop_filter("no time at all", |(_, from, to)| from != to)
            .prop_map(|(days, from, to)| Drawn { days, from, to })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn a_window_is_open_and_opens_as_a_clock_and_a_calendar_say(
            lines in prop::collection::vec(drawn(), 1..4),
            at in -4_000_000_000i64..8_000_000_000,
        ) {
            let texts: Vec<String> = lines.iter().map(Drawn::text).collect();
            let window = CommitWindow::of(texts.iter().map(String::as_str)).expect("legal");
            let judged = |at: i64| lines.iter().any(|line| line.has(at));
            prop_assert_eq!(window.is_open(WallTime(at)), judged(at), "{:?}", texts);

            // Step by step, from minute to minute.
            let mut expected = at;
            while !judged(expected) {
                expected = (expected.div_euclid(60) + 1) * 60;
            }
            let opens = window.next_opening(WallTime(at));
            prop_assert_eq!(opens, WallTime(expected), "{:?}", texts);
        }

        #[test]
        fn any_text_is_read_or_refused(text in "\\PC{0,24}") {
            let _ = CommitWindow::of([text.as_str()]);
        }
    }

    #[test]
    fn days_and_times_are_read_as_written() {
        let open = |text: &str, at| {
            CommitWindow::of([text])
                .expect("legal")
                .is_open(WallTime(at))
        };
        // 2026-11-30 is a Monday.
        let monday = 1_796_000_400 - 1_796_000_400 % 86_400;
        let at = |day: i64, hour: i64| monday + day * 86_400 + hour * 3600;
        assert_eq!(shown_weekly(WallTime(at(0, 2))), "Mon 02:00 UTC");
        assert!(open("Mon-Fri 02:00-04:00", at(0, 2)) && open("mon 02:00-04:00", at(0, 3)));
        assert!(!open("Mon-Fri 02:00-04:00", at(0, 4)) && !open("Mon-Fri 02:00-04:00", at(5, 3)));
        assert!(open("Sun 23:00-01:00", at(0, 0)) && !open("Sun 23:00-01:00", at(0, 1)));
        assert!(open("Fri-Mon 00:00-24:00", at(6, 23)) && open("00:00-24:00", at(2, 12)));

        for wrong in [
            "",
            "Mon",
            "Mon 2:00-4:00",
            "02:00",
            "02:00-02:00",
            "24:00-02:00",
            "Mon-Fri 02:00",
            "Foo 01:00-02:00",
            "Mon 01:00-25:00",
            "01:60-02:00",
            "a b 01:00-02:00",
        ] {
            let refused = CommitWindow::of([wrong]).expect_err(wrong);
            assert!(refused.contains("is no window"), "{refused}");
        }
    }
}
