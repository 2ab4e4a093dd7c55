//! Caps shared by messages and queries, and the cleaning of text for display.

/// Largest number of trees in one message.
pub const MAX_MESSAGE_TREES: usize = 256;
/// Largest number of characters of a text for people.
pub const MAX_TEXT: usize = 4096;

/// Cleans a peer's text for display: printable line by line, truncated to `max` characters.
pub(super) fn clean_text(text: &str, max: usize) -> String {
    let short: String = text.chars().take(max).collect();
    short
        .lines()
        .map(|l| crate::units::printable(l.as_bytes()))
        .collect::<Vec<_>>()
        .join("\n")
}

/// Returns `Err(excess)` unless `is_within`.
pub(super) fn within(is_within: bool, excess: &str) -> Result<(), String> {
    if is_within {
        Ok(())
    } else {
        Err(excess.to_string())
    }
}
