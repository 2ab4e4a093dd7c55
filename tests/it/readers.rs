//! What a reader of a host's tree sees while releases follow each other.

use std::path::{Path, PathBuf};

use crate::support::{DELETE, Lab, write};

/// Reads every file of `dir` through one handle, and omits files that vanish meanwhile.
fn read_through(dir: &std::fs::File, names: &[String]) -> Vec<Vec<u8>> {
    use std::os::fd::AsRawFd;
    let at = PathBuf::from(format!("/proc/self/fd/{}", dir.as_raw_fd()));
    names
        .iter()
        .filter_map(|name| std::fs::read(at.join(name)).ok())
        .collect()
}

/// Makes a release of `names`: each file repeats one letter, with the release number as its length.
fn release(site: &Path, names: &[String], number: usize) {
    for name in names {
        write(
            &site.join(name),
            vec![b'a' + (number % 26) as u8; 5_000 + number * 37],
        );
    }
}

/// Returns the release number of `content`, and fails on a torn file.
fn number_of(content: &[u8]) -> usize {
    let number = (content.len() - 5_000) / 37;
    assert_eq!(content.len(), 5_000 + number * 37, "a torn file");
    assert!(
        content.iter().all(|b| *b == b'a' + (number % 26) as u8),
        "a torn file"
    );
    number
}

/// Deploys 100 releases during continuous reads; with `one_release`, each pass must see a single
/// release.
fn under_the_eyes_of_a_reader(layout: &str, one_release: bool) {
    let Some(lab) = Lab::loopback(1) else {
        return;
    };
    lab.spec(&format!("{DELETE}[commit]\nlayout = \"{layout}\"\n"));
    let names: Vec<String> = (0..30).map(|n| format!("file{n}")).collect();
    release(&lab.site(), &names, 0);
    lab.deploy(&[]).exits(0);
    let (tree, over) = (
        lab.hosts[0].tree(),
        std::sync::atomic::AtomicBool::new(false),
    );

    let passes = std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let (mut whole, mut seen) = (0, std::collections::BTreeSet::new());
            while !over.load(std::sync::atomic::Ordering::Relaxed) {
                let dir = std::fs::File::open(&tree).expect("the tree is always there");
                let contents = read_through(&dir, &names);
                let numbers: std::collections::BTreeSet<usize> =
                    contents.iter().map(|c| number_of(c)).collect();
                if one_release {
                    assert!(numbers.len() <= 1, "a mixed tree: {numbers:?}");
                } else {
                    assert_eq!(contents.len(), names.len(), "a file was missing");
                }
                whole += usize::from(contents.len() == names.len());
                seen.extend(numbers);
            }
            (whole, seen.len())
        });
        for number in 1..=100 {
            release(&lab.site(), &names, number);
            lab.deploy(&[]).exits(0);
        }
        over.store(true, std::sync::atomic::Ordering::Relaxed);
        reader.join().expect("the reader saw nothing wrong")
    });

    assert!(
        passes.0 > 100 && passes.1 > 50,
        "{passes:?}: the reader saw too little"
    );
}

#[test]
fn a_reader_sees_whole_files_during_a_hundred_deploys_in_place() {
    under_the_eyes_of_a_reader("in-place", false);
}

#[test]
fn a_reader_sees_one_release_during_a_hundred_swaps() {
    under_the_eyes_of_a_reader("swap", true);
}
