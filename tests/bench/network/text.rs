//! Text as compressible as pages and source files: words of an invented language with natural
//! frequencies, in repeated templates.

use std::fmt::Write;

/// Number of words in the language.
const WORDS: usize = 20_000;
/// Exponent of the word frequencies (Zipf's law): a few hundred words make up half of a text.
const ZIPF: f64 = 1.15;

/// A generator of documents, the same for the same seed.
pub struct Writer {
    random: fastrand::Rng,
    words: Vec<String>,
    /// Cumulative frequencies of the words.
    sums: Vec<f64>,
}

/// A document.
pub struct Document {
    pub text: String,
    pub extension: &'static str,
}

impl Writer {
    pub fn new(seed: u64) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        let words = (0..WORDS).map(|rank| word(&mut random, rank)).collect();
        let mut sum = 0.0;
        let sums = (1..=WORDS).map(|rank| {
            sum += (rank as f64).powf(-ZIPF);
            sum
        });

        Self {
            sums: sums.collect(),
            words,
            random,
        }
    }

    /// Generates the next document of some tens of kilobytes.
    pub fn document(&mut self) -> Document {
        if self.random.u8(..) < 140 {
            Document {
                text: self.page(),
                extension: "html",
            }
        } else {
            Document {
                text: self.source(),
                extension: "rs",
            }
        }
    }

    fn word(&mut self) -> usize {
        let at = self.random.f64() * self.sums.last().copied().unwrap_or(1.0);
        self.sums.partition_point(|&sum| sum < at).min(WORDS - 1)
    }

    fn sentence(&mut self, out: &mut String) {
        let count = self.random.usize(5..22);
        for i in 0..count {
            let word = self.word();
            let word = &self.words[word];
            if i == 0 {
                let mut letters = word.chars();
                out.extend(letters.next().map(|c| c.to_ascii_uppercase()));
                out.push_str(letters.as_str());
            } else {
                out.push_str(if self.random.u8(..) < 20 { ", " } else { " " });
                out.push_str(word);
            }
        }

        out.push_str(". ");
    }

    fn name(&mut self) -> String {
        let (a, b) = (self.word(), self.word());
        format!("{}_{}", self.words[a], self.words[b])
    }

    fn page(&mut self) -> String {
        let mut out = String::new();
        let mut title = String::new();
        self.sentence(&mut title);
        let _ = write!(
            out,
            "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n  <meta charset=\"utf-8\">\n  <title>{title}</title>\n"
        );

        out.push_str(
            "  <link rel=\"stylesheet\" href=\"/assets/site.css\">\n</head>\n<body class=\"article\">\n<nav>\n  <ul>\n",
        );

        for _ in 0..self.random.usize(4..9) {
            let name = self.name();
            let _ = writeln!(
                out,
                "    <li class=\"nav-item\"><a class=\"nav-link\" href=\"/{name}/\">{name}</a></li>"
            );
        }

        let _ = write!(out, "  </ul>\n</nav>\n<main>\n<h1>{title}</h1>\n");
        for section in 0..self.random.usize(6..30) {
            self.section(&mut out, section);
        }

        out.push_str("</main>\n<footer><p>All rights reserved.</p></footer>\n</body>\n</html>\n");
        out
    }

    fn section(&mut self, out: &mut String, number: usize) {
        let name = self.name();
        let _ = writeln!(
            out,
            "<section id=\"{name}-{number}\">\n  <h2 class=\"section-title\">{name}</h2>"
        );

        for _ in 0..self.random.usize(1..5) {
            out.push_str("  <p class=\"text\">");
            (0..self.random.usize(2..7)).for_each(|_| self.sentence(out));
            out.push_str("</p>\n");
        }

        if self.random.u8(..) < 100 {
            out.push_str("  <table class=\"figures\">\n");
            for _ in 0..self.random.usize(3..12) {
                let (name, a, b) = (
                    self.name(),
                    self.random.u32(..10_000),
                    self.random.u32(..1_000_000),
                );
                let _ = writeln!(
                    out,
                    "    <tr><td class=\"name\">{name}</td><td class=\"number\">{a}</td><td class=\"number\">{b}</td></tr>"
                );
            }
            out.push_str("  </table>\n");
        }

        out.push_str("</section>\n");
    }

    fn source(&mut self) -> String {
        let mut out =
            String::from("use std::collections::HashMap;\nuse std::io::{self, Read, Write};\n\n");
        for _ in 0..self.random.usize(15..60) {
            self.function(&mut out);
        }
        out
    }

    fn function(&mut self, out: &mut String) {
        let (name, argument, map) = (self.name(), self.name(), self.name());
        out.push_str("/// ");
        self.sentence(out);
        let _ = writeln!(
            out,
            "\npub fn {name}({argument}: &str, {map}: &mut HashMap<String, u64>) -> io::Result<u64> {{"
        );

        for _ in 0..self.random.usize(2..9) {
            let (value, number) = (self.name(), self.random.u32(..5_000));
            let _ = match self.random.u8(..5) {
                0 => writeln!(
                    out,
                    "    let {value} = {map}.get({argument}).copied().unwrap_or({number});"
                ),
                1 => writeln!(
                    out,
                    "    if {argument}.len() > {number} {{\n        return Ok({number});\n    }}"
                ),
                2 => writeln!(out, "    {map}.insert({argument}.to_string(), {number});"),
                3 => writeln!(
                    out,
                    "    for {value} in 0..{number} {{\n        {map}.entry({value}.to_string()).or_default();\n    }}"
                ),
                _ => {
                    writeln!(
                        out,
                        "    // {value}: {} {}",
                        self.words[number as usize],
                        self.words[number as usize / 7]
                    )
                }
            };
        }

        let _ = writeln!(out, "    Ok({map}.len() as u64)\n}}\n");
    }
}

/// Generates a word; common words are shorter.
fn word(random: &mut fastrand::Rng, rank: usize) -> String {
    const ONSETS: [&str; 20] = [
        "b", "c", "d", "f", "g", "h", "l", "m", "n", "p", "r", "s", "t", "v", "w", "st", "tr",
        "ch", "pl", "th",
    ];
    const RHYMES: [&str; 16] = [
        "a", "e", "i", "o", "u", "er", "in", "an", "ion", "ed", "al", "es", "ing", "or", "ent",
        "is",
    ];
    let syllables =
        1 + usize::from(rank > 40) + usize::from(rank > 1200) + usize::from(random.u8(..) < 70);
    let mut word = String::new();
    for _ in 0..syllables {
        word.push_str(ONSETS[random.usize(..ONSETS.len())]);
        word.push_str(RHYMES[random.usize(..RHYMES.len())]);
    }
    word
}
