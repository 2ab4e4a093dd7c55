//! Quantities with their units, in the notation of people: sizes, rates, durations, limits,
//! quorums.

use std::fmt;
use std::ops::{Add, Sub};
use std::str::FromStr;
use std::time::Duration;

/// Point on the clock given to a state machine: nanoseconds since an origin known only to the
/// caller.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Moment(pub u64);

impl Moment {
    /// Time elapsed since `earlier`; zero if `earlier` is later.
    pub fn since(self, earlier: Moment) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Moment {
    type Output = Moment;
    fn add(self, d: Duration) -> Moment {
        Moment(
            self.0
                .saturating_add(u64::try_from(d.as_nanos()).unwrap_or(u64::MAX)),
        )
    }
}

impl Sub<Duration> for Moment {
    type Output = Moment;
    fn sub(self, d: Duration) -> Moment {
        Moment(
            self.0
                .saturating_sub(u64::try_from(d.as_nanos()).unwrap_or(u64::MAX)),
        )
    }
}

/// Time of day, in seconds since 1970-01-01 UTC.
#[derive(
    Debug,
    Clone,
    Copy,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    minicbor::Encode,
    minicbor::Decode,
    serde::Serialize,
    serde::Deserialize,
)]
#[cbor(transparent)]
#[serde(transparent)]
pub struct WallTime(#[n(0)] pub i64);

/// Number of bytes.
#[derive(
    Debug,
    Clone,
    Copy,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    serde::Serialize,
    serde::Deserialize,
)]
pub struct ByteSize(pub u64);

/// Transfer rate in bits per second.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
pub struct Rate(pub u64);

impl Rate {
    /// Time to transfer `bytes` at this rate.
    pub fn time_for(self, bytes: u64) -> Duration {
        let nanos = u128::from(bytes) * 8 * 1_000_000_000 / u128::from(self.0.max(1));
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    /// Bytes transferred in `time` at this rate.
    pub fn bytes_in(self, time: Duration) -> u64 {
        u64::try_from(u128::from(self.0) * time.as_nanos() / 8_000_000_000).unwrap_or(u64::MAX)
    }
}

/// Largest number out of a total that may be affected: a count or a share.
#[derive(Debug, Clone, Copy, PartialEq, minicbor::Encode, minicbor::Decode)]
pub enum Limit {
    /// At most this many.
    #[n(0)]
    Count(#[n(0)] u64),
    /// At most this share, in hundredths of a per cent.
    #[n(1)]
    Share(#[n(0)] u16),
}

impl Limit {
    /// No limit at all: a hundred per cent.
    pub const NONE: Limit = Limit::Share(10_000);

    /// Largest number allowed out of `total`.
    pub fn of(self, total: u64) -> u64 {
        match self {
            Limit::Count(n) => n,
            Limit::Share(p) => {
                u64::try_from(u128::from(total) * u128::from(p.min(10_000)) / 10_000)
                    .unwrap_or(u64::MAX)
            }
        }
    }
}

/// Number of hosts that must be staged before any of them commits.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Quorum {
    /// Every target.
    All,
    /// Share of the targets, in hundredths of a per cent, rounded up.
    Share(u16),
    /// Number of hosts.
    Count(u32),
}

impl Quorum {
    /// Number of hosts needed out of `targets`.
    pub fn of(self, targets: usize) -> usize {
        match self {
            Quorum::All => targets,
            Quorum::Share(p) => (targets * usize::from(p)).div_ceil(10_000).max(1),
            Quorum::Count(n) => (n as usize).max(1),
        }
    }
}

/// Receive rate below which a host is served after the others instead of with them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Floor {
    /// Share of the others' median receive rate, in hundredths of a per cent; 0 is never.
    Share(u16),
    /// This rate, if the others receive more than twice as much.
    Rate(Rate),
}

impl Default for Floor {
    fn default() -> Self {
        Floor::Share(2_500)
    }
}

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

/// Formats a duration in whole seconds as written by people: "45 s", "90 min", "36 h", "30 d".
pub fn shown_duration(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
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

/// Formats bytes as one line of safe text. Terminal control characters and invalid UTF-8 are
/// escaped (`\xNN`), and a backslash is doubled, so that no two names look the same.
pub fn printable(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '\n' => out.push_str("\\n"),
                '\t' => out.push_str("\\t"),
                '\\' => out.push_str("\\\\"),
                c if c.is_control() || is_bidi(c) || is_break(c) => {
                    c.escape_unicode().for_each(|e| out.push(e))
                }
                c => out.push(c),
            }
        }
        for b in chunk.invalid() {
            out.push_str(&format!("\\x{b:02x}"));
        }
    }

    out
}

/// Joins text that is already printable line by line into one line: for logs, where a line is a
/// record.
pub fn one_line(text: &str) -> String {
    text.replace('\n', "\\n")
}

/// Separators that some viewers treat as the end of a line.
fn is_break(c: char) -> bool {
    matches!(c, '\u{2028}' | '\u{2029}')
}

/// Characters that reorder the following text on a terminal.
fn is_bidi(c: char) -> bool {
    matches!(
        c,
        '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
    )
}

#[cfg(test)]
mod tests;
