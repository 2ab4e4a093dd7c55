//! Judges the sentences of errors: no clause says again what another one has said.

use std::collections::HashSet;

/// The words that `text` has twice: in a row, as the begin of two clauses, or three together
/// anywhere. Two clauses may have the same subject with an article.
pub(crate) fn repetition(text: &str) -> Option<String> {
    let all = words(text);
    let mut pairs = all.windows(2);
    if let Some(pair) = pairs.find(|pair| pair[0] == pair[1]) {
        return Some(pair.join(" "));
    }

    let clauses = text.split([':', ';', ',', '(', '?']);
    let is_new = |words: &Vec<String>| words.first().is_some_and(|word| word != "the");
    let begins = clauses
        .map(words)
        .filter(is_new)
        .filter_map(|words| Some(words.get(..2)?.join(" ")));
    let threes = all.windows(3).map(|three| three.join(" "));
    twice(begins).or_else(|| twice(threes))
}

fn twice(parts: impl Iterator<Item = String>) -> Option<String> {
    let mut seen = HashSet::new();
    parts.into_iter().find(|part| !seen.insert(part.clone()))
}

/// Words in lower case, without numbers.
fn words(text: &str) -> Vec<String> {
    let words = text.split(|c: char| !c.is_alphanumeric());
    let words = words.filter(|word| word.chars().any(char::is_alphabetic));
    words.map(str::to_lowercase).collect()
}

#[test]
fn repetitions_are_found() {
    let found = |text| repetition(text).unwrap_or_default();
    assert_eq!(found("cannot use a: cannot use b"), "cannot use");
    assert_eq!(found("the list of the the host"), "the the");
    assert_eq!(
        found("no such file is here: there is no such file"),
        "no such file"
    );
    assert_eq!(found("cannot list objects at /srv: access denied"), "");
}
