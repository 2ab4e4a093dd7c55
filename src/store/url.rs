//! Places of a repository as people write them: `s3://bucket/prefix`, `gs://`, `az://`, web
//! addresses, `file:///path` and plain directories. Pure; errors say which part is wrong.

mod secrets;

use std::fmt;
use std::path::{Component, Path, PathBuf};

use secrets::is_scheme;
pub(super) use secrets::without_secrets;

use crate::units::printable;
use crate::{Error, Result};

const FORMS: &str = "s3://bucket/prefix, gs://bucket/prefix, az://container/prefix, \
                     https://host/path, file:///path or a directory such as /srv/repo or ./repo";

/// A place of a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreUrl {
    /// A directory, with its absolute path.
    Directory(PathBuf),
    /// A web server.
    Web(WebUrl),
    /// A bucket of an object store.
    Bucket(BucketUrl),
}

/// A path on a web server, and who asks there.
#[derive(Clone, PartialEq, Eq)]
pub struct WebUrl {
    /// Scheme, host, port and path, without a slash at the end and without user and password.
    pub base: String,
    /// User and password for basic authentication, percent-decoded.
    pub login: Option<(String, String)>,
}

/// A bucket, a prefix within it, and how to reach it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BucketUrl {
    /// The interface that the store has.
    pub kind: BucketKind,
    /// Name of the bucket; Azure calls it container.
    pub bucket: String,
    /// What stands before each object path, without slashes at its ends; may be empty.
    pub prefix: String,
    /// `?endpoint=https://host`: a store other than the provider's own.
    pub endpoint: Option<String>,
    /// `?region=eu-west-1`.
    pub region: Option<String>,
    /// `?profile=name`: a section of the AWS files in the home directory.
    pub profile: Option<String>,
    /// `?account=name` of Azure.
    pub account: Option<String>,
}

/// Interface of an object store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BucketKind {
    /// Amazon's, which Ceph, Garage, MinIO and R2 have as well.
    S3,
    /// Google Cloud Storage.
    Google,
    /// Azure Blob Storage.
    Azure,
}

impl BucketKind {
    /// The scheme of its URLs.
    pub fn scheme(self) -> &'static str {
        match self {
            BucketKind::S3 => "s3",
            BucketKind::Google => "gs",
            BucketKind::Azure => "az",
        }
    }
}

impl StoreUrl {
    /// Parses `text`. Relative directories are below `here`.
    pub fn parse(text: &str, here: &Path) -> Result<StoreUrl> {
        let bad = text.is_empty() || text.chars().any(|c| c.is_control() || c == ' ');
        let Some((scheme, rest)) = text.split_once("://").filter(|_| !bad) else {
            return directory(text, here);
        };

        match scheme.to_ascii_lowercase().as_str() {
            "s3" | "s3a" => bucket(BucketKind::S3, text, rest),
            "gs" | "gcs" => bucket(BucketKind::Google, text, rest),
            "az" | "azure" => bucket(BucketKind::Azure, text, rest),
            scheme @ ("http" | "https") => web(scheme, text, rest),
            "file" => file(text, rest),
            scheme if is_scheme(scheme) => {
                let why = format!("there is no {scheme}:// for repositories");
                Err(wrong(text, why))
            }
            _ => Err(wrong(text, "there are no such URLs for repositories")),
        }
    }
}

impl fmt::Display for StoreUrl {
    /// Writes the place without passwords.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StoreUrl::Directory(path) => f.write_str(&crate::units::printable_path(path)),
            StoreUrl::Web(web) => f.write_str(&web.base),
            StoreUrl::Bucket(url) => {
                write!(f, "{}://{}", url.kind.scheme(), url.bucket)?;
                match url.prefix.as_str() {
                    "" => Ok(()),
                    prefix => write!(f, "/{prefix}"),
                }
            }
        }
    }
}

impl fmt::Debug for WebUrl {
    /// Leaves user and password out: a token may stand in the place of either.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WebUrl")
            .field("base", &self.base)
            .field("has_login", &self.login.is_some())
            .finish()
    }
}

fn wrong(text: &str, why: impl fmt::Display) -> Error {
    let shown = printable(without_secrets(text).as_bytes());
    Error::usage(format!("{shown} is no place of a repository: {why}"))
        .hint(format!("write {FORMS}"))
}

fn directory(text: &str, here: &Path) -> Result<StoreUrl> {
    let path = Path::new(text);
    let first = path.components().next();
    let plain = matches!(
        first,
        Some(Component::RootDir | Component::CurDir | Component::ParentDir)
    );

    match text {
        "" => Err(wrong(text, "it is empty")),
        _ if text.contains('\0') => Err(wrong(text, "it contains a zero byte")),
        _ if plain => Ok(StoreUrl::Directory(here.join(path).components().collect())),
        _ => {
            let why = "it is neither a URL nor a path that begins with / or .";
            let error = wrong(text, why);
            if text.contains(['@', '?']) || text.contains(":/") {
                return Err(error);
            }
            let shown = printable(text.as_bytes());
            Err(error.hint(format!("for the directory write ./{shown}; else {FORMS}")))
        }
    }
}

fn file(text: &str, rest: &str) -> Result<StoreUrl> {
    let path = rest.strip_prefix("localhost").unwrap_or(rest);
    if !path.starts_with('/') {
        let why = "file:// takes an absolute path, so three slashes";
        let rest = printable(without_secrets(rest).as_bytes());
        return Err(wrong(text, why).hint(format!("write file:///{rest}")));
    }

    let path = decoded(path).ok_or_else(|| wrong(text, "its %-escapes are not valid"))?;
    match path.contains('\0') {
        true => Err(wrong(text, "it contains a zero byte")),
        false => Ok(StoreUrl::Directory(Path::new(&path).components().collect())),
    }
}

fn web(scheme: &str, text: &str, rest: &str) -> Result<StoreUrl> {
    if rest.contains(['?', '#']) {
        let why = "a web address of a repository has neither ? nor #";
        return Err(wrong(text, why).hint("objects are found below its path: remove the query"));
    }

    let end = rest.find('/').unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    let (login, host) = match authority.rsplit_once('@') {
        Some((login, host)) => (Some(login), host),
        None => (None, authority),
    };
    if path.contains('@') {
        let why = "there is an @ in its path";
        let hint = "in a password write / as %2F, ? as %3F and # as %23; in a path write @ as %40";
        return Err(wrong(text, why).hint(hint));
    }
    check_host(text, host)?;

    let login = login.map(|login| {
        let (user, password) = login.split_once(':').unwrap_or((login, ""));
        decoded(user).zip(decoded(password))
    });
    let login = match login {
        Some(None) => return Err(wrong(text, "the %-escapes of its user are not valid")),
        Some(known) => known,
        None => None,
    };

    let base = format!("{scheme}://{host}{}", path.trim_end_matches('/'));
    Ok(StoreUrl::Web(WebUrl { base, login }))
}

fn check_host(text: &str, host: &str) -> Result<()> {
    let (name, port) = match host.rsplit_once(':') {
        Some((name, port)) if !port.contains(']') => (name, Some(port)),
        _ => (host, None),
    };

    let bracketed = name.strip_prefix('[').and_then(|n| n.strip_suffix(']'));
    let valid = match bracketed {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => !name.contains([':', '[', ']', '<', '>', '\\', '^', '`', '{', '|', '}', '"']),
    };

    match port {
        _ if name.is_empty() => Err(wrong(text, "it has no host")),
        _ if !valid => Err(wrong(text, "its host is not valid")),
        Some(port) if port.parse::<u16>().is_err() => Err(wrong(text, "its port is no number")),
        _ => Ok(()),
    }
}

fn bucket(kind: BucketKind, text: &str, rest: &str) -> Result<StoreUrl> {
    let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (bucket, prefix) = place.split_once('/').unwrap_or((place, ""));
    let prefix = prefix.trim_matches('/');
    let of_name = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
    if bucket.is_empty() || !bucket.chars().all(of_name) {
        let why = "after the two slashes stands the name of a bucket: letters, digits, - and .";
        return Err(wrong(text, why));
    }

    let odd = |part: &str| matches!(part, "" | "." | "..");
    if !prefix.is_empty() && prefix.split('/').any(odd) {
        return Err(wrong(text, "its prefix has an empty part, . or .."));
    }
    if prefix.contains('@') {
        let why = "there is an @ in its prefix";
        return Err(wrong(text, why).hint("credentials come from the environment or a profile"));
    }

    let mut url = BucketUrl {
        kind,
        bucket: bucket.to_string(),
        prefix: prefix.to_string(),
        endpoint: None,
        region: None,
        profile: None,
        account: None,
    };

    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        set(&mut url, text, pair)?;
    }

    Ok(StoreUrl::Bucket(url))
}

/// Takes `name=value` of the query over into `url`.
fn set(url: &mut BucketUrl, text: &str, pair: &str) -> Result<()> {
    let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
    let is_word = (1..=20).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_lowercase());
    let shown = if is_word && pair.contains('=') {
        name
    } else {
        "***"
    };
    let Some(value) = decoded(value).filter(|value| !value.is_empty()) else {
        return Err(wrong(text, format!("?{shown}= has no valid value")));
    };

    let place = match (name, url.kind) {
        ("endpoint", _) if !value.starts_with("http://") && !value.starts_with("https://") => {
            let why = "?endpoint= takes a URL that begins with https:// or http://";
            return Err(wrong(text, why));
        }
        ("endpoint", _) if value.contains('@') => {
            let why = "?endpoint= takes no user and no password";
            return Err(wrong(text, why).hint("set the credentials in the environment"));
        }
        ("endpoint", BucketKind::S3 | BucketKind::Azure) => &mut url.endpoint,
        ("region", BucketKind::S3) => &mut url.region,
        ("profile", BucketKind::S3) => &mut url.profile,
        ("account", BucketKind::Azure) => &mut url.account,
        _ => {
            let known = match url.kind {
                BucketKind::S3 => "endpoint, region and profile",
                BucketKind::Google => "none",
                BucketKind::Azure => "endpoint and account",
            };
            let why = format!("it has no setting {shown:?}; known are {known}");
            return Err(wrong(text, why));
        }
    };

    *place = Some(value);
    Ok(())
}

/// Decodes %-escapes; `None` for an escape or result that is not valid.
fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }

        let mut digit = || char::from(rest.next()?).to_digit(16);
        let (high, low) = (digit()?, digit()?);
        bytes.push(u8::try_from(high * 16 + low).ok()?);
    }

    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests;
