//! gc while hosts pull, on real servers: no pull notices, and little stays that nobody needs.

use std::time::Duration;

use super::{Depot, bucket};
use crate::support::{Middleman, Noise, Running, moto, nginx, same, write};

/// Hosts that pull while gc runs; half of them have an earlier release.
const HOSTS: usize = 20;
/// Delay of each answer before gc, and while it runs.
const FAR: Duration = Duration::from_millis(100);
const HELD: Duration = Duration::from_secs(3600);

impl Depot {
    fn repo(&self, url: &str, args: &[&str]) -> serde_json::Value {
        let mut command = self.makuo(&["repo", args[0], url]);
        command.args(&args[1..]);
        command.args(["--authorized-keys", "keys", "--json"]);
        Running::start(&mut command).wait().exits(0).result()
    }
}

/// Runs gc at `near` while hosts pull from `far`, which is the same store behind `between`.
fn pulls_go_on(mut depot: Depot, near: &str, far: &str, between: &Middleman) {
    let mut noise = Noise::new(11);
    for n in 0..40 {
        write(&depot.site(&format!("file{n}")), noise.bytes(60_000));
    }
    let early = |n: usize| format!("early{n}");
    for round in 0..8 {
        for n in 0..10 {
            let changed = format!("file{}", (7 * n + round) % 40);
            write(&depot.site(&changed), noise.bytes(60_000));
        }
        depot.url = near.into();
        depot.publish();
        if round == 5 {
            (0..HOSTS / 2).for_each(|n| drop(depot.pull(&early(n))));
        }
    }

    depot.url = far.into();
    between.delay(FAR);
    between.passed();
    let names: Vec<String> = (0..HOSTS / 2)
        .flat_map(|n| [early(n), format!("new{n}")])
        .collect();
    let mut pulls: Vec<Running> = names
        .iter()
        .map(|name| Running::start(&mut depot.pull_command(name, &[])))
        .collect();

    let gc = ["gc", "--key", "deploy.key", "--keep", "1", "--grace", "1ms"];
    let mut answers = 0;
    crate::support::until("pulls under way", || {
        answers += between.passed().len();
        answers >= HOSTS
    });
    between.delay(HELD);
    let collected = depot.repo(near, &gc);
    between.delay(Duration::ZERO);
    let late = pulls
        .iter_mut()
        .filter_map(|pull| (!pull.is_over()).then_some(()));
    let late = late.count();
    println!("{late} of {HOSTS} pulls end after gc: {collected}");
    assert!(late > HOSTS / 4, "{late} pulls end after gc");
    assert!(
        collected["deleted"].as_u64() > Some(1_000_000),
        "{collected}"
    );

    for (name, pull) in names.iter().zip(pulls) {
        pull.wait().exits(0);
        same(&depot.path("site"), &depot.tree(name));
    }
    let checked = depot.repo(near, &["check"]);
    let (live, bytes) = (checked["live"].as_u64(), checked["bytes"].as_u64());
    assert!(
        bytes.zip(live).is_some_and(|(b, l)| b * 4 < l * 5),
        "{checked}"
    );
}

#[test]
fn gc_disturbs_no_pull_from_a_web_server() {
    let Some(nginx) = nginx() else { return };
    let between = Middleman::start(nginx.http());
    let near = format!("file://{}", nginx.files().display());
    let far = format!("http://{}", between.address());
    pulls_go_on(Depot::new(None), &near, &far, &between);
}

#[test]
fn gc_disturbs_no_pull_from_a_bucket() {
    let Some(moto) = moto() else { return };
    let between = Middleman::start(moto.address());
    let (depot, far) = (bucket(moto.address()), bucket(between.address()));
    let near = depot.url.clone();
    pulls_go_on(depot, &near, &far.url, &between);
}
