//! The batch that is due, judged by a count of the hosts that may have the release by then.

use super::*;

fn named(n: usize) -> NamedHost {
    NamedHost::from(HostName::new(&format!("web{n}")).expect("legal"))
}

/// Hosts web1, web2 and so on; those of odd number are in zone a, others in b.
fn hosts(places: &[ReleasePlace]) -> Vec<RolloutHost> {
    let host = |(at, place): (usize, &ReleasePlace)| RolloutHost {
        named: named(at + 1),
        labels: Labels::parse_known(if at % 2 == 0 { "zone=a" } else { "zone=b" }),
        place: *place,
    };
    places.iter().enumerate().map(host).collect()
}

fn rules(texts: &[&str]) -> Vec<BatchRule> {
    texts
        .iter()
        .map(|text| text.parse().expect("a rule"))
        .collect()
}

/// The batch that is due: number, hosts to commit, hosts that fail, and how many have to commit.
fn due(
    texts: &[&str],
    places: &[ReleasePlace],
    require: Quorum,
) -> Option<(usize, Vec<usize>, Vec<usize>, usize)> {
    let next = Rollout::plan(&rules(texts), hosts(places)).next(require)?;
    let numbers = |hosts: &[NamedHost]| {
        let all = 1..=places.len();
        all.filter(|n| hosts.contains(&named(*n))).collect()
    };
    Some((
        next.number,
        numbers(&next.hosts),
        numbers(&next.failing),
        next.needed,
    ))
}

use ReleasePlace::{Checking, Failing, Missing, Staged, Unknown, Well};

#[test]
fn batches_follow_each_other_by_size_and_by_label() {
    let sizes = ["1", "50%"];
    let all = Quorum::All;
    let at = |places: &[ReleasePlace]| due(&sizes, places, all);
    assert_eq!(at(&[Staged; 5]), Some((1, vec![1], vec![], 1)));
    let first = [Well, Staged, Staged, Staged, Staged];
    assert_eq!(at(&first), Some((2, vec![2, 3, 4], vec![], 3)));
    let second = [Well, Well, Well, Well, Staged];
    assert_eq!(at(&second), Some((3, vec![5], vec![], 1)));
    assert_eq!(at(&[Well; 5]), None);
    let runs = [Checking, Staged, Staged];
    assert_eq!(at(&runs), Some((1, vec![], vec![], 1)), "its checks run");
    assert_eq!(at(&[]), None);

    let zones = ["zone=b", "zone=a"];
    assert_eq!(
        due(&zones, &[Staged; 4], all),
        Some((1, vec![2, 4], vec![], 2))
    );
    let b_has_it = [Staged, Well, Staged, Well];
    assert_eq!(
        due(&zones, &b_has_it, all),
        Some((2, vec![1, 3], vec![], 2))
    );
}

#[test]
fn a_batch_that_was_not_ended_is_due_again_and_hosts_that_came_later_are_in_none() {
    let sizes = ["2", "2"];
    let half = [Well, Staged, Staged, Staged, Staged];
    assert_eq!(
        due(&sizes, &half, Quorum::All),
        Some((1, vec![2], vec![], 1))
    );
    let late = [Missing, Well, Well, Staged, Staged, Missing, Staged];
    assert_eq!(
        due(&sizes, &late, Quorum::All),
        Some((2, vec![4, 5], vec![], 2))
    );
}

#[test]
fn no_batch_follows_one_with_hosts_that_fail_unless_enough_others_are_well() {
    let sizes = ["2", "2"];
    let sick = [Well, Failing, Staged, Staged, Staged];
    let found = due(&sizes, &sick, Quorum::All);
    assert_eq!(
        found,
        Some((1, vec![], vec![2], 1)),
        "more are needed than there are"
    );
    let one = due(&sizes, &sick, Quorum::Count(1));
    assert_eq!(one, Some((2, vec![3, 4], vec![], 1)));
    let share = due(&sizes, &[Failing, Failing, Staged], Quorum::Share(5_000));
    assert_eq!(share, Some((1, vec![], vec![1, 2], 1)));
}

#[test]
fn a_host_that_does_not_answer_keeps_its_place_in_its_batch() {
    let sizes = ["1", "2"];
    let all = Quorum::All;
    // Without its place, web4 would be in the second batch.
    let second = [Well, Staged, Unknown, Staged, Staged];
    let needed = Some((2, vec![2], vec![], 2));
    assert_eq!(due(&sizes, &second, all), needed);
    let first = [Unknown, Staged, Staged];
    assert_eq!(due(&sizes, &first, all), Some((1, vec![], vec![], 1)));
    let half = due(&sizes, &second, Quorum::Share(5_000));
    assert_eq!(half, Some((2, vec![2], vec![], 1)));
}

#[test]
fn a_smaller_look_is_seen_where_it_moves_the_end() {
    let shortage = |texts: &[&str], places: &[ReleasePlace], made_for: Option<usize>| {
        let rules = RolloutRules {
            batches: rules(texts),
            require: Quorum::All,
            revert: false,
            hosts: made_for,
        };
        let rollout = Rollout::plan(&rules.batches, hosts(places));
        let next = rollout.next(rules.require).expect("due");
        rollout.shortage(&rules, &next)
    };
    let fewer = Some(FleetGap::Fewer(5));

    // One answer of five would be the last batch.
    let sizes = ["1", "50%"];
    let one = [Staged, Missing, Missing, Missing, Missing];
    assert_eq!(shortage(&sizes, &one, Some(5)), fewer);
    assert_eq!(shortage(&sizes, &one, Some(1)), None);
    // A host less moves no end of the first batch, and that of the last one.
    let four = [Staged, Staged, Staged, Staged, Missing];
    assert_eq!(shortage(&sizes, &four, Some(5)), None);
    let last = [Well, Well, Well, Staged, Missing];
    assert_eq!(shortage(&sizes, &last, Some(5)), fewer);
    let all = [Well, Well, Well, Well, Staged];
    assert_eq!(shortage(&sizes, &all, Some(5)), None);

    // Without an answer of zone a its rule selects nobody, and zone b would be first.
    let zones = ["zone=a", "zone=b"];
    let only_b = [Missing, Staged, Missing, Staged, Missing];
    assert_eq!(shortage(&zones, &only_b, Some(5)), fewer);
    let both = [Staged, Staged, Staged, Staged, Staged];
    assert_eq!(shortage(&zones, &both, Some(5)), None);

    // A header of an earlier version does not say.
    assert_eq!(shortage(&sizes, &all, None), Some(FleetGap::Unsaid));
    assert_eq!(shortage(&sizes, &four, None), None);
}

/// Whatever becomes of hosts, a promote commits hosts of the first batch that is not done, and none
/// of a later one.
#[test]
fn no_promote_commits_more_hosts_than_its_batch_has() {
    for seed in 0..300 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let count = rng.usize(1..12);
        let sizes: Vec<usize> = (0..rng.usize(0..4)).map(|_| rng.usize(1..5)).collect();
        let texts: Vec<String> = sizes.iter().map(ToString::to_string).collect();
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        let mut places = vec![Staged; count];

        for step in 0..12 {
            // A host may be away for this look, and fail or mend.
            let away = rng.usize(0..count * 3);
            let mut seen = places.clone();
            if let Some(place) = seen.get_mut(away) {
                *place = Missing;
            }
            let at = format!("seed {seed}, step {step}: {sizes:?} {seen:?}");

            let present: Vec<usize> = (0..count).filter(|n| seen[*n] != Missing).collect();
            let mut ends: Vec<usize> = Vec::new();
            for size in &sizes {
                ends.push(ends.last().unwrap_or(&0) + size);
            }
            let is_done = |end: &usize| present.iter().take(*end).all(|n| seen[*n] == Well);
            let end = ends
                .iter()
                .find(|end| !is_done(end))
                .copied()
                .unwrap_or(count);

            let Some((number, commits, failing, needed)) = due(&texts, &seen, Quorum::All) else {
                assert!(present.iter().all(|n| seen[*n] == Well), "{at}");
                continue;
            };
            let permitted: Vec<usize> = present.iter().take(end).map(|n| n + 1).collect();
            assert!(
                commits.iter().all(|n| permitted.contains(n)),
                "{at}: {commits:?}"
            );
            assert_eq!(needed, commits.len() + failing.len(), "{at}");
            assert!((1..=sizes.len() + 1).contains(&number), "{at}");
            let next = Rollout::plan(&rules(&texts), hosts(&seen)).next(Quorum::All);
            let is_last = next.is_some_and(|next| next.is_last());
            assert_eq!(is_last, end >= present.len(), "{at}");

            if failing.is_empty() {
                for n in commits {
                    places[n - 1] = if rng.u8(..8) == 0 { Failing } else { Well };
                }
            } else {
                places.iter_mut().for_each(|place| {
                    if *place == Failing {
                        *place = Well;
                    }
                });
            }
        }
    }
}

#[test]
fn rules_outlive_the_header() {
    let paused = PausedCommit {
        batches: ["1", "33.33%", "zone=a", "web[1-3]", "all"]
            .map(str::to_string)
            .to_vec(),
        require: "80%".to_string(),
        revert: true,
        hosts: Some(7),
    };
    let read = RolloutRules::of(&paused).expect("readable");
    let written: Vec<String> = read.batches.iter().map(BatchRule::written).collect();
    assert_eq!(written, paused.batches);
    assert_eq!(read.require, Quorum::Share(8_000));
    assert_eq!(read.hosts, Some(7));

    let later = PausedCommit {
        batches: vec!["by moonlight".to_string()],
        ..paused
    };
    assert_eq!(RolloutRules::of(&later), None);
}
