//! Releases that this host missed, and who is asked for them: one member after the other of those that have them.
//!
//! Beacons are not believed. The header of each release that somebody claims to have is asked for first, of
//! several releases beside each other: a claim that no signed header follows keeps a host from nothing. The newest
//! release whose header is rightful is then asked for, of one member at a time; when none offers it, the next newest.
//!
//! Whom a host asks first follows from the release and the members alone, so that many hosts that missed the same one
//! ask the same member, which shows the header to all at once and serves all at once.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use sha2::{Digest, Sha256};

use super::tombstones::Tombstones;
use crate::id::{InstanceId, Serial, TreeName};
use crate::manifest::{Release, ReleaseId};
use crate::proto::members::Table;
use crate::units::{Moment, WallTime};
use crate::wire::message::{Pull, TreeState};

/// A release that others have is waited for: its sender may be about to offer it.
const NOTICE: Duration = Duration::from_millis(1000);
/// Who was asked has this long to offer it.
const ANSWER: Duration = Duration::from_secs(3);
/// Who was asked for the header has this long to show it.
const SHOW: Duration = Duration::from_millis(500);
/// A header that holds waits this long for that of a newer release.
const SETTLE: Duration = Duration::from_millis(100);
/// All were asked in vain: the first wait until they are asked again; doubled each time.
const AGAIN: Duration = Duration::from_secs(5);
/// The longest.
const AGAIN_MAX: Duration = Duration::from_secs(120);
/// So many are asked for one release in vain before others get their turn.
const MAX_VAIN: u32 = 4;

/// A release that members say is taken back, before that is proven, is waited for longer.
const DOUBT: Duration = Duration::from_secs(5);
/// The most releases of one tree whose headers are asked for at a time, beside those that were asked for in vain lately.
const MAX_OPEN: usize = 16;
/// The most releases of one tree whose headers hold, the newest.
const MAX_RIGHTFUL: usize = 64;
/// The most releases of one tree that rest.
const MAX_RESTING: usize = 1024;
/// The most releases of one tree that are known to be for others.
const MAX_UNFIT: usize = 64;

/// What this host lacks, tree by tree.
#[derive(Debug)]
pub(super) struct Pulls {
    /// Trees that catch up.
    trees: BTreeSet<TreeName>,
    /// Trees that are to be made what their release says, once more.
    repairs: BTreeSet<TreeName>,
    /// By what is claimed: of one release somebody may claim what is not true of it.
    open: BTreeMap<(TreeName, Found), Open>,
    /// Releases that are not for this host.
    unfit: BTreeMap<TreeName, BTreeSet<ReleaseId>>,
    rng: fastrand::Rng,
}

/// A release that others have; of two of one serial the one that was made later is the greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Found {
    serial: Serial,
    created: Option<WallTime>,
    release: ReleaseId,
}

impl Found {
    /// An offered release.
    pub(super) fn of(release: &Release) -> Self {
        let header = release.header();
        Self {
            serial: header.serial,
            created: Some(header.created),
            release: release.id(),
        }
    }

    /// Whether what is claimed of a release is true of it.
    fn is_of(&self, release: &Release) -> bool {
        let (claimed, is) = (*self, Self::of(release));
        claimed
            == Self {
                created: claimed.created.and(is.created),
                ..is
            }
    }

    /// What a host has by its beacon.
    fn at(state: &TreeState) -> Option<Self> {
        Some(Self {
            serial: state.running?,
            created: state.created,
            release: state.release?,
        })
    }
}

/// One release that is lacking.
#[derive(Debug)]
struct Open {
    found: Found,
    /// What was here when it was found to be lacking.
    have: Option<Serial>,
    /// Who was asked since all were asked last.
    asked: BTreeSet<InstanceId>,
    /// When the next one is asked.
    due: Moment,
    again: Duration,
    /// All were asked in vain.
    rests: bool,
    header: HeaderState,
    /// Until when an offer is waited for.
    awaited: Option<Moment>,
    /// How many were asked for it in vain while others waited for their turn.
    vain: u32,
}

/// What is known of the header of a release.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum HeaderState {
    /// It was not shown yet, or with no signature that holds.
    Unseen,
    /// Its signature is being checked.
    Checking,
    /// A key signed it that may.
    Rightful,
}

impl Pulls {
    pub(super) fn new(trees: BTreeSet<TreeName>, seed: u64) -> Self {
        let rng = fastrand::Rng::with_seed(seed);
        Self {
            trees,
            repairs: BTreeSet::new(),
            open: BTreeMap::new(),
            unfit: BTreeMap::new(),
            rng,
        }
    }

    /// The tree catches up from now on.
    pub(super) fn catch_up(&mut self, tree: TreeName) {
        self.trees.insert(tree);
    }

    /// Something in the tree is not what its release says.
    pub(super) fn repair(&mut self, tree: TreeName) {
        self.repairs.insert(tree);
    }

    /// What is repaired is no more, or will be found again.
    pub(super) fn ended(&mut self, tree: &TreeName) {
        self.repairs.remove(tree);
    }

    /// Whether an offer of this release for hosts that missed it is one for this host, which has `own`.
    pub(super) fn wants(&self, own: &TreeState, found: &Found, tombstones: &Tombstones) -> bool {
        if self.repairs.contains(&own.tree) && own.release == Some(found.release) {
            return !tombstones.is_reverted(&own.tree, found.release);
        }

        if !self.trees.contains(&own.tree) || tombstones.of(&own.tree, found.release).is_some() {
            return false;
        }

        // One that was made later takes the place of another one of its serial.
        let twin = Found::at(own).is_some_and(|own| {
            own.serial == found.serial
                && own.created.is_some()
                && own.release != found.release
                && own < *found
        });

        // What was taken back gives way to whatever is elsewhere.
        let back = own
            .release
            .is_some_and(|release| tombstones.is_reverted(&own.tree, release));

        found.serial > own.serial || twin || (back && Some(found.serial) <= own.running)
    }

    /// The release will not be had: it is for others.
    pub(super) fn is_unfit(&mut self, tree: &TreeName, release: ReleaseId) {
        let unfit = self.unfit.entry(tree.clone()).or_default();
        if unfit.len() >= MAX_UNFIT {
            unfit.clear();
        }
        unfit.insert(release);
    }

    /// Whom to ask now for what. `busy` says whether a session works on a tree.
    pub(super) fn poll(
        &mut self,
        now: Moment,
        own: &[TreeState],
        me: InstanceId,
        members: &Table,
        tombstones: &Tombstones,
        busy: impl Fn(&TreeName) -> bool,
    ) -> Vec<(SocketAddr, Pull)> {
        let (mut out, jitter) = (Vec::new(), self.rng.f64());
        for state in own {
            let lacking = self.lacking(state, me, members, tombstones);
            let lacks: BTreeSet<Found> = lacking.iter().map(|(found, _)| *found).collect();
            self.open
                .retain(|(tree, found), _| *tree != state.tree || lacks.contains(found));
            // One release is waited for at a time.
            let of_tree = self
                .open
                .iter()
                .filter(|((tree, _), _)| *tree == state.tree);
            let mut awaited = of_tree
                .filter_map(|(_, open)| open.awaited.filter(|until| *until > now))
                .max();
            for (found, doubted) in lacking {
                let fresh = || Open::new(now, found, state, jitter, doubted);
                let open = self
                    .open
                    .entry((state.tree.clone(), found))
                    .or_insert_with(fresh);
                if open.have != state.running {
                    // What came before it is here now: the rest follows at once.
                    *open = Open {
                        due: now,
                        header: open.header,
                        ..fresh()
                    };
                }
                if busy(&state.tree) {
                    // When it is over, and the release is lacking still, somebody else is asked.
                    open.due = open.due.max(now + NOTICE);
                    open.awaited = None;
                } else if let (true, Some(until)) = (
                    open.is_rightful(),
                    awaited.filter(|until| *until > open.due),
                ) {
                    open.due = until;
                } else if open.due <= now
                    && let Some(pull) = open.ask(now, state, me, members, jitter)
                {
                    awaited = open.awaited.or(awaited);
                    out.push(pull);
                }
            }
        }

        out
    }

    /// Whether the header of `release` is asked for.
    pub(super) fn asks_for(&self, release: ReleaseId) -> bool {
        self.open
            .values()
            .any(|open| open.found.release == release && open.header == HeaderState::Unseen)
    }

    /// Somebody shows the header of `release`: whether its signature is to be checked.
    pub(super) fn check(&mut self, release: &Release) -> bool {
        let tree = &release.header().tree;
        let open = self
            .open
            .iter_mut()
            .filter(|((of, found), _)| of == tree && found.is_of(release));
        let unseen = open
            .map(|(_, open)| open)
            .filter(|open| open.header == HeaderState::Unseen);
        unseen
            .map(|open| open.header = HeaderState::Checking)
            .count()
            > 0
    }

    /// The signature of the header of `release` was checked.
    pub(super) fn checked(&mut self, now: Moment, release: ReleaseId, holds: bool) {
        let jitter = self.rng.f64();
        let checking = |open: &&mut Open| {
            open.found.release == release && open.header == HeaderState::Checking
        };

        for open in self.open.values_mut().filter(checking) {
            if !holds {
                // Somebody else may show a better one.
                open.header = HeaderState::Unseen;
                continue;
            }
            open.header = HeaderState::Rightful;
            open.asked.clear();
            (open.rests, open.again) = (false, AGAIN);
            open.due = now + SETTLE.mul_f64(1.0 + jitter);
        }
    }

    /// When somebody is to be asked.
    pub(super) fn timeout(&self) -> Option<Moment> {
        self.open.values().map(|open| open.due).min()
    }

    /// The releases of the tree that others have and this host lacks, as many as are pursued, the newest first; or its own,
    /// when it is to be repaired. With each whether members say that it was taken back.
    fn lacking(
        &self,
        own: &TreeState,
        me: InstanceId,
        members: &Table,
        tombstones: &Tombstones,
    ) -> Vec<(Found, bool)> {
        let there = members.candidates().filter(|(id, _)| **id != me);
        let unfit = self.unfit.get(&own.tree);
        let (mut found, mut doubted) = (BTreeMap::new(), BTreeSet::new());
        for (state, since) in
            there.flat_map(|(_, m)| m.hello.trees.iter().map(|tree| (tree, m.since)))
        {
            if state.tree != own.tree {
                continue;
            }
            doubted.extend(state.tombstones.iter().flatten().map(|stone| stone.release));
            let Some(other) = Found::at(state).filter(|_| state.unhealthy != Some(true)) else {
                continue;
            };
            // Most have the same.
            match found.get_mut(&other) {
                Some(known) => *known = since.min(*known),
                None if self.wants(own, &other, tombstones)
                    && unfit.is_none_or(|unfit| !unfit.contains(&other.release)) =>
                {
                    found.insert(other, since);
                }
                None => {}
            }
        }

        let open = |other: &Found| self.open.get(&(own.tree.clone(), *other));

        let (rightful, unseen): (Vec<_>, Vec<_>) = found
            .into_iter()
            .partition(|(other, _)| open(other).is_some_and(Open::is_rightful));
        let (resting, mut pursued): (Vec<_>, Vec<_>) = unseen
            .into_iter()
            .partition(|(other, _)| open(other).is_some_and(|open| open.rests));
        pursued.sort_by_key(|(other, since)| (*since, Reverse(*other)));

        pursued.truncate(MAX_OPEN);
        pursued.extend(resting.into_iter().take(MAX_RESTING));
        pursued.extend(rightful.into_iter().rev().take(MAX_RIGHTFUL));
        pursued.sort_by_key(|(other, _)| Reverse(*other));

        pursued
            .into_iter()
            .map(|(other, _)| (other, doubted.contains(&other.release)))
            .collect()
    }
}

impl Open {
    fn new(now: Moment, found: Found, own: &TreeState, jitter: f64, doubted: bool) -> Self {
        let wait = if doubted { DOUBT } else { NOTICE };
        // Its own release, which is to be mended, is known.
        let is_own = own.release == Some(found.release);
        Self {
            found,
            have: own.running,
            asked: BTreeSet::new(),
            due: now + wait.mul_f64(1.0 + jitter / 4.0),
            again: AGAIN,
            rests: false,
            header: if is_own {
                HeaderState::Rightful
            } else {
                HeaderState::Unseen
            },
            awaited: None,
            vain: 0,
        }
    }

    fn is_rightful(&self) -> bool {
        self.header == HeaderState::Rightful
    }

    /// Asks the next one who has it: for its header, or for all of it once that is known.
    fn ask(
        &mut self,
        now: Moment,
        own: &TreeState,
        me: InstanceId,
        members: &Table,
        jitter: f64,
    ) -> Option<(SocketAddr, Pull)> {
        let (tree, release) = (&own.tree, self.found.release);
        if self.vain >= MAX_VAIN {
            // Whoever claims to have it may not: an older one that somebody has gets its turn.
            (self.vain, self.awaited) = (0, None);
            self.due = now + AGAIN.mul_f64(0.75 + jitter / 2.0);
            return None;
        }

        let has = |t: &TreeState| {
            t.tree == *tree && Found::at(t) == Some(self.found) && t.unhealthy != Some(true)
        };

        let able = members
            .candidates()
            .filter(|(id, m)| **id != me && m.hello.trees.iter().any(has));
        let left = able.filter(|(id, _)| !self.asked.contains(*id));

        // Whoever draws its own number may be first of all, one that answers at once known for longest, one that has many
        // numbers most of all: each in its turn.
        let next = match self.asked.len() % 3 {
            0 => left.min_by_key(|(id, _)| rank(release, **id)),
            1 => left.min_by_key(|(id, m)| (m.since, rank(release, **id))),
            _ => {
                let of_address: BTreeMap<IpAddr, _> =
                    left.map(|member| (member.1.address.ip(), member)).collect();
                let at = (jitter * of_address.len() as f64) as usize;
                of_address.into_values().nth(at)
            }
        };

        self.rests = next.is_none();
        let Some((&id, member)) = next else {
            self.asked.clear();
            self.awaited = None;
            self.due = now + self.again.mul_f64(0.75 + jitter / 2.0);
            self.again = (self.again * 2).min(AGAIN_MAX);
            return None;
        };

        self.asked.insert(id);
        let rightful = self.is_rightful();
        self.due = now + if rightful { ANSWER } else { SHOW };
        self.awaited = rightful.then_some(self.due);
        self.vain += u32::from(rightful);
        let (have, header) = (
            own.running.unwrap_or_default(),
            Some(true).filter(|_| !rightful),
        );

        Some((
            member.address,
            Pull {
                tree: tree.clone(),
                release,
                have,
                base: own.base,
                host: None,
                header,
            },
        ))
    }
}

/// The place of a member in the order in which hosts ask for a release.
fn rank(release: ReleaseId, member: InstanceId) -> [u8; 32] {
    Sha256::new()
        .chain_update(release.0.0)
        .chain_update(member.0.to_be_bytes())
        .finalize()
        .into()
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;
    use crate::id::{HostName, SessionId};
    use crate::manifest::Header;
    use crate::manifest::header::tests::a_header;
    use crate::wire::message::{Hello, Order, OrderKind, SignedOrder};

    fn at(ms: u64) -> Moment {
        Moment(1_000_000_000) + Duration::from_millis(ms)
    }

    fn www() -> TreeName {
        TreeName::new("www").expect("legal")
    }

    fn made(serial: u64, created: i64) -> Release {
        let (serial, created) = (Serial(serial), WallTime(created));
        Release::new(Header {
            tree: www(),
            serial,
            created,
            ..a_header()
        })
        .expect("legal")
    }

    fn release(serial: u64) -> Release {
        made(serial, 1)
    }

    fn id(serial: u64) -> ReleaseId {
        release(serial).id()
    }

    fn state(serial: u64, running: u64) -> TreeState {
        TreeState {
            serial: Serial(serial),
            release: Some(id(running)),
            running: Some(Serial(running)),
            tombstones: Some(Vec::new()),
            ..TreeState::nothing(www())
        }
    }

    fn hello(name: HostName, trees: Vec<TreeState>) -> Hello {
        let (version, members) = (String::new(), 1);
        let (heard, strangers, nonce, echoes, identity, shown) = Default::default();
        Hello {
            name,
            version,
            trees,
            members,
            heard,
            strangers,
            nonce,
            echoes,
            identity,
            shown,
        }
    }

    /// Members 2.. that run these.
    fn members(running: &[u64]) -> Table {
        let mut table = Table::default();
        for (n, serial) in running.iter().enumerate() {
            let name = HostName::new(&format!("web{n}")).expect("legal");
            let trees = vec![state(*serial, *serial)];
            table.on_hello(
                at(0),
                SocketAddr::from(([10, 0, 0, n as u8 + 2], 5000)),
                InstanceId(n as u64 + 2),
                hello(name, trees),
                true,
            );
        }

        table
    }

    fn none() -> Tombstones {
        Tombstones::new(Vec::new(), 1)
    }

    fn pulls() -> Pulls {
        Pulls::new([www()].into(), 1)
    }

    /// Who is asked for a release. The headers of those of `real` are shown at once when they are asked for.
    fn poll_with(
        pulls: &mut Pulls,
        ms: u64,
        own: &TreeState,
        table: &Table,
        stones: &Tombstones,
        real: &[Release],
    ) -> Vec<(SocketAddr, Pull)> {
        let asked = pulls.poll(
            at(ms),
            std::slice::from_ref(own),
            InstanceId(1),
            table,
            stones,
            |_| false,
        );

        let (headers, offers): (Vec<_>, Vec<_>) = asked
            .into_iter()
            .partition(|(_, pull)| pull.header.is_some());

        for (_, pull) in headers {
            if let Some(release) = real.iter().find(|release| release.id() == pull.release)
                && pulls.check(release)
            {
                pulls.checked(at(ms), release.id(), true);
            }
        }

        offers
    }

    fn poll(pulls: &mut Pulls, ms: u64, own: &TreeState, table: &Table) -> Vec<(SocketAddr, Pull)> {
        poll_with(pulls, ms, own, table, &none(), &[release(6), release(7)])
    }

    #[test]
    fn one_after_the_other_is_asked_and_then_all_again_ever_more_seldom() {
        let (mut pulls, table, own) = (pulls(), members(&[7, 7, 6]), state(5, 5));
        assert_eq!(
            poll(&mut pulls, 0, &own, &table),
            [],
            "its sender may be about to offer it"
        );

        let mut asked = Vec::new();
        for ms in (0..60_000).step_by(100) {
            asked.extend(
                poll(&mut pulls, ms, &own, &table)
                    .into_iter()
                    .map(|(to, pull)| (ms, to, pull.release)),
            );
        }

        // When both were asked in vain, so is the one that has an older release.
        let newest = asked.iter().position(|a| a.2 == id(6)).expect("asked");
        assert_eq!(newest, 2, "{asked:?}");
        asked.retain(|a| a.2 == id(7));
        let whom: BTreeSet<SocketAddr> = asked[..2].iter().map(|a| a.1).collect();
        assert_eq!(whom.len(), 2, "not the one that has an older release");
        let times: Vec<u64> = asked.iter().map(|a| a.0).collect();

        assert!(
            times[0] >= 1000 && times[1] - times[0] >= 3000 && times[2] - times[1] > 3000 + 3000,
            "{times:?}"
        );
        assert!((4..=10).contains(&asked.len()), "{times:?}");

        // It came by whatever way.
        assert_eq!(poll(&mut pulls, 70_000, &state(7, 7), &table), []);
        assert_eq!(pulls.timeout(), None);
    }

    #[test]
    fn releases_that_nobody_has_keep_a_host_from_none_that_is_there() {
        let (mut pulls, mut table, own) = (pulls(), members(&[7, 7]), state(5, 5));
        let (mut asked, mut headers) = (Vec::new(), BTreeMap::<u64, usize>::new());
        for ms in (0..20_000u64).step_by(100) {
            // Every half second two more that claim to have something newer, a new one each time; of the release that is
            // there somebody claims more than is true.
            for n in if ms % 500 == 0 { 0..3 } else { 0..0 } {
                let claimed = 1000 + ms + n;
                let name = HostName::new(&format!("evil{claimed}")).expect("legal");
                let from =
                    SocketAddr::from(([10, 9, (claimed / 200) as u8, (claimed % 200) as u8], 5000));
                let trees = match n {
                    2 => vec![TreeState {
                        release: Some(id(7)),
                        ..state(claimed, claimed)
                    }],
                    _ => vec![state(claimed, claimed)],
                };
                table.on_hello(at(ms), from, InstanceId(claimed), hello(name, trees), true);
            }
            let all = pulls.poll(
                at(ms),
                std::slice::from_ref(&own),
                InstanceId(1),
                &table,
                &none(),
                |_| false,
            );
            for (to, pull) in all {
                match pull.header {
                    None => asked.push((ms, to, pull.release)),
                    Some(_) => *headers.entry(ms / 1000).or_default() += 1,
                }
                // Somebody shows what nobody signed, and then the true one comes.
                if pull.header.is_some() && pull.release == id(7) && pulls.check(&release(7)) {
                    pulls.checked(at(ms), id(7), false);
                    assert!(pulls.check(&release(7)) && !pulls.check(&release(7)));
                    pulls.checked(at(ms), id(7), true);
                }
            }
        }

        assert!(
            asked.first().is_some_and(|(ms, ..)| *ms < 2000),
            "{asked:?}"
        );
        let true_ones = |(_, to, release): &(u64, SocketAddr, ReleaseId)| {
            *release == id(7) && matches!(to.ip(), IpAddr::V4(ip) if ip.octets()[1] == 0)
        };

        assert!(asked.iter().all(true_ones), "{asked:?}");
        assert!(
            headers.values().all(|count| *count <= 2 * MAX_OPEN),
            "{headers:?}"
        );
    }

    #[test]
    fn the_newest_release_that_is_rightful_is_asked_for_alone_and_the_next_when_nobody_gives_it() {
        let (mut pulls, table, own) = (pulls(), members(&[8, 7, 7, 6]), state(5, 5));
        let real = [release(6), release(7), release(8)];
        let mut asked = Vec::new();
        for ms in (0..30_000u64).step_by(50) {
            let offers = poll_with(&mut pulls, ms, &own, &table, &none(), &real);
            asked.extend(offers.into_iter().map(|(_, pull)| (ms, pull.release)));
        }

        let releases: Vec<ReleaseId> = asked.iter().map(|(_, release)| *release).take(4).collect();
        assert_eq!(releases, [id(8), id(7), id(7), id(6)]);

        // An offer is waited for before somebody else is asked.
        assert!(
            asked.windows(2).all(|pair| pair[1].0 >= pair[0].0 + 3000),
            "{asked:?}"
        );
    }

    #[test]
    fn hosts_that_lack_the_same_ask_the_same() {
        let table = members(&[7; 9]);
        let first = |seed: u64| {
            let (mut pulls, own) = (Pulls::new([www()].into(), seed), state(0, 0));
            let mut asked = (0..3000)
                .step_by(50)
                .flat_map(|ms| poll(&mut pulls, ms, &own, &table));
            asked.next().expect("asked").0
        };

        assert_eq!(first(1), first(2));
    }

    #[test]
    fn what_was_accepted_before_or_refused_or_is_not_wanted_is_not_asked_for() {
        let table = members(&[7]);
        let asked = |mut pulls: Pulls, own: TreeState| {
            (0..4000)
                .step_by(100)
                .map(|ms| poll(&mut pulls, ms, &own, &table).len())
                .sum::<usize>()
        };

        assert_eq!(asked(pulls(), state(5, 5)), 1);
        assert_eq!(asked(pulls(), state(7, 6)), 0, "it was taken back here");
        assert_eq!(
            asked(Pulls::new(BTreeSet::new(), 1), state(5, 5)),
            0,
            "it does not catch up"
        );

        let mut unfit = pulls();
        unfit.is_unfit(&www(), id(7));
        assert_eq!(asked(unfit, state(5, 5)), 0);
        assert_eq!(asked(pulls(), state(7, 7)), 0);
        let mut repair = Pulls::new(BTreeSet::new(), 1);
        repair.repair(www());

        assert_eq!(asked(repair, state(7, 7)), 1);
    }

    #[test]
    fn while_a_session_works_on_the_tree_nobody_is_asked() {
        let (mut pulls, table, own) = (pulls(), members(&[7]), state(5, 5));
        for ms in [0, 2000, 4000] {
            assert_eq!(
                pulls.poll(
                    at(ms),
                    std::slice::from_ref(&own),
                    InstanceId(1),
                    &table,
                    &none(),
                    |_| true
                ),
                []
            );
        }

        assert_eq!(poll(&mut pulls, 4500, &own, &table), []);
        assert_eq!(
            poll(&mut pulls, 5000, &own, &table),
            [],
            "its header is shown"
        );

        assert_eq!(poll(&mut pulls, 5300, &own, &table).len(), 1);
    }

    fn tombstone(serial: u64, kind: OrderKind) -> Tombstones {
        let (tree, serial, release) = (Some(www()), Some(Serial(serial)), id(serial));
        let order = Order {
            session: SessionId(1),
            release,
            kind,
            up_to: None,
            tree,
            serial,
            hosts: None,
            except: None,
        };

        Tombstones::new(
            vec![SignedOrder {
                order: order.encode(),
                signature: Vec::new(),
                hosts: None,
            }],
            1,
        )
    }

    #[test]
    fn what_was_taken_back_is_not_asked_for_and_gives_way_where_it_runs() {
        let asked = |own: TreeState, stones: Tombstones| {
            let (mut pulls, table, mut asked) = (pulls(), members(&[7, 6]), Vec::new());
            for ms in (0..30_000).step_by(500) {
                asked.extend(poll_with(
                    &mut pulls,
                    ms,
                    &own,
                    &table,
                    &stones,
                    &[release(6), release(7)],
                ));
            }
            asked
                .into_iter()
                .map(|(_, pull)| pull.release)
                .collect::<BTreeSet<_>>()
        };

        for kind in [OrderKind::Abort, OrderKind::Revert] {
            assert_eq!(
                asked(state(5, 5), tombstone(7, kind)),
                [id(6)].into(),
                "{kind:?}"
            );
        }

        assert_eq!(
            asked(state(7, 7), tombstone(7, OrderKind::Revert)),
            [id(6)].into(),
            "what the others run"
        );

        assert_eq!(
            asked(state(7, 7), tombstone(7, OrderKind::Abort)),
            [].into(),
            "a canary keeps it"
        );
    }

    #[test]
    fn of_two_releases_of_one_serial_the_one_that_was_made_later_is_asked_for() {
        let asked = |ours: i64, theirs: i64| {
            let (mut pulls, mut table, theirs) = (pulls(), Table::default(), made(7, theirs));
            let name = HostName::new("web2").expect("legal");
            let created = Some(theirs.header().created);
            let trees = vec![TreeState {
                release: Some(theirs.id()),
                created,
                ..state(7, 7)
            }];
            let hello = hello(name, trees);
            table.on_hello(
                at(0),
                ([10, 0, 0, 2], 5000).into(),
                InstanceId(2),
                hello,
                true,
            );
            let own = TreeState {
                created: Some(WallTime(ours)),
                ..state(7, 7)
            };
            let real = std::slice::from_ref(&theirs);
            let polls = (0..4000).step_by(100);
            polls
                .map(|ms| poll_with(&mut pulls, ms, &own, &table, &none(), real).len())
                .sum::<usize>()
        };

        assert_eq!((asked(1, 2), asked(4, 3)), (1, 0));
        assert_eq!(asked(5, 5), usize::from(made(7, 5).id() > id(7)));
    }

    #[test]
    fn an_unhealthy_host_is_not_asked() {
        let (mut pulls, mut table) = (pulls(), Table::default());
        let name = HostName::new("web2").expect("legal");
        let trees = vec![TreeState {
            unhealthy: Some(true),
            ..state(7, 7)
        }];
        let hello = hello(name, trees);

        table.on_hello(
            at(0),
            ([10, 0, 0, 2], 5000).into(),
            InstanceId(2),
            hello,
            true,
        );

        assert!(
            (0..6000)
                .step_by(100)
                .all(|ms| poll(&mut pulls, ms, &state(5, 5), &table).is_empty())
        );
    }
}
