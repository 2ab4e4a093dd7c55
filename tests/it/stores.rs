//! Repositories on real servers: nginx, an S3 server and directories, with a proxy between that
//! does as bad networks, caches and servers do. `MAKUO_STORE_SEED` replays a random run, and
//! `MAKUO_STORE_ROUNDS` makes it longer.

mod conditions;
mod kinds;
mod mishaps;
mod random;
mod redirects;
mod secrets;
mod settings;
mod shipped;
mod stalls;

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

use crate::support::wait::LONG;
use crate::support::{
    self, Answer, BUCKET, Middleman, Mishap, Nginx, Noise, Passed, Question, moto, nginx, serve_by,
    skipped, write,
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

/// Runs work that has to end by itself.
fn ends<T>(work: impl Future<Output = T>) -> T {
    run(async { tokio::time::timeout(LONG, work).await }).expect("nothing waits for ever")
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

/// nginx with an object and a certificate: its port, and settings that trust its authority.
fn encrypted() -> Option<(Nginx, u16, StoreOptions)> {
    let nginx = nginx()?;
    let Some(tls) = nginx.tls() else {
        skipped("no openssl for certificates");
        return None;
    };

    write(&nginx.files().join(HEAD), "head");
    let trusting = StoreOptions {
        ca_file: Some(nginx.authority()),
        ..options(&[])
    };
    Some((nginx, tls.port(), trusting))
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

fn seed_and_rounds(rounds: usize) -> (u64, usize) {
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse().ok());
    let seed = number("MAKUO_STORE_SEED").unwrap_or_else(|| fastrand::u64(..));
    println!("MAKUO_STORE_SEED={seed}");
    let rounds = number("MAKUO_STORE_ROUNDS").map_or(rounds, |many| many as usize);
    (seed, rounds)
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
