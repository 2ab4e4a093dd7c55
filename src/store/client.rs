//! The HTTP client: TLS by rustls on ring, trusted certificates, proxies and redirects.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::{Client, ClientBuilder, Method, NoProxy, Proxy, Url, redirect};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};

use super::metadata::MetadataHosts;
use super::options::{LookUp, StoreOptions};
use crate::error::IoResultExt;
use crate::{Error, Result};

/// Longest time to connect.
const MAX_CONNECT_TIME: Duration = Duration::from_secs(10);
/// Longest time to connect to the metadata server of a cloud: elsewhere nobody answers there.
const METADATA_CONNECT_TIME: Duration = Duration::from_secs(1);
/// The most redirects that are followed.
const MAX_REDIRECTS: usize = 4;
/// Largest file with certificates in bytes.
const MAX_CA_BYTES: u64 = 4 << 20;

/// Clients for the store and for the metadata server.
#[derive(Debug, Clone)]
pub(super) struct Clients {
    /// Follows redirects, if the store may have any.
    reading: Client,
    /// Follows none: a redirect would turn a put into a get, and its answer would count as stored.
    writing: Client,
    /// Without proxies, impatient.
    metadata: Client,
    metadata_hosts: MetadataHosts,
}

/// Whether redirects of GET and HEAD are followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Redirects {
    /// A few, to the same host or by https: for web servers.
    Few,
    /// The same for requests with a password, which stays with its host and port.
    FewWithLogin,
    /// None: a signature is valid for one host.
    None,
}

impl Clients {
    /// Builds the clients.
    pub fn new(options: &StoreOptions, redirects: Redirects) -> Result<Self> {
        let tls = tls(options.ca_file.as_deref())?;
        let base = || {
            let client = match options.lookup {
                Some(lookup) => Client::builder().dns_resolver(Arc::new(NameLookUp(lookup))),
                None => Client::builder(),
            };
            client
                .user_agent(concat!("makuo/", env!("CARGO_PKG_VERSION")))
                .http1_only()
                .no_proxy()
                .referer(false)
                .tls_backend_preconfigured(tls.clone())
        };

        let store = |policy| {
            let store = with_proxies(base(), options)?
                .redirect(policy)
                .connect_timeout(options.patience.min(MAX_CONNECT_TIME))
                .pool_max_idle_per_host(options.parallel);
            built(store)
        };
        let writing = store(redirect::Policy::none())?;
        let reading = match redirects {
            Redirects::Few => store(redirect::Policy::custom(|attempt| follow(attempt, false)))?,
            Redirects::FewWithLogin => {
                store(redirect::Policy::custom(|attempt| follow(attempt, true)))?
            }
            // Both use the same connections.
            Redirects::None => writing.clone(),
        };

        let metadata = base()
            .redirect(redirect::Policy::none())
            .connect_timeout(METADATA_CONNECT_TIME);

        Ok(Self {
            reading,
            writing,
            metadata: built(metadata)?,
            metadata_hosts: MetadataHosts::of(options),
        })
    }

    /// The client for a request to `host`, which may have a port.
    pub fn of(&self, host: &str, method: &Method) -> &Client {
        match *method {
            _ if self.is_metadata(host) => &self.metadata,
            Method::GET | Method::HEAD => &self.reading,
            _ => &self.writing,
        }
    }

    /// Returns whether `host` gives this machine the keys of its role.
    pub fn is_metadata(&self, host: &str) -> bool {
        self.metadata_hosts.has(host)
    }
}

/// Names that are looked up by a function of the caller.
struct NameLookUp(LookUp);

impl Resolve for NameLookUp {
    fn resolve(&self, name: Name) -> Resolving {
        let lookup = self.0;
        Box::pin(async move {
            // The client sets the port.
            let found = tokio::task::spawn_blocking(move || lookup(name.as_str(), 0)).await??;
            let addresses: Addrs = Box::new(found.into_iter());
            Ok(addresses)
        })
    }
}

fn built(builder: ClientBuilder) -> Result<Client> {
    let wrong = |e| Error::usage("cannot make a client for HTTP").because(e);
    builder.build().map_err(wrong)
}

/// Follows a redirect to the same host, or by https, and never from https to http. The client
/// itself takes user and password off a request that goes to another host or port than the one
/// before, but puts them back for the next: so a request with a login may not be sent on there.
fn follow(attempt: redirect::Attempt<'_>, has_login: bool) -> redirect::Action {
    let (from, to) = (attempt.previous().last(), attempt.url());
    let is_at = |url: Option<&Url>| url.is_some_and(|url| url.origin() == to.origin());
    let leaks = has_login && is_at(from) && !is_at(attempt.previous().first());
    let same = from.is_some_and(|from| from.host_str() == to.host_str());
    let safe = from.is_some_and(|from| from.scheme() != "https") || to.scheme() == "https";
    let near = same || to.scheme() == "https";
    match attempt.previous().len() <= MAX_REDIRECTS && safe && near && !leaks {
        true => attempt.follow(),
        false => {
            let to = to.clone();
            attempt.error(to.to_string())
        }
    }
}

fn with_proxies(mut builder: ClientBuilder, options: &StoreOptions) -> Result<ClientBuilder> {
    let variable = |name: &str| {
        let found = |name: String| options.variable(&name).map(|value| (name.clone(), value));
        found(name.to_ascii_lowercase()).or_else(|| found(name.to_string()))
    };
    let except = variable("NO_PROXY").and_then(|(_, list)| NoProxy::from_string(list));

    for kind in ["HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY"] {
        let Some((name, url)) = variable(kind) else {
            continue;
        };

        let made = match kind {
            "HTTPS_PROXY" => Proxy::https(url),
            "HTTP_PROXY" => Proxy::http(url),
            _ => Proxy::all(url),
        };
        // The error of the client has the whole text, and with it a password.
        let proxy = made.map_err(|_| {
            Error::usage(format!("{name} is no address of a proxy"))
                .hint(format!("set {name} to http://host:port, or unset it"))
        })?;
        builder = builder.proxy(proxy.no_proxy(except.clone()));
    }

    Ok(builder)
}

fn tls(ca_file: Option<&Path>) -> Result<ClientConfig> {
    let mut roots = RootCertStore::empty();
    let system = rustls_native_certs::load_native_certs();
    // A system without certificates can still have repositories on http or with `ca_file`.
    roots.add_parsable_certificates(system.certs);
    if let Some(path) = ca_file {
        add_file(&mut roots, path)?;
    }

    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| Error::usage("cannot set up TLS").because(e))?;
    Ok(config.with_root_certificates(roots).with_no_client_auth())
}

fn add_file(roots: &mut RootCertStore, path: &Path) -> Result<()> {
    use std::io::Read;
    let shown = crate::units::printable_path(path);
    let hint = "write certificates in PEM form: -----BEGIN CERTIFICATE-----";
    let file = std::fs::File::open(path).context("cannot open certificates", path)?;
    let mut text = Vec::new();
    file.take(MAX_CA_BYTES)
        .read_to_end(&mut text)
        .context("cannot read certificates", path)?;

    let mut many = 0;
    for certificate in CertificateDer::pem_slice_iter(&text) {
        let wrong =
            |e: String| Error::usage(format!("{shown} has an invalid certificate: {e}")).hint(hint);
        let certificate = certificate.map_err(|e| wrong(e.to_string()))?;
        roots.add(certificate).map_err(|e| wrong(e.to_string()))?;
        many += 1;
    }

    match many {
        0 => Err(Error::usage(format!("{shown} has no certificate")).hint(hint)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(name: &str, value: &str) -> StoreOptions {
        StoreOptions {
            environment: [(name.to_string(), value.to_string())].into(),
            ..StoreOptions::default()
        }
    }

    #[test]
    fn a_wrong_ca_file_is_named() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), "no certificate").expect("writable");
        let options = StoreOptions {
            ca_file: Some(file.path().to_path_buf()),
            ..StoreOptions::default()
        };
        let error = Clients::new(&options, Redirects::Few).expect_err("empty");
        assert!(error.to_string().contains("has no certificate"), "{error}");

        let options = StoreOptions {
            ca_file: Some("/nowhere/ca.pem".into()),
            ..StoreOptions::default()
        };
        let error = Clients::new(&options, Redirects::Few).expect_err("missing");
        assert!(error.to_string().contains("/nowhere/ca.pem"), "{error}");
    }

    #[test]
    fn a_wrong_proxy_is_named_and_a_good_one_taken() {
        for name in ["https_proxy", "HTTPS_PROXY", "all_proxy"] {
            let error = Clients::new(&with(name, "http://"), Redirects::Few).expect_err(name);
            assert!(error.to_string().contains(name), "{error}");
            let fine = Clients::new(&with(name, "http://proxy:3128"), Redirects::Few);
            assert!(fine.is_ok(), "{name}");
        }
    }
}
