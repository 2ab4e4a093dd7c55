//! Opens the store behind a URL: which interface, whose credentials, which endpoint.

mod s3;

use std::sync::Arc;

use base64ct::Encoding;
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use object_store::gcp::{GoogleCloudStorageBuilder, GoogleConfigKey};
use object_store::http::HttpBuilder;
use object_store::{ClientOptions, ObjectStore, RetryConfig};
use reqwest::header::HeaderValue;

use super::client::{Clients, Redirects};
use super::limits::Limits;
use super::options::StoreOptions;
use super::transport::Transport;
use super::url::{BucketKind, BucketUrl, WebUrl};
use crate::units::printable;
use crate::{Error, Result};

/// An open store.
#[derive(Debug)]
pub(super) struct Backend {
    /// The client of object_store.
    pub store: Arc<dyn ObjectStore>,
    /// The transport below it.
    pub transport: Transport,
    /// Path before that of each object, without slashes at its ends.
    pub prefix: String,
    /// Whose credentials are used, for messages.
    pub who: String,
    /// How the store takes conditions for a put.
    pub conditions: Conditions,
}

/// How a store takes conditions for a put.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Conditions {
    /// By entity tags.
    Etags,
    /// By numbers of generations.
    Generations,
    /// Not at all, or nobody knows: web servers ignore conditions that they do not know.
    None,
}

/// object_store makes each request once: repetitions are decided in this room.
fn once() -> RetryConfig {
    RetryConfig {
        max_retries: 0,
        ..RetryConfig::default()
    }
}

fn wrong(what: &str, error: object_store::Error) -> Error {
    Error::usage(format!("cannot use {what}")).because(error)
}

/// Checks a value that becomes part of a URL or a header.
fn checked<'a>(name: &str, value: &'a str) -> Result<&'a str> {
    match value.bytes().all(|b| (0x20..=0x7e).contains(&b)) {
        true => Ok(value),
        false => {
            let name = printable(name.as_bytes());
            Err(
                Error::usage(format!("{name} has characters that no such value has")).hint(
                    format!("set {name} again: perhaps a line break got into it"),
                ),
            )
        }
    }
}

fn checked_endpoint<'a>(name: &str, value: &'a str) -> Result<&'a str> {
    let url = reqwest::Url::parse(checked(name, value)?).ok();
    let fine = url.filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
    match fine {
        Some(_) => Ok(value.trim_end_matches('/')),
        None => {
            let shown = printable(value.as_bytes());
            Err(Error::usage(format!("{name} is no endpoint: {shown}"))
                .hint(format!("set {name} to https://host or http://host:port")))
        }
    }
}

fn checked_region<'a>(name: &str, value: &'a str) -> Result<&'a str> {
    let of_name = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    match value.chars().all(of_name) {
        true => Ok(value),
        false => {
            let shown = printable(value.as_bytes());
            Err(Error::usage(format!("{name} is no region: {shown}"))
                .hint("a region is a word such as eu-central-1"))
        }
    }
}

/// Opens a path on a web server.
pub(super) fn web(url: &WebUrl, options: &StoreOptions, limits: Arc<Limits>) -> Result<Backend> {
    let clients = Clients::new(options, Redirects::Few)?;
    let login = url.login.as_ref().map(|(user, password)| {
        let plain = format!("{user}:{password}");
        let text = base64ct::Base64::encode_string(plain.as_bytes());
        HeaderValue::from_str(&format!("Basic {text}")).map(|mut value| {
            value.set_sensitive(true);
            value
        })
    });
    let login = login
        .transpose()
        .map_err(|e| Error::usage("cannot use user and password of the URL").because(e))?;

    let who = match &url.login {
        Some((user, _)) => format!("user {}", printable(user.as_bytes())),
        None => "nobody in particular".into(),
    };
    let transport = Transport::new(clients, limits, login);
    let store = HttpBuilder::new()
        .with_url(&url.base)
        .with_retry(once())
        .with_client_options(ClientOptions::new().with_allow_http(true))
        .with_http_connector(transport.clone())
        .build()
        .map_err(|e| wrong(&url.base, e))?;

    Ok(Backend {
        store: Arc::new(store),
        transport,
        prefix: String::new(),
        who,
        conditions: Conditions::None,
    })
}

/// Opens a bucket.
pub(super) fn bucket(
    url: &BucketUrl,
    options: &StoreOptions,
    limits: Arc<Limits>,
) -> Result<Backend> {
    let clients = Clients::new(options, Redirects::None)?;
    let transport = Transport::new(clients, limits, None);
    let (store, who, conditions) = match url.kind {
        BucketKind::S3 => {
            let (store, who) = s3::open(url, options, &transport)?;
            (store, who, Conditions::Etags)
        }
        BucketKind::Google => {
            let (store, who) = google(url, options, &transport)?;
            (store, who, Conditions::Generations)
        }
        BucketKind::Azure => {
            let (store, who) = azure(url, options, &transport)?;
            (store, who, Conditions::Etags)
        }
    };

    Ok(Backend {
        store,
        transport,
        prefix: url.prefix.clone(),
        who,
        conditions,
    })
}

type Opened = (Arc<dyn ObjectStore>, String);

fn google(url: &BucketUrl, options: &StoreOptions, transport: &Transport) -> Result<Opened> {
    let mut builder = GoogleCloudStorageBuilder::new();
    for (name, value) in &options.environment {
        let known = name.starts_with("GOOGLE_") || name == "SERVICE_ACCOUNT";
        let key = known.then(|| name.to_ascii_lowercase().parse::<GoogleConfigKey>().ok());
        if let Some(Some(key)) = key.filter(|_| !value.is_empty()) {
            builder = builder.with_config(key, value);
        }
    }

    let who = match options.variable("GOOGLE_APPLICATION_CREDENTIALS") {
        Some(path) => format!("the credentials in {}", printable(path.as_bytes())),
        None => "the service account of this machine".into(),
    };
    let store = builder
        .with_bucket_name(&url.bucket)
        .with_retry(once())
        .with_http_connector(transport.clone())
        .build()
        .map_err(|e| {
            wrong(&format!("gs://{}", url.bucket), e)
                .hint("set GOOGLE_APPLICATION_CREDENTIALS to the file of a service account")
        })?;
    Ok((Arc::new(store), who))
}

fn azure(url: &BucketUrl, options: &StoreOptions, transport: &Transport) -> Result<Opened> {
    let mut builder = MicrosoftAzureBuilder::new();
    for (name, value) in &options.environment {
        let key = name
            .starts_with("AZURE_")
            .then(|| name.to_ascii_lowercase().parse::<AzureConfigKey>().ok());
        if let Some(Some(key)) = key.filter(|_| !value.is_empty()) {
            builder = builder.with_config(key, checked(name, value)?);
        }
    }

    if let Some(account) = &url.account {
        let of_name = |c: char| c.is_ascii_alphanumeric();
        if !account.chars().all(of_name) {
            return Err(Error::usage("?account= is no account of Azure storage")
                .hint("its name has letters and digits only"));
        }
        builder = builder.with_account(account);
    }
    if let Some(endpoint) = &url.endpoint {
        builder = builder.with_endpoint(checked_endpoint("?endpoint=", endpoint)?.to_string());
    }

    let store = builder
        .with_container_name(&url.bucket)
        .with_allow_http(true)
        .with_retry(once())
        .with_http_connector(transport.clone())
        .build()
        .map_err(|e| {
            wrong(&format!("az://{}", url.bucket), e)
                .hint("set AZURE_STORAGE_ACCOUNT_NAME (or ?account=) and AZURE_STORAGE_ACCOUNT_KEY")
        })?;
    Ok((Arc::new(store), "the Azure account".into()))
}
