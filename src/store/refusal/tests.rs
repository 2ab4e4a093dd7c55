//! Tests of refusals: codes of stores, kinds of failures, and sources of errors.

use super::*;
use reqwest::header::HeaderMap;

fn refusal(status: u16, code: &str) -> StoreRefusal {
    let body = format!("<?xml?><Error><Code>{code}</Code><Message>m</Message></Error>");
    let answer = StatusAnswer::new(status, &HeaderMap::new(), body.as_bytes());
    StoreRefusal {
        host: "h".into(),
        cause: RefusalCause::Status(Box::new(answer)),
    }
}

#[test]
fn the_code_of_a_store_is_read() {
    let shown = refusal(403, "AccessDenied").to_string();
    assert_eq!(shown, "h answers with status 403 AccessDenied: m");
    let odd = StatusAnswer::new(500, &HeaderMap::new(), b"<Code>\x1b[2J</Code><Message>");
    assert_eq!(odd.code.as_deref(), Some("\\u{1b}[2J"));
    assert_eq!(odd.message, None);
}

#[test]
fn busy_stores_are_asked_again_and_refusals_are_not() {
    for (status, code, kind) in [
        (503, "SlowDown", FaultKind::Temporary),
        (400, "RequestTimeout", FaultKind::Temporary),
        (409, "ConditionalRequestConflict", FaultKind::Temporary),
        (429, "", FaultKind::Temporary),
        (403, "AccessDenied", FaultKind::Denied),
        (400, "ExpiredToken", FaultKind::Denied),
        (404, "NoSuchBucket", FaultKind::Permanent),
        (501, "NotImplemented", FaultKind::Permanent),
    ] {
        assert_eq!(refusal(status, code).kind(), kind, "{status} {code}");
    }
}

#[test]
fn a_failure_of_tls_is_found_below_other_errors() {
    let inner = rustls::Error::InvalidCertificate(rustls::CertificateError::UnknownIssuer);
    let outer = std::io::Error::other(std::io::Error::other(inner));
    assert_eq!(tls_fault(&outer), Some(TlsFault::UnknownIssuer));
    assert_eq!(tls_fault(&std::io::Error::other("x")), None);
}

#[test]
fn a_certificate_of_an_authority_is_named() {
    #[derive(Debug, thiserror::Error)]
    #[error("as webpki has it")]
    struct CaUsedAsEndEntity;
    let other = rustls::OtherError(std::sync::Arc::new(CaUsedAsEndEntity));
    let inner = rustls::Error::InvalidCertificate(rustls::CertificateError::Other(other));
    let outer = std::io::Error::other(inner);
    assert_eq!(tls_fault(&outer), Some(TlsFault::Authority));
}

#[test]
fn a_refusal_is_found_below_other_errors() {
    let deep = crate::Error::usage("x").because(std::io::Error::other(refusal(404, "a")));
    assert!(
        StoreRefusal::within(&deep).is_none(),
        "an io::Error hides it"
    );
    assert!(StoreRefusal::within(&refusal(404, "a")).is_some());
}
