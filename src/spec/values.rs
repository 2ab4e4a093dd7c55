//! Reads the values of single keys.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::document::{Field, Section};
use super::{BatchRule, Compress, Expect, ModePolicy, OwnerPolicy};
use crate::Result;
use crate::block::frame::Level;
use crate::hook::Command;
use crate::id::{HostName, check_pattern};
use crate::manifest::entry::Mode;
use crate::manifest::header::{MAX_PATTERN_BYTES, MAX_PATTERNS};
use crate::manifest::paused::MAX_BATCHES;
use crate::manifest::rules::{Exclude, MAX_EXCLUDE_BYTES, check_excludes};
use crate::units::{Quorum, parse_duration, printable};

/// Longest user or group name in characters.
const MAX_OWNER: usize = 256;
/// Largest number of expected hosts.
const MAX_EXPECTED_HOSTS: i64 = 1_000_000;

pub(super) fn read_owner(field: &Field) -> Result<OwnerPolicy> {
    if field.is_number() {
        return field
            .number(0..=i64::from(u32::MAX - 1), "an id")
            .map(|n| OwnerPolicy::Fixed(n.to_string()));
    }

    match field.text()? {
        "preserve" => Ok(OwnerPolicy::Preserve),
        "ignore" => Ok(OwnerPolicy::Ignore),
        name => {
            let odd = |c: char| c.is_control() || c.is_whitespace() || matches!(c, ':' | '/' | ',');
            if name.is_empty()
                || name.len() > MAX_OWNER
                || name.starts_with('-')
                || name.contains(odd)
            {
                return Err(
                    field.wrong("write \"preserve\", \"ignore\", or the name of a user or group")
                );
            }
            Ok(OwnerPolicy::Fixed(name.to_string()))
        }
    }
}

pub(super) fn read_mode(field: &Field, example: &str) -> Result<ModePolicy> {
    let wrong = || {
        field.wrong(format!(
            "write \"preserve\", or the bits in octal and in quotes: \"{example}\""
        ))
    };

    // A bare 0644 is not TOML and a bare 644 would be decimal: only text is unambiguous.
    let text = if field.is_text() {
        field.text()?
    } else {
        return Err(wrong());
    };

    if text == "preserve" {
        return Ok(ModePolicy::Preserve);
    }

    let octal = (3..=4).contains(&text.len()) && text.bytes().all(|b| (b'0'..=b'7').contains(&b));
    let bits = octal
        .then(|| u32::from_str_radix(text, 8).ok())
        .flatten()
        .ok_or_else(wrong)?;

    Ok(ModePolicy::Fixed(Mode::from_bits(bits)))
}

pub(super) fn read_globs(field: Field) -> Result<Vec<String>> {
    if field.is_text() {
        return read_glob(&field).map(|g| vec![g]);
    }

    let nobody = field
        .wrong("an empty list names no host; leave the key out for every host that has the tree");
    let too_many = field.wrong(format!("more than {MAX_PATTERNS} patterns"));
    let items = field.list("a list of host names or globs such as [\"web*\"]")?;

    match items.len() {
        0 => Err(nobody),
        n if n > MAX_PATTERNS => Err(too_many),
        _ => items.iter().map(read_glob).collect(),
    }
}

fn read_glob(field: &Field) -> Result<String> {
    let glob = field.text()?;
    if glob.is_empty() || glob.len() > MAX_PATTERN_BYTES {
        return Err(field.wrong(format!(
            "a host pattern has 1 to {MAX_PATTERN_BYTES} bytes, as in \"web*\" or \"zone=a\""
        )));
    }

    check_pattern(glob).map_err(|why| field.wrong(format!("{glob:?} selects no host: {why}")))?;
    Ok(glob.to_string())
}

pub(super) fn read_expect(field: Field) -> Result<Expect> {
    const WHAT: &str =
        "a number of hosts (3), a list of their names ([\"web1\", \"web2\"]) or \"known\"";
    if field.is_number() {
        let n = field.number(1..=MAX_EXPECTED_HOSTS, WHAT)?;
        return Ok(Expect::Count(u32::try_from(n).unwrap_or(u32::MAX)));
    }

    if field.is_text() {
        return match field.text()? {
            "known" => Ok(Expect::Known),
            other => Err(field.wrong(format!("{:?} is not {WHAT}", printable(other.as_bytes())))),
        };
    }

    let nobody = field.wrong("an empty list expects nobody; leave the key out");
    let mut names = Vec::new();
    for item in field.list(WHAT)? {
        let name: HostName = item.parse()?;
        if names.contains(&name) {
            return Err(item.wrong(format!("{name} is there twice")));
        }
        names.push(name);
    }

    if names.is_empty() {
        Err(nobody)
    } else {
        Ok(Expect::Names(names))
    }
}

pub(super) fn read_batches(field: Field) -> Result<Vec<BatchRule>> {
    let many = field.wrong(format!("more than {MAX_BATCHES} batches"));
    let rules = field.list("a list such as [1, \"50%\"]")?;
    if rules.len() > MAX_BATCHES {
        return Err(many);
    }
    rules.iter().map(read_batch).collect()
}

fn read_batch(field: &Field) -> Result<BatchRule> {
    if field.is_text() && BatchRule::is_pattern(field.text()?) {
        return read_glob(field).map(BatchRule::Hosts);
    }
    field.parse_number_or_text::<Quorum>().map(BatchRule::Size)
}

/// Reads the words of a command, which gets `limit` to end.
pub(crate) fn read_command(field: Field, limit: Duration) -> Result<Command> {
    if field.is_text() {
        return Err(field.wrong(
            "no shell reads it: write a list of words, \
                 as in [\"systemctl\", \"reload\", \"nginx\"]",
        ));
    }

    let wrong = field.deferred();
    let words = field.list("a list of words, as in [\"systemctl\", \"reload\", \"nginx\"]")?;
    let argv = words
        .iter()
        .map(|word| word.text().map(OsString::from))
        .collect::<Result<Vec<_>>>()?;

    Command::new(argv, limit).map_err(|e| wrong(&e))
}

pub(super) fn read_compress(field: &Field) -> Result<Compress> {
    const WHAT: &str = "\"auto\", \"off\", or a level from 1 to 19";
    let level = |number: i64| {
        u8::try_from(number)
            .ok()
            .and_then(Level::new)
            .map(Compress::Level)
    };

    if field.is_number() {
        return level(field.number(1..=19, WHAT)?)
            .ok_or_else(|| field.wrong(format!("write {WHAT}")));
    }

    match field.text()? {
        "auto" => Ok(Compress::Auto),
        "off" => Ok(Compress::Off),
        other => Err(field.wrong(format!("{:?} is not {WHAT}", printable(other.as_bytes())))),
    }
}

pub(super) fn flag(section: &mut Section, key: &str, default: bool) -> Result<bool> {
    section.take(key).map_or(Ok(default), |f| f.bool())
}

/// Value of one of `words`.
pub(super) fn one_of<T: Copy>(field: &Field, words: &[(&str, T)]) -> Result<T> {
    let text = field.text()?;
    words
        .iter()
        .find(|(word, _)| *word == text)
        .map(|(_, value)| *value)
        .ok_or_else(|| {
            let choice: Vec<String> = words.iter().map(|(word, _)| format!("{word:?}")).collect();
            field.wrong(format!(
                "{:?} is not {}",
                printable(text.as_bytes()),
                choice.join(" or ")
            ))
        })
}

pub(super) fn read_duration(field: &Field) -> Result<Duration> {
    let duration = parse_duration(field.text()?).map_err(|e| field.wrong(e))?;
    if duration < Duration::from_secs(1) {
        return Err(field.wrong(
            "a release that expires at once reaches nobody; write a duration such as \"30d\"",
        ));
    }
    Ok(duration)
}

/// Path; relative ones start at the directory of the file, `~/` at the home directory.
pub(super) fn read_path(field: &Field, file: &Path) -> Result<PathBuf> {
    let text = field.text()?;
    if text.is_empty() || text.contains('\0') {
        return Err(field.wrong("write a path, as in \"site\" or \"../site\""));
    }

    if let (Some(rest), Some(home)) = (text.strip_prefix("~/"), std::env::var_os("HOME")) {
        return Ok(Path::new(&home).join(rest));
    }

    Ok(file.parent().unwrap_or(Path::new("")).join(text))
}

/// Lines in .gitignore syntax.
pub(crate) fn patterns(field: Field) -> Result<Vec<String>> {
    let too_many = field.wrong(format!("more than {MAX_EXCLUDE_BYTES} bytes of patterns"));
    let items = field.list("a list of patterns such as [\"*.tmp\", \"/cache/\"]")?;
    let mut patterns = Vec::new();
    for item in &items {
        let pattern = item.text()?;
        if pattern.trim().is_empty() || pattern.contains(['\n', '\0']) {
            return Err(item.wrong("a pattern is one line of .gitignore, as in \"*.tmp\""));
        }
        patterns.push(pattern.to_string());
    }

    let excludes: Vec<Exclude> = patterns
        .iter()
        .map(|p: &String| Exclude::at_top(p.as_str()))
        .collect();

    if check_excludes(&excludes).is_err() {
        Err(too_many)
    } else {
        Ok(patterns)
    }
}
