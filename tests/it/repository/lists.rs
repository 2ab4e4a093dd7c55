//! Lists of a store that fail in the middle: no gc deletes anything because of what a list does
//! not show, and no check calls a repository whole that it did not see whole.

use std::path::Path;
use std::sync::Arc;

use makuo::drive::repository::{CheckReport, HeadKeys, HeadMemory, check, collect};
use makuo::keys::{AuthorizedKeys, open_signer};
use makuo::outcome::{Event, Observer};
use makuo::repository::gc::{GcReport, GcRewrite, GcSetup};
use makuo::store::{Store, StoreOptions, StoreUrl};

use super::Depot;
use crate::support::bucket::{MemoryBucket, PageFault};
use crate::support::{Noise, Running, write};

/// Faults of a page.
const FAULTS: [PageFault; 6] = [
    PageFault::Status(403, "AccessDenied"),
    PageFault::Status(500, "InternalError"),
    PageFault::Portal,
    PageFault::WrongStatus,
    PageFault::Half,
    PageFault::NoToken,
];

/// Some of them for each page, so that each kind has its turn in every list.
fn faults(page: usize) -> impl Iterator<Item = PageFault> {
    FAULTS.into_iter().cycle().skip(2 * page).take(2)
}

/// Hears nothing.
struct Deaf;

impl Observer for Deaf {
    fn event(&mut self, _: &Event) {}
}

/// A repository with two trees, with packs that nothing refers to any more.
fn depot() -> Depot {
    let depot = Depot::new(None);
    for n in 0..4 {
        write(&depot.site("page"), Noise::new(n).bytes(200_000));
        depot.publish();
    }

    write(&depot.path("db.toml"), "tree = \"db\"\nsource = \"site\"\n");
    let args = ["publish", "db.toml", "--to", &depot.url, "-k", "deploy.key"];
    Running::start(&mut depot.makuo(&args)).wait().exits(0);
    depot
}

struct Bucket {
    bucket: MemoryBucket,
    store: Store,
    keys: HeadKeys,
}

impl Bucket {
    /// A copy of the repository of `depot` in a bucket of its own, asked once for each page.
    fn of(depot: &Depot, signs: bool) -> Self {
        let bucket = MemoryBucket::of(&depot.path("repo"));
        let url = StoreUrl::parse(&bucket.url(), Path::new("/")).expect("valid");
        let pairs = [("AWS_ACCESS_KEY_ID", "AK"), ("AWS_SECRET_ACCESS_KEY", "s")];
        let pairs = pairs.map(|(name, value)| (name.to_string(), value.to_string()));
        let options = StoreOptions {
            attempts: 1,
            environment: pairs.into(),
            ..StoreOptions::default()
        };
        let key = depot.path("deploy.key");
        let signer = signs.then(|| open_signer(&key).expect("a key").into());
        let keys = HeadKeys {
            authorized: Arc::new(AuthorizedKeys::load(&depot.path("keys")).expect("keys")),
            signer,
            memory: HeadMemory::new(None, &url),
        };
        let store = Store::open(&url, &options).expect("valid settings");
        Self {
            bucket,
            store,
            keys,
        }
    }

    fn gc(&self) -> makuo::Result<GcReport> {
        let setup = GcSetup {
            grace: Some(0),
            no_trees: true,
            rewrites: self
                .keys
                .signer
                .is_some()
                .then_some(GcRewrite { keep: Some(1) }),
            seed: 0,
        };
        collect(&self.store, setup, &self.keys)
    }

    /// Asserts that a command could succeed in spite of the fault: the last page of a list has no
    /// token.
    #[track_caller]
    fn saw_all(&self, page: usize, fault: PageFault) {
        assert_eq!(fault, PageFault::NoToken, "page {page}");
        assert!(!self.bucket.has_hidden(), "page {page}: a part was hidden");
    }

    fn check(&self) -> makuo::Result<CheckReport> {
        check(&self.store, &self.keys, &mut Deaf)
    }
}

#[test]
fn a_gc_deletes_nothing_because_of_a_list_that_fails() {
    let depot = depot();
    for signs in [false, true] {
        let whole = Bucket::of(&depot, signs);
        whole.gc().expect("a gc");
        let pages = whole.bucket.pages();
        assert!(whole.bucket.deletions() > 0 && pages > 6, "{pages} pages");
        whole.check().expect("whole");

        for page in 0..pages {
            for fault in faults(page) {
                let failing = Bucket::of(&depot, signs);
                failing.bucket.spoil(page, fault);
                let Err(error) = failing.gc() else {
                    failing.saw_all(page, fault);
                    continue;
                };
                assert_eq!(failing.bucket.deletions(), 0, "page {page}: {fault:?}");
                assert!(error.to_string().contains("cannot list"), "{error}");
                failing.bucket.spoil(usize::MAX, fault);
                failing.check().expect("whole");
            }
        }
    }
}

#[test]
fn a_check_says_what_it_could_not_see() {
    let depot = depot();
    let whole = Bucket::of(&depot, false);
    whole.check().expect("whole");
    for page in 0..whole.bucket.pages() {
        for fault in faults(page) {
            let failing = Bucket::of(&depot, false);
            failing.bucket.spoil(page, fault);
            match failing.check() {
                Ok(_) => failing.saw_all(page, fault),
                Err(error) => {
                    let text = error.to_string();
                    assert!(text.contains("cannot list objects at s3://fleet"), "{text}");
                    assert_ne!(error.kind().exit_code(), 0);
                }
            }
        }
    }
}

/// Hears notes.
#[derive(Default)]
struct Notes(Vec<String>);

impl Observer for Notes {
    fn event(&mut self, event: &Event) {
        if let Event::Note(text) = event {
            self.0.push(text.clone());
        }
    }
}

#[test]
fn a_check_names_every_pack_that_is_damaged_or_cannot_be_read() {
    let depot = depot();
    let seed = std::env::var("MAKUO_CHECK_SEED")
        .map_or_else(|_| fastrand::u64(..), |seed| seed.parse().expect("a seed"));
    println!("MAKUO_CHECK_SEED={seed}");
    let mut rng = fastrand::Rng::with_seed(seed);
    let needed = Bucket::of(&depot, false);
    needed.gc().expect("a gc");
    let needed = needed.bucket.objects();

    for _ in 0..20 {
        let failing = Bucket::of(&depot, false);
        let packs = failing.bucket.objects();
        let packs = packs.iter().filter(|name| name.contains("packs/"));
        let (mut bad, mut all) = (Vec::new(), 0);
        for pack in packs {
            all += 1;
            match rng.u32(..3) {
                0 => failing.bucket.damage(pack),
                1 => failing.bucket.lock(pack),
                _ => continue,
            }
            bad.push(pack.as_str());
        }

        let mut notes = Notes::default();
        let found = check(&failing.store, &failing.keys, &mut notes);
        for pack in &bad {
            let told = notes.0.iter().filter(|note| note.contains(pack));
            assert!(told.count() > 0, "{pack}: {:?}", notes.0);
        }
        let others = |note: &&String| !bad.iter().any(|pack| note.contains(pack));
        assert_eq!(notes.0.iter().find(others), None);
        let harms = bad.iter().any(|pack| needed.iter().any(|one| one == pack));
        assert_eq!(found.is_err(), harms, "{bad:?}: {found:?}");
        assert!(found.is_err() || found.is_ok_and(|report| report.packs == all));
    }
}
