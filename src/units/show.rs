//! Writes quantities in the notation of people.

use std::fmt;
use std::time::Duration;

use super::{ByteSize, Floor, Limit, Quorum, Rate};

/// Formats a duration as written by people: "200 ms", "45 s", "90 min", "36 h", "30 d". From one
/// second on, parts of a second are left out.
pub fn shown_duration(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0 => format!("{} ms", time.as_millis()),
        s if s % 86_400 == 0 => format!("{} d", s / 86_400),
        s if s % 3600 == 0 => format!("{} h", s / 3600),
        s if s % 60 == 0 => format!("{} min", s / 60),
        s => format!("{s} s"),
    }
}

/// Formats an age in its largest whole unit: "5 s", "3 min", "2 h", "4 d".
pub fn shown_age(seconds: u64) -> String {
    const UNITS: [(u64, &str); 3] = [(86_400, "d"), (3600, "h"), (60, "min")];
    let unit = UNITS
        .iter()
        .find(|(unit, _)| seconds >= *unit)
        .unwrap_or(&(1, "s"));
    format!("{} {}", seconds / unit.0, unit.1)
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&decimal(self.0, "B"))
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&decimal(self.0, "bit/s"))
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Limit::Count(n) => write!(f, "{n}"),
            Limit::Share(p) => write!(f, "{}%", f64::from(p) / 100.0),
        }
    }
}

impl fmt::Display for Floor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Floor::Share(p) => write!(f, "{}%", f64::from(p) / 100.0),
            Floor::Rate(rate) => rate.fmt(f),
        }
    }
}

impl fmt::Display for Quorum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Quorum::All => f.write_str("all"),
            Quorum::Share(p) => write!(f, "{}%", f64::from(p) / 100.0),
            Quorum::Count(n) => write!(f, "{n}"),
        }
    }
}

/// Three significant digits with a decimal prefix: `1.25 MB`.
fn decimal(value: u64, unit: &str) -> String {
    const PREFIXES: [&str; 7] = ["", "k", "M", "G", "T", "P", "E"];
    let mut scaled = value as f64;
    let mut index = 0;
    while scaled >= 999.5 && index + 1 < PREFIXES.len() {
        scaled /= 1000.0;
        index += 1;
    }

    let digits = match scaled {
        _ if index == 0 => 0,
        s if s < 9.995 => 2,
        s if s < 99.95 => 1,
        _ => 0,
    };

    format!("{scaled:.digits$} {}{unit}", PREFIXES[index])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_show_three_digits() {
        assert_eq!(ByteSize(999).to_string(), "999 B");
        assert_eq!(ByteSize(1_250_000).to_string(), "1.25 MB");
        assert_eq!(ByteSize(999_999).to_string(), "1.00 MB");
        assert_eq!(Rate(487_000_000).to_string(), "487 Mbit/s");
    }

    #[test]
    fn durations_have_the_unit_that_they_were_written_in() {
        for (millis, shown) in [
            (0, "0 ms"),
            (1, "1 ms"),
            (999, "999 ms"),
            (1000, "1 s"),
            (45_500, "45 s"),
            (120_000, "2 min"),
            (36 * 3_600_000, "36 h"),
            (30 * 86_400_000, "30 d"),
        ] {
            assert_eq!(shown_duration(Duration::from_millis(millis)), shown);
        }
    }
}
