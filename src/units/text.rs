//! Untrusted text made safe for a terminal and a log.

use std::path::Path;

/// Formats bytes as one line of safe text. Terminal control characters and invalid UTF-8 are
/// escaped (`\xNN`), and a backslash is doubled, so that no two names look the same.
pub fn printable(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '\n' => out.push_str("\\n"),
                '\t' => out.push_str("\\t"),
                '\\' => out.push_str("\\\\"),
                c if c.is_control() || is_bidi(c) || is_break(c) => {
                    c.escape_unicode().for_each(|e| out.push(e))
                }
                c => out.push(c),
            }
        }
        for b in chunk.invalid() {
            out.push_str(&format!("\\x{b:02x}"));
        }
    }

    out
}

/// Formats a path as [`printable`] text.
pub fn printable_path(path: &Path) -> String {
    printable(path.as_os_str().as_encoded_bytes())
}

/// Returns whether `text` is one line that every terminal shows as it is.
pub fn is_plain_line(text: &str) -> bool {
    !text
        .chars()
        .any(|c| c.is_control() || is_bidi(c) || is_break(c))
}

/// Joins text that is already printable line by line into one line: for logs, where a line is a
/// record.
pub fn one_line(text: &str) -> String {
    text.replace('\n', "\\n")
}

/// Separators that some viewers treat as the end of a line.
fn is_break(c: char) -> bool {
    matches!(c, '\u{2028}' | '\u{2029}')
}

/// Characters that reorder the following text on a terminal.
fn is_bidi(c: char) -> bool {
    matches!(
        c,
        '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn printable_never_lets_a_terminal_command_through() {
        assert_eq!(printable(b"a\x1b[2Jb\n\xff\\"), "a\\u{1b}[2Jb\\n\\xff\\\\");
        assert_eq!(printable("grün".as_bytes()), "grün");
        for mark in [
            '\u{61c}', '\u{200e}', '\u{202e}', '\u{2066}', '\u{2028}', '\u{2029}', '\u{85}',
        ] {
            let shown = printable(format!("a{mark}b").as_bytes());
            assert_eq!(shown, format!("a\\u{{{:x}}}b", u32::from(mark)));
        }

        assert_eq!(one_line("no\n2026 ERROR root"), "no\\n2026 ERROR root");
    }
}
