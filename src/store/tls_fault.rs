//! Failures of TLS, as rustls reports them beneath other errors.

use std::error::Error as StdError;
use std::fmt;

use super::status::clean;

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

/// Returns the failure of TLS, if `error` is or wraps one.
pub(super) fn tls_fault(error: &(dyn StdError + 'static)) -> Option<TlsFault> {
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
