//! The services that give a machine or container the keys of its role. Pure.

use super::options::StoreOptions;

/// Names and addresses of such services in the clouds.
const WELL_KNOWN: &[&str] = &[
    "169.254.169.254",
    "169.254.170.2",
    "169.254.170.23",
    "fd00:ec2::254",
    "fd00:ec2::23",
    "metadata.google.internal",
    "metadata",
];
/// Variables that name another one, as a URL or as a host.
const VARIABLES: &[&str] = &[
    "AWS_METADATA_ENDPOINT",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "GCE_METADATA_HOST",
    "GCE_METADATA_ROOT",
    "IDENTITY_ENDPOINT",
    "MSI_ENDPOINT",
    "AZURE_MSI_ENDPOINT",
];

/// The services that this machine may have.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct MetadataHosts {
    /// Host and port of those that the environment names.
    named: Vec<String>,
}

impl MetadataHosts {
    /// The well-known services and those of the environment.
    pub fn of(options: &StoreOptions) -> Self {
        let values = VARIABLES.iter().filter_map(|name| options.variable(name));
        let named = values.map(|value| {
            let rest = value.split_once("://").map_or(value, |(_, rest)| rest);
            let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
            authority.to_ascii_lowercase()
        });
        Self {
            named: named.filter(|name| !name.is_empty()).collect(),
        }
    }

    /// Returns whether `host`, which may have a port, is such a service.
    pub fn has(&self, host: &str) -> bool {
        let name = match host.rsplit_once(':') {
            Some((name, port)) if !port.contains(']') => name,
            _ => host,
        };
        let name = name.trim_matches(['[', ']']);
        WELL_KNOWN.contains(&name) || self.named.iter().any(|named| named == host)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn services_are_known_by_address_and_by_the_environment() {
        let plain = MetadataHosts::default();
        for host in ["169.254.169.254", "169.254.169.254:80", "[fd00:ec2::254]"] {
            assert!(plain.has(host), "{host}");
        }
        for host in ["169.254.169.254.example", "127.0.0.1:8000", ""] {
            assert!(!plain.has(host), "{host}");
        }

        let url = "http://127.0.0.1:8000/role";
        let options = StoreOptions {
            environment: [("AWS_METADATA_ENDPOINT".into(), url.into())].into(),
            ..StoreOptions::default()
        };
        let named = MetadataHosts::of(&options);
        assert!(named.has("127.0.0.1:8000"));
        assert!(!named.has("127.0.0.1:9000"), "a store beside it");
    }
}
