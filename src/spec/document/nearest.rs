//! Finds the known key that a person most likely meant.

/// Hint for an unknown key similar to `known`.
pub(super) fn advice(name: &str, known: &str) -> String {
    let parent = |key: &str| {
        key.rsplit_once('.')
            .map_or(String::new(), |(p, _)| p.to_string())
    };

    let here = parent(name);
    let there = parent(known);
    if here == there {
        format!("did you mean \"{known}\"?")
    } else if there.is_empty() {
        format!(
            "did you mean \"{known}\"? It stands at the top of the file, above the first [section]"
        )
    } else {
        format!("did you mean \"{known}\"? It stands below [{there}]")
    }
}

/// Known key most similar to `name`: the same last word in another table, or a few typos away.
pub(super) fn nearest<'k>(name: &str, keys: &[&'k str]) -> Option<&'k str> {
    let last = |key: &str| key.rsplit('.').next().unwrap_or_default().to_string();
    let word = last(name);
    let distance_of = |key: &&&str| {
        if last(key) == word {
            0
        } else {
            distance(name, key).min(1 + distance(&word, &last(key)))
        }
    };

    let best = keys
        .iter()
        .min_by_key(|key| (distance_of(key), distance(name, key)))?;

    (distance_of(&best) <= 1 + word.chars().count() / 3).then_some(best)
}

/// Edit distance between `a` and `b`: insertions, deletions, changes and swaps of neighbours.
fn distance(a: &str, b: &str) -> usize {
    // No longer word is a typo of a known key; also bounds the table.
    const LONGEST: usize = 64;
    let a: Vec<char> = a.chars().take(LONGEST).collect();
    let b: Vec<char> = b.chars().take(LONGEST).collect();
    let mut rows = vec![vec![0; b.len() + 1]; a.len() + 1];

    for i in 0..=a.len() {
        for j in 0..=b.len() {
            rows[i][j] = if i == 0 || j == 0 {
                i + j
            } else {
                let changed = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
                let best = changed.min(rows[i - 1][j] + 1).min(rows[i][j - 1] + 1);
                let swapped = i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1];
                if swapped {
                    best.min(rows[i - 2][j - 2] + 1)
                } else {
                    best
                }
            };
        }
    }

    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_key_is_found_and_a_far_one_is_not() {
        let keys = ["tree", "source", "delete.extras", "delete.max", "expires"];
        assert_eq!(nearest("sorce", &keys), Some("source"));
        assert_eq!(nearest("delete.exrtas", &keys), Some("delete.extras"));
        assert_eq!(nearest("max", &keys), Some("delete.max"));
        assert_eq!(nearest("delete.expires", &keys), Some("expires"));
        assert_eq!(nearest("colour", &keys), None);
    }
}
