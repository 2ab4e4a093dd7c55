//! The files of AWS in the home directory: `~/.aws/credentials` and `~/.aws/config`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use async_trait::async_trait;
use object_store::aws::AwsCredential;
use object_store::client::CredentialProvider;

use super::options::StoreOptions;
use crate::error::IoResultExt;
use crate::sync::locked;
use crate::units::{printable, printable_path};
use crate::{Error, Result};

/// Largest file that is read in bytes.
const MAX_PROFILE_BYTES: u64 = 1 << 20;
/// Ways to credentials that only the tools of AWS go.
const OTHER_WAYS: &[&str] = &[
    "credential_process",
    "sso_session",
    "sso_start_url",
    "source_profile",
    "credential_source",
];

/// A profile: settings of both files under one name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct AwsProfile {
    /// Name of the profile.
    pub name: String,
    settings: BTreeMap<String, String>,
}

impl AwsProfile {
    /// Reads the profile `name`, or the one that the environment names, or `default`. Returns
    /// `None` if nobody asked for it and it does not exist.
    pub fn read(name: Option<&str>, options: &StoreOptions) -> Result<Option<Self>> {
        let asked = name
            .or_else(|| options.variable("AWS_PROFILE"))
            .or_else(|| options.variable("AWS_DEFAULT_PROFILE"));
        let name = asked.unwrap_or("default");
        let mut settings = BTreeMap::new();
        let files = ProfileFiles::of(options);
        // Keys of the file for credentials win.
        for (path, file) in [
            (&files.config, FileKind::Config),
            (&files.credentials, FileKind::Credentials),
        ] {
            let text = path.as_deref().map(read_file).transpose()?.flatten();
            settings.extend(section(&text.unwrap_or_default(), name, file));
        }

        let profile = Self {
            name: name.to_string(),
            settings,
        };
        match (profile.settings.is_empty(), asked) {
            (true, Some(name)) => Err(missing(name, &files)),
            (true, None) => Ok(None),
            (false, _) => Ok(Some(profile)),
        }
    }

    /// A setting, unless it is empty.
    pub fn get(&self, key: &str) -> Option<&str> {
        let value = self.settings.get(key)?;
        (!value.is_empty()).then_some(value)
    }

    /// The key of the profile, if it has one.
    pub fn key(&self) -> Option<AwsCredential> {
        Some(AwsCredential {
            key_id: self.get("aws_access_key_id")?.to_string(),
            secret_key: self.get("aws_secret_access_key")?.to_string(),
            token: self.get("aws_session_token").map(str::to_string),
        })
    }

    /// An error if the profile leads to credentials in a way that makuo does not know.
    pub fn check_way(&self) -> Result<()> {
        let Some(way) = OTHER_WAYS.iter().find(|way| self.get(way).is_some()) else {
            return Ok(());
        };

        let name = printable(self.name.as_bytes());
        Err(Error::usage(format!(
            "the AWS profile {name} has {way}, which makuo does not follow"
        ))
        .hint(format!(
            "export the keys: eval \"$(aws configure export-credentials --profile {name} --format \
             env)\""
        )))
    }
}

fn missing(name: &str, files: &ProfileFiles) -> Error {
    let name = printable(name.as_bytes());
    let shown = |path: &Option<PathBuf>| path.as_deref().map_or("-".into(), printable_path);
    let (credentials, config) = (shown(&files.credentials), shown(&files.config));
    Error::usage(format!("there is no AWS profile {name}")).hint(format!(
        "write [{name}] in {credentials}, or [profile {name}] in {config}; or correct AWS_PROFILE"
    ))
}

/// Paths of the two files.
#[derive(Debug, Clone)]
struct ProfileFiles {
    credentials: Option<PathBuf>,
    config: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum FileKind {
    Credentials,
    Config,
}

impl ProfileFiles {
    fn of(options: &StoreOptions) -> Self {
        let home = options.variable("HOME").map(PathBuf::from);
        let path = |variable, name: &str| {
            let named = options.variable(variable).map(PathBuf::from);
            named.or_else(|| Some(home.as_ref()?.join(".aws").join(name)))
        };
        Self {
            credentials: path("AWS_SHARED_CREDENTIALS_FILE", "credentials"),
            config: path("AWS_CONFIG_FILE", "config"),
        }
    }
}

/// Reads a file; `None` if there is none.
fn read_file(path: &Path) -> Result<Option<String>> {
    use std::io::Read;
    let file = match std::fs::File::open(path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        // A daemon with a home directory that it may not enter has no profile.
        Err(e) if e.kind() == std::io::ErrorKind::NotADirectory => return Ok(None),
        file => file.context("cannot open", path)?,
    };

    let mut text = Vec::new();
    file.take(MAX_PROFILE_BYTES)
        .read_to_end(&mut text)
        .context("cannot read", path)?;
    Ok(Some(String::from_utf8_lossy(&text).into_owned()))
}

/// Returns the settings of one section. Lines that are indented belong to a nested setting.
fn section(text: &str, name: &str, file: FileKind) -> BTreeMap<String, String> {
    let mut inside = false;
    let mut settings = BTreeMap::new();
    for line in text.lines() {
        let trimmed = line.trim();
        if trimmed.is_empty() || trimmed.starts_with(['#', ';']) {
            continue;
        }

        if let Some(head) = trimmed.strip_prefix('[') {
            let head = head.split(']').next().unwrap_or_default().trim();
            inside = is_section(head, name, file);
        } else if inside && !line.starts_with([' ', '\t']) {
            let (key, value) = trimmed.split_once('=').unwrap_or((trimmed, ""));
            let value = value.split(" #").next().unwrap_or_default();
            settings.insert(key.trim().to_ascii_lowercase(), value.trim().to_string());
        }
    }

    settings
}

fn is_section(head: &str, name: &str, file: FileKind) -> bool {
    match file {
        FileKind::Credentials => head == name,
        FileKind::Config => match head.strip_prefix("profile ") {
            Some(head) => head.trim().trim_matches('"') == name,
            None => head == name && name == "default",
        },
    }
}

/// The key of a profile, read again after the file changes: rotated keys need no restart.
#[derive(Debug)]
pub(super) struct ProfileKey {
    name: String,
    options: StoreOptions,
    known: Mutex<KnownKey>,
}

#[derive(Debug)]
struct KnownKey {
    key: Arc<AwsCredential>,
    changed: Option<SystemTime>,
}

impl ProfileKey {
    /// The key of `profile`, if it has one.
    pub fn of(profile: &AwsProfile, options: &StoreOptions) -> Option<Self> {
        let key = Arc::new(profile.key()?);
        let changed = changed(options);
        Some(Self {
            name: profile.name.clone(),
            options: options.clone(),
            known: Mutex::new(KnownKey { key, changed }),
        })
    }
}

fn changed(options: &StoreOptions) -> Option<SystemTime> {
    let path = ProfileFiles::of(options).credentials?;
    std::fs::metadata(path).ok()?.modified().ok()
}

#[async_trait]
impl CredentialProvider for ProfileKey {
    type Credential = AwsCredential;

    async fn get_credential(&self) -> object_store::Result<Arc<AwsCredential>> {
        let now = changed(&self.options);
        let mut known = locked(&self.known);
        if now != known.changed {
            // A file that is just being written keeps the old key until the next request.
            let read = AwsProfile::read(Some(&self.name), &self.options);
            if let Some(key) = read.ok().flatten().and_then(|profile| profile.key()) {
                *known = KnownKey {
                    key: Arc::new(key),
                    changed: now,
                };
            }
        }

        Ok(Arc::clone(&known.key))
    }
}

#[cfg(test)]
mod tests;
