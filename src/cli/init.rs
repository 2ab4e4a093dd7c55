//! `makuo init`: the keys of a group and one file for all of its hosts, and what a host does with that file.

mod host_file;

use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use serde::Serialize;

use self::host_file::HostFile;
use super::args::{InitArgs, TreeAt};
use super::{keygen, network, sign, talk};
use crate::config::{AUTHORIZED_KEYS, GROUP_KEY, HostConfig};
use crate::keys::{AuthorizedKeys, GroupKey, PublicKey, authorized_line, write_file};
use crate::report::{Report, Settings};
use crate::strict::{self, Readers};
use crate::units::printable;
use crate::{Error, Result};

/// The name of the host file, beside the keys.
const HOST_FILE: &str = "host.toml";
/// The configuration as packages install it, with every choice as a remark.
const PACKAGED: &str = include_str!("../../packaging/makuo.toml");

pub(super) fn run(args: &InitArgs, config: Option<&Path>, settings: Settings, report: &mut Report) -> Result<u8> {
    match &args.host {
        Some(file) => unpack(file, args.force, config, settings, report),
        None => pack(args, settings, report),
    }
}

#[derive(Serialize)]
struct Packed {
    deploy_key: String,
    group_key: String,
    host_file: String,
    authorized_line: String,
    trees: Vec<String>,
}

/// Makes the keys that are missing, and the host file.
fn pack(args: &InitArgs, settings: Settings, report: &mut Report) -> Result<u8> {
    let config = host_file::config(&args.trees)?;
    let home = || Error::usage("no home directory to put the keys").hint("set HOME");
    let deploy_key = args.key.clone().or_else(sign::default_key).ok_or_else(home)?;
    let group_key = sign::default_group_key().ok_or_else(home)?;
    let output = args.output.clone().unwrap_or_else(|| group_key.with_file_name(HOST_FILE));

    let is_public = deploy_key.extension().is_some_and(|extension| extension == "pub");
    let public_file = if is_public { deploy_key.clone() } else { with_pub(&deploy_key) };
    if args.key.is_none() && !deploy_key.exists() {
        crate::keys::generate(&deploy_key, &keygen::user_at_host(), false)?;
    }
    if !group_key.exists() {
        GroupKey::random()?.save(&group_key, false)?;
    }

    let trees: Vec<String> = args.trees.iter().map(|tree| tree.name.to_string()).collect();
    let file = HostFile {
        authorized_keys: line(&public_file, &trees)? + "\n",
        group_key: GroupKey::load(&group_key)?.to_text(),
        config,
    };
    let name = output.file_name().unwrap_or(output.as_os_str());
    put(&output, file.to_text(&printable(name.as_encoded_bytes())).as_bytes(), 0o600, args.force)?;

    let packed = Packed {
        deploy_key: shown(&deploy_key),
        group_key: shown(&group_key),
        host_file: shown(&output),
        authorized_line: file.authorized_keys.trim_end().to_string(),
        trees,
    };
    talk(settings, &format!("deploy key  {} (signs; keep it secret)", packed.deploy_key));
    talk(settings, &format!("group key   {} (seals; commands find it there)", packed.group_key));
    talk(settings, "One file for all hosts (a secret: read it, and copy it with scp). On each host, as root:");
    talk(settings, &format!("  makuo init --host {}", printable(name.as_encoded_bytes())));
    report.plain(&packed.host_file, &packed);
    Ok(0)
}

/// The line for the authorized keys: the key in `public_file` may do everything to `trees`.
fn line(public_file: &Path, trees: &[String]) -> Result<String> {
    let failed = |e: std::io::Error| {
        Error::io("cannot read the public key", public_file, e)
            .with_kind(crate::Kind::Usage)
            .hint("`ssh-keygen -y -f KEY > KEY.pub` writes it again; --key names another key")
    };
    let text = std::fs::read_to_string(public_file).map_err(failed)?;
    let (public, comment) = PublicKey::from_openssh(&text)
        .map_err(|e| Error::usage(format!("{} is no public key: {e}", shown(public_file))))?;
    Ok(authorized_line(&trees.join(","), &format!("{public} {comment}")))
}

#[derive(Serialize)]
struct Unpacked {
    written: Vec<String>,
    kept: Vec<String>,
}

/// A file that a host gets.
struct Part {
    path: PathBuf,
    text: String,
    mode: u32,
}

impl Part {
    /// Whether it is there already, or in the way.
    fn state(&self) -> Result<State> {
        let there = match std::fs::read(&self.path) {
            Ok(there) => there,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(State::Missing),
            Err(e) => return Err(Error::io("cannot read", &self.path, e)),
        };
        Ok(match () {
            () if there == self.text.as_bytes() => State::Same,
            () if there == PACKAGED.as_bytes() => State::Packaged,
            () => State::Other,
        })
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Missing,
    Same,
    /// As a package installed it: nobody has written there yet.
    Packaged,
    Other,
}

/// Writes a host's files: all of them, or none where something else is in the way.
fn unpack(file: &Path, force: bool, config: Option<&Path>, settings: Settings, report: &mut Report) -> Result<u8> {
    if let Some(uid) = std::env::var("SUDO_UID").ok().filter(|_| nix::unistd::geteuid().is_root()) {
        // A user who may become root may bring root a file.
        uid.parse().map(strict::trust).unwrap_or_default();
    }
    let config = network::config_path(config);
    let host = HostFile::load(file, &config)?;
    let part = |name: &str, text: &str, mode| Part { path: config.with_file_name(name), text: text.into(), mode };
    let parts = [
        part(GROUP_KEY, &host.group_key, 0o600),
        part(AUTHORIZED_KEYS, &host.authorized_keys, 0o644),
        Part { path: config.clone(), text: host.config.clone(), mode: 0o644 },
    ];

    let states = parts.iter().map(Part::state).collect::<Result<Vec<_>>>()?;
    let others: Vec<String> =
        parts.iter().zip(&states).filter(|(_, state)| **state == State::Other).map(|(p, _)| shown(&p.path)).collect();
    if !others.is_empty() && !force {
        let (what, verb) = (others.join(" and "), if others.len() == 1 { "says" } else { "say" });
        return Err(Error::usage(format!("{what} {verb} something else already: nothing was written"))
            .hint("add what is missing there by hand, or replace it with --force"));
    }

    if let Some(dir) = config.parent() {
        let made = std::fs::DirBuilder::new().recursive(true).mode(0o755).create(dir);
        made.map_err(|e| Error::io("cannot make the directory", dir, e))?;
    }
    let (mut written, mut kept) = (Vec::new(), Vec::new());
    for (part, state) in parts.iter().zip(states) {
        if state == State::Same {
            kept.push(shown(&part.path));
            continue;
        }
        write_file(&part.path, part.text.as_bytes(), part.mode, state != State::Missing)?;
        written.push(shown(&part.path));
    }
    // As the daemon will read them.
    let checked = HostConfig::load(&config)?;
    AuthorizedKeys::load(&checked.authorized_keys)?;
    GroupKey::load(&checked.default_group_key())?;

    written.iter().for_each(|path| talk(settings, &format!("wrote  {path}")));
    kept.iter().for_each(|path| talk(settings, &format!("kept   {path}: it is the same")));
    talk(settings, host.explain(&config)?.trim_end());
    talk(settings, "Now start the daemon: `systemctl enable --now makuo`, or `makuo daemon`. The host file can go.");
    report.plain("", &Unpacked { written, kept });
    Ok(0)
}

/// Writes a file that may be there already as it is to be.
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

fn shown(path: &Path) -> String {
    printable(path.as_os_str().as_encoded_bytes())
}
