//! Opens a bucket of Google Cloud Storage: credentials from the environment or the role of the
//! machine.

use std::sync::Arc;

use object_store::gcp::{GoogleCloudStorageBuilder, GoogleConfigKey};

use super::check::wrong;
use super::{Conditions, OpenedBackend, once};
use crate::Result;
use crate::store::options::StoreOptions;
use crate::store::transport::Transport;
use crate::store::url::BucketUrl;
use crate::units::printable;

/// Opens a bucket; also says whose credentials are used.
pub(super) fn open(
    url: &BucketUrl,
    options: &StoreOptions,
    transport: &Transport,
) -> Result<OpenedBackend> {
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
    Ok((Arc::new(store), who, Conditions::Generations))
}
