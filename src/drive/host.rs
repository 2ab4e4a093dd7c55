//! A running host: the receiver machine on a real network with real trees.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::mpsc::{Receiver as Inbox, Sender as Outbox, SyncSender, channel, sync_channel};
use std::time::Duration;

use super::answers::Answers;
use super::clock::{self, Clock};
use super::disk::{Disk, Host, ManagedTree};
use super::drops::Drops;
use super::endpoint::{Door, Endpoint};
use super::inspect::Schedule;
use super::lines::Lines;
use super::outcome::{Member, MemberTree};
use super::strangers::Stranger;
use crate::Result;
use crate::id::{InstanceId, SessionId, TreeName};
use crate::keys::{AuthorizedKeys, GroupKey};
use crate::manifest::Release;
use crate::net::Waker;
use crate::proto::members::Trust;
use crate::proto::receiver::{DiskReply, HostSetup, Receiver};
use crate::tree::Tree;
use crate::units::Moment;
use crate::wire::message::{Pull, TreeState};
use crate::wire::seal::OpenError;

/// How long an order that is being carried out holds up the end.
const ORDER_LIMIT: Duration = Duration::from_secs(60);
/// How long, after that, a sender may take to confirm that it knows what became of it.
const HEARD_LIMIT: Duration = Duration::from_secs(2);
/// The most releases that others ask for while one is given.
const MAX_PULLED: usize = 16;
/// How often an ending host looks whether it may go.
const LOOK: Duration = Duration::from_millis(50);
/// How often it is looked who is not heard.
const STRANGERS: Duration = Duration::from_secs(1);
/// How long the process waits for a running host's word.
const PATIENT: Duration = Duration::from_secs(5);
/// How long after it was first heard a member that lacks something is taken to be catching up.
const ARRIVES: Duration = Duration::from_secs(30);
/// How long a host waits for a sender that is silent.
const PATIENCE: Duration = Duration::from_secs(30);

/// What others in the process ask of a running host.
#[derive(Debug)]
pub enum Command {
    /// The members that it knows.
    Members(Outbox<Vec<Member>>),
    /// Those who speak and are not heard.
    Strangers(Outbox<Vec<Stranger>>),
    /// Seal with the first of these keys from now on and open with all.
    Rekey(Vec<GroupKey>),
    /// How many sessions are under way.
    Sessions(Outbox<usize>),
    /// Take no part in this session, whose sender is in this process.
    Ignore(SessionId, Outbox<()>),
    /// A release of this host's own tree goes out: the tree is ahead of it, and never made it. The answer says when that
    /// is noted.
    Sent(Release, Outbox<()>),
    /// What a tree has is recorded anew.
    Changed,
    /// A tree could be opened only now, or was mended.
    Opened(TreeName),
    /// The release of a member that came a moment ago and still lacks what this host has of the tree.
    New(Vec<InstanceId>, Outbox<Vec<InstanceId>>),
    /// Say goodbye and end.
    Stop,
}

/// Asks a running host from other threads.
#[derive(Debug, Clone)]
pub struct Handle {
    commands: Outbox<Command>,
    waker: Waker,
    instance: InstanceId,
    host: Arc<Host>,
}

impl Handle {
    /// The keys that are authorized here.
    pub fn keys(&self) -> Arc<AuthorizedKeys> {
        self.host.keys()
    }

    /// The running host, as others hear it.
    pub fn instance(&self) -> InstanceId {
        self.instance
    }

    /// How many sessions of others the host takes part in; none when it is ending.
    pub fn sessions(&self) -> usize {
        let (answer, inbox) = channel();
        self.send(Command::Sessions(answer));
        inbox.recv_timeout(PATIENT).unwrap_or_default()
    }

    /// Whether the host still does its work.
    pub fn is_alive(&self) -> bool {
        let (answer, inbox) = channel();
        self.send(Command::Sessions(answer));
        inbox.recv_timeout(PATIENT).is_ok()
    }

    /// Keeps the host out of `session`, which this process begins with the host's own tree as its source.
    pub fn ignore(&self, session: SessionId) {
        let (answer, inbox) = channel();
        self.send(Command::Ignore(session, answer));
        // A host that is ending takes part in nothing new.
        let _ = inbox.recv_timeout(PATIENT);
    }

    /// Takes note of a release that this process makes of the host's own tree: the host does not catch up with it.
    pub fn sent(&self, release: &Release) {
        let (answer, inbox) = channel();
        self.send(Command::Sent(release.clone(), answer));
        let _ = inbox.recv_timeout(PATIENT);
    }

    /// The host's own tree with this name.
    pub fn tree(&self, name: &TreeName) -> Option<Arc<Tree>> {
        Some(Arc::clone(&self.host.trees.get(name)?.tree))
    }

    /// A tree of the host could be opened only now, or was mended.
    pub fn opened(&self, tree: &TreeName) {
        self.send(Command::Opened(tree.clone()));
    }

    /// What a tree of the host has changed without a session of its own.
    pub fn changed(&self) {
        self.send(Command::Changed);
    }

    /// Which of `hosts` this host heard first a moment ago, or has not heard yet; all when it does not say.
    pub fn new_ones(&self, hosts: Vec<InstanceId>) -> Vec<InstanceId> {
        let (answer, inbox) = channel();
        self.send(Command::New(hosts.clone(), answer));
        inbox.recv_timeout(PATIENT).unwrap_or(hosts)
    }

    /// The members that the host knows; none when it is ending.
    pub fn members(&self) -> Vec<Member> {
        let (answer, inbox) = channel();
        self.send(Command::Members(answer));
        inbox.recv_timeout(PATIENT).unwrap_or_default()
    }

    /// Those who speak and are not heard, for want of a common group key; none when the host is ending.
    pub fn strangers(&self) -> Vec<Stranger> {
        let (answer, inbox) = channel();
        self.send(Command::Strangers(answer));
        inbox
            .recv_timeout(Duration::from_secs(5))
            .unwrap_or_default()
    }

    /// Seals with the first of `keys` from now on, and opens with all of them.
    pub fn rekey(&self, keys: Vec<GroupKey>) {
        self.send(Command::Rekey(keys));
    }

    /// Ends the host.
    pub fn stop(&self) {
        self.send(Command::Stop);
    }

    fn send(&self, command: Command) {
        // A host that has ended needs no command.
        let _ = self.commands.send(command);
        self.waker.wake();
    }
}

/// A host that is ready to run.
#[derive(Debug)]
pub struct Running {
    host: Arc<Host>,
    endpoint: Endpoint,
    clock: Clock,
    machine: Receiver,
    disk: Disk,
    replies: Inbox<DiskReply>,
    answers: Answers,
    commands: Inbox<Command>,
    /// Until when orders under way hold up the end, once that is asked for.
    ending: Option<Moment>,
    lines: Lines,
    drops: Drops,
    /// When it was last looked who is not heard.
    looked: Moment,
    /// When it is looked at which tree, whether it drifted.
    inspections: Schedule,
    /// Where it is said what others lack.
    pulls: Option<SyncSender<Pull>>,
}

impl Running {
    /// Joins the group as `name`.
    pub fn start(door: impl Into<Door>, host: Arc<Host>) -> Result<(Self, Handle)> {
        let (clock, door) = (Clock::start(), door.into());
        let sealed = !door.keys.is_empty();
        let key = host.key()?;
        if let Some(public) = key.identity().public() {
            tracing::info!("host key {}", public.fingerprint());
        }

        let endpoint = Endpoint::of(door, key.instance())?;
        // Half of the receive buffer, of which the kernel takes as much again for its own bookkeeping.
        let window = u32::try_from(endpoint.links().recv_buffer() / 4).unwrap_or(u32::MAX);
        let trust = if endpoint.is_sealed() {
            Trust::Proven
        } else {
            Trust::Twice
        };

        let answers = Answers::new(host.name.clone(), Arc::clone(&host), endpoint.waker())?;
        let setup = HostSetup {
            name: host.name.clone(),
            trees: host.states(),
            takes: such(&host, |m| m.catch_up.takes()),
            gives: such(&host, |m| m.catch_up.gives(sealed)),
            tombstones: host.tombstones(),
            key,
            shown: host.shown(),
            headers: host.headers(),
            trust,
            seed: clock::seed(),
            datagram: endpoint.datagram(),
            room: endpoint.room(),
            patience: PATIENCE,
            window,
        };

        let (reply_to, replies) = channel();
        let (command_to, commands) = channel();
        let (waker, instance) = (endpoint.waker(), setup.key.instance());
        let handle = Handle {
            commands: command_to,
            waker,
            instance,
            host: Arc::clone(&host),
        };

        let inspections = Schedule::new(clock.now(), host.trees.iter());
        let strange: Vec<_> = host
            .trees
            .iter()
            .filter(|(_, m)| m.tree.is_strange())
            .map(|(n, _)| n.clone())
            .collect();

        let mut disk = Disk::new(Arc::clone(&host), reply_to, endpoint.waker())?;
        // What is remembered of such a tree is not told without a look.
        strange.iter().for_each(|name| disk.inspect(name));
        let machine = Receiver::new(clock.now(), setup);
        let drops = Drops::new(clock.now());
        let (lines, looked) = (Lines::new(clock.now()), clock.now());
        let running = Self {
            host,
            endpoint,
            clock,
            machine,
            disk,
            replies,
            answers,
            commands,
            ending: None,
            lines,
            drops,
            looked,
            inspections,
            pulls: None,
        };

        Ok((running, handle))
    }

    /// What others lack of what this host has goes there, to be offered to them.
    pub fn pulls(&mut self) -> Inbox<Pull> {
        let (outbox, inbox) = sync_channel(MAX_PULLED);
        self.pulls = Some(outbox);
        inbox
    }

    /// Runs until it is told to stop.
    pub fn run(mut self) -> Result<()> {
        loop {
            while let Ok(reply) = self.replies.try_recv() {
                self.machine.handle_reply(self.clock.now(), reply);
            }
            while let Ok(command) = self.commands.try_recv() {
                match command {
                    Command::Members(answer) => drop(answer.send(self.members())),
                    Command::Strangers(answer) => {
                        let strangers = self
                            .endpoint
                            .strangers()
                            .lately(clock::since_epoch())
                            .collect();
                        drop(answer.send(strangers));
                    }
                    Command::Rekey(keys) => self.rekey(&keys),
                    Command::Sessions(answer) => drop(answer.send(self.machine.sessions())),
                    Command::Ignore(session, answer) => {
                        self.machine.ignore(session);
                        let _ = answer.send(());
                    }
                    Command::Sent(release, answer) => {
                        if self.lacks_nothing(&release) {
                            let states = self.disk.sent(&release);
                            self.machine
                                .handle_reply(self.clock.now(), DiskReply::Trees(states));
                        }
                        let _ = answer.send(());
                    }
                    Command::New(mut hosts, answer) => {
                        let (now, members) = (self.clock.now(), self.machine.members());
                        let since = |id: &InstanceId| {
                            members.get(*id).map(|member| now.since(member.since))
                        };
                        hosts.retain(|id| since(id).is_none_or(|age| age < ARRIVES));
                        let _ = answer.send(hosts);
                    }
                    Command::Changed => {
                        self.machine.handle_reply(
                            self.clock.now(),
                            DiskReply::Headers(self.host.headers()),
                        );
                        let states = self.disk.states();
                        self.machine
                            .handle_reply(self.clock.now(), DiskReply::Trees(states));
                    }
                    Command::Opened(tree) => self.opened(&tree),
                    Command::Stop => {
                        self.ending = self.ending.or(Some(self.clock.now() + ORDER_LIMIT))
                    }
                }
            }
            let now = self.clock.now();
            if self.may_leave(now) {
                return self.leave();
            }
            if let Some(total) = self.drops.look(now, self.endpoint.links()) {
                self.machine.set_dropped(total);
            }
            self.look_at_strangers(now);
            while let Some(tree) = self.inspections.poll(now) {
                self.disk.inspect(&tree);
            }
            if self.machine.poll_timeout(now) <= now {
                self.machine.handle_timeout(now);
            }
            self.answers.work(now, &mut self.machine);
            self.drain();
            let now = self.clock.now();
            let due = self
                .inspections
                .timeout()
                .into_iter()
                .chain([self.machine.poll_timeout(now)])
                .min();
            let wait = due.unwrap_or(now).since(now);
            let wait = if self.ending.is_some() {
                wait.min(LOOK)
            } else {
                wait
            };
            self.endpoint.wait(Some(wait))?;
            let (machine, clock) = (&mut self.machine, &self.clock);
            self.endpoint.receive(|datagram| {
                let arrival = datagram
                    .stamp
                    .unwrap_or_else(clock::since_epoch)
                    .as_micros() as u64;
                machine.handle_datagram(clock.now(), datagram.from, datagram.bytes, arrival);
            });
        }
    }

    /// Whether the end is asked for and no order is under way: a sender is told what became of its commit.
    fn may_leave(&mut self, now: Moment) -> bool {
        let Some(limit) = self.ending else {
            return false;
        };

        let (ordering, unheard) = self.machine.orders();
        if !ordering {
            self.ending = Some(limit.min(now + HEARD_LIMIT));
        }

        !(ordering || unheard) || limit <= now
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

        for buried in managed.tree.state().tombstones().unwrap_or_default() {
            self.machine
                .handle_reply(now, DiskReply::Buried(buried.order, true));
        }

        self.machine
            .handle_reply(now, DiskReply::Headers(self.host.headers()));
        self.machine
            .handle_reply(now, DiskReply::Trees(self.disk.states()));
        self.inspections.add(now, tree, managed);

        if managed.tree.is_strange() {
            self.disk.inspect(tree);
        }
    }

    /// Whether no member has a newer release of the tree of `release` than this host: else it catches up first.
    fn lacks_nothing(&self, release: &Release) -> bool {
        let tree = &release.header().tree;
        let Some(managed) = self.host.trees.get(tree) else {
            return false;
        };

        let Ok(own) = managed.tree.newest() else {
            return false;
        };

        let members = || {
            self.machine
                .members()
                .iter()
                .flat_map(|(_, m)| &m.hello.trees)
                .filter(|t| t.tree == *tree)
        };

        let stones: BTreeSet<_> = members()
            .flat_map(|t| t.tombstones.iter().flatten())
            .map(|s| s.release)
            .collect();
        let is_newer = |t: &TreeState| {
            t.running > Some(own) && t.release.is_some_and(|id| !stones.contains(&id))
        };

        !members().any(is_newer)
    }

    fn drain(&mut self) {
        let machine = &mut self.machine;
        self.endpoint.flush(|out| machine.poll_transmit(out));
        if let Some(trouble) = self.endpoint.take_trouble() {
            tracing::warn!("{trouble}");
        }

        while let Some(request) = self.machine.poll_request() {
            self.disk.request(request);
        }

        while let Some(pull) = self.machine.poll_pull() {
            // Nobody serves them where there is nobody who listens, and who finds no room asks again.
            let _ = self.pulls.as_ref().map(|pulls| pulls.try_send(pull));
        }

        while let Some(notice) = self.machine.poll_notice() {
            let now = self.clock.now();
            self.answers.note(now, &notice);
            self.lines.notice(now, &notice);
        }
    }

    /// Says who is not heard, in the log and to other hosts.
    fn look_at_strangers(&mut self, now: Moment) {
        if now.since(self.looked) < STRANGERS {
            return;
        }

        self.looked = now;
        for stranger in self.endpoint.take_strangers() {
            self.lines.stranger(now, stranger);
        }

        let plain = self
            .endpoint
            .strangers()
            .lately(clock::since_epoch())
            .filter(|s| s.kind == OpenError::Plain);

        self.machine.set_unheard(plain.map(|s| s.address));
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
            Err(e) => tracing::error!("the group keys stay as they were: {e}"),
        }
    }

    fn leave(mut self) -> Result<()> {
        self.machine.leave();
        self.drain();
        Ok(())
    }

    fn members(&self) -> Vec<Member> {
        self.machine
            .members()
            .iter()
            .map(|(_, m)| member(m))
            .collect()
    }
}

/// The trees of a host that are such.
fn such(host: &Host, is_such: impl Fn(&ManagedTree) -> bool) -> BTreeSet<TreeName> {
    host.trees
        .iter()
        .filter(|(_, managed)| is_such(managed))
        .map(|(name, _)| name.clone())
        .collect()
}

/// A member as it is told.
pub fn member(member: &crate::proto::members::Member) -> Member {
    let trees = member.hello.trees.iter().map(|t| MemberTree {
        tree: t.tree.clone(),
        serial: t.running,
    });
    Member {
        host: member.hello.name.clone(),
        address: member.address,
        version: member.hello.version.clone(),
        trees: trees.collect(),
    }
}
