//! Text helpers: counts, durations, lists of names, sanitized text.
//!
//! Knows neither stream nor colour.

use std::time::Duration;

use crate::drive::clock;
use crate::id::{NamedHost, Serial, TreeName};
use crate::outcome::{DriftGroup, Standing};
pub use crate::units::shown_age as age;
use crate::units::{ByteSize, printable};
use crate::wire::query::FetchProgress;

/// Formats "1 file", "3 files".
pub fn count(n: u64, what: &str) -> String {
    format!("{n} {}", plural(n, what))
}

/// Returns "file" or "files".
pub fn plural(n: u64, what: &str) -> String {
    if n == 1 {
        what.to_string()
    } else {
        format!("{what}s")
    }
}

/// Formats "1 loss", "3 losses", for irregular plurals.
pub fn plural_count(n: u64, one: &str, many: &str) -> String {
    format!("{n} {}", if n == 1 { one } else { many })
}

/// Formats "0.84 s", "12.3 s", "2 min 5 s".
pub fn seconds(took: Duration) -> String {
    let s = took.as_secs_f64();
    match s {
        s if s < 9.995 => format!("{s:.2} s"),
        s if s < 59.95 => format!("{s:.1} s"),
        _ => {
            let whole = took.as_secs() + u64::from(took.subsec_millis() >= 500);
            format!("{} min {} s", whole / 60, whole % 60)
        }
    }
}

/// Formats "web1, web3-web9, db": names of hosts in order, three and more in a row as a range.
pub fn hosts(names: &[NamedHost]) -> String {
    let mut parts: Vec<String> = Vec::new();
    let mut rest = names;

    while let [first, after @ ..] = rest {
        let follows = |(one, next): &(&NamedHost, &NamedHost)| is_next(one, next);
        let more = rest.iter().zip(after).take_while(follows).count();
        let taken = if more >= 2 { more + 1 } else { 1 };
        parts.push(match &rest[..taken] {
            [first, .., last] => format!("{first}-{last}"),
            _ => first.to_string(),
        });
        rest = &rest[taken..];
    }

    parts.join(", ")
}

/// Returns true if `next` is the name with the next number: `web10` after `web9`.
fn is_next(one: &NamedHost, next: &NamedHost) -> bool {
    let (Some(one), Some(next)) = (Numbered::of(one), Numbered::of(next)) else {
        return false;
    };

    // `web009` and `web10` are no neighbours.
    let is_alike = one.digits == next.digits || one.digits == one.number.to_string().len();
    is_alike && one.stem == next.stem && one.number.checked_add(1) == Some(next.number)
}

/// A name that ends in a number.
struct Numbered<'a> {
    stem: &'a str,
    digits: usize,
    number: u64,
}

impl<'a> Numbered<'a> {
    /// Splits the name of a host that needs no address.
    fn of(host: &'a NamedHost) -> Option<Self> {
        let name = host.name.as_str();
        let stem = name.trim_end_matches(|c: char| c.is_ascii_digit());
        let digits = &name[stem.len()..];

        host.address.is_none().then_some(())?;
        Some(Self {
            stem,
            digits: digits.len(),
            number: digits.parse().ok()?,
        })
    }
}

/// The time of day now: "13:04:59 UTC".
pub fn time_of_day() -> String {
    let seconds = clock::wall_seconds().0.rem_euclid(24 * 3600);
    let (hour, minute) = (seconds / 3600, seconds / 60 % 60);
    format!("{hour:02}:{minute:02}:{:02} UTC", seconds % 60)
}

/// Formats "www@17", or "www" without a release.
pub fn release(tree: &TreeName, serial: Option<Serial>) -> String {
    serial.map_or_else(|| tree.to_string(), |serial| format!("{tree}@{serial}"))
}

/// Formats "40 %, 12.0 MB left".
pub fn fetch_progress(progress: FetchProgress) -> String {
    format!("{} %, {} left", progress.percent(), ByteSize(progress.left))
}

/// Formats "behind: newest is www@13", or the missing rest under a partial release.
pub fn missed(standing: &Standing) -> Option<String> {
    let release = |serial: &Serial| release(&standing.tree, Some(*serial));

    if let Some(whole) = standing.lacks.as_ref().map(release) {
        return Some(format!(
            "lacks {whole}, which its release is a part of: deploy the whole tree"
        ));
    }

    if !standing.lacks_parts.is_empty() {
        let parts: Vec<String> = standing.lacks_parts.iter().map(release).collect();
        return Some(format!(
            "lacks {}, sent to others before: send it again, or deploy the whole tree",
            parts.join(", ")
        ));
    }

    let newest = release(standing.behind.as_ref()?);
    Some(match standing.stranded {
        true => format!(
            "behind: newest is {newest}, a part, and no host keeps the whole tree: deploy it"
        ),
        false => format!("behind: newest is {newest}"),
    })
}

/// Formats "www@17 (rollback to www@12)", or as [`release`] without a rollback.
pub fn rollback(tree: &TreeName, serial: Option<Serial>, to: Option<Serial>) -> String {
    let release = release(tree, serial);
    to.map_or_else(
        || release.clone(),
        |to| format!("{release} (rollback to {tree}@{to})"),
    )
}

/// Formats "web1, web2: protected, so not put there: uploads/x and 3 more".
pub fn protected(group: &DriftGroup) -> String {
    const MAX_SHOWN: usize = 8;
    let paths = group.protected.paths.iter().take(MAX_SHOWN);
    let paths: Vec<String> = paths.map(|path| printable(path)).collect();
    let more = match group.protected.count.saturating_sub(paths.len() as u64) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    format!(
        "{}: protected there, so left as it is: {}{more}",
        hosts(&group.hosts),
        paths.join(", ")
    )
}

/// Formats "3 changed, 1 extra".
pub fn drift(group: &DriftGroup) -> String {
    let parts = [
        (group.changed, "changed"),
        (group.missing, "missing"),
        (group.extra, "extra"),
    ];
    let changes: Vec<String> = parts
        .iter()
        .filter(|(n, _)| *n > 0)
        .map(|(n, word)| format!("{n} {word}"))
        .collect();

    if changes.is_empty() {
        "no drift".to_string()
    } else {
        changes.join(", ")
    }
}

/// Removes terminal commands from untrusted text. Unlike [`printable`] it keeps line breaks and
/// backslashes: names inside are printable already.
pub fn safe(text: &str) -> String {
    let mut buffer = [0; 4];
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\n' | '\\' => out.push(c),
            c => out.push_str(&printable(c.encode_utf8(&mut buffer).as_bytes())),
        }
    }

    out
}

/// Same as [`safe`], with a mark before each line but the first, so that no such text looks like a
/// line of this program.
pub fn quoted(text: &str) -> String {
    safe(text).replace('\n', "\n  | ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::HostName;

    #[test]
    fn counts_and_times_read_as_a_person_says_them() {
        assert_eq!(count(1, "file"), "1 file");
        assert_eq!(count(0, "host"), "0 hosts");
        assert_eq!(seconds(Duration::from_millis(842)), "0.84 s");
        assert_eq!(seconds(Duration::from_millis(12_340)), "12.3 s");
        assert_eq!(seconds(Duration::from_millis(59_960)), "1 min 0 s");
        assert_eq!(seconds(Duration::from_secs(125)), "2 min 5 s");

        assert_eq!(
            [0, 59, 60, 7199, 7200, 200_000].map(age),
            ["0 s", "59 s", "1 min", "1 h", "2 h", "2 d"]
        );
    }

    #[test]
    fn hosts_in_a_row_are_a_range() {
        let list = |names: &[&str]| {
            let host = |name: &&str| NamedHost::from(HostName::new(name).expect("legal"));
            hosts(&names.iter().map(host).collect::<Vec<_>>())
        };

        assert_eq!(list(&[]), "");
        assert_eq!(list(&["web1", "web2"]), "web1, web2");
        assert_eq!(
            list(&["db", "web8", "web9", "web10", "web12"]),
            "db, web8-web10, web12"
        );
        assert_eq!(
            list(&["a01", "a02", "a03", "b03", "b04"]),
            "a01-a03, b03, b04"
        );
        assert_eq!(list(&["a009", "a10", "a11"]), "a009, a10, a11");
        assert_eq!(
            list(&["18446744073709551614", "18446744073709551615", "x"]),
            "18446744073709551614, 18446744073709551615, x"
        );
    }

    #[test]
    fn safe_text_keeps_lines_and_stops_commands() {
        assert_eq!(safe("a\n\\x\x1b[2J"), "a\n\\x\\u{1b}[2J");
        assert_eq!(
            quoted("no\nweb1 committed\n"),
            "no\n  | web1 committed\n  | "
        );
    }
}
