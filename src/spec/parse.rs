//! Parses the keys of the file into a [`Spec`].

use std::path::{Path, PathBuf};

use super::document::{Document, Field, Section};
use super::*;
use crate::manifest::header::{MAX_PATTERN_BYTES, MAX_PATTERNS};
use crate::manifest::rules::{Exclude, MAX_EXCLUDE_BYTES, check_excludes};
use crate::units::parse_duration;

/// Largest number of batches in a commit.
const MAX_BATCHES: usize = 64;

/// Every key of a spec.
pub const SPEC_KEYS: &[&str] = &[
    "tree",
    "source",
    "key",
    "exclude",
    "gitignore",
    "expires",
    "delete",
    "delete.extras",
    "delete.max",
    "delete.allow_empty",
    "delete.excluded",
    "owner",
    "owner.user",
    "owner.group",
    "owner.unknown",
    "mode",
    "mode.files",
    "mode.dirs",
    "meta",
    "meta.mtime",
    "meta.xattrs",
    "meta.hardlinks",
    "targets",
    "targets.hosts",
    "targets.expect",
    "commit",
    "commit.require",
    "commit.layout",
    "commit.batches",
    "commit.on_failure",
    "transfer",
    "transfer.rate",
    "transfer.floor",
    "transfer.compress",
];

/// Longest user or group name in characters.
const MAX_OWNER: usize = 256;
/// Largest number of expected hosts.
const MAX_EXPECTED_HOSTS: i64 = 1_000_000;

impl Spec {
    pub(crate) fn from_document(document: &Document) -> Result<Self> {
        let mut top = document.top(SPEC_KEYS)?;
        let tree = top.take("tree").map(|f| f.parse()).transpose()?;
        let source = top
            .take("source")
            .map(|f| read_path(&f, &document.path))
            .transpose()?;
        let spec = Spec {
            path: document.path.clone(),
            tree: match tree {
                Some(tree) => tree,
                None => TreeName::new(DEFAULT_TREE).map_err(|e| top.wrong(&e.to_string()))?,
            },
            source: source.clone().unwrap_or_default(),
            key: top
                .take("key")
                .map(|f| read_path(&f, &document.path))
                .transpose()?,
            exclude: top
                .take("exclude")
                .map(patterns)
                .transpose()?
                .unwrap_or_default(),
            gitignore: flag(&mut top, "gitignore", false)?,
            expires: top.take("expires").map(|f| read_duration(&f)).transpose()?,
            delete: delete(top.section("delete")?)?,
            owner: owner(top.section("owner")?)?,
            mode: modes(top.section("mode")?)?,
            meta: meta(top.section("meta")?)?,
            targets: targets(top.section("targets")?)?,
            commit: commit(top.section("commit")?)?,
            transfer: transfer(top.section("transfer")?)?,
        };

        // A misspelt `source` is reported before the missing one.
        top.finish()?;
        if source.is_none() {
            return Err(Error::usage(format!(
                "{}: the key `source` is missing",
                document::shown(&document.path)
            ))
            .hint("name the directory to release: source = \"site\""));
        }

        Ok(spec)
    }
}

fn delete(mut section: Section) -> Result<Delete> {
    let default = Rules::default();
    let delete = Delete {
        extras: flag(&mut section, "extras", default.delete_extras)?,
        max: section
            .take("max")
            .map_or(Ok(default.delete_max), |f| f.parse_number_or_text())?,
        allow_empty: flag(&mut section, "allow_empty", default.allow_empty)?,
        excluded: flag(&mut section, "excluded", default.delete_excluded)?,
    };

    section.finish().map(|()| delete)
}

fn owner(mut section: Section) -> Result<Ownership> {
    let owner = Ownership {
        user: section
            .take("user")
            .map_or(Ok(OwnerPolicy::Preserve), |f| read_owner(&f))?,
        group: section
            .take("group")
            .map_or(Ok(OwnerPolicy::Preserve), |f| read_owner(&f))?,
        unknown: match section.take("unknown") {
            None => UnknownOwner::Fail,
            Some(f) => one_of(
                &f,
                &[
                    ("fail", UnknownOwner::Fail),
                    ("numeric", UnknownOwner::Numeric),
                ],
            )?,
        },
    };

    section.finish().map(|()| owner)
}

fn read_owner(field: &Field) -> Result<OwnerPolicy> {
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

fn modes(mut section: Section) -> Result<Modes> {
    let modes = Modes {
        files: section
            .take("files")
            .map_or(Ok(ModePolicy::Preserve), |f| read_mode(&f, "0644"))?,
        dirs: section
            .take("dirs")
            .map_or(Ok(ModePolicy::Preserve), |f| read_mode(&f, "0755"))?,
    };

    section.finish().map(|()| modes)
}

fn read_mode(field: &Field, example: &str) -> Result<ModePolicy> {
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

fn meta(mut section: Section) -> Result<Meta> {
    let meta = Meta {
        mtime: flag(&mut section, "mtime", true)?,
        xattrs: flag(&mut section, "xattrs", false)?,
        hardlinks: flag(&mut section, "hardlinks", true)?,
    };
    section.finish().map(|()| meta)
}

fn targets(mut section: Section) -> Result<Targets> {
    let hosts = match section.take("hosts") {
        None => Vec::new(),
        Some(f) => globs(f)?,
    };

    let targets = Targets {
        hosts,
        expect: section.take("expect").map(expect).transpose()?,
    };

    section.finish().map(|()| targets)
}

fn globs(field: Field) -> Result<Vec<String>> {
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
            "a host pattern has 1 to {MAX_PATTERN_BYTES} bytes, as in \"web*\""
        )));
    }

    globset::Glob::new(glob)
        .map_err(|e| field.wrong(format!("{glob:?} is not a glob: {}", e.kind())))?;
    Ok(glob.to_string())
}

fn expect(field: Field) -> Result<Expect> {
    const WHAT: &str = "a number of hosts (3) or a list of their names ([\"web1\", \"web2\"])";
    if field.is_number() {
        let n = field.number(1..=MAX_EXPECTED_HOSTS, WHAT)?;
        return Ok(Expect::Count(u32::try_from(n).unwrap_or(u32::MAX)));
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

fn commit(mut section: Section) -> Result<Commit> {
    let require = section.take("require");
    let commit = Commit {
        require_given: require.is_some(),
        require: require.map_or(Ok(Quorum::All), |f| f.parse_number_or_text())?,
        layout: match section.take("layout") {
            None => Layout::InPlace,
            Some(f) => one_of(&f, &[("in-place", Layout::InPlace), ("swap", Layout::Swap)])?,
        },
        batches: match section.take("batches") {
            None => Vec::new(),
            Some(f) => batches(f)?,
        },
        on_failure: match section.take("on_failure") {
            None => OnFailure::Stop,
            Some(f) => one_of(
                &f,
                &[("stop", OnFailure::Stop), ("revert", OnFailure::Revert)],
            )?,
        },
    };

    section.finish().map(|()| commit)
}

fn batches(field: Field) -> Result<Vec<Quorum>> {
    let many = field.wrong(format!("more than {MAX_BATCHES} batches"));
    let sizes = field.list("a list such as [1, \"50%\"]")?;
    if sizes.len() > MAX_BATCHES {
        return Err(many);
    }
    sizes.iter().map(Field::parse_number_or_text).collect()
}

fn transfer(mut section: Section) -> Result<Transfer> {
    let transfer = Transfer {
        rate: section
            .take("rate")
            .map(|f| f.parse_number_or_text())
            .transpose()?,
        floor: section
            .take("floor")
            .map(|f| f.parse_number_or_text())
            .transpose()?
            .unwrap_or_default(),
        compress: match section.take("compress") {
            None => Compress::Auto,
            Some(f) => compress(&f)?,
        },
    };

    section.finish().map(|()| transfer)
}

fn compress(field: &Field) -> Result<Compress> {
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
        other => Err(field.wrong(format!(
            "{:?} is not {WHAT}",
            crate::units::printable(other.as_bytes())
        ))),
    }
}

fn flag(section: &mut Section, key: &str, default: bool) -> Result<bool> {
    section.take(key).map_or(Ok(default), |f| f.bool())
}

/// Value of one of `words`.
fn one_of<T: Copy>(field: &Field, words: &[(&str, T)]) -> Result<T> {
    let text = field.text()?;
    words
        .iter()
        .find(|(word, _)| *word == text)
        .map(|(_, value)| *value)
        .ok_or_else(|| {
            let choice: Vec<String> = words.iter().map(|(word, _)| format!("{word:?}")).collect();
            field.wrong(format!(
                "{:?} is not {}",
                crate::units::printable(text.as_bytes()),
                choice.join(" or ")
            ))
        })
}

fn read_duration(field: &Field) -> Result<Duration> {
    let duration = parse_duration(field.text()?).map_err(|e| field.wrong(e))?;
    if duration < Duration::from_secs(1) {
        return Err(field.wrong(
            "a release that expires at once reaches nobody; write a duration such as \"30d\"",
        ));
    }
    Ok(duration)
}

/// Path; relative ones start at the directory of the file, `~/` at the home directory.
fn read_path(field: &Field, file: &Path) -> Result<PathBuf> {
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
