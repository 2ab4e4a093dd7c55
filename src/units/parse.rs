//! Reads quantities in the notation of people.

use std::str::FromStr;
use std::time::Duration;

use super::{ByteSize, Floor, Limit, Quorum, Rate, printable};

/// A quantity in text that could not be parsed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not {what}")]
pub struct ParseError {
    text: String,
    what: &'static str,
}

const A_SIZE: &str = "a size such as 64KiB, 10MB or 1500";
const A_RATE: &str = "a rate such as 500Mbit, 1Gbit or 60MB";
const A_DURATION: &str = "a duration such as 500ms, 30s, 10m, 2h or 7d";
const A_LIMIT: &str = "a limit: a number of files, or a percentage such as \"10%\"";
const A_FLOOR: &str = "a floor: a percentage such as \"25%\", or a rate such as 20Mbit";
const A_QUORUM: &str = "a quorum: \"all\", a percentage such as \"80%\", or a number of hosts";

fn fail(text: &str, what: &'static str) -> ParseError {
    ParseError {
        text: printable(text.as_bytes()),
        what,
    }
}

/// Splits "12.5MB" into 12.5 and "MB".
fn split_number(text: &str) -> Option<(f64, &str)> {
    let text = text.trim();
    let end = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let number: f64 = text[..end].parse().ok()?;
    Some((number, text[end..].trim()))
}

fn scaled(number: f64, factor: f64) -> Option<u64> {
    let value = number * factor;
    (value.is_finite() && (0.0..1.8e19).contains(&value)).then_some(value.round() as u64)
}

impl FromStr for ByteSize {
    type Err = ParseError;
    fn from_str(text: &str) -> Result<Self, ParseError> {
        let parse = || {
            let (number, unit) = split_number(text)?;
            let factor = match unit {
                "" | "B" => 1.0,
                "k" | "kB" | "KB" => 1e3,
                "M" | "MB" => 1e6,
                "G" | "GB" => 1e9,
                "T" | "TB" => 1e12,
                "K" | "KiB" => 1024.0,
                "MiB" => 1024f64.powi(2),
                "GiB" => 1024f64.powi(3),
                "TiB" => 1024f64.powi(4),
                _ => return None,
            };
            scaled(number, factor).map(ByteSize)
        };

        parse().ok_or_else(|| fail(text, A_SIZE))
    }
}

impl FromStr for Rate {
    type Err = ParseError;
    fn from_str(text: &str) -> Result<Self, ParseError> {
        let parse = || {
            let (number, unit) = split_number(text)?;
            let unit = unit
                .strip_suffix("/s")
                .or_else(|| unit.strip_suffix("ps"))
                .unwrap_or(unit);
            let factor = match unit {
                "bit" => 1.0,
                "kbit" | "Kbit" => 1e3,
                "Mbit" => 1e6,
                "Gbit" => 1e9,
                "B" => 8.0,
                "kB" | "KB" => 8e3,
                "MB" => 8e6,
                "GB" => 8e9,
                _ => return None,
            };
            scaled(number, factor).filter(|&bits| bits > 0).map(Rate)
        };

        parse().ok_or_else(|| fail(text, A_RATE))
    }
}

impl FromStr for Limit {
    type Err = ParseError;
    fn from_str(text: &str) -> Result<Self, ParseError> {
        match share(text) {
            Some(p) => Ok(Limit::Share(p)),
            None => text
                .trim()
                .parse()
                .map(Limit::Count)
                .map_err(|_| fail(text, A_LIMIT)),
        }
    }
}

impl FromStr for Quorum {
    type Err = ParseError;
    fn from_str(text: &str) -> Result<Self, ParseError> {
        if text.trim() == "all" {
            return Ok(Quorum::All);
        }

        match share(text) {
            Some(p) if p > 0 => Ok(Quorum::Share(p)),
            Some(_) => Err(fail(text, A_QUORUM)),
            None => match text.trim().parse() {
                Ok(n) if n > 0 => Ok(Quorum::Count(n)),
                _ => Err(fail(text, A_QUORUM)),
            },
        }
    }
}

impl FromStr for Floor {
    type Err = ParseError;
    fn from_str(text: &str) -> Result<Self, ParseError> {
        match share(text) {
            Some(p) => Ok(Floor::Share(p)),
            None => text
                .parse()
                .map(Floor::Rate)
                .map_err(|_| fail(text, A_FLOOR)),
        }
    }
}

/// Parses "12.5%" to hundredths of a per cent.
fn share(text: &str) -> Option<u16> {
    let (number, unit) = split_number(text)?;
    (unit == "%" && number <= 100.0).then_some((number * 100.0).round() as u16)
}

/// Parses a duration as written by people: `500ms`, `30s`, `10m`, `2h`, `7d`.
pub fn parse_duration(text: &str) -> Result<Duration, ParseError> {
    let parse = || {
        let (number, unit) = split_number(text)?;
        let seconds = match unit {
            "ms" => 1e-3,
            "s" | "" => 1.0,
            "m" | "min" => 60.0,
            "h" => 3600.0,
            "d" => 86_400.0,
            _ => return None,
        };
        Duration::try_from_secs_f64(number * seconds).ok()
    };

    parse().ok_or_else(|| fail(text, A_DURATION))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_rates_read_as_written() {
        assert_eq!("64KiB".parse(), Ok(ByteSize(65536)));
        assert_eq!("1.5MB".parse(), Ok(ByteSize(1_500_000)));
        assert_eq!("500Mbit".parse(), Ok(Rate(500_000_000)));
        assert_eq!("60MB".parse(), Ok(Rate(480_000_000)));
        assert!("60".parse::<Rate>().is_err());
        assert!("0Mbit".parse::<Rate>().is_err());
        assert!("1e3MB".parse::<ByteSize>().is_err());
    }

    #[test]
    fn limits_round_down_and_quorums_up() {
        assert_eq!("10%".parse::<Limit>().map(|l| l.of(15)), Ok(1));
        assert_eq!("7".parse::<Limit>().map(|l| l.of(100)), Ok(7));
        assert_eq!("80%".parse::<Quorum>().map(|q| q.of(4)), Ok(4));
        assert_eq!("50%".parse::<Quorum>().map(|q| q.of(5)), Ok(3));
        assert_eq!("all".parse::<Quorum>().map(|q| q.of(5)), Ok(5));
        assert_eq!("25%".parse(), Ok(Floor::default()));
        assert_eq!("20Mbit".parse(), Ok(Floor::Rate(Rate(20_000_000))));

        for bad in ["", "none", "-1", "0", "101%", "0%"] {
            assert!(bad == "0%" || bad.parse::<Floor>().is_err(), "{bad:?}");
            assert!(bad.parse::<Quorum>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn durations_read_as_written() {
        assert_eq!(parse_duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(parse_duration("10m"), Ok(Duration::from_secs(600)));
        assert!(parse_duration("soon").is_err());
    }
}
