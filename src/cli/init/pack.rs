//! The side of the deploys: creates missing keys and the host file.

use std::path::{Path, PathBuf};

use serde::Serialize;

use super::host_file::{self, HOST_FILE, HostFile};
use super::shown;
use crate::cli::args::InitArgs;
use crate::cli::{keygen, print_note, sign};
use crate::keys::{GroupKey, PublicKey, authorized_line, write_file};
use crate::report::{Report, Settings};
use crate::strict::{self, Readers};
use crate::units::printable;
use crate::{Error, Result};

#[derive(Serialize)]
struct PackResult {
    deploy_key: String,
    group_key: String,
    host_file: String,
    authorized_line: String,
    trees: Vec<String>,
}

/// Creates missing keys and the host file.
pub(super) fn run(args: &InitArgs, settings: Settings, report: &mut Report) -> Result<u8> {
    let config = host_file::config(&args.trees)?;
    let home = || Error::usage("no home directory to put the keys").hint("set HOME");
    let deploy_key = args
        .key
        .clone()
        .or_else(sign::default_key)
        .ok_or_else(home)?;

    let group_key = sign::default_group_key().ok_or_else(home)?;
    let output = args
        .output
        .clone()
        .unwrap_or_else(|| group_key.with_file_name(HOST_FILE));

    if args.key.is_none() && !deploy_key.exists() {
        crate::keys::generate(&deploy_key, &keygen::user_at_host(), false)?;
    }

    if !group_key.exists() {
        GroupKey::random()?.save(&group_key, false)?;
    }

    let trees: Vec<String> = args
        .trees
        .iter()
        .map(|tree| tree.name.to_string())
        .collect();

    let file = HostFile {
        authorized_keys: line(&public_file(&deploy_key), &trees)? + "\n",
        group_key: GroupKey::load(&group_key)?.to_text(),
        config,
    };

    let name = output.file_name().unwrap_or(output.as_os_str());
    put(
        &output,
        file.to_text(&printable(name.as_encoded_bytes())).as_bytes(),
        0o600,
        args.force,
    )?;

    let packed = PackResult {
        deploy_key: shown(&deploy_key),
        group_key: shown(&group_key),
        host_file: shown(&output),
        authorized_line: file.authorized_keys.trim_end().to_string(),
        trees,
    };

    print_notes(&packed, &printable(name.as_encoded_bytes()), settings);
    report.plain(&packed.host_file, &packed);
    Ok(0)
}

/// Tells where the keys are, and the next step on each host.
fn print_notes(packed: &PackResult, host_file: &str, settings: Settings) {
    print_note(
        settings,
        &format!("deploy key  {} (signs; keep it secret)", packed.deploy_key),
    );
    print_note(
        settings,
        &format!(
            "group key   {} (seals; commands find it there)",
            packed.group_key
        ),
    );

    print_note(
        settings,
        "One file for all hosts (a secret: read it, and copy it with scp). On each host, as root:",
    );
    print_note(settings, &format!("  makuo init --host {host_file}"));
}

/// Public half of the deploy key `path`, or `path` if public.
fn public_file(path: &Path) -> PathBuf {
    if path.extension().is_some_and(|extension| extension == "pub") {
        path.to_path_buf()
    } else {
        with_pub(path)
    }
}

/// Line of authorized keys: grants the key in `public_file` all rights on `trees`.
fn line(public_file: &Path, trees: &[String]) -> Result<String> {
    let failed = |e: std::io::Error| {
        Error::io("cannot read the public key", public_file, e)
            .with_kind(crate::Kind::Usage)
            .hint("`ssh-keygen -y -f KEY > KEY.pub` writes it again; --key names another key")
    };

    let text = std::fs::read_to_string(public_file).map_err(failed)?;
    let (public, comment) = PublicKey::from_openssh(&text)
        .map_err(|e| Error::usage(format!("{} is no public key: {e}", shown(public_file))))?;
    Ok(authorized_line(
        &trees.join(","),
        &format!("{public} {comment}"),
    ))
}

/// Writes a file, unless it already has this content.
fn put(path: &Path, bytes: &[u8], mode: u32, force: bool) -> Result<()> {
    if std::fs::read(path).is_ok_and(|there| there == bytes) {
        return strict::open(path, Readers::Owner).map(drop);
    }
    write_file(path, bytes, mode, force)
}

fn with_pub(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_os_string();
    name.push(".pub");
    name.into()
}
