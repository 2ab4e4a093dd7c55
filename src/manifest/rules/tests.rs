//! Excludes are packed when there are many, and refused when they contradict themselves.

use super::*;
use crate::manifest::header::tests::a_header;
use crate::manifest::{Header, Release, TreePath};

fn with(excludes: Vec<Exclude>) -> Result<Release, String> {
    let mut rules = Rules {
        excludes,
        ..Rules::default()
    };

    rules.pack()?;
    let header = Header {
        format: rules.format(),
        rules,
        ..a_header()
    };

    Release::new(header).map_err(|e| e.to_string())
}

fn vendored() -> Vec<Exclude> {
    let line = |package: usize, pattern: &str| {
        let base = format!("vendor/organisation-{package}/package-{}", package * 7919);
        Exclude {
            base: TreePath::new(base.as_bytes()).ok(),
            pattern: pattern.into(),
        }
    };

    let patterns = ["/build/", "*.log", "node_modules", "!keep.log"];
    (0..260)
        .flat_map(|package| patterns.map(|pattern| line(package, pattern)))
        .collect()
}

#[test]
fn few_excludes_are_said_in_the_first_format() {
    let release = with(vec![
        Exclude::at_top("*.tmp"),
        Exclude::at_top(&b"\xe4"[..]),
    ])
    .expect("legal");
    assert_eq!(release.header().format, FORMAT);
    assert_eq!(release.header().rules.excludes.len(), 2);
    assert_eq!(
        Release::from_bytes(release.bytes())
            .expect("legal")
            .header(),
        release.header()
    );
}

#[test]
fn many_excludes_fit_a_header_that_older_hosts_refuse() {
    let numbered =
        (0..5000).map(|n| Exclude::at_top(format!("/data/set-{n}/result-{}.bin", n * 7919)));
    for excludes in [vendored(), numbered.collect()] {
        let release = with(excludes.clone()).expect("legal");
        let back = Release::from_bytes(release.bytes()).expect("legal");
        assert_eq!(back.header(), release.header());
        assert_eq!(back.header().format, FORMAT_PACKED);
        let wanted = PathFilter::new(&excludes).patterns();
        assert!(back.header().rules.excluded().expect("legal").patterns() == wanted);
    }
}

#[test]
fn packed_excludes_are_refused_when_they_are_not_what_they_say() {
    let mut rules = Rules {
        excludes: vendored(),
        ..Rules::default()
    };

    rules.pack().expect("they fit");
    let packed = rules.packed.clone().expect("they are many");
    let header = |rules: Rules, format| Header {
        format,
        rules,
        ..a_header()
    };

    let refused = |header: Header| {
        Header::decode(&header.encode())
            .expect_err("not legal")
            .to_string()
    };

    // A host of the first format would take the release for one without excludes.
    assert!(refused(header(rules.clone(), FORMAT)).contains("format"));

    let both = Rules {
        excludes: vec![Exclude::at_top("a")],
        ..rules.clone()
    };

    assert!(refused(header(both, FORMAT_PACKED)).contains("two kinds"));
    let huge = PackedExcludes {
        size: u32::MAX,
        ..packed.clone()
    };

    assert!(
        refused(header(
            Rules {
                packed: Some(huge),
                ..rules.clone()
            },
            FORMAT_PACKED
        ))
        .contains("too large")
    );

    let mut broken = packed.clone();

    broken.frame.truncate(100);
    let other = PackedExcludes {
        size: packed.size + 1,
        ..packed
    };

    for packed in [broken, other] {
        let rules = Rules {
            packed: Some(packed),
            ..rules.clone()
        };
        assert!(rules.excluded().is_err());
    }
}

#[test]
fn more_than_a_header_holds_is_said() {
    let noise = |n: u32| crate::block::BlockHash::of(&n.to_be_bytes()).to_string();
    let why = with((0..4000).map(|n| Exclude::at_top(noise(n))).collect()).expect_err("too many");
    assert!(why.contains("4000 patterns"), "{why}");
    let why = with((0..200_000).map(|_| Exclude::at_top("x")).collect()).expect_err("too many");
    assert!(why.contains("200000 patterns"), "{why}");
}
