//! A request that failed, as the transport saw it: the status with the store's own error code, or
//! the reason why there was no answer. It passes through object_store as the source of its errors.

use std::error::Error as StdError;
use std::fmt;
use std::time::Duration;

use reqwest::header::{DATE, HeaderMap, LOCATION, RETRY_AFTER};

use super::answer::AnswerFault;
use super::attempts::retry_after;
use crate::repository::object::FaultKind;
use crate::units::printable;

/// Longest text of a server that is kept.
const MAX_SHOWN_CHARS: usize = 200;

/// A failed request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct StoreRefusal {
    /// Host and port that were asked.
    pub host: String,
    /// The reason.
    pub cause: RefusalCause,
}

/// Reason of a failed request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum RefusalCause {
    /// An answer with a status of failure.
    Status(Box<StatusAnswer>),
    /// An answer that does not fit the request.
    Answer(AnswerFault),
    /// The name of the host is not known.
    UnknownName(String),
    /// No way to the host.
    Unreachable(String),
    /// Nobody listens at the port.
    Closed(String),
    /// TLS failed.
    Tls(TlsFault),
    /// No answer, or fewer bytes than the floor, within this time.
    Stuck(Duration),
    /// The connection broke.
    Cut(String),
    /// A redirect to this address was not followed.
    Redirect(String),
}

/// Failure of TLS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum TlsFault {
    /// No trusted authority signed the certificate.
    UnknownIssuer,
    /// The certificate is for other names.
    OtherName(String),
    /// The certificate is over, or begins later: or this host's clock is wrong.
    Expired(String),
    /// The certificate is that of an authority, and not of a server.
    Authority,
    /// The other side does not speak TLS.
    Plain,
    /// Any other failure.
    Other(String),
}

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

    fn kind(&self) -> FaultKind {
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

impl StoreRefusal {
    /// Kind of the failure for the caller.
    pub fn kind(&self) -> FaultKind {
        match &self.cause {
            RefusalCause::Status(answer) => answer.kind(),
            RefusalCause::Answer(AnswerFault::NoRanges | AnswerFault::OtherRange(..)) => {
                FaultKind::NotARange
            }
            RefusalCause::Answer(AnswerFault::TooLarge(..)) => FaultKind::TooLarge,
            // A broken proxy is one of several, perhaps.
            RefusalCause::Answer(AnswerFault::Header(_) | AnswerFault::Encoded(_)) => {
                FaultKind::NotARange
            }
            RefusalCause::Answer(AnswerFault::TooShort(_) | AnswerFault::Status(416)) => {
                FaultKind::TooShort
            }
            RefusalCause::Answer(
                AnswerFault::Status(_) | AnswerFault::Endless | AnswerFault::UnfinishedList,
            )
            | RefusalCause::Redirect(_)
            | RefusalCause::Tls(_) => FaultKind::Permanent,
            RefusalCause::Answer(AnswerFault::NoList)
            | RefusalCause::UnknownName(_)
            | RefusalCause::Unreachable(_)
            | RefusalCause::Closed(_)
            | RefusalCause::Stuck(_)
            | RefusalCause::Cut(_) => FaultKind::Temporary,
        }
    }

    /// The wait that the server asks for.
    pub fn after(&self) -> Option<Duration> {
        match &self.cause {
            RefusalCause::Status(answer) => answer.after,
            _ => None,
        }
    }

    /// The status, if there was an answer.
    pub fn status(&self) -> Option<u16> {
        match &self.cause {
            RefusalCause::Status(answer) => Some(answer.status),
            _ => None,
        }
    }

    /// Finds the refusal among the sources of `error`.
    pub fn within<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a StoreRefusal> {
        let mut next = Some(error);
        while let Some(error) = next {
            if let Some(found) = error.downcast_ref() {
                return Some(found);
            }
            next = error.source();
        }

        None
    }

    /// The refusal of a request to `host` that reqwest could not carry out.
    pub fn of_client(host: &str, error: &reqwest::Error) -> StoreRefusal {
        StoreRefusal {
            host: host.to_string(),
            cause: cause_of(error),
        }
    }
}

impl fmt::Display for StoreRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let host = &self.host;
        match &self.cause {
            RefusalCause::Status(answer) => {
                write!(f, "{host} answers with status {}", answer.status)?;
                if let Some(code) = &answer.code {
                    write!(f, " {code}")?;
                }
                match &answer.message {
                    Some(message) => write!(f, ": {message}"),
                    None => Ok(()),
                }
            }

            RefusalCause::Answer(fault) => write!(f, "{host}: {fault}"),
            RefusalCause::UnknownName(why) => write!(f, "the name of {host} is not known: {why}"),
            RefusalCause::Unreachable(why) | RefusalCause::Closed(why) => {
                write!(f, "{host} is not reachable: {why}")
            }
            RefusalCause::Tls(fault) => write!(f, "no TLS with {host}: {fault}"),
            RefusalCause::Stuck(time) => write!(
                f,
                "{host} sent (almost) nothing for {}",
                crate::units::shown_duration(*time)
            ),
            RefusalCause::Cut(why) => write!(f, "{host} broke the connection: {why}"),
            RefusalCause::Redirect(to) => {
                write!(f, "{host} redirects to {to}, which is not followed")
            }
        }
    }
}

impl StdError for StoreRefusal {}

impl fmt::Display for TlsFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TlsFault::UnknownIssuer => f.write_str("no trusted authority signed its certificate"),
            TlsFault::OtherName(names) => write!(f, "its certificate is for {names}"),
            TlsFault::Expired(why) => write!(f, "its certificate is not valid now ({why})"),
            TlsFault::Authority => f.write_str("its certificate is that of an authority"),
            TlsFault::Plain => f.write_str("it does not speak TLS at this port"),
            TlsFault::Other(why) => f.write_str(why),
        }
    }
}

/// Makes a server's text safe and short.
fn clean(text: &str) -> String {
    let short: String = text.trim().chars().take(MAX_SHOWN_CHARS).collect();
    printable(short.as_bytes())
}

/// Returns the text of the first element `name`. A whole parser is not worth it for three words.
pub(super) fn xml_element<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(&format!("<{name}>"))?;
    let (inner, _) = rest.split_once(&format!("</{name}>"))?;
    Some(inner)
}

fn cause_of(error: &reqwest::Error) -> RefusalCause {
    let mut last = error.to_string();
    let mut next: Option<&(dyn StdError + 'static)> = error.source();
    let (mut unknown_name, mut closed) = (false, false);
    while let Some(source) = next {
        if let Some(fault) = tls_fault(source) {
            return RefusalCause::Tls(fault);
        }

        last = source.to_string();
        let io = source.downcast_ref::<std::io::Error>();
        closed |= io.is_some_and(|e| e.kind() == std::io::ErrorKind::ConnectionRefused);
        unknown_name |= last.contains("dns error") || last.contains("lookup address");
        next = source.source();
    }

    let why = clean(&last);
    match () {
        () if error.is_redirect() => RefusalCause::Redirect(why),
        () if unknown_name => RefusalCause::UnknownName(why),
        () if closed => RefusalCause::Closed(why),
        () if error.is_connect() => RefusalCause::Unreachable(why),
        () => RefusalCause::Cut(why),
    }
}

/// Returns the failure of TLS, if `error` is or wraps one.
fn tls_fault(error: &(dyn StdError + 'static)) -> Option<TlsFault> {
    if let Some(wrapped) = error.downcast_ref::<std::io::Error>() {
        // An io::Error names the source of its inner error, and not that error itself.
        return tls_fault(wrapped.get_ref()?);
    }

    let fault: &rustls::Error = error.downcast_ref()?;
    Some(match fault {
        rustls::Error::InvalidCertificate(wrong) => certificate_fault(wrong),
        rustls::Error::InvalidMessage(rustls::InvalidMessage::InvalidContentType) => {
            TlsFault::Plain
        }
        other => TlsFault::Other(clean(&other.to_string())),
    })
}

fn certificate_fault(wrong: &rustls::CertificateError) -> TlsFault {
    use rustls::CertificateError as Wrong;

    match wrong {
        Wrong::UnknownIssuer => TlsFault::UnknownIssuer,
        Wrong::NotValidForName => TlsFault::OtherName("other names".into()),
        Wrong::NotValidForNameContext { presented, .. } => {
            TlsFault::OtherName(clean(&presented.join(", ")))
        }
        Wrong::Expired
        | Wrong::NotValidYet
        | Wrong::ExpiredContext { .. }
        | Wrong::NotValidYetContext { .. } => TlsFault::Expired(clean(&wrong.to_string())),
        other => match other.to_string() {
            // rustls has no kind of its own for it.
            text if text.contains("CaUsedAsEndEntity") => TlsFault::Authority,
            text => TlsFault::Other(clean(&text)),
        },
    }
}

#[cfg(test)]
mod tests;
