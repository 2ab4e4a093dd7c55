//! What a command prints: everything is read, the end of it is kept, and it is shown as safe lines.

use crate::units::printable;

/// The most bytes that are kept of what a command printed.
pub(super) const MAX_OUTPUT: usize = 16 << 10;
/// The most lines of a failed command that are told.
const TOLD_LINES: usize = 20;
/// The most bytes of them.
const TOLD_BYTES: usize = 2048;

/// The last bytes of a stream.
#[derive(Debug, Default)]
pub(super) struct Tail {
    bytes: Vec<u8>,
    /// Whether something before them is gone.
    cut: bool,
}

impl Tail {
    pub(super) fn add(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
        // Moved seldom: not with every piece.
        if self.bytes.len() > 2 * MAX_OUTPUT {
            self.trim();
        }
    }

    fn trim(&mut self) {
        let beyond = self.bytes.len().saturating_sub(MAX_OUTPUT);
        self.cut |= beyond > 0;
        self.bytes.drain(..beyond);
    }

    /// The lines, printable; the first is left out when it is a piece of one.
    pub(super) fn text(mut self) -> String {
        self.trim();
        let skip = usize::from(self.cut && self.bytes.contains(&b'\n'));
        let lines = self.bytes.split(|&b| b == b'\n').skip(skip);

        // A bar of progress is many lines on one.
        let lines = lines
            .flat_map(|line| line.split(|&b| b == b'\r'))
            .filter(|line| !line.is_empty());

        lines.map(printable).collect::<Vec<_>>().join("\n")
    }
}

/// The last lines of `text`: as much as fits an error message.
pub(super) fn last_lines(text: &str) -> String {
    let mut kept = Vec::new();
    let mut room = TOLD_BYTES;
    for line in text.lines().rev().take(TOLD_LINES) {
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
        let mut tail = Tail::default();
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
        assert_eq!(told.lines().count(), TOLD_LINES);

        assert!(told.ends_with("line 19999"));
    }

    #[test]
    fn nothing_reaches_a_terminal_as_a_command() {
        let mut tail = Tail::default();
        tail.add(b"a\x1b[2J\r50 %\r100 %\n\n\xff\n");
        assert_eq!(tail.text(), "a\\u{1b}[2J\n50 %\n100 %\n\\xff");
    }

    #[test]
    fn one_endless_line_is_cut_too() {
        let mut tail = Tail::default();
        (0..100).for_each(|_| tail.add("ä".repeat(1000).as_bytes()));
        let text = tail.text();
        assert!(!text.is_empty());
        assert!(last_lines(&text).len() <= TOLD_BYTES);
    }
}
