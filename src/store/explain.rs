//! Turns a refusal into a sentence for people: what failed, why, and what to do. Pure.

use super::answer::AnswerFault;
use super::metadata::MetadataHosts;
use super::refusal::{RefusalCause, StoreRefusal};
use super::status::StatusAnswer;
use super::tls_fault::TlsFault;
use super::url::{BucketKind, StoreUrl};
use crate::repository::object::{FaultKind, StoreFault};

/// Request that failed, for messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum StoreAction {
    /// Reading an object.
    Get,
    /// Storing an object.
    Put,
    /// Listing objects.
    List,
    /// Deleting an object.
    Delete,
}

/// A store and who asks it.
#[derive(Debug, Clone)]
pub(super) struct AskedStore {
    /// The store.
    pub url: StoreUrl,
    /// Whose credentials are used.
    pub who: String,
    /// Services that give keys of a role.
    pub metadata: MetadataHosts,
}

impl StoreAction {
    fn verb(self) -> &'static str {
        match self {
            StoreAction::Get => "read",
            StoreAction::Put => "store",
            StoreAction::List => "list",
            StoreAction::Delete => "delete",
        }
    }
}

impl AskedStore {
    /// The fault of a request about `object`.
    pub fn fault(&self, action: StoreAction, object: &str, refusal: &StoreRefusal) -> StoreFault {
        let hint = self.hint(action, refusal);
        let hint = hint.map_or(String::new(), |hint| format!(" ({hint})"));
        let text = format!("{refusal}{hint}");
        let kind = match self.has_no_role(refusal) {
            true => FaultKind::Denied,
            false => refusal.kind(),
        };
        StoreFault {
            after: refusal.after(),
            ..self.other(kind, action, object, &text)
        }
    }

    /// A fault of `kind` that no refusal describes.
    pub fn other(
        &self,
        kind: FaultKind,
        action: StoreAction,
        object: &str,
        why: &str,
    ) -> StoreFault {
        let verb = action.verb();
        let url = &self.url;
        let object = match object {
            "" => "objects",
            object => object,
        };
        StoreFault {
            kind,
            after: None,
            // Each part is printable, and a backslash is not to be doubled again.
            text: format!("cannot {verb} {object} at {url}: {why}"),
        }
    }

    fn hint(&self, action: StoreAction, refusal: &StoreRefusal) -> Option<String> {
        if self.metadata.has(&refusal.host) {
            return Some(self.without_credentials(refusal));
        }

        match &refusal.cause {
            RefusalCause::Status(answer) => self.status_hint(action, answer),
            RefusalCause::Answer(fault) => answer_hint(fault).map(str::to_string),
            RefusalCause::UnknownName(_) => Some(self.place_hint()),
            RefusalCause::Unreachable(_) | RefusalCause::Closed(_) => Some(format!(
                "is the server up, and the port open from here? {}",
                self.place_hint()
            )),
            RefusalCause::Tls(fault) => Some(tls_hint(fault).into()),
            RefusalCause::Redirect(_) => Some("if that is right, use that address".into()),
            RefusalCause::Stuck(_) | RefusalCause::Cut(_) => None,
        }
    }

    /// Returns whether the machine's cloud says that there is no role for it. A service that does
    /// not answer or is busy may give keys a little later, for example while the machine boots.
    fn has_no_role(&self, refusal: &StoreRefusal) -> bool {
        let denied = match &refusal.cause {
            RefusalCause::Status(answer) => matches!(answer.status, 401 | 403 | 404),
            RefusalCause::Closed(_) => true,
            _ => false,
        };
        denied && self.metadata.has(&refusal.host)
    }

    fn without_credentials(&self, refusal: &StoreRefusal) -> String {
        let ways = match self.kind() {
            Some(BucketKind::Google) => {
                "set GOOGLE_APPLICATION_CREDENTIALS, or GOOGLE_SKIP_SIGNATURE=true for a public \
                 bucket"
            }
            Some(BucketKind::Azure) => {
                "set AZURE_STORAGE_ACCOUNT_KEY, or AZURE_SKIP_SIGNATURE=true for a public container"
            }
            _ => {
                "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, write a profile in \
                 ~/.aws/credentials, or set AWS_SKIP_SIGNATURE=true for a public bucket"
            }
        };

        match self.has_no_role(refusal) {
            true => format!("no credentials were found, and this machine has no role: {ways}"),
            false => format!("it gives keys to machines with a role; if this one has none, {ways}"),
        }
    }

    fn kind(&self) -> Option<BucketKind> {
        match &self.url {
            StoreUrl::Bucket(url) => Some(url.kind),
            _ => None,
        }
    }

    /// Where the address of the server comes from.
    fn place_hint(&self) -> String {
        match &self.url {
            StoreUrl::Bucket(url) if url.kind == BucketKind::S3 => {
                "check ?endpoint= of the URL, AWS_ENDPOINT_URL and AWS_REGION".into()
            }
            StoreUrl::Bucket(url) if url.kind == BucketKind::Azure => {
                "check ?endpoint= of the URL and AZURE_STORAGE_ACCOUNT_NAME".into()
            }
            _ => "check host and port of the URL, and HTTPS_PROXY".into(),
        }
    }

    fn status_hint(&self, action: StoreAction, answer: &StatusAnswer) -> Option<String> {
        let who = &self.who;
        if let Some(hint) = self.code_hint(answer) {
            return Some(hint);
        }

        Some(match (answer.status, self.kind()) {
            (301 | 302 | 307 | 308, Some(BucketKind::S3)) => region_hint(answer),
            (301..=308, _) => {
                let to = answer.location.as_deref().unwrap_or("another address");
                format!("use {to}, if that is right")
            }
            (401, None) => "the server wants a user: https://user:password@host/path".into(),
            (403, None) if action != StoreAction::Get => {
                "the server may forbid it: nginx needs `dav_methods PUT DELETE` and a directory \
                 that it may write"
                    .into()
            }
            (403, None) => "the server may not read the file, or forbids this address".into(),
            (401 | 403, Some(kind)) if action == StoreAction::Get && kind == BucketKind::S3 => {
                format!(
                    "{who} may not read it; S3 says the same of an object that does not exist, \
                     unless the key may list the bucket"
                )
            }
            (401 | 403, Some(_)) => format!("{who} may not {} objects there", action.verb()),
            (405 | 501, None) => match action {
                StoreAction::List => {
                    "a web server cannot list: run it where the files are, or with \
                                 file:// or s3://"
                        .into()
                }
                _ => "the server takes no uploads: nginx needs `dav_methods PUT DELETE`; or \
                      publish with file:// or s3://"
                    .into(),
            },
            (407, _) => "the proxy wants a user: HTTPS_PROXY=http://user:password@host:port".into(),
            (404, Some(_)) => format!("that is no answer of a store: {}", self.place_hint()),
            (404 | 410, None) if action == StoreAction::List => {
                "there is nothing at this path: is the URL right?".into()
            }
            (413, None) => {
                "the server limits uploads: nginx needs `client_max_body_size 32m`".into()
            }
            (507, _) => "the server has no space left".into(),
            (400, _) => "does the port speak https, and is this a store at all?".into(),
            _ => return None,
        })
    }

    fn code_hint(&self, answer: &StatusAnswer) -> Option<String> {
        let who = &self.who;
        let hint = match answer.code.as_deref()? {
            "NoSuchBucket" | "ContainerNotFound" | "InvalidBucketName" => {
                let StoreUrl::Bucket(url) = &self.url else {
                    return None;
                };
                let bucket = &url.bucket;
                format!("there is no bucket {bucket}: create it, or correct the URL or endpoint")
            }
            "InvalidAccessKeyId" => format!("the store does not know {who}: is it of this store?"),
            "SignatureDoesNotMatch" => {
                format!("the secret of {who} is wrong: copy AWS_SECRET_ACCESS_KEY again")
            }

            "ExpiredToken" | "InvalidToken" | "TokenRefreshRequired" => {
                format!("the session of {who} is over: log in again")
            }
            "RequestTimeTooSkewed" | "RequestExpired" => {
                let theirs = answer.date.as_deref().unwrap_or("another time");
                format!(
                    "this machine's clock is wrong: the store has {theirs}; start chrony or ntp"
                )
            }
            "AuthenticationFailed" | "AuthorizationFailure" => {
                format!("the store refuses {who}: is the key of this account, and the clock right?")
            }

            "PermanentRedirect"
            | "TemporaryRedirect"
            | "AuthorizationHeaderMalformed"
            | "IllegalLocationConstraintException" => region_hint(answer),
            "NotImplemented" => "the store does not know this kind of request".into(),
            "QuotaExceeded" | "EntityTooLarge" => "the store limits it".into(),
            _ => return None,
        };
        Some(hint)
    }
}

fn region_hint(answer: &StatusAnswer) -> String {
    match &answer.region {
        Some(region) => format!("the bucket is in {region}: set AWS_REGION or ?region={region}"),
        None => "the bucket is in another region: set AWS_REGION or ?region=".into(),
    }
}

fn answer_hint(fault: &AnswerFault) -> Option<&'static str> {
    match fault {
        AnswerFault::NoRanges | AnswerFault::OtherRange(..) | AnswerFault::Header(_) => Some(
            "the server or a cache before it does not do ranges: switch that on, or pass by it",
        ),
        AnswerFault::Encoded(_) => {
            Some("switch compression off for these files: nginx has `gzip off`")
        }
        AnswerFault::TooShort(_) => Some("it was not uploaded whole, or changed"),
        AnswerFault::NoList => Some("is a portal or a proxy in between, and the endpoint right?"),
        AnswerFault::UnfinishedList => {
            Some("the store has to know ListObjectsV2: run it where the files are, or update it")
        }
        AnswerFault::TooLarge(..) | AnswerFault::Status(_) | AnswerFault::Endless => None,
    }
}

fn tls_hint(fault: &TlsFault) -> &'static str {
    match fault {
        TlsFault::UnknownIssuer => {
            "name your own authority by --ca-file, or repository_ca of a [[tree]]; or install \
             ca-certificates"
        }
        TlsFault::OtherName(_) => "use a name of the certificate in the URL or endpoint",
        TlsFault::Expired(_) => "check this machine's clock, then renew the certificate",
        TlsFault::Authority => {
            "sign one for the server with it; one alone needs basicConstraints CA:FALSE"
        }
        TlsFault::Plain => "if that is right, write http:// instead of https://",
        TlsFault::Other(_) => "check the server's certificate and TLS versions",
    }
}

#[cfg(test)]
mod tests;
