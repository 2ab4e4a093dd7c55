//! Opens a path on a web server, with the user and password of its URL.

use std::sync::Arc;

use base64ct::Encoding;
use object_store::ClientOptions;
use object_store::http::HttpBuilder;
use reqwest::header::HeaderValue;

use super::check::{note_clear, wrong};
use super::{Conditions, StoreBackend, once};
use crate::store::client::{Clients, Redirects};
use crate::store::limits::Limits;
use crate::store::options::StoreOptions;
use crate::store::transport::Transport;
use crate::store::url::WebUrl;
use crate::{Error, Result};

/// Opens a path on a web server.
pub(in crate::store) fn web(
    url: &WebUrl,
    options: &StoreOptions,
    limits: Arc<Limits>,
) -> Result<StoreBackend> {
    let redirects = match url.login {
        Some(_) => Redirects::FewWithLogin,
        None => Redirects::Few,
    };
    let clients = Clients::new(options, redirects)?;
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

    // A token may stand in the place of the user.
    let who = match &url.login {
        Some(_) => "the user of the URL",
        None => "a request without credentials",
    };
    if login.is_some() {
        note_clear("the password of the URL", &url.base);
    }
    let transport = Transport::new(clients, limits, login);
    let store = HttpBuilder::new()
        .with_url(&url.base)
        .with_retry(once())
        .with_client_options(ClientOptions::new().with_allow_http(true))
        .with_http_connector(transport.clone())
        .build()
        .map_err(|e| wrong(&url.base, e))?;

    Ok(StoreBackend {
        store: Arc::new(store),
        transport,
        prefix: String::new(),
        who: who.into(),
        conditions: Conditions::None,
    })
}
