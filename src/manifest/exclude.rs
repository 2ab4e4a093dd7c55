//! Exclude patterns as people write them: lines in the syntax of .gitignore, each with the
//! directory of its file.

use std::fmt;
use std::sync::Arc;

use minicbor::decode::Error as DecodeError;
use minicbor::{Decode, Decoder, Encode, Encoder};

use super::TreePath;

/// Weight of a pattern in addition to its text, so that a cap in bytes also limits the number of
/// patterns.
const WEIGHT_OF_ONE: usize = 8;

/// One line of .gitignore, without the line ending.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pattern(Arc<[u8]>);

impl Pattern {
    /// Returns the line.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Returns the line as text. A byte outside UTF-8 becomes `?`, which matches that byte.
    fn text(&self) -> String {
        self.0.utf8_chunks().fold(String::new(), |mut text, chunk| {
            text.push_str(chunk.valid());
            text.extend(chunk.invalid().iter().map(|_| '?'));
            text
        })
    }
}

impl From<&[u8]> for Pattern {
    fn from(bytes: &[u8]) -> Self {
        Self(bytes.into())
    }
}

impl From<&str> for Pattern {
    fn from(text: &str) -> Self {
        Self(text.as_bytes().into())
    }
}

impl From<String> for Pattern {
    fn from(text: String) -> Self {
        Self(text.into_bytes().into())
    }
}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", crate::units::printable(&self.0))
    }
}

/// One pattern, anchored at the directory of its file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exclude {
    /// The directory; `None` at the top of the tree.
    pub base: Option<TreePath>,
    /// One line of .gitignore.
    pub pattern: Pattern,
}

/// Encoding of an exclude: the two fields of earlier header versions, and a third for a line that
/// is not UTF-8. Hosts of an earlier version use the text of such a line.
#[derive(Encode, Decode)]
struct Encoded<'a> {
    #[n(0)]
    base: Option<TreePath>,
    #[b(1)]
    text: std::borrow::Cow<'a, str>,
    #[b(2)]
    #[cbor(with = "minicbor::bytes")]
    bytes: Option<&'a [u8]>,
}

impl<C> Encode<C> for Exclude {
    fn encode<W: minicbor::encode::Write>(
        &self,
        e: &mut Encoder<W>,
        ctx: &mut C,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        let line = self.pattern.as_bytes();
        let base = self.base.clone();
        let encoded = match std::str::from_utf8(line) {
            Ok(text) => Encoded {
                base,
                text: text.into(),
                bytes: None,
            },
            // A broader negation would delete more, so older hosts receive none.
            Err(_) if line.first() == Some(&b'!') => Encoded {
                base,
                text: "#".into(),
                bytes: Some(line),
            },
            Err(_) => Encoded {
                base,
                text: self.pattern.text().into(),
                bytes: Some(line),
            },
        };

        encoded.encode(e, ctx)
    }
}

impl<'b, C> Decode<'b, C> for Exclude {
    fn decode(d: &mut Decoder<'b>, ctx: &mut C) -> Result<Self, DecodeError> {
        let Encoded { base, text, bytes } = Encoded::decode(d, ctx)?;
        let pattern = bytes.map_or_else(|| Pattern::from(&*text), Pattern::from);
        Ok(Self { base, pattern })
    }
}

impl Exclude {
    /// Creates a pattern at the top of the tree.
    pub fn at_top(pattern: impl Into<Pattern>) -> Self {
        Self {
            base: None,
            pattern: pattern.into(),
        }
    }

    /// Creates the pattern of exactly `path`.
    pub fn literal(path: &TreePath) -> Self {
        let mut line = vec![b'/'];
        for &byte in path.as_bytes() {
            if b"*?[]{}\\!# ".contains(&byte) {
                line.push(b'\\');
            }
            line.push(byte);
        }

        Self::at_top(line.as_slice())
    }

    /// Returns the bytes of the pattern and of its directory.
    pub(super) fn plain_bytes(&self) -> usize {
        let base = self.base.as_ref().map_or(0, |base| base.as_bytes().len());
        base + self.pattern.as_bytes().len()
    }

    /// Returns the share of the pattern in the cap on all patterns of a release.
    pub fn weight(&self) -> usize {
        WEIGHT_OF_ONE + self.plain_bytes()
    }
}

/// Splits an ignore file into its patterns, by git's rules.
pub fn lines(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
    text.split(|byte| *byte == b'\n').filter_map(|line| {
        if line.first() == Some(&b'#') {
            return None;
        }
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let line = line.split(|byte| *byte == 0).next().unwrap_or_default();
        Some(without_trailing_spaces(line)).filter(|line| !line.is_empty())
    })
}

/// Removes trailing spaces from the line unless they are escaped.
pub(super) fn without_trailing_spaces(line: &[u8]) -> &[u8] {
    let mut end = 0;
    let mut at = 0;
    while let Some(byte) = line.get(at) {
        at += 1 + usize::from(*byte == b'\\');
        if *byte != b' ' {
            end = at;
        }
    }

    &line[..end.min(line.len())]
}
