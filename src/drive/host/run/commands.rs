//! Commands to a running host, from the handle.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::HostLoop;
use crate::drive::clock;
use crate::drive::host::handle::HostCommand;
use crate::drive::host::observation::TreeSight;
use crate::id::{InstanceId, Serial, TreeName};
use crate::keys::GroupKey;
use crate::manifest::Release;
use crate::outcome::MemberInfo;
use crate::proto::receiver::DiskReply;
use crate::wire::message::TreeState;

/// Longest delay of the host's end by an order in progress.
const ORDER_TIMEOUT: Duration = Duration::from_secs(60);
/// Time after the first beacon in which a member without a release may still be catching up.
const ARRIVAL_TIME: Duration = Duration::from_secs(30);

impl HostLoop {
    /// Carries out a command of the host's handle.
    pub(super) fn carry_out(&mut self, command: HostCommand) {
        let now = self.clock.now();
        match command {
            HostCommand::Members(answer) => drop(answer.send(self.members())),
            HostCommand::Strangers(answer) => {
                let strangers = self.endpoint.unheard().recent(clock::since_epoch());
                drop(answer.send(strangers.collect()));
            }
            HostCommand::Rekey(keys) => self.rekey(&keys),
            HostCommand::Sessions(answer) => drop(answer.send(self.machine.sessions())),
            HostCommand::Idle(tree, answer) => drop(answer.send(self.machine.is_idle(&tree))),
            HostCommand::Ignore(session, answer) => {
                self.machine.ignore(session);
                let _ = answer.send(());
            }

            HostCommand::Sent(release, answer) => {
                if self.lacks_nothing(&release) {
                    let states = self.disk.sent(&release);
                    self.machine.handle_reply(now, DiskReply::Trees(states));
                }
                let _ = answer.send(());
            }
            HostCommand::New(mut hosts, answer) => {
                let members = self.machine.members();
                let since =
                    |id: &InstanceId| members.get(*id).map(|member| now.since(member.since));
                hosts.retain(|id| since(id).is_none_or(|age| age < ARRIVAL_TIME));
                let _ = answer.send(hosts);
            }
            HostCommand::Observe(answer) => drop(answer.send(self.sights())),
            HostCommand::Changed => {
                let headers = self.host.headers();
                self.machine.handle_reply(now, DiskReply::Headers(headers));
                let states = self.disk.states();
                self.machine.handle_reply(now, DiskReply::Trees(states));
            }

            HostCommand::Labels(labels) => self.machine.set_labels(now, labels),
            HostCommand::Opened(tree) => self.opened(&tree),
            HostCommand::Stop => self.ending = self.ending.or(Some(now + ORDER_TIMEOUT)),
        }
    }

    fn opened(&mut self, tree: &TreeName) {
        let Some(managed) = self.host.trees.get(tree) else {
            return;
        };

        let now = self.clock.now();
        if managed.catch_up.takes() {
            let gives = managed.catch_up.gives(self.endpoint.room() > 0);
            self.machine
                .handle_reply(now, DiskReply::CatchesUp(tree.clone(), gives));
        }

        super::rest(&mut self.machine, now, tree, managed);
        for buried in managed.tree.state().tombstones().unwrap_or_default() {
            self.machine
                .handle_reply(now, DiskReply::Buried(buried.order, true));
        }

        self.machine
            .handle_reply(now, DiskReply::Headers(self.host.headers()));
        self.machine
            .handle_reply(now, DiskReply::Trees(self.disk.states()));
        self.drift_schedule.add(now, tree, managed);

        if managed.tree.is_strange() {
            self.disk.check_drift(tree);
        }
    }

    /// What is known of each tree here.
    fn sights(&self) -> Vec<TreeSight> {
        let newest = self.newest_of_members();
        let sight = |tree: &TreeName| {
            let (trouble, has_failed) = self.answers.trouble(self.clock.now(), tree);
            TreeSight {
                tree: tree.clone(),
                work: self.machine.work_on(tree),
                catches_up: self.machine.catches_up(tree),
                trouble,
                has_failed,
                newest: newest.get(tree).copied(),
            }
        };
        self.host.trees.names().map(sight).collect()
    }

    /// The newest release of each tree here that a member runs, unless it was taken back.
    fn newest_of_members(&self) -> BTreeMap<&TreeName, Serial> {
        let own: BTreeSet<&TreeName> = self.host.trees.names().collect();
        let states = || {
            let members = self.machine.members().iter();
            let states = members.flat_map(|(_, member)| &member.hello.trees);
            states.filter(|state| own.contains(&state.tree))
        };
        let stones: BTreeSet<_> = states()
            .flat_map(|t| t.tombstones.iter().flatten())
            .map(|s| s.release)
            .collect();

        let mut newest = BTreeMap::new();
        let stands = |t: &&TreeState| t.release.is_some_and(|id| !stones.contains(&id));
        for state in states().filter(stands) {
            let known: &mut Serial = newest.entry(&state.tree).or_default();
            *known = state.running.unwrap_or_default().max(*known);
        }
        newest
    }

    /// Returns whether no member has a newer release of the same tree; otherwise this host has to
    /// catch up first.
    fn lacks_nothing(&self, release: &Release) -> bool {
        let tree = &release.header().tree;
        let Some(managed) = self.host.trees.get(tree) else {
            return false;
        };

        let Ok(own) = managed.tree.newest() else {
            return false;
        };

        let newest = self.newest_of_members();
        newest.get(tree).is_none_or(|newest| *newest <= own)
    }

    fn rekey(&mut self, keys: &[GroupKey]) {
        match self.endpoint.rekey(keys) {
            Ok(true) => tracing::info!(
                "datagrams are sealed with the first of {} group keys",
                keys.len()
            ),
            Ok(false) => tracing::error!(
                "a group key where there was none, or none any more: restart the daemon"
            ),
            Err(e) => tracing::error!("keeping the old group keys: {e}"),
        }
    }

    fn members(&self) -> Vec<MemberInfo> {
        self.machine
            .members()
            .iter()
            .map(|(_, member)| member.into())
            .collect()
    }
}
