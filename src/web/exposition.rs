//! The metrics of a daemon as text.

use super::facts::WebFacts;
use crate::drive::host::{LocalHost, ManagedTree, TreeObservation};
use crate::metrics::*;
use crate::units::WallTime;

/// Writes every metric; `None` if the host does not answer.
pub(super) fn render(facts: &WebFacts) -> Option<String> {
    let trees = facts.handle.observe()?;
    let host = facts.handle.host();
    let mut text = Exposition::default();

    daemon(&mut text, facts, host);
    states(&mut text, &trees);
    sessions(&mut text, host);
    traffic(&mut text, facts, host);
    work(&mut text, host);
    drift(&mut text, host);
    hooks(&mut text, host);
    stores(&mut text, facts);

    Some(text.finish())
}

fn daemon(text: &mut Exposition, facts: &WebFacts, host: &LocalHost) {
    let format = crate::wire::VERSION.to_string();
    let labels = [
        ("version", env!("CARGO_PKG_VERSION")),
        ("format", format.as_str()),
    ];
    text.family(&BUILD_INFO).sample(&labels, 1);
    text.family(&START_TIME).sample(&[], seconds(facts.started));
    text.family(&MEMBERS)
        .sample(&[], host.figures.members.get());
}

/// A number of a tree, if it has one.
type TreeNumber = fn(&TreeObservation) -> Option<u64>;

fn states(text: &mut Exposition, trees: &[TreeObservation]) {
    let mut each = |family: &MetricFamily, value: TreeNumber| {
        let mut family = text.family(family);
        for tree in trees {
            if let Some(value) = value(tree) {
                family.sample(&[("tree", tree.report.tree.as_str())], value);
            }
        }
    };

    each(&TREE_SERIAL, |tree| Some(tree.report.running?.0));
    each(&TREE_CREATED, |tree| {
        Some(seconds(tree.release.as_ref()?.created))
    });
    each(&TREE_COMMITTED, |tree| {
        Some(seconds(tree.release.as_ref()?.committed?))
    });
    each(&TREE_BEHIND, |tree| Some(u64::from(tree.is_behind)));
    each(&TREE_STALE, |tree| {
        Some(u64::from(tree.report.stale.is_some()))
    });
    each(&TREE_ENTRIES, |tree| Some(tree.release.as_ref()?.entries));
    each(&TREE_BYTES, |tree| Some(tree.release.as_ref()?.bytes));

    let mut family = text.family(&TREE_STATE);
    for tree in trees {
        for condition in TreeCondition::ALL {
            let is_now = u64::from(*condition == tree.condition);
            let name = tree.report.tree.as_str();
            family.sample(&[("tree", name), ("state", condition.word())], is_now);
        }
    }
}

fn sessions(text: &mut Exposition, host: &LocalHost) {
    let mut family = text.family(&SESSIONS);
    for (role, sessions) in host.figures.sessions.iter() {
        for (end, count) in sessions.ends.iter() {
            family.sample(&[("role", role), ("outcome", end)], count.get());
        }
    }

    let mut family = text.family(&SESSION_DURATION);
    for (role, sessions) in host.figures.sessions.iter() {
        family.histogram(&[("role", role)], &sessions.durations);
    }
}

fn traffic(text: &mut Exposition, facts: &WebFacts, host: &LocalHost) {
    let traffic = &host.figures.traffic;
    let ways = [DataWay::Multicast, DataWay::Unicast];
    let mut family = text.family(&RECEIVED_BYTES);
    for way in ways {
        family.sample(&[("via", way.word())], traffic.received.of(way).get());
    }
    let of_stores: u64 = facts.stores.iter().map(|(_, s)| s.received.get()).sum();
    family.sample(&[("via", DataWay::Store.word())], of_stores);

    let mut family = text.family(&SENT_BYTES);
    for way in ways {
        family.sample(&[("via", way.word())], traffic.sent.of(way).get());
    }

    let figures = &host.figures;
    let numbers = [
        (SYMBOLS_LOST, figures.symbols_lost.get()),
        (REPAIR_SYMBOLS, figures.repair_symbols.get()),
        (RECEIVE_DROPS, figures.receive_drops.get()),
        (RECEIVE_BUFFER, figures.receive_buffer.get()),
        (UNSEALED, traffic.unsealed.get()),
    ];
    for (family, value) in numbers {
        text.family(&family).sample(&[], value);
    }

    let mut family = text.family(&REFUSED);
    for (reason, count) in figures.refused.iter() {
        family.sample(&[("reason", reason)], count.get());
    }
}

/// A counter of a served tree.
type ManagedNumber = fn(&ManagedTree) -> Option<u64>;

fn managed(text: &mut Exposition, host: &LocalHost, family: &MetricFamily, value: ManagedNumber) {
    let mut family = text.family(family);
    for (name, tree) in host.trees.iter() {
        if let Some(value) = value(tree) {
            family.sample(&[("tree", name.as_str())], value);
        }
    }
}

fn work(text: &mut Exposition, host: &LocalHost) {
    let mut each = |family: &MetricFamily, value: ManagedNumber| managed(text, host, family, value);
    each(&STATE_BYTES, |tree| tree.state_size.look(tree.tree.state()));
    each(&REUSED_BYTES, |tree| Some(tree.figures.reused_bytes.get()));
    each(&FILES_WRITTEN, |tree| {
        Some(tree.figures.files_written.get())
    });
    each(&FILES_DELETED, |tree| {
        Some(tree.figures.files_deleted.get())
    });
}

fn drift(text: &mut Exposition, host: &LocalHost) {
    let mut each = |family: &MetricFamily, value: ManagedNumber| managed(text, host, family, value);
    each(&DRIFT_PATHS, |tree| tree.drift_counts.counts()?.paths);
    each(&DRIFT_REPAIRED, |tree| {
        Some(tree.drift_counts.counts().map_or(0, |c| c.repaired))
    });
    each(&LAST_DRIFT_CHECK, |tree| tree.figures.drift_checked.known());
}

fn hooks(text: &mut Exposition, host: &LocalHost) {
    let mut family = text.family(&HOOK_FAILURES);
    for (name, tree) in host.trees.iter() {
        for (phase, count) in tree.figures.hook_failures.iter() {
            let labels = [("tree", name.as_str()), ("phase", phase)];
            family.sample(&labels, count.get());
        }
    }

    let mut family = text.family(&HOOK_DURATION);
    for (phase, durations) in host.figures.hook_durations.iter() {
        family.histogram(&[("phase", phase)], durations);
    }
}

fn stores(text: &mut Exposition, facts: &WebFacts) {
    let mut family = text.family(&STORE_REQUESTS);
    for (store, figures) in &facts.stores {
        for (code, count) in figures.requests.iter() {
            family.sample(&[("store", store.as_str()), ("code", code)], count.get());
        }
    }

    let mut family = text.family(&STORE_LAST_SUCCESS);
    for (store, figures) in &facts.stores {
        if let Some(at) = figures.last_success.known() {
            family.sample(&[("store", store.as_str())], at);
        }
    }
}

fn seconds(at: WallTime) -> u64 {
    u64::try_from(at.0).unwrap_or(0)
}
