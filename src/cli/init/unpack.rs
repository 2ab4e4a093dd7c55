//! The side of a host: unpacks the host file beside the configuration.

use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::host_file::HostFile;
use super::shown;
use crate::cli::{network, print_note};
use crate::config::{AUTHORIZED_KEYS, GROUP_KEY, HostConfig};
use crate::error::IoResultExt;
use crate::keys::{AuthorizedKeys, GroupKey, write_file};
use crate::report::{Report, Settings};
use crate::strict;
use crate::{Error, Result};

/// Configuration as installed by packages, with every setting as a comment.
const PACKAGED: &str = include_str!("../../../packaging/makuo.toml");

#[derive(Serialize)]
struct UnpackResult {
    written: Vec<String>,
    kept: Vec<String>,
}

/// File to write on a host.
struct PlannedFile {
    path: PathBuf,
    text: String,
    mode: u32,
}

impl PlannedFile {
    /// Compares the file with the present one.
    fn state(&self) -> Result<FileState> {
        let there = match std::fs::read(&self.path) {
            Ok(there) => there,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(FileState::Missing),
            Err(e) => return Err(Error::io("cannot read", &self.path, e)),
        };

        Ok(match () {
            () if there == self.text.as_bytes() => FileState::Same,
            () if there == PACKAGED.as_bytes() => FileState::Packaged,
            () => FileState::Other,
        })
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum FileState {
    Missing,
    Same,
    /// As installed by a package: not edited yet.
    Packaged,
    Other,
}

/// Writes the files of a host: all of them, or none if a different one is in the way.
pub(super) fn run(
    file: &Path,
    force: bool,
    config: Option<&Path>,
    settings: Settings,
    report: &mut Report,
) -> Result<u8> {
    trust_sudo_user();
    let config = network::config_path(config);
    let host = HostFile::load(file, &config)?;
    let parts = planned(&host, &config);
    let states = parts
        .iter()
        .map(PlannedFile::state)
        .collect::<Result<Vec<_>>>()?;

    if !force {
        refuse_others(&parts, &states)?;
    }

    if let Some(dir) = config.parent() {
        let made = std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create(dir);
        made.context("cannot make the directory", dir)?;
    }

    let mut written = Vec::new();
    let mut kept = Vec::new();
    for (part, state) in parts.iter().zip(states) {
        if state == FileState::Same {
            kept.push(shown(&part.path));
            continue;
        }
        write_file(
            &part.path,
            part.text.as_bytes(),
            part.mode,
            state != FileState::Missing,
        )?;
        written.push(shown(&part.path));
    }

    // Same checks as in the daemon.
    let checked = HostConfig::load(&config)?;
    AuthorizedKeys::load(&checked.authorized_keys)?;
    GroupKey::load(&checked.default_group_key())?;

    let result = UnpackResult { written, kept };
    print_notes(&result, &host, &config, settings)?;
    report.plain("", &result);
    Ok(0)
}

/// Files of a host beside the configuration `config`.
fn planned(host: &HostFile, config: &Path) -> [PlannedFile; 3] {
    let part = |name: &str, text: &str, mode| PlannedFile {
        path: config.with_file_name(name),
        text: text.into(),
        mode,
    };

    [
        part(GROUP_KEY, &host.group_key, 0o600),
        part(AUTHORIZED_KEYS, &host.authorized_keys, 0o644),
        PlannedFile {
            path: config.to_path_buf(),
            text: host.config.clone(),
            mode: 0o644,
        },
    ]
}

/// Accepts files of the user behind sudo.
fn trust_sudo_user() {
    if let Some(uid) = std::env::var("SUDO_UID")
        .ok()
        .filter(|_| nix::unistd::geteuid().is_root())
    {
        // A user with sudo rights may hand root a file.
        uid.parse().map(strict::trust).unwrap_or_default();
    }
}

/// Refuses to replace files with other content.
fn refuse_others(parts: &[PlannedFile], states: &[FileState]) -> Result<()> {
    let others: Vec<String> = parts
        .iter()
        .zip(states)
        .filter(|(_, state)| **state == FileState::Other)
        .map(|(p, _)| shown(&p.path))
        .collect();

    if others.is_empty() {
        return Ok(());
    }

    let what = others.join(" and ");
    let verb = if others.len() == 1 { "has" } else { "have" };
    Err(Error::usage(format!(
        "{what} already {verb} other content: nothing was written"
    ))
    .hint("add what is missing there by hand, or replace it with --force"))
}

/// Tells what was done, and the next step.
fn print_notes(
    result: &UnpackResult,
    host: &HostFile,
    config: &Path,
    settings: Settings,
) -> Result<()> {
    result
        .written
        .iter()
        .for_each(|path| print_note(settings, &format!("wrote  {path}")));

    result
        .kept
        .iter()
        .for_each(|path| print_note(settings, &format!("kept   {path}: it is the same")));
    print_note(settings, host.explain(config)?.trim_end());
    print_note(
        settings,
        "Now start the daemon: `systemctl enable --now makuo`, or `makuo daemon`. \
         The host file can be deleted.",
    );

    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::super::host_file::{self, HOST_FILE};
    use super::*;
    use crate::cli::args::TreeAt;
    use crate::id::TreeName;
    use crate::keys::{FileSigner, Signer};
    use crate::report::{ColorChoice, Verbosity};

    const NAMES: [&str; 3] = [GROUP_KEY, AUTHORIZED_KEYS, "makuo.toml"];
    /// Strings with a meaning in a host file or in a path.
    const WORDS: [&str; 13] = [
        "",
        "\n",
        "'''",
        "\"../../x\" = ''\n",
        "config = ''\n",
        "/../../other",
        "[[tree]]\n",
        "\0",
        "format = 1\n",
        "authorized_keys = \"/other/mine\"\n",
        "[network]\nplain = true\n",
        "# a remark\n",
        "state_dir = \"/other\"\n",
    ];

    fn read_host_file() -> String {
        let tree = TreeAt {
            name: TreeName::new("www").expect("legal"),
            path: "/var/www".into(),
        };

        HostFile {
            authorized_keys: format!(
                "tree=\"www\",deploy {}\n",
                FileSigner::from_seed([7; 32]).public()
            ),
            group_key: GroupKey::random().expect("random").to_text(),
            config: host_file::config(&[tree]).expect("legal"),
        }
        .to_text(HOST_FILE)
    }

    fn something() -> impl Strategy<Value = Vec<u8>> {
        prop_oneof![
            prop::collection::vec(any::<u8>(), 0..40),
            prop::sample::select(WORDS.to_vec()).prop_map(|word| word.as_bytes().to_vec()),
        ]
    }

    /// Every file below `dir` with its content.
    fn files(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
        let mut all = BTreeMap::new();
        let mut open = vec![dir.to_path_buf()];
        while let Some(dir) = open.pop() {
            for entry in std::fs::read_dir(&dir).expect("readable") {
                let path = entry.expect("readable").path();
                if path.is_dir() {
                    open.push(path);
                } else {
                    all.insert(path.clone(), std::fs::read(path).expect("readable"));
                }
            }
        }

        all
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(150))]

        #[test]
        fn whatever_a_host_file_says_it_writes_three_files_or_none_and_never_over_what_is_there(
            put in prop::collection::vec(
                (any::<prop::sample::Index>(), 0..30usize, something()),
                0..3,
            ),
            there in prop::option::of((0..3usize, prop::collection::vec(any::<u8>(), 0..9))),
        ) {
            let dir = tempfile::tempdir().expect("a directory");
            let mut text = read_host_file().into_bytes();
            for (at, over, bytes) in put {
                let at = at.index(text.len() + 1);
                text.splice(at..(at + over).min(text.len()), bytes);
            }

            let file = dir.path().join(HOST_FILE);
            let etc = dir.path().join("etc");
            write_file(&file, &text, 0o600, false).expect("writable");
            write_file(&dir.path().join("other/mine"), b"mine", 0o600, false).expect("writable");

            if let Some((name, bytes)) = there {
                write_file(&etc.join(NAMES[name]), &bytes, 0o600, false).expect("writable");
            }

            let before = files(dir.path());
            let settings = Settings {
                json: false,
                verbosity: Verbosity::Quiet,
                color: ColorChoice::Never,
            };
            let config = etc.join("makuo.toml");
            let mut report = Report::new(settings);
            let done = run(&file, false, Some(&config), settings, &mut report);

            let mut after = files(dir.path());
            for (path, content) in before {
                prop_assert_eq!(after.remove(&path), Some(content), "{}", path.display());
            }

            let new: Vec<_> = after
                .keys()
                .map(|path| path.strip_prefix(&etc).ok().and_then(Path::to_str))
                .collect();
            let is_known = |name: &Option<&str>| name.is_some_and(|name| NAMES.contains(&name));
            prop_assert!(new.iter().all(is_known), "{:?}", new);
            prop_assert_eq!(new.len(), if done.is_ok() { 3 } else { 0 }, "{:?}", done);
        }
    }
}
