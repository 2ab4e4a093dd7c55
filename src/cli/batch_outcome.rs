//! The outcome of a batch, with the hosts of all other batches.

use crate::id::NamedHost;
use crate::outcome::{BatchResult, ExitStatus, HostResult, HostState, Outcome};
use crate::proto::rollout::{NextBatch, ReleasePlace, RolloutHost};

/// The session of a batch, and what is known of other hosts.
pub(super) struct BatchReport {
    /// Outcome at the hosts of the batch.
    pub(super) outcome: Outcome,
    /// The batch.
    pub(super) next: NextBatch,
    /// Hosts that had the release before, and are well.
    pub(super) well: Vec<NamedHost>,
    /// Hosts that had it before, and fail its checks.
    pub(super) failing: Vec<NamedHost>,
    /// Hosts that had it before, and still run its checks.
    pub(super) checking: Vec<NamedHost>,
    /// Hosts that neither have it nor keep it staged.
    pub(super) missing: Vec<NamedHost>,
    /// Hosts that did not say what they have.
    pub(super) unknown: Vec<NamedHost>,
    /// Places of the release after it was taken back.
    pub(super) after: Option<Vec<RolloutHost>>,
}

impl BatchReport {
    /// Returns whether the release was taken back at all hosts, by the order: the batch may have no
    /// host that had it.
    pub(super) fn is_taken_back(&self) -> bool {
        self.outcome.taken_back
    }

    /// The outcome at all hosts.
    pub(super) fn outcome(self) -> Outcome {
        let serial = self.outcome.serial;
        let in_batch = self.outcome.hosts.iter();
        let committed = in_batch.filter(|host| host.state.is_well()).count();
        let why = match (self.is_taken_back(), self.next.is_last()) {
            (true, _) => "not changed: the release was taken back",
            // The order of the last batch is for them as well.
            (false, true) if committed > 0 => "takes it from the others",
            (false, _) => "waits for its batch",
        };

        let unhealthy = |why| move |host| (host, HostState::Unhealthy, why);
        let well = self.well.iter();
        let well = well.map(|host| (host, HostState::Unchanged, ""));
        let failing = self.failing.iter().map(unhealthy("fails its checks"));
        let checking = self.checking.iter().map(unhealthy("still runs its checks"));
        let had = well.chain(failing).chain(checking);
        let had = had.map(|(host, before, why)| {
            let state = self.after_of(host, before);
            let why = Some(why).filter(|_| state == HostState::Unhealthy);
            let mut result = result(host, state, why);
            result.serial = serial.filter(|_| state.has_release());
            result
        });
        let waits = self.next.waiting.iter().map(|host| {
            let state = self.after_of(host, HostState::Staged);
            result(host, state, Some(why))
        });
        // After the last batch nobody sends it to them but the others.
        let absent = |why| move |host| result(host, HostState::Absent, Some(why));
        let later = absent("does not keep it staged: takes it from the others");
        let missing = self.missing.iter().map(later);
        let unknown = self.unknown.iter().map(absent("did not answer"));
        let absent = missing.chain(unknown).filter(|_| self.next.is_last());
        let others = had.chain(waits).chain(absent).collect();

        let batch = BatchResult {
            number: self.next.number,
            of: self.next.of,
            // The rule of the release decides, as in the next plan: a host may be absent.
            is_paused: !self.next.is_last()
                && !self.is_taken_back()
                && committed >= self.next.needed,
        };
        with_others(self.outcome, batch, others)
    }

    /// State of a host of another batch, which was in state `before`.
    fn after_of(&self, host: &NamedHost, before: HostState) -> HostState {
        let Some(after) = &self.after else {
            return before;
        };

        let place = after.iter().find(|h| h.named == *host).map(|h| h.place);
        match (place, before.has_release()) {
            (None | Some(ReleasePlace::Unknown), true) => HostState::Unknown,
            (None | Some(ReleasePlace::Unknown), false) => HostState::Staged,
            (Some(ReleasePlace::Missing | ReleasePlace::Newer), true) => HostState::Reverted,
            (Some(ReleasePlace::Missing | ReleasePlace::Newer), false) => HostState::Aborted,
            (Some(ReleasePlace::Staged), _) => HostState::Staged,
            (Some(ReleasePlace::Well | ReleasePlace::Failing | ReleasePlace::Checking), _) => {
                HostState::Stuck
            }
        }
    }
}

/// The outcome of a deploy whose first session staged the release, and the second one committed a
/// batch.
pub(super) fn after_staging(batch: Outcome, staging: Outcome) -> Outcome {
    let mut whole = batch;
    let mut others = Vec::new();
    for staged in staging.hosts {
        match whole.hosts.iter_mut().find(|host| host.host == staged.host) {
            // The content came with the first session.
            Some(host) => host.bytes_received.0 += staged.bytes_received.0,
            None => others.push(staged),
        }
    }

    whole.bytes_sent.0 += staging.bytes_sent.0;
    whole.repaired += staging.repaired;
    whole.took += staging.took;
    whole.rate = staging.rate;
    whole.drift = staging.drift;

    match whole.batch.take() {
        Some(result) => with_others(whole, result, others),
        None => whole,
    }
}

/// Adds hosts of other batches. They decide the exit status only where they lack the release for
/// good, or cannot go back from it.
fn with_others(mut outcome: Outcome, batch: BatchResult, others: Vec<HostResult>) -> Outcome {
    let had_it = |state| matches!(state, HostState::Unchanged | HostState::Unhealthy);
    let is_odd = |h: &HostResult| !h.state.is_as_before() && !had_it(h.state);
    let has_odd = others.iter().any(is_odd);
    outcome.batch = Some(batch);
    outcome.hosts.extend(others);
    outcome
        .hosts
        .sort_by(|a, b| (&a.host, a.address).cmp(&(&b.host, b.address)));

    let is_whole = outcome.hosts.iter().all(|h| outcome.is_reached(h.state));
    outcome.exit = match outcome.exit {
        ExitStatus::Success if !is_whole => ExitStatus::Mixed,
        ExitStatus::Refused if has_odd => ExitStatus::Mixed,
        exit => exit,
    };
    outcome
}

fn result(host: &NamedHost, state: HostState, why: Option<&str>) -> HostResult {
    HostResult {
        address: host.address,
        error: why.map(str::to_string),
        ..HostResult::new(host.name.clone(), state)
    }
}

#[cfg(test)]
mod tests;
