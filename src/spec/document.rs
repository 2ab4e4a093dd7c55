//! Reads a TOML file key by key, so that every error names key, file and line, with the value to
//! write instead. Shared by the spec and a host's configuration; knows the keys of neither.

mod field;
mod nearest;

use std::fs::File;
use std::io::Read;
use std::ops::Range;
use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

pub(crate) use self::field::Field;
use self::nearest::{advice, nearest};
use crate::error::IoResultExt;
use crate::strict::{self, Readers};
use crate::units::{printable, printable_path};
use crate::{Error, Kind, Result};

/// Largest file in bytes.
const MAX_FILE: u64 = 1 << 20;

/// Text of a file, with its path for errors.
#[derive(Debug)]
pub(crate) struct Document {
    pub(crate) path: PathBuf,
    text: String,
}

impl Document {
    /// Reads the file; `kind` names the file in errors.
    pub(crate) fn load(path: &Path, kind: &str) -> Result<Self> {
        let file = File::open(path).context(&cannot_read(kind), path);
        Self::read(file.map_err(as_usage)?, path, kind)
    }

    /// Reads the file as [`Document::load`] does, but only if nobody else can have changed it, and
    /// if only `readers` can read it.
    pub(crate) fn load_strictly(path: &Path, kind: &str, readers: Readers) -> Result<Self> {
        let file = strict::open(path, readers).map_err(as_usage)?;
        Self::read(file, path, kind)
    }

    fn read(file: File, path: &Path, kind: &str) -> Result<Self> {
        let mut bytes = Vec::new();
        file.take(MAX_FILE + 1)
            .read_to_end(&mut bytes)
            .context(&cannot_read(kind), path)
            .map_err(as_usage)?;

        if bytes.len() as u64 > MAX_FILE {
            return Err(Error::usage(format!(
                "{} is too large for a {kind}",
                printable_path(path)
            )));
        }

        let text = String::from_utf8(bytes).map_err(|_| {
            Error::usage(format!(
                "{} is not a text file in UTF-8, so it is no {kind}",
                printable_path(path)
            ))
        })?;

        Ok(Self::new(path, text))
    }

    pub(crate) fn new(path: &Path, text: String) -> Self {
        Self {
            path: path.to_path_buf(),
            text,
        }
    }

    /// Top-level keys. `keys` lists every legal key of the file, dotted.
    pub(crate) fn top<'d>(&'d self, keys: &'d [&'d str]) -> Result<Section<'d>> {
        let table = DeTable::parse(&self.text).map_err(|e| {
            let span = e.span().unwrap_or(0..0);
            let first = e.message().lines().next().unwrap_or("not legal TOML");
            // The parser does not name the duplicate key.
            let which = self
                .text
                .get(span.clone())
                .filter(|_| first == "duplicate key")
                .unwrap_or_default();
            let at = span.start;
            let error = self.wrong(
                span,
                printable(format!("{first} {which}").as_bytes()).trim_end(),
            );
            match self.octal_at(at) {
                Some(mode) => error.hint(format!("a mode stands in quotes: \"{mode}\"")),
                None => error,
            }
        })?;

        let span = table.span();
        Ok(Section {
            document: self,
            keys,
            name: String::new(),
            span,
            entries: entries(table.into_inner()),
        })
    }

    /// Builds an error at this position of the file. It may quote any value, so logins are hidden.
    pub(crate) fn wrong(&self, at: Range<usize>, message: &str) -> Error {
        Error::usage(format!(
            "{}:{}: {}",
            printable_path(&self.path),
            self.line(at.start),
            without_logins(message)
        ))
    }

    /// A number with a leading zero as the value in the line at `offset`, as people write modes.
    fn octal_at(&self, offset: usize) -> Option<&str> {
        let start = self
            .text
            .get(..offset)?
            .rfind('\n')
            .map_or(0, |end| end + 1);
        let line = self.text.get(start..)?.lines().next()?;
        let (_, value) = line.split_once('=')?;
        let value = value.split('#').next()?.trim();
        let is_octal = value.len() > 1 && value.bytes().all(|b| (b'0'..=b'7').contains(&b));
        (is_octal && value.starts_with('0')).then_some(value)
    }

    fn line(&self, offset: usize) -> usize {
        1 + self
            .text
            .as_bytes()
            .iter()
            .take(offset)
            .filter(|&&b| b == b'\n')
            .count()
    }
}

/// Hides what may be the user and password of a URL: all from its scheme, or from the quote before
/// it, to the last `@`.
fn without_logins(message: &str) -> String {
    let Some(at) = message.rfind('@') else {
        return message.to_string();
    };

    let before = &message[..at];
    let scheme = before.find(":/").map(|found| {
        let slashes = before[found + 1..].bytes().take_while(|&b| b == b'/');
        found + 1 + slashes.count()
    });
    let start = scheme
        .or_else(|| before.find('"').map(|quote| quote + 1))
        .unwrap_or(0);
    match scheme.is_some() || before[start..].contains(':') {
        true => format!("{}***{}", &message[..start], &message[at..]),
        false => message.to_string(),
    }
}

/// Text "cannot read the KIND" for an I/O error.
fn cannot_read(kind: &str) -> String {
    format!("cannot read the {kind}")
}

/// Turns an error about a file into a usage error: the user named the file.
fn as_usage(error: Error) -> Error {
    error.with_kind(Kind::Usage)
}

/// Keys of a table with their positions and values.
type TomlEntries<'d> = Vec<(String, Range<usize>, Spanned<DeValue<'d>>)>;

fn entries<'d>(table: DeTable<'d>) -> TomlEntries<'d> {
    let mut entries: TomlEntries<'d> = table
        .into_iter()
        .map(|(k, v)| (k.get_ref().to_string(), k.span(), v))
        .collect();
    // In file order, so that the first mistake is reported first.
    entries.sort_by_key(|(_, span, _)| span.start);
    entries
}

/// Table of the file. Keys are taken one by one; a key left at [`Section::finish`] is unknown.
pub(crate) struct Section<'d> {
    document: &'d Document,
    keys: &'d [&'d str],
    /// Dotted name, empty at the top.
    name: String,
    span: Range<usize>,
    entries: TomlEntries<'d>,
}

impl<'d> Section<'d> {
    /// Takes the value of `key`, if present.
    pub(crate) fn take(&mut self, key: &str) -> Option<Field<'d>> {
        let at = self.entries.iter().position(|(k, _, _)| k == key)?;
        let (_, key_span, value) = self.entries.remove(at);
        Some(Field {
            document: self.document,
            keys: self.keys,
            name: self.dotted(key),
            key_span,
            value,
        })
    }

    /// Takes the table `[key]`; an empty one if absent.
    pub(crate) fn section(&mut self, key: &str) -> Result<Section<'d>> {
        match self.take(key) {
            Some(field) => field.section(),
            None => Ok(Section {
                document: self.document,
                keys: self.keys,
                name: self.dotted(key),
                span: self.span.clone(),
                entries: Vec::new(),
            }),
        }
    }

    /// All keys with their values, for a table whose keys are free.
    pub(crate) fn into_fields(mut self) -> Vec<(String, Field<'d>)> {
        let keys: Vec<String> = self.entries.iter().map(|(key, ..)| key.clone()).collect();
        let field = |key: String| Some((key.clone(), self.take(&key)?));
        keys.into_iter().filter_map(field).collect()
    }

    /// Returns whether `key` is present and not yet taken.
    pub(crate) fn has(&self, key: &str) -> bool {
        self.entries.iter().any(|(k, _, _)| k == key)
    }

    /// Builds an error about the table itself.
    pub(crate) fn wrong(&self, message: &str) -> Error {
        self.document.wrong(self.span.clone(), message)
    }

    /// Rejects keys that were not taken.
    pub(crate) fn finish(self) -> Result<()> {
        let Some((key, span, _)) = self.entries.first() else {
            return Ok(());
        };

        let name = self.dotted(key);
        let error = self.document.wrong(
            span.clone(),
            &format!("unknown key \"{}\"", printable(name.as_bytes())),
        );
        Err(match nearest(&name, self.keys) {
            Some(known) => error.hint(advice(&name, known)),
            None => error,
        })
    }

    fn dotted(&self, key: &str) -> String {
        if self.name.is_empty() {
            key.to_string()
        } else {
            format!("{}.{key}", self.name)
        }
    }
}
