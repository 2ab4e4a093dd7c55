//! Opens a container of Azure Blob Storage: account and key from the URL, the environment or the
//! role of the machine.

use std::sync::Arc;

use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};

use super::check::{checked, checked_endpoint, wrong};
use super::{Conditions, OpenedBackend, once};
use crate::store::options::StoreOptions;
use crate::store::transport::Transport;
use crate::store::url::BucketUrl;
use crate::{Error, Result};

/// Opens a container; also says whose credentials are used.
pub(super) fn open(
    url: &BucketUrl,
    options: &StoreOptions,
    transport: &Transport,
) -> Result<OpenedBackend> {
    let mut builder = MicrosoftAzureBuilder::new();
    for (name, value) in &options.environment {
        let key = name
            .starts_with("AZURE_")
            .then(|| name.to_ascii_lowercase().parse::<AzureConfigKey>().ok());
        if let Some(Some(key)) = key.filter(|_| !value.is_empty()) {
            let value = match name.ends_with("ENDPOINT") {
                true => checked_endpoint(name, value)?,
                false => checked(name, value)?,
            };
            builder = builder.with_config(key, value);
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
    let who = "the Azure account".to_string();
    Ok((Arc::new(store), who, Conditions::Etags))
}
