//! Dates of the `expires=` option, in UTC. Independent of any clock.

use crate::units::WallTime;

const DAY: i64 = 86_400;

/// Parses `2027-01-31`, `2027-01-31T18:00`, with optional seconds, a blank for the `T` and a `Z` or
/// an offset; or `20270131`, `202701311800`, `20270131180000`, with or without `Z`, as in OpenSSH.
/// A date alone is its first second, as in OpenSSH. Without a zone the time is UTC (not the host's
/// local time: the same file means the same on every host).
pub(super) fn parse(text: &str) -> Option<WallTime> {
    let text = text.trim();
    if !text.is_ascii() {
        return None;
    }

    let (text, offset) = split_zone(text)?;
    let digits: String = if text.len() > 4 && text.as_bytes()[4] == b'-' {
        iso_digits(text)?
    } else {
        text.to_string()
    };

    let field = |from: usize, to: usize| -> Option<i64> {
        let part = digits.get(from..to)?;
        part.bytes()
            .all(|b| b.is_ascii_digit())
            .then(|| part.parse().ok())?
    };

    let year = field(0, 4)?;
    let month = field(4, 6)?;
    let day = field(6, 8)?;
    let (hour, minute, second) = match digits.len() {
        8 => (0, 0, 0),
        12 => (field(8, 10)?, field(10, 12)?, 0),
        14 => (field(8, 10)?, field(10, 12)?, field(12, 14)?),
        _ => return None,
    };

    let legal = (1970..=9999).contains(&year)
        && (1..=12).contains(&month)
        && (1..=days_in(year, month)).contains(&day)
        && hour < 24
        && minute < 60
        && second < 60;

    legal.then(|| {
        WallTime(
            days_since_epoch(year, month, day) * DAY + hour * 3600 + minute * 60 + second - offset,
        )
    })
}

/// Formats a time for display: `2027-01-31 18:00 UTC`.
pub fn show(time: WallTime) -> String {
    let days = time.0.div_euclid(DAY);
    let seconds = time.0.rem_euclid(DAY);
    let (year, month, day) = civil(days);
    format!(
        "{year:04}-{month:02}-{day:02} {:02}:{:02} UTC",
        seconds / 3600,
        seconds / 60 % 60
    )
}

/// Splits `Z` or `+02:00` off the end of a time; the second value is the offset in seconds.
fn split_zone(text: &str) -> Option<(&str, i64)> {
    if let Some(rest) = text.strip_suffix(['Z', 'z']) {
        return Some((rest, 0));
    }

    let Some(at) = text.rfind(['+', '-']).filter(|&at| at > 10) else {
        return Some((text, 0));
    };

    let (hours, minutes) = text[at + 1..].split_once(':')?;
    let number = |s: &str, below: i64| {
        s.parse()
            .ok()
            .filter(|&n: &i64| s.len() == 2 && (0..below).contains(&n))
    };

    let offset = number(hours, 15)? * 3600 + number(minutes, 60)? * 60;
    Some((
        &text[..at],
        if text[at..].starts_with('-') {
            -offset
        } else {
            offset
        },
    ))
}

/// The digits of `2027-01-31[T ]18:00[:00]`, after a check of the separators.
fn iso_digits(text: &str) -> Option<String> {
    const SHAPE: &[u8] = b"dddd-dd-ddTdd:dd:dd";
    if !matches!(text.len(), 10 | 16 | 19) {
        return None;
    }

    let fits = text.bytes().zip(SHAPE).all(|(b, shape)| match shape {
        b'd' => b.is_ascii_digit(),
        b'T' => matches!(b, b'T' | b't' | b' '),
        other => b == *other,
    });
    fits.then(|| text.chars().filter(char::is_ascii_digit).collect())
}

fn days_in(year: i64, month: i64) -> i64 {
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    match month {
        2 => 28 + i64::from(leap),
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days since 1970-01-01 in the Gregorian calendar; years are counted from March, so that a leap
/// day ends one.
fn days_since_epoch(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    year * 365 + year / 4 - year / 100 + year / 400 + day_of_year - 719_468
}

/// Inverse of [`days_since_epoch`].
fn civil(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let of_era = days.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let day_of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let month = if shifted < 10 {
        shifted + 3
    } else {
        shifted - 9
    };

    (
        year_of_era + era * 400 + i64::from(month <= 2),
        month,
        day_of_year - (153 * shifted + 2) / 5 + 1,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ways_of_writing_mean_the_same() {
        for text in [
            "2027-01-31T18:00:00Z",
            "202701311800",
            "20270131180000Z",
            "2027-01-31 18:00",
            "2027-01-31T20:00+02:00",
        ] {
            assert_eq!(parse(text), Some(WallTime(1_801_418_400)), "{text}");
        }

        assert_eq!(parse("2027-01-31"), Some(WallTime(1_801_353_600)));
        assert_eq!(parse("20270131"), parse("2027-01-31"));
        assert_eq!(show(WallTime(1_801_418_400)), "2027-01-31 18:00 UTC");
    }

    #[test]
    fn what_is_no_date_is_refused() {
        for text in [
            "",
            "soon",
            "2027",
            "2027-02-29",
            "2027-13-01",
            "2027-1-31",
            "20270131T18",
            "2027-01-31T25:00",
            "ä",
            "+",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    #[test]
    fn every_day_comes_back() {
        for day in (0..60_000).step_by(13) {
            let shown = show(WallTime(day * DAY));
            assert_eq!(parse(&shown[..10]), Some(WallTime(day * DAY)), "{shown}");
        }
    }
}
