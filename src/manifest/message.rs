//! The message of a release: one line in which its author says what it changes.
//!
//! Authors write plain lines only. A decoded message may have any characters, since this list of
//! plain ones may grow: `Display` escapes them.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use minicbor::{Decode, Encode};
use serde::{Deserialize, Serialize};

use crate::units::{is_plain_line, printable};

/// One line of text about a release, signed with its header.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ReleaseMessage(Arc<str>);

/// Reason why a message was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MessageError {
    /// Nothing but spaces.
    #[error("a message has text: leave -m out for a release without one")]
    Empty,
    /// Longer than [`ReleaseMessage::MAX_CHARS`].
    #[error(
        "a message has at most {max} characters, and this one {0}",
        max = ReleaseMessage::MAX_CHARS
    )]
    Long(usize),
    /// A line break or another control character.
    #[error("a message is one line of text, without line breaks and other control characters")]
    Control,
}

impl ReleaseMessage {
    /// Largest number of characters.
    pub const MAX_CHARS: usize = 200;

    /// Checks a message; spaces around it are removed.
    pub fn new(text: &str) -> Result<Self, MessageError> {
        let text = text.trim_matches(' ');
        let chars = text.chars().count();
        match () {
            () if text.is_empty() => Err(MessageError::Empty),
            () if chars > Self::MAX_CHARS => Err(MessageError::Long(chars)),
            () if !is_plain_line(text) => Err(MessageError::Control),
            () => Ok(Self(text.into())),
        }
    }

    /// The message as its author wrote it, which no terminal may get.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ReleaseMessage {
    type Err = MessageError;

    fn from_str(text: &str) -> Result<Self, MessageError> {
        Self::new(text)
    }
}

impl TryFrom<String> for ReleaseMessage {
    type Error = MessageError;

    fn try_from(text: String) -> Result<Self, MessageError> {
        Self::new(&text)
    }
}

impl From<ReleaseMessage> for String {
    fn from(message: ReleaseMessage) -> String {
        message.to_string()
    }
}

impl fmt::Display for ReleaseMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match is_plain_line(&self.0) {
            true => f.pad(&self.0),
            false => f.pad(&printable(self.0.as_bytes())),
        }
    }
}

impl<C> Encode<C> for ReleaseMessage {
    fn encode<W: minicbor::encode::Write>(
        &self,
        e: &mut minicbor::Encoder<W>,
        _: &mut C,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        e.str(&self.0)?.ok()
    }
}

impl<'b, C> Decode<'b, C> for ReleaseMessage {
    fn decode(d: &mut minicbor::Decoder<'b>, _: &mut C) -> Result<Self, minicbor::decode::Error> {
        let text = d.str()?;
        match text.chars().count() {
            1..=Self::MAX_CHARS => Ok(Self(text.into())),
            0 => Err(minicbor::decode::Error::message(MessageError::Empty)),
            chars => Err(minicbor::decode::Error::message(MessageError::Long(chars))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_one_bounded_line() {
        let longest = "ä".repeat(ReleaseMessage::MAX_CHARS);
        for good in ["fix css", "grün, 100 %", "back\\slash", &longest] {
            let message = ReleaseMessage::new(good).expect(good);
            assert_eq!(message.as_str(), good);
        }
        let trimmed = ReleaseMessage::new("  fix css ").expect("text");
        assert_eq!(trimmed.as_str(), "fix css");

        assert_eq!(ReleaseMessage::new(" "), Err(MessageError::Empty));
        let long = format!("{longest}x");
        assert_eq!(ReleaseMessage::new(&long), Err(MessageError::Long(201)));
        for bad in [
            "a\nb",
            "a\tb",
            "a\x1b[2Jb",
            "a\u{202e}b",
            "a\u{2028}b",
            "a\u{85}b",
        ] {
            assert_eq!(
                ReleaseMessage::new(bad),
                Err(MessageError::Control),
                "{bad:?}"
            );
        }
    }

    #[test]
    fn a_decoded_message_is_bounded_and_shown_as_one_line() {
        let bytes = |text: &str| minicbor::to_vec(text).expect("memory has room");
        let decoded = |text: &str| minicbor::decode::<ReleaseMessage>(&bytes(text));
        let good = decoded("a \\ b").expect("legal");
        assert_eq!(minicbor::to_vec(&good).expect("room"), bytes("a \\ b"));
        assert_eq!(good.to_string(), "a \\ b");

        let odd = decoded("a\n\x1b[2Jb").expect("bounded");
        assert_eq!(odd.to_string(), "a\\n\\u{1b}[2Jb");
        assert_eq!(String::from(odd), "a\\n\\u{1b}[2Jb");
        assert!(decoded("").is_err() && decoded(&"x".repeat(201)).is_err());
    }
}
