//! Checks of a request before it is answered: its method, and the host that it is for.
//!
//! A page of another site can make a browser ask here under a name of its own that resolves to this
//! host (DNS rebinding). Such a request names that site as its host, and is refused.

use std::net::{IpAddr, SocketAddr};

use http::{HeaderMap, Method, Request, StatusCode, Version, header};

use super::answer::{self, HttpAnswer};

/// Names and addresses that requests may be for.
#[derive(Debug, Clone)]
pub(super) struct ServerNames {
    names: Vec<String>,
}

impl ServerNames {
    /// Knows these names, beside `localhost` and addresses.
    pub(super) fn of(names: impl IntoIterator<Item = String>) -> Self {
        let lower = |name: String| name.trim_end_matches('.').to_ascii_lowercase();
        Self {
            names: names.into_iter().map(lower).collect(),
        }
    }

    /// Returns whether `host`, which may have a port, is this host at the address `local`.
    fn has(&self, host: &str, local: SocketAddr) -> bool {
        let name = without_port(host);
        let address = name
            .strip_prefix('[')
            .and_then(|name| name.strip_suffix(']'))
            .unwrap_or(name);
        if let Ok(address) = address.parse::<IpAddr>() {
            return address.to_canonical().is_loopback()
                || address.to_canonical() == local.ip().to_canonical();
        }

        let name = name.trim_end_matches('.').to_ascii_lowercase();
        name == "localhost" || self.names.contains(&name)
    }

    /// Refusal of a request that came to `local`; `None` for one to answer.
    pub(super) fn refusal<T>(&self, request: &Request<T>, local: SocketAddr) -> Option<HttpAnswer> {
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            let mut refusal = answer::plain(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD\n");
            let allowed = header::HeaderValue::from_static("GET, HEAD");
            refusal.headers_mut().insert(header::ALLOW, allowed);
            return Some(refusal);
        }

        match host_of(request.headers()) {
            // No browser asks like this.
            HostHeader::None if request.version() == Version::HTTP_10 => None,
            HostHeader::One(host) if self.has(host, local) => None,
            HostHeader::One(_) => Some(answer::plain(
                StatusCode::MISDIRECTED_REQUEST,
                "this daemon is not known by that name: see [metrics] names in makuo.toml(5)\n",
            )),
            HostHeader::None | HostHeader::Unclear => Some(answer::plain(
                StatusCode::BAD_REQUEST,
                "the request names no host\n",
            )),
        }
    }
}

/// The header `Host`.
enum HostHeader<'a> {
    None,
    One(&'a str),
    /// Several, or not text.
    Unclear,
}

fn host_of(headers: &HeaderMap) -> HostHeader<'_> {
    let mut hosts = headers.get_all(header::HOST).iter();
    match (hosts.next(), hosts.next()) {
        (None, _) => HostHeader::None,
        (Some(host), None) => host.to_str().map_or(HostHeader::Unclear, HostHeader::One),
        _ => HostHeader::Unclear,
    }
}

fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) && !is_bare_v6(host) => name,
        _ => host,
    }
}

fn is_bare_v6(host: &str) -> bool {
    !host.starts_with('[') && host.matches(':').count() > 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_has_to_be_for_this_host() {
        let hosts = ServerNames::of(["Web1.example.".to_string()]);
        let local: SocketAddr = "192.0.2.7:9108".parse().expect("legal");
        for known in [
            "localhost",
            "LOCALHOST:9108",
            "127.0.0.1:9108",
            "127.9.9.9",
            "[::1]:9108",
            "::1",
            "192.0.2.7:1",
            "[::ffff:192.0.2.7]:9108",
            "web1.example",
            "WEB1.example.:9108",
        ] {
            assert!(hosts.has(known, local), "{known}");
        }

        for other in [
            "",
            ":9108",
            "evil.example",
            "localhost.evil.example",
            "web1.example.evil.example",
            "192.0.2.8",
            "[::2]:9108",
            "127.0.0.1.evil.example",
            "web1.example:x",
            "web1.example@evil.example",
        ] {
            assert!(!hosts.has(other, local), "{other}");
        }
    }

    #[test]
    fn only_reading_is_allowed() {
        let hosts = ServerNames::of([]);
        let local: SocketAddr = "127.0.0.1:9108".parse().expect("legal");
        let status = |method: &str, host: &[&str], version| {
            let mut request = Request::builder().method(method).version(version);
            for host in host {
                request = request.header(header::HOST, *host);
            }
            let request = request.body(()).expect("legal");
            let refusal = hosts.refusal(&request, local);
            refusal.map(|answer| answer.status().as_u16())
        };

        let (new, old) = (Version::HTTP_11, Version::HTTP_10);
        assert_eq!(status("GET", &["localhost"], new), None);
        assert_eq!(status("HEAD", &["localhost"], new), None);
        assert_eq!(status("GET", &[], old), None);
        for method in ["POST", "PUT", "DELETE", "OPTIONS", "TRACE", "CONNECT", "X"] {
            assert_eq!(status(method, &["localhost"], new), Some(405), "{method}");
        }
        assert_eq!(status("GET", &[], new), Some(400));
        assert_eq!(status("GET", &["localhost", "evil"], new), Some(400));
        assert_eq!(status("GET", &["evil.example"], new), Some(421));
    }
}
