//! Opens a bucket with the interface of Amazon: credentials, endpoint and region from the URL, the
//! environment, the files of AWS, or the role of the machine.

use std::sync::Arc;

use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};

use super::check::{checked, checked_endpoint, checked_region, wrong};
use super::{Conditions, OpenedBackend, once};
use crate::store::options::StoreOptions;
use crate::store::profile::{AwsProfile, ProfileKey};
use crate::store::transport::Transport;
use crate::store::url::BucketUrl;
use crate::units::printable;
use crate::{Error, Result};

/// Opens a bucket; also says whose credentials are used.
pub(super) fn open(
    url: &BucketUrl,
    options: &StoreOptions,
    transport: &Transport,
) -> Result<OpenedBackend> {
    let mut builder = AmazonS3Builder::new();
    for (name, value) in &options.environment {
        let key = name
            .starts_with("AWS_")
            .then(|| name.to_ascii_lowercase().parse::<AmazonS3ConfigKey>().ok());
        if let Some(Some(key)) = key.filter(|_| !value.is_empty()) {
            builder = builder.with_config(key, checked(name, value)?);
        }
    }

    let profile = profile(url, options)?;
    let (builder, who) = with_credentials(builder, url, options, profile.as_ref())?;
    let builder = with_place(builder, url, options, profile.as_ref())?;
    let endpoint = builder.get_config_value(&AmazonS3ConfigKey::S3Endpoint);
    let endpoint = endpoint.or_else(|| builder.get_config_value(&AmazonS3ConfigKey::Endpoint));
    let conditions = match endpoint {
        Some(_) => Conditions::Unproven,
        None => Conditions::Etags,
    };
    let store = builder
        .with_bucket_name(&url.bucket)
        .with_allow_http(true)
        .with_retry(once())
        // Its answer to a deletion of many objects is not checked enough.
        .with_disable_bulk_delete(true)
        .with_http_connector(transport.clone())
        .build()
        .map_err(|e| wrong(&format!("s3://{}", url.bucket), e))?;
    Ok((Arc::new(store), who, conditions))
}

/// Reads the profile, unless the environment has the credentials.
fn profile(url: &BucketUrl, options: &StoreOptions) -> Result<Option<AwsProfile>> {
    let read = AwsProfile::read(url.profile.as_deref(), options);
    let in_environment = options.variable("AWS_ACCESS_KEY_ID").is_some();
    match (read, &url.profile) {
        // A file that cannot be read is no reason to fail if nobody needs it.
        (Err(_), None) if in_environment => Ok(None),
        (read, _) => read,
    }
}

fn with_credentials(
    builder: AmazonS3Builder,
    url: &BucketUrl,
    options: &StoreOptions,
    profile: Option<&AwsProfile>,
) -> Result<(AmazonS3Builder, String)> {
    let has = |name: &str| options.variable(name).is_some();
    let (key, secret) = (has("AWS_ACCESS_KEY_ID"), has("AWS_SECRET_ACCESS_KEY"));
    if url.profile.is_none() {
        if matches!(options.variable("AWS_SKIP_SIGNATURE"), Some("true" | "1")) {
            return Ok((builder, "a request without credentials".into()));
        }
        if key != secret {
            let lacks = match key {
                true => "AWS_SECRET_ACCESS_KEY",
                false => "AWS_ACCESS_KEY_ID",
            };
            return Err(
                Error::usage(format!("{lacks} is not set although its counterpart is"))
                    .hint("set both, or neither and use a profile in ~/.aws/credentials"),
            );
        }
        if key {
            let id = options.variable("AWS_ACCESS_KEY_ID").unwrap_or_default();
            let who = format!("the key {} of the environment", printable(id.as_bytes()));
            return Ok((builder, who));
        }
        if has("AWS_WEB_IDENTITY_TOKEN_FILE") && has("AWS_ROLE_ARN") {
            return Ok((builder, "the role in AWS_ROLE_ARN".into()));
        }
    }

    if let Some(profile) = profile
        && let Some(found) = from_profile(&builder, profile, options)?
    {
        return Ok(found);
    }

    let who = match has("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI")
        || has("AWS_CONTAINER_CREDENTIALS_FULL_URI")
    {
        true => "the role of this container",
        false => "the role of this instance",
    };
    Ok((builder, who.into()))
}

fn from_profile(
    builder: &AmazonS3Builder,
    profile: &AwsProfile,
    options: &StoreOptions,
) -> Result<Option<(AmazonS3Builder, String)>> {
    let name = printable(profile.name.as_bytes());
    let who = format!("the AWS profile {name}");
    if let Some(key) = ProfileKey::of(profile, options) {
        for setting in [
            "aws_access_key_id",
            "aws_secret_access_key",
            "aws_session_token",
        ] {
            let value = profile.get(setting).unwrap_or_default();
            checked(&format!("{setting} of {who}"), value)?;
        }
        let builder = builder.clone().with_credentials(Arc::new(key));
        return Ok(Some((builder, who)));
    }

    let role = profile
        .get("web_identity_token_file")
        .zip(profile.get("role_arn"));
    if let Some((file, role)) = role {
        let builder = builder
            .clone()
            .with_config(AmazonS3ConfigKey::WebIdentityTokenFile, file)
            .with_config(AmazonS3ConfigKey::RoleArn, checked("role_arn", role)?);
        return Ok(Some((builder, who)));
    }

    profile.check_way()?;
    Ok(None)
}

/// Sets endpoint and region: the URL wins over the environment, and that over the profile.
fn with_place(
    mut builder: AmazonS3Builder,
    url: &BucketUrl,
    options: &StoreOptions,
    profile: Option<&AwsProfile>,
) -> Result<AmazonS3Builder> {
    let first = |of_url: Option<&String>, names: &[&str], setting: &str| {
        let given = of_url.map(|value| (format!("?{setting}="), value.clone()));
        let variable = |name: &&str| Some((name.to_string(), options.variable(name)?.to_string()));
        let of_profile = || {
            let value = profile?.get(setting)?;
            Some((format!("{setting} of the AWS profile"), value.to_string()))
        };
        given
            .or_else(|| names.iter().find_map(variable))
            .or_else(of_profile)
    };

    let names = ["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"];
    if let Some((name, endpoint)) = first(url.endpoint.as_ref(), &names, "endpoint_url") {
        let endpoint = checked_endpoint(&name, &endpoint)?;
        builder = builder.with_config(AmazonS3ConfigKey::S3Endpoint, endpoint);
    }

    let names = ["AWS_REGION", "AWS_DEFAULT_REGION"];
    if let Some((name, region)) = first(url.region.as_ref(), &names, "region") {
        builder = builder.with_region(checked_region(&name, &region)?);
    }

    Ok(builder)
}
