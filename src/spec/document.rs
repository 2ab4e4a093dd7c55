//! Reads a TOML file key by key, so that every complaint names key, file and line and says what to write instead.
//! Shared by the spec and a host's configuration; it knows neither's keys.

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

/// The most bytes of a file that a person wrote.
const MAX_FILE: u64 = 1 << 20;

/// A file's text and name, which errors are told by.
#[derive(Debug)]
pub(crate) struct Document {
    pub(crate) path: PathBuf,
    text: String,
}

impl Document {
    /// Reads the file. `what` it should be is told when it is not there.
    pub(crate) fn load(path: &Path, what: &str) -> Result<Self> {
        let failed = |e| unread(path, what, e);
        Self::read(std::fs::File::open(path).map_err(failed)?, path, what)
    }

    /// Reads the file as [`Document::load`] does, where nobody else can have changed it.
    pub(crate) fn load_strictly(path: &Path, what: &str, readers: Readers) -> Result<Self> {
        let file = strict::open(path, readers).map_err(|e| e.with_kind(crate::Kind::Usage))?;
        Self::read(file, path, what)
    }

    fn read(file: std::fs::File, path: &Path, what: &str) -> Result<Self> {
        let failed = |e| unread(path, what, e);
        let mut bytes = Vec::new();
        file.take(MAX_FILE + 1)
            .read_to_end(&mut bytes)
            .map_err(failed)?;

        if bytes.len() as u64 > MAX_FILE {
            return Err(Error::usage(format!(
                "{} is too large for a {what}",
                shown(path)
            )));
        }

        let text = String::from_utf8(bytes).map_err(|_| {
            Error::usage(format!(
                "{} is not a text file in UTF-8, so it is no {what}",
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

    /// The keys at the top. `keys` is every key that the file may have, dotted.
    pub(crate) fn top<'d>(&'d self, keys: &'d [&'d str]) -> Result<Section<'d>> {
        let table = DeTable::parse(&self.text).map_err(|e| {
            let span = e.span().unwrap_or(0..0);
            let first = e.message().lines().next().unwrap_or("not legal TOML");
            // The parser does not say which key is there twice.
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

    /// An error at this place of the file.
    pub(crate) fn wrong(&self, at: Range<usize>, what: &str) -> Error {
        Error::usage(format!(
            "{}:{}: {what}",
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

fn unread(path: &Path, what: &str, e: std::io::Error) -> Error {
    Error::io(&format!("cannot read the {what}"), path, e).with_kind(crate::Kind::Usage)
}

/// A path as it is safe to show.
pub(crate) fn shown(path: &Path) -> String {
    printable(std::os::unix::ffi::OsStrExt::as_bytes(path.as_os_str()))
}

type Entries<'d> = Vec<(String, Range<usize>, Spanned<DeValue<'d>>)>;

fn entries<'d>(table: DeTable<'d>) -> Entries<'d> {
    let mut entries: Entries<'d> = table
        .into_iter()
        .map(|(k, v)| (k.get_ref().to_string(), k.span(), v))
        .collect();
    // In the order of the file, so that the first mistake is told first.
    entries.sort_by_key(|(_, span, _)| span.start);
    entries
}

/// One table of the file. Keys are taken out one by one; what is left at [`Section::finish`] is unknown.
pub(crate) struct Section<'d> {
    document: &'d Document,
    keys: &'d [&'d str],
    /// Dotted, empty at the top.
    name: String,
    span: Range<usize>,
    entries: Entries<'d>,
}

impl<'d> Section<'d> {
    /// The value of `key`, when the file has it.
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

    /// The table `[key]`, empty when the file does not have it.
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

    /// Whether `key` is there and not yet taken.
    pub(crate) fn has(&self, key: &str) -> bool {
        self.entries.iter().any(|(k, _, _)| k == key)
    }

    /// The first key whose work comes later, as an error.
    pub(crate) fn not_yet(&mut self, keys: &[&str]) -> Result<()> {
        keys.iter()
            .find_map(|key| self.take(key))
            .map_or(Ok(()), |field| Err(field.not_yet("")))
    }

    /// An error about the table itself.
    pub(crate) fn wrong(&self, what: &str) -> Error {
        self.document.wrong(self.span.clone(), what)
    }

    /// Refuses what nobody took.
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

/// One key with its value.
pub(crate) struct Field<'d> {
    document: &'d Document,
    keys: &'d [&'d str],
    name: String,
    key_span: Range<usize>,
    value: Spanned<DeValue<'d>>,
}

impl<'d> Field<'d> {
    /// An error about the value; `what` says what to write.
    pub(crate) fn wrong(&self, what: impl Display) -> Error {
        self.document
            .wrong(self.value.span(), &format!("{}: {what}", self.name))
    }

    /// The same for when the field is used up.
    pub(crate) fn deferred(&self) -> impl Fn(&dyn Display) -> Error + use<'d> {
        let (document, span, name) = (self.document, self.value.span(), self.name.clone());
        move |what| document.wrong(span.clone(), &format!("{name}: {what}"))
    }

    /// The refusal of what a later version does. `instead` is what works today.
    pub(crate) fn not_yet(&self, instead: &str) -> Error {
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

    /// Where the key stands, for errors that are found later.
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

    /// A text that is a `T`; the error of `T` says what to write.
    pub(crate) fn parse<T: FromStr<Err: Display>>(&self) -> Result<T> {
        self.text()?.parse().map_err(|e| self.wrong(e))
    }

    /// A text, or a whole number as its digits, that is a `T`.
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

    /// A whole number within `range`; `what` describes it.
    pub(crate) fn number(&self, range: std::ops::RangeInclusive<i64>, what: &str) -> Result<i64> {
        let number = self
            .value
            .get_ref()
            .as_integer()
            .and_then(|n| i64::from_str_radix(n.as_str(), n.radix()).ok());
        number
            .filter(|n| range.contains(n))
            .ok_or_else(|| self.expected(what))
    }

    /// Texts, each as a field of its own. `what` describes the list.
    pub(crate) fn list(self, what: &str) -> Result<Vec<Field<'d>>> {
        if !self.value.get_ref().is_array() {
            return Err(self.expected(what));
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

    /// The table that the value is.
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

    fn expected(&self, what: &str) -> Error {
        let kind = match self.value.get_ref() {
            DeValue::String(s) => format!("{:?}", printable(s.as_bytes())),
            DeValue::Integer(n) => n.to_string(),
            DeValue::Float(f) => f.as_str().to_string(),
            DeValue::Boolean(b) => b.to_string(),
            DeValue::Datetime(d) => d.to_string(),
            DeValue::Array(_) => "a list".to_string(),
            DeValue::Table(_) => "a table".to_string(),
        };

        self.wrong(format!("{kind} is not {what}"))
    }
}

/// What to say about an unknown key that is nearly `known`.
fn advice(name: &str, known: &str) -> String {
    let parent = |key: &str| {
        key.rsplit_once('.')
            .map_or(String::new(), |(p, _)| p.to_string())
    };

    let (here, there) = (parent(name), parent(known));
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

/// The known key that `name` is probably meant to be: the same last word elsewhere, or a few letters away.
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

/// How many letters have to be put in, left out, changed or swapped with their neighbour to make `b` of `a`.
fn distance(a: &str, b: &str) -> usize {
    // Nobody means a known key by a word that is so long; and the table stays small.
    const LONGEST: usize = 64;
    let (a, b): (Vec<char>, Vec<char>) = (
        a.chars().take(LONGEST).collect(),
        b.chars().take(LONGEST).collect(),
    );
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
