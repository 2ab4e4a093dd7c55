//! One key of a file with its value: reads the value as a type, or explains what to write instead.

use std::fmt::Display;
use std::ops::Range;
use std::str::FromStr;

use toml::Spanned;
use toml::de::DeValue;

use super::{Document, Section, entries};
use crate::units::{ParseError, printable};
use crate::{Error, Result};

/// Key with its value.
pub(crate) struct Field<'d> {
    pub(super) document: &'d Document,
    pub(super) keys: &'d [&'d str],
    pub(super) name: String,
    pub(super) key_span: Range<usize>,
    pub(super) value: Spanned<DeValue<'d>>,
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
