//! Reads a TOML file key by key, so that every error names key, file and line, with the value to
//! write instead. Shared by the spec and a host's configuration; knows the keys of neither.

use std::fmt::Display;
use std::io::Read;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::strict::{self, Readers};
use crate::units::{ParseError, printable};
use crate::{Error, Result};

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
        let failed = |e| unread(path, kind, e);
        Self::read(std::fs::File::open(path).map_err(failed)?, path, kind)
    }

    /// Reads the file as [`Document::load`] does, but only if nobody else can have changed it.
    pub(crate) fn load_strictly(path: &Path, kind: &str, readers: Readers) -> Result<Self> {
        let file = strict::open(path, readers).map_err(|e| e.with_kind(crate::Kind::Usage))?;
        Self::read(file, path, kind)
    }

    fn read(file: std::fs::File, path: &Path, kind: &str) -> Result<Self> {
        let failed = |e| unread(path, kind, e);
        let mut bytes = Vec::new();
        file.take(MAX_FILE + 1)
            .read_to_end(&mut bytes)
            .map_err(failed)?;

        if bytes.len() as u64 > MAX_FILE {
            return Err(Error::usage(format!(
                "{} is too large for a {kind}",
                shown(path)
            )));
        }

        let text = String::from_utf8(bytes).map_err(|_| {
            Error::usage(format!(
                "{} is not a text file in UTF-8, so it is no {kind}",
                shown(path)
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
            self.wrong(
                span,
                printable(format!("{first} {which}").as_bytes()).trim_end(),
            )
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

    /// Builds an error at this position of the file.
    pub(crate) fn wrong(&self, at: Range<usize>, message: &str) -> Error {
        Error::usage(format!(
            "{}:{}: {message}",
            shown(&self.path),
            self.line(at.start)
        ))
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

fn unread(path: &Path, kind: &str, e: std::io::Error) -> Error {
    Error::io(&format!("cannot read the {kind}"), path, e).with_kind(crate::Kind::Usage)
}

/// Formats a path safely for messages.
pub(crate) fn shown(path: &Path) -> String {
    printable(std::os::unix::ffi::OsStrExt::as_bytes(path.as_os_str()))
}

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

    /// Returns whether `key` is present and not yet taken.
    pub(crate) fn has(&self, key: &str) -> bool {
        self.entries.iter().any(|(k, _, _)| k == key)
    }

    /// Rejects the first of `keys` as not supported yet.
    pub(crate) fn unsupported(&mut self, keys: &[&str]) -> Result<()> {
        keys.iter()
            .find_map(|key| self.take(key))
            .map_or(Ok(()), |field| Err(field.unsupported("")))
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

/// Key with its value.
pub(crate) struct Field<'d> {
    document: &'d Document,
    keys: &'d [&'d str],
    name: String,
    key_span: Range<usize>,
    value: Spanned<DeValue<'d>>,
}

impl<'d> Field<'d> {
    /// Builds an error about the value; `message` names a legal value.
    pub(crate) fn wrong(&self, message: impl Display) -> Error {
        self.document
            .wrong(self.value.span(), &format!("{}: {message}", self.name))
    }

    /// Like [`Field::wrong`], for use after the field is consumed.
    pub(crate) fn deferred(&self) -> impl Fn(&dyn Display) -> Error + use<'d> {
        let document = self.document;
        let span = self.value.span();
        let name = self.name.clone();
        move |message| document.wrong(span.clone(), &format!("{name}: {message}"))
    }

    /// Rejects a feature of a later version. `instead` is the present alternative.
    pub(crate) fn unsupported(&self, instead: &str) -> Error {
        let error = self.document.wrong(
            self.key_span.clone(),
            &format!("{} is not supported yet", self.name),
        );
        let hint = if instead.is_empty() {
            "remove it: it is refused rather than ignored"
        } else {
            instead
        };

        error.hint(hint)
    }

    /// Position of the key, for errors found later.
    pub(crate) fn span(&self) -> Range<usize> {
        self.key_span.clone()
    }

    pub(crate) fn bool(&self) -> Result<bool> {
        self.value
            .get_ref()
            .as_bool()
            .ok_or_else(|| self.expected("true or false"))
    }

    pub(crate) fn text(&self) -> Result<&str> {
        self.value
            .get_ref()
            .as_str()
            .ok_or_else(|| self.expected("a text in quotes"))
    }

    /// Parses a text as a `T`; the error of `T` names a legal value.
    pub(crate) fn parse<T: FromStr<Err: Display>>(&self) -> Result<T> {
        self.text()?.parse().map_err(|e| self.wrong(e))
    }

    /// Parses a text, or the digits of a whole number, as a `T`.
    pub(crate) fn parse_number_or_text<T: FromStr<Err = ParseError>>(&self) -> Result<T> {
        let text = match self.value.get_ref() {
            DeValue::String(s) => s.to_string(),
            DeValue::Integer(_) => self.number(i64::MIN..=i64::MAX, "a number")?.to_string(),
            DeValue::Float(f) => f.as_str().to_string(),
            other => other.type_str().to_string(),
        };
        text.parse().map_err(|e| self.wrong(e))
    }

    pub(crate) fn is_number(&self) -> bool {
        self.value.get_ref().is_integer()
    }

    pub(crate) fn is_text(&self) -> bool {
        self.value.get_ref().is_str()
    }

    /// Whole number within `range`; `wanted` describes it.
    pub(crate) fn number(&self, range: std::ops::RangeInclusive<i64>, wanted: &str) -> Result<i64> {
        let number = self
            .value
            .get_ref()
            .as_integer()
            .and_then(|n| i64::from_str_radix(n.as_str(), n.radix()).ok());
        number
            .filter(|n| range.contains(n))
            .ok_or_else(|| self.expected(wanted))
    }

    /// Items of a list, each as its own field. `wanted` describes the list.
    pub(crate) fn list(self, wanted: &str) -> Result<Vec<Field<'d>>> {
        if !self.value.get_ref().is_array() {
            return Err(self.expected(wanted));
        }

        let Field {
            document,
            keys,
            name,
            value,
            ..
        } = self;

        let DeValue::Array(items) = value.into_inner() else {
            return Ok(Vec::new());
        };

        let field = |value: Spanned<DeValue<'d>>| Field {
            document,
            keys,
            name: name.clone(),
            key_span: value.span(),
            value,
        };

        Ok(items.into_iter().map(field).collect())
    }

    /// Table value of the field.
    pub(crate) fn section(self) -> Result<Section<'d>> {
        if !self.value.get_ref().is_table() {
            return Err(self.expected(&format!("a table: write its keys below [{}]", self.name)));
        }

        let Field {
            document,
            keys,
            name,
            key_span,
            value,
        } = self;

        let entries = match value.into_inner() {
            DeValue::Table(table) => entries(table),
            // Checked above.
            _ => Vec::new(),
        };

        Ok(Section {
            document,
            keys,
            name,
            span: key_span,
            entries,
        })
    }

    pub(crate) fn is_tables(&self) -> bool {
        self.value
            .get_ref()
            .as_array()
            .is_some_and(|items| items.iter().all(|i| i.get_ref().is_table()))
    }

    fn expected(&self, wanted: &str) -> Error {
        let kind = match self.value.get_ref() {
            DeValue::String(s) => format!("{:?}", printable(s.as_bytes())),
            DeValue::Integer(n) => n.to_string(),
            DeValue::Float(f) => f.as_str().to_string(),
            DeValue::Boolean(b) => b.to_string(),
            DeValue::Datetime(d) => d.to_string(),
            DeValue::Array(_) => "a list".to_string(),
            DeValue::Table(_) => "a table".to_string(),
        };

        self.wrong(format!("{kind} is not {wanted}"))
    }
}

/// Hint for an unknown key similar to `known`.
fn advice(name: &str, known: &str) -> String {
    let parent = |key: &str| {
        key.rsplit_once('.')
            .map_or(String::new(), |(p, _)| p.to_string())
    };

    let here = parent(name);
    let there = parent(known);
    if here == there {
        format!("did you mean \"{known}\"?")
    } else if there.is_empty() {
        format!(
            "did you mean \"{known}\"? It stands at the top of the file, above the first [section]"
        )
    } else {
        format!("did you mean \"{known}\"? It stands below [{there}]")
    }
}

/// Known key most similar to `name`: the same last word in another table, or a few typos away.
fn nearest<'k>(name: &str, keys: &[&'k str]) -> Option<&'k str> {
    let last = |key: &str| key.rsplit('.').next().unwrap_or_default().to_string();
    let word = last(name);
    let distance_of = |key: &&&str| {
        if last(key) == word {
            0
        } else {
            distance(name, key).min(1 + distance(&word, &last(key)))
        }
    };

    let best = keys
        .iter()
        .min_by_key(|key| (distance_of(key), distance(name, key)))?;

    (distance_of(&best) <= 1 + word.chars().count() / 3).then_some(best)
}

/// Edit distance between `a` and `b`: insertions, deletions, changes and swaps of neighbours.
fn distance(a: &str, b: &str) -> usize {
    // No longer word is a typo of a known key; also bounds the table.
    const LONGEST: usize = 64;
    let a: Vec<char> = a.chars().take(LONGEST).collect();
    let b: Vec<char> = b.chars().take(LONGEST).collect();
    let mut rows = vec![vec![0; b.len() + 1]; a.len() + 1];

    for i in 0..=a.len() {
        for j in 0..=b.len() {
            rows[i][j] = if i == 0 || j == 0 {
                i + j
            } else {
                let changed = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
                let best = changed.min(rows[i - 1][j] + 1).min(rows[i][j - 1] + 1);
                let swapped = i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1];
                if swapped {
                    best.min(rows[i - 2][j - 2] + 1)
                } else {
                    best
                }
            };
        }
    }

    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_key_is_found_and_a_far_one_is_not() {
        let keys = ["tree", "source", "delete.extras", "delete.max", "expires"];
        assert_eq!(nearest("sorce", &keys), Some("source"));
        assert_eq!(nearest("delete.exrtas", &keys), Some("delete.extras"));
        assert_eq!(nearest("max", &keys), Some("delete.max"));
        assert_eq!(nearest("delete.expires", &keys), Some("expires"));
        assert_eq!(nearest("colour", &keys), None);
    }
}
