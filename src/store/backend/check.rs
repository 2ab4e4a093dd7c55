//! Checks values of URLs, environment and profiles before they become part of a URL or a header.
//! Errors name the setting, and never a password in it.

use crate::store::url::without_secrets;
use crate::units::printable;
use crate::{Error, Result};

/// The error of settings that object_store refuses.
pub(super) fn wrong(what: &str, error: object_store::Error) -> Error {
    Error::usage(format!("cannot use {what}")).because(error)
}

/// Checks a value that becomes part of a URL or a header.
pub(super) fn checked<'a>(name: &str, value: &'a str) -> Result<&'a str> {
    match value.bytes().all(|b| (0x20..=0x7e).contains(&b)) {
        true => Ok(value),
        false => {
            let name = printable(name.as_bytes());
            Err(
                Error::usage(format!("{name} has characters that no such value has")).hint(
                    format!("set {name} again: perhaps a line break got into it"),
                ),
            )
        }
    }
}

/// Checks the URL of an endpoint. It has no user and password: requests to it are signed.
pub(super) fn checked_endpoint<'a>(name: &str, value: &'a str) -> Result<&'a str> {
    let url = reqwest::Url::parse(checked(name, value)?).ok();
    let fine = url.filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
    match fine.filter(|_| !value.contains('@')) {
        Some(_) => {
            note_clear("everything for the bucket", value);
            Ok(value.trim_end_matches('/'))
        }
        None => {
            let shown = printable(without_secrets(value).as_bytes());
            Err(Error::usage(format!("{name} is no endpoint: {shown}"))
                .hint(format!("set {name} to https://host or http://host:port")))
        }
    }
}

/// Checks the name of a region.
pub(super) fn checked_region<'a>(name: &str, value: &'a str) -> Result<&'a str> {
    let of_name = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    match value.chars().all(of_name) {
        true => Ok(value),
        false => {
            let shown = printable(value.as_bytes());
            Err(Error::usage(format!("{name} is no region: {shown}"))
                .hint("a region is a word such as eu-central-1"))
        }
    }
}

/// Notes that `what` goes to the server at `url` without encryption.
pub(super) fn note_clear(what: &str, url: &str) {
    if let Some(host) = clear_host(url) {
        let host = printable(host.as_bytes());
        tracing::warn!("{what} goes to {host} without encryption: use https://");
    }
}

/// The host of an `http` URL, unless it is this machine.
fn clear_host(url: &str) -> Option<String> {
    let url = reqwest::Url::parse(url).ok()?;
    let host = url.host_str()?;
    let address = host.trim_matches(['[', ']']).parse::<std::net::IpAddr>();
    let is_here = host == "localhost" || address.is_ok_and(|address| address.is_loopback());
    (url.scheme() == "http" && !is_here).then(|| host.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_has_no_password_and_its_error_shows_none() {
        for bad in [
            "https://me:hunter2@host",
            "https://hunter2@host",
            "https:/me:hunter2@",
            "hunter2@host",
            "ftp://me:hunter2@host/x?y",
        ] {
            let error = checked_endpoint("AWS_ENDPOINT_URL", bad).expect_err(bad);
            assert!(!error.with_hint().contains("hunter2"), "{bad}: {error}");
            assert!(error.to_string().contains("AWS_ENDPOINT_URL"), "{error}");
        }
        let fine = checked_endpoint("x", "https://host:9000/").expect("fine");
        assert_eq!(fine, "https://host:9000");
    }

    #[test]
    fn only_the_way_over_a_network_is_noted() {
        for (url, host) in [
            ("http://store.example/x", Some("store.example")),
            ("http://10.0.0.1:9000", Some("10.0.0.1")),
            ("http://[2001:db8::1]", Some("[2001:db8::1]")),
            ("https://store.example", None),
            ("http://localhost:9000", None),
            ("http://127.8.0.1", None),
            ("http://[::1]:9000", None),
        ] {
            assert_eq!(clear_host(url).as_deref(), host, "{url}");
        }
    }
}
