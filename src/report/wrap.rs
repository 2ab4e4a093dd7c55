//! Lines for a terminal, broken between words.

/// Indent of a continued line, beyond that of its first part.
const CONTINUED: usize = 4;

/// Breaks the lines of `text` after at most `columns` columns, between words; a longer word stays
/// whole, so that it can be copied. Colour takes no columns.
pub fn wrapped(text: &str, columns: usize) -> String {
    let lines: Vec<String> = text.split('\n').map(|line| wrap(line, columns)).collect();
    lines.join("\n")
}

fn wrap(line: &str, columns: usize) -> String {
    if width(line) <= columns {
        return line.to_string();
    }

    let blanks = line.len() - line.trim_start_matches(' ').len();
    let indent = " ".repeat((blanks + CONTINUED).min(columns / 2));
    let mut out = String::with_capacity(line.len() + indent.len());
    let mut used = 0;
    // Blanks belong to the word after them, and go where a line is broken.
    for (gap, word) in words(line) {
        let needed = gap + width(word);
        let is_first = out.trim_start_matches(' ').is_empty();
        if !is_first && used + needed > columns {
            out.push('\n');
            out.push_str(&indent);
            used = indent.len();
        } else {
            out.extend(std::iter::repeat_n(' ', gap));
            used += gap;
        }
        out.push_str(word);
        used += width(word);
    }

    out
}

/// Returns each word with the number of blanks before it.
fn words(line: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut gap = 0;
    line.split(' ').enumerate().filter_map(move |(at, word)| {
        gap += usize::from(at > 0);
        if word.is_empty() {
            return None;
        }
        Some((std::mem::take(&mut gap), word))
    })
}

/// Columns of `text` without its colours.
fn width(text: &str) -> usize {
    let mut parts = text.split('\x1b');
    let first = parts.next().map_or(0, |part| part.chars().count());
    let rest = parts.map(|part| {
        let shown = part.split_once('m').map_or(part, |(_, shown)| shown);
        shown.chars().count()
    });
    first + rest.sum::<usize>()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::sample;

    #[test]
    fn lines_break_between_words() {
        assert_eq!(wrapped("one two\nthree", 20), "one two\nthree");
        assert_eq!(wrapped("one two three", 9), "one two\n    three");
        assert_eq!(wrapped("  one   two three", 9), "  one\n    two\n    three");
        assert_eq!(
            wrapped("see /a/very/long/path now", 10),
            "see\n    /a/very/long/path\n    now"
        );
    }

    #[test]
    fn colour_takes_no_columns() {
        let line = "\x1b[1mone\x1b[0m two";
        assert_eq!(wrapped(line, 7), line);
        assert_eq!(wrapped(line, 6), "\x1b[1mone\x1b[0m\n   two");
    }

    #[test]
    fn nothing_but_blanks_is_lost() {
        let mut rng = sample::rng("MAKUO_WRAP_SEED");
        for _ in 0..2_000 {
            let length = rng.usize(0..80);
            let text: String = (0..length)
                .map(|_| rng.choice(['a', 'ö', ' ', ' ', 'b']).expect("some"))
                .collect();
            let columns = rng.usize(1..60);
            let lines = wrapped(&text, columns);

            let all = |text: &str| -> Vec<String> {
                text.split_whitespace().map(str::to_string).collect()
            };
            assert_eq!(all(&lines), all(&text), "{text:?} in {columns}");
            for line in lines.split('\n') {
                let is_word = line.trim().split(' ').count() == 1;
                assert!(width(line) <= columns || is_word, "{line:?} in {columns}");
            }
        }
    }
}
