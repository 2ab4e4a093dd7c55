//! The object at the root of a repository that says what the rest is.

use super::head::REPOSITORY_FORMAT;
use super::object::{Get, ObjectPath};

/// Largest marker in bytes.
pub const MAX_MARKER_BYTES: u64 = 1024;

/// Path of the marker.
pub fn marker_object() -> ObjectPath {
    ObjectPath::new("makuo-repository").expect("legal")
}

/// Request for the marker.
pub(super) fn marker_request() -> Get {
    Get {
        object: marker_object(),
        range: None,
        unless: None,
        max: MAX_MARKER_BYTES,
    }
}

/// Content of the marker, in lines for people.
pub fn marker() -> Vec<u8> {
    format!("format = {REPOSITORY_FORMAT}\n").into_bytes()
}

/// Format in the marker `bytes`; `None` if they are something else.
pub fn marker_format(bytes: &[u8]) -> Option<u16> {
    if bytes.len() as u64 > MAX_MARKER_BYTES {
        return None;
    }

    let text = std::str::from_utf8(bytes).ok()?;
    text.lines().find_map(|line| {
        let (name, value) = line.split_once('=')?;
        (name.trim() == "format").then(|| value.trim().parse().ok())?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_format_is_read_whatever_else_the_marker_says() {
        assert_eq!(marker_format(&marker()), Some(REPOSITORY_FORMAT));
        assert_eq!(marker_format(b"# made by makuo\nformat=7\nx = 1"), Some(7));
        for wrong in [
            &b"<html>"[..],
            b"",
            b"format = x",
            b"format = 99999",
            &[0xff; 9],
        ] {
            assert_eq!(marker_format(wrong), None);
        }
    }
}
