//! Patterns that select hosts: a glob on names, or a label with a glob on its value.
//!
//! Most patterns use stars only and cost nothing to match. Others need a compiled matcher. A name
//! has no `=`: to a makuo without labels, a pattern with one selects no host.

use super::{HostName, Labels, check_name};

/// Returns whether `pattern` selects the host: a glob (`*` and `?`, classes and alternatives) on
/// its name, or `KEY=GLOB` on a label. Without known `labels` it may have any.
pub fn matches_host(pattern: &str, name: &HostName, labels: Option<&Labels>) -> bool {
    match (pattern.split_once('='), labels) {
        (None, _) => matches_glob(pattern, name.as_str()),
        (Some(_), None) => true,
        (Some((key, glob)), Some(labels)) => labels
            .get(key)
            .is_some_and(|value| matches_glob(glob, value)),
    }
}

/// Reason why `pattern` selects no host, whatever its name and labels.
pub fn check_pattern(pattern: &str) -> Result<(), String> {
    let glob = match pattern.split_once('=') {
        None => pattern,
        Some((key, glob)) => {
            check_name("label", key).map_err(|e| e.to_string())?;
            if glob.is_empty() {
                return Err(format!(
                    "{key}= names no value: write {key}=VALUE, or {key}=*"
                ));
            }
            glob
        }
    };
    globset::Glob::new(glob)
        .map(drop)
        .map_err(|e| e.kind().to_string())
}

/// Returns whether `pattern` uses more than stars and question marks.
pub fn is_costly(pattern: &str) -> bool {
    pattern.contains(['[', ']', '{', '}', '\\'])
}

fn matches_glob(glob: &str, word: &str) -> bool {
    if is_costly(glob) {
        globset::Glob::new(glob).is_ok_and(|glob| glob.compile_matcher().is_match(word))
    } else {
        matches_stars(glob.as_bytes(), word.as_bytes())
    }
}

/// Matches ASCII names by backtracking to the last star, which is enough.
fn matches_stars(pattern: &[u8], name: &[u8]) -> bool {
    let mut p = 0;
    let mut n = 0;
    let mut star = None;
    while n < name.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, n));
                p += 1;
            }
            Some(&c) if c == b'?' || c == name[n] => (p, n) = (p + 1, n + 1),
            _ => {
                let Some((at, from)) = star else { return false };
                star = Some((at, from + 1));
                (p, n) = (at + 1, from + 1);
            }
        }
    }

    pattern[p..].iter().all(|&c| c == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn stars_match_as_in_globset(pattern in "[ab*?]{0,8}", name in "[ab]{0,8}") {
            let glob = globset::Glob::new(&pattern).expect("legal").compile_matcher();
            let matches = matches_stars(pattern.as_bytes(), name.as_bytes());
            prop_assert_eq!(matches, glob.is_match(&name), "{} {}", pattern, name);
        }
    }

    fn selects(pattern: &str, name: &str, labels: &str) -> bool {
        let name = HostName::new(name).expect("legal");
        matches_host(pattern, &name, Some(&Labels::parse_known(labels)))
    }

    #[test]
    fn classes_and_alternatives_match_too() {
        let matches = |pattern: &str, name: &str| selects(pattern, name, "");
        assert!(matches("web[1-3]", "web2") && !matches("web[1-3]", "web4"));
        assert!(matches("{web,db}*", "db1") && !matches("{web,db}*", "ci"));
        assert!(matches("web*.example", "web1.example") && !matches("web*.example", "web1.other"));
    }

    #[test]
    fn a_label_selects_by_its_value_and_nothing_else() {
        for (pattern, is_selected) in [
            ("zone=a", true),
            ("zone=[ab]", true),
            ("zone=*", true),
            ("zone=b", false),
            ("rack=*", false),
            ("*=a", false),
            ("zone", false),
        ] {
            assert_eq!(
                selects(pattern, "web1", "zone=a,role=web"),
                is_selected,
                "{pattern}"
            );
            assert!(!selects(pattern, "web1", ""), "{pattern}");
        }
        let name = HostName::new("web1").expect("legal");
        assert!(
            matches_host("zone=b", &name, None),
            "its labels are not known"
        );
        assert!(!matches_host("db*", &name, None));
    }

    #[test]
    fn a_pattern_without_a_host_says_why() {
        for good in ["web*", "zone=a", "zone=*", "role={web,db}"] {
            assert_eq!(check_pattern(good), Ok(()), "{good}");
        }
        for bad in ["web[", "zone=", "=a", "a b=c", "zone=["] {
            assert!(check_pattern(bad).is_err(), "{bad}");
        }
    }
}
