//! Output of a command: reads everything, keeps the end, and shows it as safe lines.

use crate::units::printable;

/// Largest number of bytes kept of a command's output.
pub(super) const MAX_OUTPUT: usize = 16 << 10;
/// Largest number of lines shown for a failed command.
const MAX_SHOWN_LINES: usize = 20;
/// Largest number of bytes shown for a failed command.
const MAX_SHOWN_BYTES: usize = 2048;

/// Last bytes of a stream.
#[derive(Debug, Default)]
pub(super) struct OutputTail {
    bytes: Vec<u8>,
    /// Whether earlier bytes were dropped.
    cut: bool,
}

impl OutputTail {
    pub(super) fn add(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
        // Trims seldom, not for every read.
        if self.bytes.len() > 2 * MAX_OUTPUT {
            self.trim();
        }
    }

    fn trim(&mut self) {
        let beyond = self.bytes.len().saturating_sub(MAX_OUTPUT);
        self.cut |= beyond > 0;
        self.bytes.drain(..beyond);
    }

    /// Returns the lines, printable, without a partial first line.
    pub(super) fn text(mut self) -> String {
        self.trim();
        let skip = usize::from(self.cut && self.bytes.contains(&b'\n'));
        let lines = self.bytes.split(|&b| b == b'\n').skip(skip);

        // Progress bars put many lines on one, separated by carriage returns.
        let lines = lines
            .flat_map(|line| line.split(|&b| b == b'\r'))
            .filter(|line| !line.is_empty());

        lines.map(printable).collect::<Vec<_>>().join("\n")
    }
}

/// Last lines of `text` that fit an error message.
pub(super) fn last_lines(text: &str) -> String {
    let mut kept = Vec::new();
    let mut room = MAX_SHOWN_BYTES;
    for line in text.lines().rev().take(MAX_SHOWN_LINES) {
        let fits = line.len() <= room;
        if !fits && !kept.is_empty() {
            break;
        }
        let end = (0..=line.len().min(room))
            .rev()
            .find(|&at| line.is_char_boundary(at))
            .unwrap_or(0);
        kept.push(&line[..end]);
        room = room.saturating_sub(line.len() + 1);
    }

    kept.reverse();
    kept.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_is_kept_by_whole_lines() {
        let mut tail = OutputTail::default();
        for n in 0..20_000 {
            tail.add(format!("line {n}\n").as_bytes());
            assert!(tail.bytes.len() <= 2 * MAX_OUTPUT + 16);
        }

        let text = tail.text();
        assert!(
            text.len() <= MAX_OUTPUT && text.ends_with("line 19999"),
            "{}",
            text.len()
        );
        assert!(text.lines().all(|l| l.starts_with("line ")));
        let told = last_lines(&text);
        assert_eq!(told.lines().count(), MAX_SHOWN_LINES);

        assert!(told.ends_with("line 19999"));
    }

    #[test]
    fn nothing_reaches_a_terminal_as_a_command() {
        let mut tail = OutputTail::default();
        tail.add(b"a\x1b[2J\r50 %\r100 %\n\n\xff\n");
        assert_eq!(tail.text(), "a\\u{1b}[2J\n50 %\n100 %\n\\xff");
    }

    #[test]
    fn one_endless_line_is_cut_too() {
        let mut tail = OutputTail::default();
        (0..100).for_each(|_| tail.add("ä".repeat(1000).as_bytes()));
        let text = tail.text();
        assert!(!text.is_empty());
        assert!(last_lines(&text).len() <= MAX_SHOWN_BYTES);
    }
}
