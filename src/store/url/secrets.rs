//! Passwords in URLs: errors and logs show the rest.

/// Returns `text` without anything that may be a secret. In a URL that is wrong, a password can end
/// anywhere before the last `@`, and a query can be a signature.
pub(in crate::store) fn without_secrets(text: &str) -> String {
    let (scheme, rest) = match text.find(":/") {
        Some(at) if is_scheme(&text[..at]) => {
            let slashes = text[at + 1..].bytes().take_while(|&b| b == b'/').count();
            text.split_at(at + 1 + slashes)
        }
        _ => ("", text),
    };

    let (hidden, rest) = match rest.rfind('@') {
        Some(at) => ("***@", &rest[at + 1..]),
        None => ("", rest),
    };
    match rest.split_once('?') {
        Some((place, _)) => format!("{scheme}{hidden}{place}?***"),
        None => format!("{scheme}{hidden}{rest}"),
    }
}

/// Returns whether `text` is a scheme that people write, and so no part of a password.
pub(super) fn is_scheme(text: &str) -> bool {
    let known = [
        "http", "https", "s3", "s3a", "gs", "gcs", "az", "azure", "file", "ftp", "sftp", "ssh",
    ];
    known.iter().any(|scheme| text.eq_ignore_ascii_case(scheme))
}
