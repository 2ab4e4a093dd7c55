//! Repositories on real servers: nginx, an S3 server and directories, with a proxy between that
//! does as bad networks, caches and servers do. `MAKUO_STORE_SEED` replays a random run, and
//! `MAKUO_STORE_ROUNDS` makes it longer.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use makuo::repository::object::{
    Etag, FaultKind, Get, GetReply, ListedObject, ObjectPath, Put, PutCondition, PutReply,
    StoreFault,
};
use makuo::store::{Store, StoreOptions, StoreUrl};

use crate::support::{
    self, Answer, BUCKET, Middleman, Mishap, Moto, Nginx, Noise, Passed, serve_by, skipped, write,
};

const HEAD: &str = "trees/www/head";
const PACK: &str = "packs/ab/abcd.pack";

/// The end of one get.
#[derive(Debug, PartialEq, Eq)]
enum Got {
    Whole(Vec<u8>, Option<Etag>),
    NotModified,
    Missing,
    Failed(StoreFault),
}

impl Got {
    #[track_caller]
    fn bytes(self) -> Vec<u8> {
        match self {
            Got::Whole(bytes, _) => bytes,
            other => panic!("no bytes: {other:?}"),
        }
    }

    #[track_caller]
    fn etag(self) -> Etag {
        match self {
            Got::Whole(_, Some(etag)) => etag,
            other => panic!("no tag: {other:?}"),
        }
    }

    #[track_caller]
    fn fault(self) -> StoreFault {
        match self {
            Got::Failed(fault) => fault,
            Got::Whole(bytes, _) => panic!("no fault, but {} bytes", bytes.len()),
            other => panic!("no fault: {other:?}"),
        }
    }
}

fn run<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(work)
}

fn path(text: &str) -> ObjectPath {
    ObjectPath::new(text).expect("a legal path")
}

fn whole(object: &str) -> Get {
    Get {
        object: path(object),
        range: None,
        unless: None,
        max: 64 << 20,
    }
}

fn part(object: &str, range: std::ops::Range<u64>) -> Get {
    Get {
        range: Some(range),
        ..whole(object)
    }
}

async fn get_later(store: &Store, get: Get) -> Got {
    let mut reader = store.get(get);
    let mut bytes = Vec::new();
    let end = loop {
        match reader.next().await.expect("a last reply") {
            GetReply::Bytes(more) => bytes.extend(more),
            GetReply::End { etag } => break Got::Whole(bytes, etag),
            GetReply::NotModified => break Got::NotModified,
            GetReply::Missing => break Got::Missing,
            GetReply::Failed(fault) => break Got::Failed(fault),
        }
    };
    assert_eq!(reader.next().await, None, "one last reply");
    end
}

fn get(store: &Store, get: Get) -> Got {
    run(get_later(store, get))
}

fn put(store: &Store, object: &str, bytes: &[u8], condition: PutCondition) -> PutReply {
    let put = Put {
        object: path(object),
        bytes: Arc::new(bytes.to_vec()),
        condition,
    };
    run(store.put(&put))
}

#[track_caller]
fn stored(reply: PutReply) -> Option<Etag> {
    match reply {
        PutReply::Done { etag } => etag,
        other => panic!("not stored: {other:?}"),
    }
}

fn listed(store: &Store) -> Result<BTreeMap<String, u64>, StoreFault> {
    let mut found = BTreeMap::new();
    run(store.list(|one: ListedObject| {
        assert!(one.stored.0 > 1_700_000_000, "{one:?}");
        found.insert(one.object.as_str().to_string(), one.size);
    }))?;
    Ok(found)
}

fn options(pairs: &[(&str, &str)]) -> StoreOptions {
    let owned = |(name, value): &(&str, &str)| (name.to_string(), value.to_string());
    StoreOptions {
        patience: Duration::from_secs(30),
        attempts: 4,
        environment: pairs.iter().map(owned).collect(),
        ..StoreOptions::default()
    }
}

#[track_caller]
fn open(url: &str, options: &StoreOptions) -> Store {
    let url = StoreUrl::parse(url, Path::new("/")).expect("a valid URL");
    Store::open(&url, options).expect("valid settings")
}

fn keys() -> StoreOptions {
    options(&[
        ("AWS_ACCESS_KEY_ID", "AK"),
        ("AWS_SECRET_ACCESS_KEY", "s3cr3t"),
    ])
}

fn bucket(address: impl std::fmt::Display, options: &StoreOptions) -> Store {
    open(
        &format!("s3://{BUCKET}/site?endpoint=http://{address}"),
        options,
    )
}

fn nginx() -> Option<Nginx> {
    Nginx::start().map_err(|why| skipped(&why)).ok()
}

fn moto() -> Option<Moto> {
    Moto::start().map_err(|why| skipped(&why)).ok()
}

/// Everything that each store can do.
fn behaves(store: &Store) {
    let bytes = Noise::new(7).bytes(3 << 20);
    assert_eq!(get(store, whole(HEAD)), Got::Missing);
    assert_eq!(get(store, part(PACK, 5..10)), Got::Missing);
    stored(put(store, PACK, &bytes, PutCondition::Any));
    stored(put(store, PACK, &bytes, PutCondition::Any));
    stored(put(store, HEAD, b"one", PutCondition::Any));
    stored(put(store, "empty", b"", PutCondition::Any));

    assert!(get(store, whole(PACK)).bytes() == bytes);
    assert_eq!(get(store, whole("empty")).bytes(), b"");
    let last = bytes.len() as u64;
    for range in [0..1, 0..last, 1_000_000..1_500_000, last - 1..last] {
        let wanted = &bytes[range.start as usize..range.end as usize];
        assert!(
            get(store, part(PACK, range.clone())).bytes() == wanted,
            "{range:?}"
        );
    }

    let beyond = get(store, part(PACK, last - 5..last + 5)).fault();
    assert_eq!(beyond.kind, FaultKind::Permanent, "{beyond}");
    assert!(beyond.text.contains("too short"), "{beyond}");
    let behind = get(store, part(PACK, last..last + 5)).fault();
    assert_eq!(behind.kind, FaultKind::Permanent, "{behind}");
    let mut large = whole(PACK);
    large.max = 1000;
    let large = get(store, large).fault();
    assert_eq!(large.kind, FaultKind::TooLarge, "{large}");

    let mut again = whole(HEAD);
    again.unless = Some(get(store, whole(HEAD)).etag());
    assert_eq!(get(store, again.clone()), Got::NotModified);
    stored(put(store, HEAD, b"two and more", PutCondition::Any));
    assert_eq!(get(store, again).bytes(), b"two and more");
    run(store.delete(&path("empty"))).expect("deleted");
    run(store.delete(&path("empty"))).expect("deleted twice");
    assert_eq!(get(store, whole("empty")), Got::Missing);
}

/// The conditions of two publishers.
fn keeps_conditions(store: &Store) {
    let head = "trees/www/conditions/head";
    let first = put(store, head, b"1", PutCondition::Absent);
    let first = stored(first).expect("a tag");
    assert_eq!(
        put(store, head, b"other", PutCondition::Absent),
        PutReply::Conflict
    );
    assert_eq!(get(store, whole(head)).bytes(), b"1");

    let unchanged = PutCondition::Unchanged(first.clone());
    let second = stored(put(store, head, b"2", unchanged.clone())).expect("a tag");
    assert_ne!(first, second);
    assert_eq!(put(store, head, b"3", unchanged), PutReply::Conflict);
    assert_eq!(get(store, whole(head)).bytes(), b"2");
    assert_eq!(get(store, whole(head)).etag(), second);
    run(store.delete(&path(head))).expect("deleted");
    let unchanged = PutCondition::Unchanged(second);
    assert_eq!(put(store, head, b"4", unchanged), PutReply::Conflict);
}

#[test]
fn nginx_is_a_store() {
    let Some(nginx) = nginx() else { return };
    std::fs::create_dir(nginx.files().join("fleet")).expect("writable");
    let store = open(&format!("http://{}/fleet/", nginx.http()), &options(&[]));
    behaves(&store);
    assert!(nginx.files().join("fleet").join(PACK).exists());

    let absent = put(&store, HEAD, b"x", PutCondition::Absent);
    assert_eq!(absent, PutReply::NoConditions);
    let fault = listed(&store).expect_err("no list");
    assert!(fault.text.contains("cannot list"), "{fault}");

    let closed = open(&format!("http://{}/closed", nginx.http()), &options(&[]));
    let fault = get(&closed, whole(HEAD)).fault();
    assert_eq!(fault.kind, FaultKind::Denied, "{fault}");
    let readonly = open(&format!("http://{}/readonly", nginx.http()), &options(&[]));
    let PutReply::Failed(fault) = put(&readonly, HEAD, b"x", PutCondition::Any) else {
        panic!("stored");
    };
    assert!(fault.text.contains("dav_methods"), "{fault}");
}

#[test]
fn directories_of_a_web_server_cost_few_requests() {
    let Some(nginx) = nginx() else { return };
    let between = Middleman::start(nginx.http());
    let store = near(&between, &options(&[]));
    let methods = |object: &str, len: usize| {
        stored(put(&store, object, &vec![7; len], PutCondition::Any));
        let passed = between.passed();
        let method = |one: &Passed| one.line.split(' ').next().unwrap_or_default().to_string();
        passed.iter().map(method).collect::<Vec<_>>()
    };

    let first = methods("packs/ab/1.pack", 10);
    assert_eq!(first.last().map(String::as_str), Some("PUT"), "{first:?}");
    assert_eq!(methods("packs/ab/2.pack", 10), ["PUT"]);
    assert_eq!(methods("packs/cd/1.pack", 10), ["PUT", "MKCOL", "PUT"]);
    let large = methods("packs/ef/1.pack", 1 << 20);
    assert_eq!(large, ["MKCOL", "PUT"], "it is sent once");
}

#[test]
fn an_s3_server_is_a_store() {
    let Some(moto) = moto() else { return };
    let between = Middleman::start(moto.address());
    let store = bucket(between.address(), &keys());
    behaves(&store);
    keeps_conditions(&store);
    let found = listed(&store).expect("a list");
    let objects: Vec<&str> = found.keys().map(String::as_str).collect();
    assert_eq!(objects, [PACK, HEAD]);
    assert_eq!(found[PACK], 3 << 20);

    let passed = between.passed();
    let control = |object: &str| {
        let line = format!("PUT /{BUCKET}/site/{object} ");
        let one = passed.iter().find(|p| p.line.starts_with(&line));
        one.expect("stored").headers["cache-control"].clone()
    };
    assert_eq!(control(PACK), "public, max-age=31536000, immutable");
    assert_eq!(control(HEAD), "no-cache");
    for one in &passed {
        assert_eq!(one.headers["accept-encoding"], "identity", "{}", one.line);
    }
    // Reading takes nothing but GET on the object itself.
    get(&store, whole(HEAD));
    get(&store, part(PACK, 10..20));
    let lines: Vec<String> = between.passed().into_iter().map(|p| p.line).collect();
    let line = |object| format!("GET /{BUCKET}/site/{object} HTTP/1.1");
    assert_eq!(lines, [line(HEAD), line(PACK)]);
}

#[test]
fn a_directory_is_a_store_that_a_web_server_reads() {
    let dir = tempfile::tempdir().expect("a directory");
    let url = format!("file://{}", dir.path().display());
    let store = open(&url, &options(&[]));
    behaves(&store);
    keeps_conditions(&store);
    let found = listed(&store).expect("a list");
    let objects: Vec<&str> = found.keys().map(String::as_str).collect();
    assert_eq!(objects, [PACK, HEAD], "no temporary file is left");

    let mode = |path: &str| {
        let found = std::fs::metadata(dir.path().join(path)).expect("there");
        found.permissions().mode() & 0o7777
    };
    assert_eq!(
        (mode("packs"), mode("packs/ab"), mode(PACK)),
        (0o755, 0o755, 0o644)
    );

    let gone = open(&format!("{}/gone", dir.path().display()), &options(&[]));
    let fault = get(&gone, whole(HEAD)).fault();
    assert!(fault.text.contains("mkdir"), "{fault}");
    let PutReply::Failed(fault) = put(&gone, HEAD, b"x", PutCondition::Any) else {
        panic!("stored on a disk that is not there");
    };
    assert!(fault.text.contains("mounted"), "{fault}");
    write(&dir.path().join("trees/.git/x"), "foreign");
    assert_eq!(listed(&store).expect("a list").len(), 2);

    let Some(nginx) = nginx() else { return };
    let files = format!("file://{}", nginx.files().display());
    stored(put(
        &open(&files, &options(&[])),
        PACK,
        b"pack",
        PutCondition::Any,
    ));
    let web = open(&format!("http://{}", nginx.http()), &options(&[]));
    assert_eq!(get(&web, whole(PACK)).bytes(), b"pack");
}

#[test]
fn two_publishers_to_a_directory_never_both_win() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = open(&dir.path().display().to_string(), &options(&[]));
    let rounds: Vec<usize> = (0..20)
        .map(|round| {
            let head = format!("trees/t{round}/head");
            let first = stored(put(&store, &head, b"0", PutCondition::Absent));
            let condition = PutCondition::Unchanged(first.expect("a tag"));
            let race = |name: u8| {
                let (store, head, condition) = (store.clone(), head.clone(), condition.clone());
                std::thread::spawn(move || put(&store, &head, &[name], condition))
            };
            let racers: Vec<_> = (1..5).map(race).collect();
            let won = racers
                .into_iter()
                .map(|racer| racer.join().expect("no panic"))
                .filter(|reply| matches!(reply, PutReply::Done { .. }));
            won.count()
        })
        .collect();
    assert_eq!(rounds, [1; 20]);
}

/// nginx behind a proxy, with one object of `len` bytes.
fn troubled(len: usize) -> Option<(Nginx, Middleman, Vec<u8>)> {
    let nginx = nginx()?;
    let bytes = Noise::new(11).bytes(len);
    write(&nginx.files().join(PACK), &bytes);
    let between = Middleman::start(nginx.http());
    Some((nginx, between, bytes))
}

fn near(between: &Middleman, options: &StoreOptions) -> Store {
    open(&format!("http://{}", between.address()), options)
}

fn ranges(passed: &[Passed]) -> Vec<&str> {
    let ranges = passed.iter().map(|one| one.headers.get("range"));
    ranges
        .map(|range| range.map_or("-", String::as_str))
        .collect()
}

#[test]
fn a_body_that_is_cut_goes_on_at_its_byte() {
    let Some((_nginx, between, bytes)) = troubled(300_000) else {
        return;
    };
    let store = near(&between, &options(&[]));
    between.script([Mishap::Cut(100_000), Mishap::Reset, Mishap::Cut(50_000)]);
    assert!(get(&store, part(PACK, 10_000..290_000)).bytes() == bytes[10_000..290_000]);
    let passed = between.passed();
    assert_eq!(
        ranges(&passed),
        [
            "bytes=10000-289999",
            "bytes=110000-289999",
            "bytes=110000-289999",
            "bytes=160000-289999"
        ]
    );

    between.script([Mishap::Cut(250_000), Mishap::Whole]);
    assert!(
        get(&store, whole(PACK)).bytes() == bytes,
        "a small file is cut"
    );
    assert_eq!(ranges(&between.passed()), ["-", "bytes=250000-299999"]);
    between.script([Mishap::Chunked]);
    assert!(get(&store, whole(PACK)).bytes() == bytes);
    between.passed();
    between.script([Mishap::ShortRange, Mishap::ShortRange]);
    assert!(get(&store, part(PACK, 0..280_000)).bytes() == bytes[..280_000]);
    assert_eq!(
        ranges(&between.passed()),
        [
            "bytes=0-279999",
            "bytes=140000-279999",
            "bytes=210000-279999"
        ],
        "a server may answer with the first part of a range"
    );

    between.script([Mishap::Cut(1000)]);
    let fault = get(&store.once(), whole(PACK)).fault();
    assert_eq!(fault.kind, FaultKind::Temporary, "{fault}");
    assert_eq!(between.passed().len(), 1, "the caller repeats it");
    between.script([
        Mishap::Cut(0),
        Mishap::Cut(0),
        Mishap::Cut(0),
        Mishap::Cut(0),
    ]);
    let fault = get(&store, whole(PACK)).fault();
    assert_eq!(fault.kind, FaultKind::Temporary, "{fault}");
}

#[test]
fn an_object_that_changes_while_it_is_read_is_a_fault() {
    let Some((nginx, between, bytes)) = troubled(300_000) else {
        return;
    };
    let store = near(&between, &options(&[]));
    between.script([Mishap::Cut(100_000), Mishap::Late(Duration::from_millis(1))]);
    let mut reader = store.get(whole(PACK));
    let end = run(async {
        let mut changed = false;
        loop {
            match reader.next().await.expect("a last reply") {
                GetReply::Bytes(_) if !changed => {
                    write(&nginx.files().join(PACK), &bytes[1..]);
                    changed = true;
                }
                GetReply::Bytes(_) => {}
                end => break end,
            }
        }
    });
    let GetReply::Failed(fault) = end else {
        panic!("two states in one: {end:?}");
    };
    assert!(fault.text.contains("changed"), "{fault}");
}

#[test]
fn other_bytes_than_the_range_are_a_fault() {
    let Some((nginx, between, bytes)) = troubled(300_000) else {
        return;
    };
    let store = near(&between, &options(&[]));
    for mishap in [Mishap::OtherRange, Mishap::ShortRange, Mishap::WrongHead] {
        between.script(vec![mishap.clone(); 4]);
        let fault = get(&store, part(PACK, 1000..2000)).fault();
        assert_eq!(fault.kind, FaultKind::NotARange, "{mishap:?}: {fault}");
        assert!(fault.text.contains("ranges"), "{fault}");
        between.script([mishap]);
        let found = get(&store, part(PACK, 1000..2000)).bytes();
        assert!(found == bytes[1000..2000], "the second answer is right");
    }

    between.script([Mishap::Whole]);
    assert!(get(&store, part(PACK, 1000..2000)).bytes() == bytes[1000..2000]);
    between.script(vec![Mishap::Gzip; 4]);
    let fault = get(&store, whole(PACK)).fault();
    assert_eq!(fault.kind, FaultKind::NotARange, "{fault}");
    assert!(fault.text.contains("gzip off"), "{fault}");
    between.script([Mishap::Huge]);
    let fault = get(&store, whole(PACK)).fault();
    assert_eq!(fault.kind, FaultKind::TooLarge, "{fault}");

    let large = std::fs::File::create(nginx.files().join("large")).expect("new");
    large.set_len(40 << 20).expect("space");
    between.script(vec![Mishap::Whole; 4]);
    let fault = get(&store, part("large", 1000..2000)).fault();
    assert_eq!(fault.kind, FaultKind::NotARange, "{fault}");
}

#[test]
fn a_busy_server_is_asked_again_as_it_wishes() {
    let Some((_nginx, between, bytes)) = troubled(1000) else {
        return;
    };
    let store = near(&between, &options(&[]));
    between.script([
        Mishap::Status(503, Some(0), "SlowDown"),
        Mishap::Status(500, None, "InternalError"),
    ]);
    assert!(get(&store, whole(PACK)).bytes() == bytes);
    assert_eq!(between.passed().len(), 3);

    between.script([Mishap::Status(503, Some(3600), "SlowDown")]);
    let fault = get(&store, whole(PACK)).fault();
    assert_eq!(fault.kind, FaultKind::Temporary);
    assert_eq!(fault.after, Some(Duration::from_secs(3600)));
    assert_eq!(between.passed().len(), 1, "an hour is for the caller");
    between.script([Mishap::Status(418, None, "")]);
    let fault = get(&store, whole(PACK)).fault();
    assert_eq!(fault.kind, FaultKind::Permanent);
    assert_eq!(between.passed().len(), 1);
}

#[test]
fn a_connection_that_is_stuck_is_given_up() {
    let Some((_nginx, between, bytes)) = troubled(500_000) else {
        return;
    };
    let impatient = StoreOptions {
        patience: Duration::from_millis(300),
        ..options(&[])
    };
    let store = near(&between, &impatient);
    between.script([Mishap::Stall(400_000), Mishap::Stall(0)]);
    assert!(get(&store, whole(PACK)).bytes() == bytes);
    assert_eq!(
        ranges(&between.passed()),
        ["-", "bytes=400000-499999", "bytes=400000-499999"]
    );

    between.script(vec![Mishap::Stall(0); 4]);
    let fault = get(&store, whole(PACK)).fault();
    assert_eq!(fault.kind, FaultKind::Temporary);
    assert!(fault.text.contains("nothing for"), "{fault}");
}

#[test]
fn a_put_whose_answer_is_lost_is_no_conflict() {
    let Some(moto) = moto() else { return };
    let between = Middleman::start(moto.address());
    let store = bucket(between.address(), &keys());
    between.script([Mishap::LostAnswer]);
    stored(put(&store, HEAD, b"mine", PutCondition::Absent));
    assert_eq!(get(&store, whole(HEAD)).bytes(), b"mine");
    assert_eq!(between.passed().len(), 4, "twice stored, twice read");

    between.script([Mishap::LostAnswer]);
    let conflict = put(&store, HEAD, b"other", PutCondition::Absent);
    assert_eq!(conflict, PutReply::Conflict);
    between.script([Mishap::Status(501, None, "NotImplemented")]);
    let unable = put(&store, HEAD, b"other", PutCondition::Absent);
    assert_eq!(unable, PutReply::NoConditions);
    between.script([Mishap::Status(409, None, "ConditionalRequestConflict")]);
    stored(put(&store, "trees/b/head", b"x", PutCondition::Absent));
}

#[test]
fn wrong_settings_are_named_with_a_way_out() {
    let Some((_nginx, between, _)) = troubled(1000) else {
        return;
    };
    let few = StoreOptions {
        attempts: 2,
        ..keys()
    };
    let store = bucket(between.address(), &few);
    for (mishap, kind, words) in [
        (
            Mishap::Status(404, None, "NoSuchBucket"),
            FaultKind::Permanent,
            "there is no bucket fleet",
        ),
        (
            Mishap::Status(403, None, "InvalidAccessKeyId"),
            FaultKind::Denied,
            "the key AK",
        ),
        (
            Mishap::Status(403, None, "SignatureDoesNotMatch"),
            FaultKind::Denied,
            "AWS_SECRET_ACCESS_KEY",
        ),
        (
            Mishap::Status(403, None, "RequestTimeTooSkewed"),
            FaultKind::Denied,
            "1999",
        ),
        (
            Mishap::Status(301, None, "PermanentRedirect"),
            FaultKind::Permanent,
            "AWS_REGION",
        ),
        (
            Mishap::Redirect("http://elsewhere.invalid/".into()),
            FaultKind::Permanent,
            "region",
        ),
    ] {
        between.script([mishap.clone()]);
        let fault = get(&store, whole(HEAD)).fault();
        assert_eq!(fault.kind, kind, "{mishap:?}: {fault}");
        assert!(fault.text.contains(words), "{mishap:?}: {fault}");
        assert!(fault.text.contains("s3://fleet/site"), "{fault}");
        assert!(!fault.text.contains("s3cr3t"), "{fault}");
    }

    // nginx is no S3 server: its 404 must not look like an empty repository.
    let fault = get(&store, whole(HEAD)).fault();
    assert_eq!(fault.kind, FaultKind::Permanent, "{fault}");
    let nobody = bucket("127.0.0.1:9", &few);
    let fault = get(&nobody, whole(HEAD)).fault();
    assert!(
        fault.text.contains("127.0.0.1:9 is not reachable"),
        "{fault}"
    );
    assert!(fault.text.contains("AWS_ENDPOINT_URL"), "{fault}");
    let unknown = open("http://releases.invalid/x", &few);
    let fault = get(&unknown, whole(HEAD)).fault();
    assert!(fault.text.contains("releases.invalid"), "{fault}");
}

#[test]
fn certificates_decide_who_is_heard() {
    let Some(nginx) = nginx() else { return };
    let Some(tls) = nginx.tls() else {
        return skipped("no openssl for certificates");
    };
    write(&nginx.files().join(HEAD), "head");
    let trusting = StoreOptions {
        ca_file: Some(nginx.authority()),
        ..options(&[])
    };
    let port = tls.port();
    let url = format!("https://localhost:{port}");
    assert_eq!(get(&open(&url, &trusting), whole(HEAD)).bytes(), b"head");

    let fault = get(&open(&url, &options(&[])), whole(HEAD)).fault();
    assert_eq!(fault.kind, FaultKind::Permanent, "{fault}");
    assert!(fault.text.contains("ca_file"), "{fault}");
    let other = format!("https://127.0.0.1:{port}");
    let fault = get(&open(&other, &trusting), whole(HEAD)).fault();
    assert!(fault.text.contains("certificate is for"), "{fault}");
    let plain = format!("https://localhost:{}", nginx.http().port());
    let fault = get(&open(&plain, &trusting), whole(HEAD)).fault();
    assert!(fault.text.contains("http://"), "{fault}");
    let plain = format!("http://localhost:{port}");
    let fault = get(&open(&plain, &trusting), whole(HEAD)).fault();
    assert!(fault.text.contains("https"), "{fault}");
}

#[test]
fn redirects_are_followed_within_reason() {
    let Some((nginx, between, bytes)) = troubled(1000) else {
        return;
    };
    let store = near(&between, &options(&[]));
    let same = format!("http://{}/{PACK}", between.address());
    between.script([Mishap::Redirect(same.clone())]);
    assert!(get(&store, part(PACK, 5..50)).bytes() == bytes[5..50]);
    between.script(vec![Mishap::Redirect(same); 12]);
    let fault = get(&store, whole(PACK)).fault();
    assert!(fault.text.contains("redirects"), "{fault}");
    assert!(between.passed().len() < 10, "a circle ends");
    between.script([]);
    between.script([Mishap::Redirect(format!(
        "http://localhost:{}/x",
        nginx.http().port()
    ))]);
    let fault = get(&store, whole(PACK)).fault();
    assert!(fault.text.contains("redirects"), "{fault}");
}

#[test]
fn requests_pass_a_proxy_of_the_environment() {
    let Some((_nginx, between, bytes)) = troubled(1000) else {
        return;
    };
    let proxy = format!("http://{}", between.address());
    let through = options(&[("http_proxy", &proxy), ("NO_PROXY", "direct.invalid")]);
    let store = open("http://releases.invalid", &through);
    assert!(get(&store, whole(PACK)).bytes() == bytes);
    let line = format!("GET http://releases.invalid/{PACK} HTTP/1.1");
    assert_eq!(between.passed()[0].line, line);
    let store = open("http://direct.invalid", &through);
    let fault = get(&store, whole(PACK)).fault();
    assert!(fault.text.contains("direct.invalid"), "{fault}");
    assert!(between.passed().is_empty());
}

#[test]
fn credentials_come_from_the_usual_places() {
    let Some(moto) = moto() else { return };
    let between = Middleman::start(moto.address());
    let key = |options: &StoreOptions| {
        let store = bucket(between.address(), options);
        assert_eq!(get(&store, whole(HEAD)), Got::Missing);
        let passed = between.passed().pop().expect("a request");
        let text = passed.headers.get("authorization").cloned();
        text.map(|text| {
            text.split(['=', '/'])
                .nth(1)
                .unwrap_or_default()
                .to_string()
        })
    };
    assert_eq!(key(&keys()).as_deref(), Some("AK"));
    let public = options(&[("AWS_SKIP_SIGNATURE", "true")]);
    let store = bucket(between.address(), &public);
    let _ = get(&store, whole(HEAD));
    let passed = between.passed().pop().expect("a request");
    assert_eq!(passed.headers.get("authorization"), None);

    let dir = tempfile::tempdir().expect("a directory");
    let text = "[default]\naws_access_key_id = AKFILE\naws_secret_access_key = s\n";
    write(&dir.path().join(".aws/credentials"), text);
    let home = dir.path().display().to_string();
    assert_eq!(key(&options(&[("HOME", &home)])).as_deref(), Some("AKFILE"));

    let role = format!("http://{}", metadata());
    let instance = options(&[("AWS_METADATA_ENDPOINT", &role)]);
    assert_eq!(key(&instance).as_deref(), Some("AKROLE"));
    write(&Path::new(&home).join("token"), "a token");
    let identity = options(&[
        ("AWS_WEB_IDENTITY_TOKEN_FILE", &format!("{home}/token")),
        ("AWS_ROLE_ARN", "arn:aws:iam::1:role/fleet"),
        ("AWS_ENDPOINT_URL_STS", &format!("http://{}", tokens())),
    ]);
    assert_eq!(key(&identity).as_deref(), Some("AKTOKEN"));

    let nobody = options(&[("AWS_METADATA_ENDPOINT", "http://127.0.0.1:9")]);
    let fault = get(&bucket(between.address(), &nobody), whole(HEAD)).fault();
    assert!(fault.text.contains("127.0.0.1:9"), "{fault}");
}

/// The metadata server of an instance with a role.
fn metadata() -> std::net::SocketAddr {
    serve_by(|question| {
        let body = match question.line.split(' ').nth(1).expect("a path") {
            "/latest/api/token" => "token",
            "/latest/meta-data/iam/security-credentials/" => "role",
            _ => {
                "{\"AccessKeyId\":\"AKROLE\",\"SecretAccessKey\":\"s\",\"Token\":\"t\",\
                 \"Expiration\":\"2099-01-01T00:00:00Z\"}"
            }
        };
        Answer::new(200, &[], body.as_bytes())
    })
}

/// The service that gives keys for tokens.
fn tokens() -> std::net::SocketAddr {
    serve_by(|question| {
        let asked = "Action=AssumeRoleWithWebIdentity";
        let text = [question.line.as_bytes(), &question.body].concat();
        let text = String::from_utf8_lossy(&text).into_owned();
        assert!(text.contains(asked) && text.contains("a+token") | text.contains("a%20token"));
        let body = "<AssumeRoleWithWebIdentityResponse><AssumeRoleWithWebIdentityResult>\
             <Credentials><AccessKeyId>AKTOKEN</AccessKeyId><SecretAccessKey>s</SecretAccessKey>\
             <SessionToken>t</SessionToken><Expiration>2099-01-01T00:00:00Z</Expiration>\
             </Credentials></AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>";
        Answer::new(200, &[], body.as_bytes())
    })
}

/// A bucket with Google's interface: states have numbers.
fn google() -> std::net::SocketAddr {
    let objects: Mutex<BTreeMap<String, (Vec<u8>, u64)>> = Mutex::default();
    serve_by(move |question| {
        let headers = support::http::named(&question.headers);
        let mut words = question.line.split(' ');
        let (method, path) = (
            words.next().expect("a method"),
            words.next().expect("a path"),
        );
        let mut objects = objects.lock().expect("whole");
        let number = objects.get(path).map_or(0, |(_, number)| *number);
        if method == "PUT" {
            let wanted = headers.get("x-goog-if-generation-match");
            if wanted.is_some_and(|wanted| *wanted != number.to_string()) {
                return Answer::failed(412, None, "PreconditionFailed");
            }
            objects.insert(path.to_string(), (question.body.clone(), number + 1));
        }

        let Some((bytes, number)) = objects.get(path) else {
            return Answer::failed(404, None, "NoSuchKey");
        };
        let (etag, number) = (format!("\"{number:x}-e\""), number.to_string());
        if method == "GET" && headers.get("if-none-match") == Some(&etag) {
            return Answer::new(304, &[], b"");
        }
        let state = [
            ("ETag", etag.as_str()),
            ("x-goog-generation", number.as_str()),
        ];
        match method {
            "GET" => Answer::new(200, &state, bytes),
            _ => Answer::new(200, &state, b""),
        }
    })
}

#[test]
fn conditions_hold_by_generations_where_the_store_has_those() {
    // An account without a key: nobody is asked for a token.
    let account = format!(
        "{{\"private_key\":\"\",\"private_key_id\":\"\",\"client_email\":\"\",\
         \"disable_oauth\":true,\"gcs_base_url\":\"http://{}\"}}",
        google()
    );
    let settings = options(&[("GOOGLE_SERVICE_ACCOUNT_KEY", &account)]);
    let store = open("gs://fleet/site", &settings);
    assert_eq!(get(&store, whole(HEAD)), Got::Missing);
    let first = stored(put(&store, HEAD, b"1", PutCondition::Absent)).expect("a tag");
    assert_eq!(
        put(&store, HEAD, b"2", PutCondition::Absent),
        PutReply::Conflict
    );
    let unchanged = PutCondition::Unchanged(first.clone());
    let second = stored(put(&store, HEAD, b"2", unchanged.clone())).expect("a tag");
    assert_eq!(put(&store, HEAD, b"3", unchanged), PutReply::Conflict);

    assert_eq!(
        get(&store, whole(HEAD)),
        Got::Whole(b"2".to_vec(), Some(second.clone()))
    );
    let mut again = whole(HEAD);
    again.unless = Some(second);
    assert_eq!(get(&store, again.clone()), Got::NotModified);
    again.unless = Some(first);
    assert_eq!(get(&store, again).bytes(), b"2");
}

fn seed_and_rounds(rounds: usize) -> (u64, usize) {
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse().ok());
    let seed = number("MAKUO_STORE_SEED").unwrap_or_else(|| fastrand::u64(..));
    println!("MAKUO_STORE_SEED={seed}");
    let rounds = number("MAKUO_STORE_ROUNDS").map_or(rounds, |many| many as usize);
    (seed, rounds)
}

#[test]
fn random_mishaps_end_in_the_right_bytes_or_in_a_clear_fault() {
    let (seed, gets) = seed_and_rounds(150);
    let Some((_nginx, between, bytes)) = troubled(2_000_000) else {
        return;
    };
    let impatient = StoreOptions {
        patience: Duration::from_millis(400),
        ..options(&[])
    };
    let store = near(&between, &impatient);
    let mut random = fastrand::Rng::with_seed(seed);
    between.throw(seed, 40, mishaps(&mut random));

    let (mut right, mut wrong, mut faults) = (0usize, 0usize, BTreeMap::new());
    let work = async {
        for _ in 0..gets {
            let one = random_get(&mut random, bytes.len() as u64);
            let range = one.range.clone().unwrap_or(0..bytes.len() as u64);
            let wanted = &bytes[range.start as usize..range.end as usize];
            match get_later(&store, one).await {
                // The caller hashes: a wrong byte or a stale object is not seen here.
                Got::Whole(found, _) if found == wanted => right += 1,
                Got::Whole(found, _) if found.len() == wanted.len() => wrong += 1,
                Got::Failed(fault) => {
                    assert!(fault.text.contains(PACK), "{fault}");
                    *faults.entry(format!("{:?}", fault.kind)).or_insert(0usize) += 1;
                }
                other => panic!("MAKUO_STORE_SEED={seed}: {other:?}"),
            }
        }
    };
    let patience = crate::support::wait::LONG;
    run(async { tokio::time::timeout(patience, work).await }).expect("no get hangs");

    let sent: usize = between.passed().iter().map(|one| one.sent).sum();
    println!("{right} right, {wrong} with a wrong byte, faults {faults:?}; {sent} bytes sent");
    assert!(
        right > gets / 2,
        "MAKUO_STORE_SEED={seed}: {right} of {gets}"
    );
    assert!(
        faults.keys().all(|kind| kind != "Denied"),
        "MAKUO_STORE_SEED={seed}: {faults:?}"
    );
}

fn random_get(random: &mut fastrand::Rng, size: u64) -> Get {
    match random.u8(0..4) {
        0 => whole(PACK),
        _ => {
            let start = random.u64(0..size - 1);
            let most = (size - start).min(500_000);
            part(PACK, start..start + random.u64(1..=most))
        }
    }
}

fn mishaps(random: &mut fastrand::Rng) -> Vec<Mishap> {
    let mut mishaps = vec![
        Mishap::Reset,
        Mishap::Whole,
        Mishap::OtherRange,
        Mishap::ShortRange,
        Mishap::WrongHead,
        Mishap::WrongByte,
        Mishap::Stale,
        Mishap::Chunked,
        Mishap::Gzip,
        Mishap::Huge,
        Mishap::Status(500, None, "InternalError"),
        Mishap::Status(503, Some(0), "SlowDown"),
        Mishap::Status(429, None, ""),
        Mishap::Late(Duration::from_millis(50)),
        Mishap::Late(Duration::from_millis(50)),
    ];
    mishaps.extend((0..6).map(|_| Mishap::Cut(random.usize(0..300_000))));
    mishaps.push(Mishap::Stall(random.usize(0..300_000)));
    mishaps
}

#[test]
fn one_publisher_is_never_in_conflict_with_itself() {
    let (seed, rounds) = seed_and_rounds(30);
    let Some(moto) = moto() else { return };
    let between = Middleman::start(moto.address());
    let (troubled, direct) = (
        bucket(between.address(), &keys()),
        bucket(moto.address(), &keys()),
    );
    let mishaps = vec![
        Mishap::Reset,
        Mishap::LostAnswer,
        Mishap::LostAnswer,
        Mishap::Cut(0),
        Mishap::Late(Duration::from_millis(20)),
        Mishap::Status(500, None, "InternalError"),
        Mishap::Status(503, Some(0), "SlowDown"),
        Mishap::Status(409, None, "ConditionalRequestConflict"),
    ];
    between.throw(seed, 35, mishaps);

    let (mut condition, mut done, mut failed) = (PutCondition::Absent, 0, 0);
    for round in 0..rounds {
        let bytes = format!("release {round}").into_bytes();
        match put(&troubled, HEAD, &bytes, condition.clone()) {
            PutReply::Done { etag } => {
                let found = get(&direct, whole(HEAD));
                assert_eq!(
                    found,
                    Got::Whole(bytes, etag.clone()),
                    "MAKUO_STORE_SEED={seed}"
                );
                condition = PutCondition::Unchanged(etag.expect("a tag"));
                done += 1;
            }
            PutReply::Failed(fault) => {
                assert_eq!(fault.kind, FaultKind::Temporary, "{fault}");
                condition = match get(&direct, whole(HEAD)) {
                    Got::Missing => PutCondition::Absent,
                    found => PutCondition::Unchanged(found.etag()),
                };
                failed += 1;
            }
            other => panic!("MAKUO_STORE_SEED={seed}, round {round}: {other:?}"),
        }
    }

    println!("{done} stored, {failed} failed");
    assert!(
        done > rounds / 2,
        "MAKUO_STORE_SEED={seed}: {done} of {rounds}"
    );
}

#[test]
fn many_gets_at_once_share_the_places_and_end() {
    let Some((_nginx, between, bytes)) = troubled(400_000) else {
        return;
    };
    let few = StoreOptions {
        parallel: 3,
        attempts: 10,
        ..options(&[])
    };
    let store = near(&between, &few);
    between.throw(
        5,
        60,
        vec![
            Mishap::Cut(1000),
            Mishap::Late(Duration::from_millis(20)),
            Mishap::Late(Duration::from_millis(20)),
            Mishap::Late(Duration::from_millis(20)),
        ],
    );
    run(async {
        let mut tasks = Vec::new();
        for number in 0..40u64 {
            let (store, start) = (store.clone(), number * 9000);
            let get = part(PACK, start..start + 20_000);
            tasks.push(tokio::spawn(async move {
                (start, get_later(&store, get).await)
            }));
        }
        for task in tasks {
            let (start, found) = task.await.expect("no panic");
            let start = start as usize;
            assert!(found.bytes() == bytes[start..start + 20_000], "{start}");
        }
    });
    assert!(
        (2..=3).contains(&between.most()),
        "{} at once",
        between.most()
    );
}
