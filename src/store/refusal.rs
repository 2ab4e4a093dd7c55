//! A request that failed, as the transport saw it: the status with the store's own error code, or
//! the reason why there was no answer. It passes through object_store as the source of its errors.

use std::error::Error as StdError;
use std::fmt;
use std::time::Duration;

use super::answer::AnswerFault;
use super::status::{StatusAnswer, clean};
use super::tls_fault::{TlsFault, tls_fault};
use crate::repository::object::FaultKind;

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
            RefusalCause::Cut(why) => write!(f, "{host} broke off: {why}"),
            RefusalCause::Redirect(to) => {
                write!(f, "{host} redirects to {to}, which is not followed")
            }
        }
    }
}

impl StdError for StoreRefusal {}

fn cause_of(error: &reqwest::Error) -> RefusalCause {
    let mut last = error.to_string();
    let mut next: Option<&(dyn StdError + 'static)> = error.source();
    let mut unknown_name = false;
    let mut closed = false;
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

#[cfg(test)]
mod tests;
