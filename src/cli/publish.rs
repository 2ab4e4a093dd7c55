//! `makuo publish`: signs a release of a spec's source and stores it in a repository.

use std::path::Path;
use std::sync::Arc;

use serde::Serialize;

use super::args::PublishArgs;
use super::{deploy, network, sign, store};
use crate::drive::clock::Clock;
use crate::drive::deploy::source::{SourceScan, Unmounted};
use crate::drive::deploy::{Interrupt, ReleaseKeys};
use crate::drive::repository::{HeadMemory, PublishOptions, PublishedRelease, publish_spec};
use crate::keys::shown_time;
use crate::manifest::ReleaseMessage;
use crate::report::Report;
use crate::spec::Spec;
use crate::store::StoreUrl;
use crate::units::{ByteSize, WallTime};
use crate::{Error, Result};

/// Result for scripts.
#[derive(Serialize)]
struct PublishResult {
    tree: String,
    serial: u64,
    repository: String,
    unchanged: bool,
    valid_until: Option<i64>,
    packs: u64,
    bytes_release: u64,
    bytes_sent: u64,
    seconds: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<ReleaseMessage>,
}

pub(super) fn run(args: &PublishArgs, config: Option<&Path>, report: &mut Report) -> Result<u8> {
    let mut spec = Spec::load(&args.spec)?;
    spec.check_source()?;
    if spec.commit.pause {
        return Err(Error::usage(
            "commit.pause: hosts that follow a repository take a release all at once",
        )
        .hint("publish it by a spec with pause = false"));
    }

    spec.delete.extras = (spec.delete.extras || args.delete) && !args.no_delete;
    let url = store::url(&args.to)?;
    let store = store::open(&url, &args.store)?;
    let config = network::host_config(config)?;
    let key = sign::key_file(args.key.as_deref(), spec.key.as_deref())?;
    let authorized = sign::authorized(args.authorized_keys.as_deref(), &config)?;

    let clock = Clock::start();
    let began = clock.now();
    report.start(&format!("{}: publishing to {url}", spec.tree));
    let options = PublishOptions {
        keep: args.history.keep.map(usize::from),
        valid_for: args.valid_for.unwrap_or_default(),
        again: args.again,
        repair: args.repair,
        message: args.about.message.clone(),
        keys: ReleaseKeys {
            signer: sign::cosigned(&key, &args.cosign.keys)?,
            authorized: Some(Arc::new(authorized)),
        },
        name: network::host_name()?,
        memory: HeadMemory::new(deploy::cache_dir().as_deref(), &url),
        cache: deploy::cache_dir(),
        interrupt: Interrupt::default(),
    };
    let scan = SourceScan {
        checksum: args.checksum,
        unmounted: if args.yes_unmounted {
            Unmounted::Accept
        } else {
            Unmounted::Refuse
        },
        ..SourceScan::default()
    };

    let published = publish_spec(store, &spec, scan, &options, report)?;
    let seconds = clock.now().since(began).as_secs_f64();
    tell(&published, &url, seconds, report);
    Ok(0)
}

/// Reports a published release.
fn tell(published: &PublishedRelease, url: &StoreUrl, seconds: f64, report: &mut Report) {
    let PublishedRelease {
        release,
        stored,
        is_unchanged,
    } = published;
    let header = release.header();
    let bytes = ByteSize(header.root.bytes);
    let head = shown_head(stored.valid_until);
    let text = if *is_unchanged {
        format!("{release} unchanged; {head}")
    } else {
        let end = stored.valid_until.map(|_| format!("; {head}"));
        format!(
            "{release} published to {url}: {} new in {} {}, {bytes} in all; {seconds:.1} s{}",
            ByteSize(stored.stored),
            stored.packs,
            if stored.packs == 1 { "pack" } else { "packs" },
            end.unwrap_or_default()
        )
    };

    let fields = PublishResult {
        tree: header.tree.to_string(),
        serial: header.serial.0,
        repository: url.to_string(),
        unchanged: *is_unchanged,
        valid_until: stored.valid_until.map(|until| until.0),
        packs: stored.packs,
        bytes_release: bytes.0,
        bytes_sent: stored.stored,
        seconds,
        message: header.message.clone(),
    };
    report.plain(&text, &fields);
}

/// How long the head of a tree holds.
pub(super) fn shown_head(valid_until: Option<WallTime>) -> String {
    match valid_until {
        Some(until) => format!("its head is valid until {}", shown_time(until)),
        None => "its head is signed again, and has no end".to_string(),
    }
}
