//! Status of a refused request, with the store's own error code and sentence.

use std::time::Duration;

use reqwest::header::{DATE, HeaderMap, LOCATION, RETRY_AFTER};

use super::attempts::retry_after;
use crate::repository::object::FaultKind;
use crate::units::printable;

/// Longest text of a server that is kept.
const MAX_SHOWN_CHARS: usize = 200;

/// Status and error of an answer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct StatusAnswer {
    /// HTTP status.
    pub status: u16,
    /// The store's code: `NoSuchBucket`.
    pub code: Option<String>,
    /// The store's sentence.
    pub message: Option<String>,
    /// Region of the bucket, if the store says so.
    pub region: Option<String>,
    /// The server's time.
    pub date: Option<String>,
    /// Target of a redirect.
    pub location: Option<String>,
    /// Wait that the server asks for.
    pub after: Option<Duration>,
}

impl StatusAnswer {
    /// Reads the headers and the first bytes of the body.
    pub fn new(status: u16, headers: &HeaderMap, body: &[u8]) -> Self {
        let header = |name: &str| Some(clean(headers.get(name)?.to_str().ok()?));
        let text = String::from_utf8_lossy(body);
        let element = |name| xml_element(&text, name).map(clean);
        Self {
            status,
            code: element("Code").or_else(|| header("x-ms-error-code")),
            message: element("Message"),
            region: header("x-amz-bucket-region").or_else(|| element("Region")),
            date: header(DATE.as_str()),
            location: header(LOCATION.as_str()),
            after: headers
                .get(RETRY_AFTER)
                .and_then(|value| retry_after(value.to_str().ok()?)),
        }
    }

    /// Returns whether the code is one of `codes`.
    pub fn is(&self, codes: &[&str]) -> bool {
        self.code
            .as_deref()
            .is_some_and(|code| codes.contains(&code))
    }

    /// Kind of the failure for the caller.
    pub fn kind(&self) -> FaultKind {
        let busy = [
            "SlowDown",
            "InternalError",
            "RequestTimeout",
            "ServiceUnavailable",
            "ServerBusy",
            "OperationTimedOut",
            "ConditionalRequestConflict",
            "OperationAborted",
        ];
        let forbidden = [
            "InvalidAccessKeyId",
            "SignatureDoesNotMatch",
            "ExpiredToken",
            "InvalidToken",
            "AuthenticationFailed",
            "AuthorizationHeaderMalformed",
        ];

        match self.status {
            _ if self.is(&busy) => FaultKind::Temporary,
            _ if self.is(&forbidden) => FaultKind::Denied,
            401 | 403 | 407 => FaultKind::Denied,
            408 | 425 | 429 | 500 | 502..=504 | 520..=524 => FaultKind::Temporary,
            _ => FaultKind::Permanent,
        }
    }
}

/// Makes a server's text safe and short.
pub(super) fn clean(text: &str) -> String {
    let short: String = text.trim().chars().take(MAX_SHOWN_CHARS).collect();
    printable(short.as_bytes())
}

/// Returns the text of the first element `name`. A whole parser is not worth it for three words.
pub(super) fn xml_element<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(&format!("<{name}>"))?;
    let (inner, _) = rest.split_once(&format!("</{name}>"))?;
    Some(inner)
}
