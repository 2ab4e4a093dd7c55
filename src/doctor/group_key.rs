//! Verdict on the group key: peers whose datagrams do not open here.

use crate::outcome::{Check, Finding, Severity, Stranger};
use crate::wire::seal::OpenError;

/// Judges the peers that are not heard.
pub fn judge(strangers: &[Stranger], is_plain: bool) -> Vec<Finding> {
    let mut findings: Vec<Finding> = strangers.iter().filter_map(one).collect();
    if findings.is_empty() {
        let what = match is_plain {
            true => "no peer speaks with a group key, as none here",
            false => "no peer speaks with another group key, or without one",
        };
        findings.push(Finding::new(Check::GroupKey, Severity::Ok, what));
    }

    findings
}

fn one(stranger: &Stranger) -> Option<Finding> {
    let todo = match stranger.kind {
        OpenError::Wrong => {
            "put the same group.key on that host and here, and restart makuo there (`makuo check \
             group.key` shows the name of a key)"
        }
        OpenError::Plain => {
            "give that host the group key (network.group_key) and restart makuo there"
        }
        OpenError::Sealed => "give --group-key here, or network.group_key in makuo.toml",
        OpenError::Version => "run makuo of the same age on that host and here",
        OpenError::Foreign | OpenError::Replayed => return None,
    };
    let what = format!("{} {}", stranger.address, Stranger::describe(stranger.kind));
    Some(Finding::new(Check::GroupKey, Severity::Fail, what).todo(todo))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_key_fails_with_the_address_and_noise_does_not() {
        let judged = |kinds: &[OpenError]| {
            let address = "10.0.0.6".parse().expect("legal");
            let all: Vec<Stranger> = kinds
                .iter()
                .map(|&kind| Stranger { address, kind })
                .collect();
            judge(&all, false)
        };
        for kind in [
            OpenError::Wrong,
            OpenError::Plain,
            OpenError::Sealed,
            OpenError::Version,
        ] {
            let found = judged(&[kind]);
            assert_eq!((found.len(), found[0].level), (1, Severity::Fail));
            assert!(found[0].what.starts_with("10.0.0.6 "), "{found:?}");
        }

        for kinds in [&[][..], &[OpenError::Foreign, OpenError::Replayed]] {
            let found = judged(kinds);
            assert_eq!((found.len(), found[0].level), (1, Severity::Ok));
        }
    }
}
