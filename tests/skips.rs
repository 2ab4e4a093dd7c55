//! Prints which tests of this run were skipped, and why. Cargo runs it last: programs of tests run
//! in the order of their names.

#[path = "support/skip.rs"]
#[allow(dead_code, reason = "it only counts")]
mod skip;

use std::collections::BTreeMap;

fn main() {
    let Some(path) = skip::skips() else { return };
    let text = std::fs::read_to_string(&path).unwrap_or_default();
    // Lines of earlier runs go with the file.
    let _ = std::fs::remove_file(&path);

    let run = skip::run().to_string();
    let mut reasons: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for line in text.lines() {
        let mut words = line.splitn(3, '\t');
        if let (Some(of), Some(test), Some(why)) = (words.next(), words.next(), words.next())
            && of == run
        {
            reasons.entry(why).or_default().push(test);
        }
    }

    let count: usize = reasons.values().map(Vec::len).sum();
    match count {
        0 => println!("\nno test was skipped"),
        1 => println!("\n1 test was skipped, or a part of it:"),
        _ => println!("\n{count} tests were skipped, or a part of each:"),
    }
    for (why, tests) in reasons {
        println!("  {why}");
        tests.iter().for_each(|test| println!("    {test}"));
    }
}
