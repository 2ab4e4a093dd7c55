//! The code blocks of a document, with the marks that say how a test runs them.
//!
//! A mark is an HTML comment on the line before a block; words in it are separated by commas:
//! `on HOST` (else the first machine), `exit CODE` (else 0), `retry` (until it exits so, as a person
//! looks again), `skip: REASON` (cannot run in a test). Marks without a block: `machines: NAME...`
//! and `begins after: README.md` at the head, `crash HOST` and `boot HOST`, and `begin twice` and
//! `end twice` around blocks that run a second time after the first.

const BEGIN_TWICE: &str = "begin twice";
const END_TWICE: &str = "end twice";

/// A code block, or a mark without one.
#[derive(Debug, Clone)]
pub struct Block {
    /// The line of the document on which its text begins.
    pub line: usize,
    /// The word after the fence: `sh`, `toml`, `text`.
    pub kind: String,
    pub text: String,
    pub marks: Vec<String>,
}

#[derive(Debug)]
pub struct Document {
    pub blocks: Vec<Block>,
}

impl Document {
    pub fn parse(text: &str) -> Self {
        let mut blocks: Vec<Block> = Vec::new();
        let mut marks: Vec<String> = Vec::new();
        let mut open: Option<(Block, usize)> = None;
        for (number, line) in (1..).zip(text.lines()) {
            let trimmed = line.trim();
            if let Some((mut block, indent)) = open.take() {
                if trimmed == "```" {
                    blocks.push(block);
                } else {
                    block.text.push_str(line.get(indent..).unwrap_or_default());
                    block.text.push('\n');
                    open = Some((block, indent));
                }
            } else if let Some(kind) = trimmed.strip_prefix("```") {
                let block = Block {
                    line: number + 1,
                    kind: kind.to_string(),
                    text: String::new(),
                    marks: std::mem::take(&mut marks),
                };
                open = Some((block, line.len() - line.trim_start().len()));
            } else if let Some(mark) = mark(trimmed) {
                marks = words(mark);
                if marks.iter().all(|mark| stands_alone(mark)) {
                    let (kind, text) = (String::new(), String::new());
                    let marks = std::mem::take(&mut marks);
                    blocks.push(Block {
                        line: number,
                        kind,
                        text,
                        marks,
                    });
                }
            } else if !trimmed.is_empty() {
                marks.clear();
            }
        }

        Self { blocks }
    }

    /// Returns the blocks in the order in which they run.
    pub fn runs(&self) -> Vec<&Block> {
        let mut runs: Vec<&Block> = Vec::new();
        let mut begin = None;
        for block in &self.blocks {
            if block.word(BEGIN_TWICE).is_some() {
                begin = Some(runs.len());
            } else if block.word(END_TWICE).is_some() {
                let begin = begin.take().expect("a mark that begins it");
                runs.extend_from_within(begin..);
            } else {
                runs.push(block);
            }
        }

        assert!(begin.is_none(), "no mark ends what runs twice");
        runs
    }

    /// Returns the text after `key` in a mark of the document.
    pub fn word(&self, key: &str) -> Option<&str> {
        self.blocks.iter().find_map(|block| block.word(key))
    }
}

impl Block {
    /// Returns the text after `key` in a mark of this block.
    pub fn word(&self, key: &str) -> Option<&str> {
        let mut found = self.marks.iter().filter_map(|mark| mark.strip_prefix(key));
        found.next().map(str::trim)
    }
}

fn mark(line: &str) -> Option<&str> {
    let text = line.strip_prefix("<!--")?.strip_suffix("-->")?;
    Some(text.trim())
}

fn words(mark: &str) -> Vec<String> {
    match mark.starts_with("skip:") {
        true => vec![mark.to_string()],
        false => mark.split(", ").map(String::from).collect(),
    }
}

fn stands_alone(mark: &str) -> bool {
    let alone = [
        "machines:",
        "begins after:",
        "crash ",
        "boot ",
        BEGIN_TWICE,
        END_TWICE,
    ];
    alone.iter().any(|word| mark.starts_with(word))
}

#[test]
fn what_is_marked_runs_twice() {
    let block = |text: &str| format!("```sh\n{text}\n```\n");
    let text = [
        block("a"),
        "<!-- begin twice -->\n".to_string(),
        block("b"),
        block("c"),
        "<!-- end twice -->\n".to_string(),
        block("d"),
    ];
    let document = Document::parse(&text.concat());
    let runs: Vec<&str> = document.runs().iter().map(|b| b.text.trim()).collect();
    assert_eq!(runs, ["a", "b", "c", "b", "c", "d"]);
}
