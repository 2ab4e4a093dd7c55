//! Passwords in URLs, endpoints and proxies are used, and never shown.

use super::*;

const SECRET: &str = "hunter2";

#[track_caller]
fn hides(what: &str, shown: &str) {
    assert!(!shown.contains(SECRET), "{what}: {shown}");
}

/// Every request that can fail at `store` shows no secret.
fn fails_without(what: &str, store: &Store) {
    hides(what, &format!("{store:?}"));
    if let Got::Failed(fault) = ends(get_later(store, whole(HEAD))) {
        hides(what, &format!("{fault} {fault:?}"));
    }
    if let PutReply::Failed(fault) = put(store, HEAD, b"x", PutCondition::Any) {
        hides(what, &format!("{fault} {fault:?}"));
    }
    if let Err(fault) = listed(store) {
        hides(what, &format!("{fault} {fault:?}"));
    }
    if let Err(fault) = run(store.delete(&path(HEAD))) {
        hides(what, &format!("{fault} {fault:?}"));
    }
}

#[test]
fn faults_show_no_password() {
    let once = |pairs: &[(&str, &str)]| StoreOptions {
        attempts: 1,
        ..options(pairs)
    };
    let odd = serve_by(|question| match question.line.starts_with("GET") {
        true => Answer::redirect("http://elsewhere.invalid/"),
        false => Answer::failed(418, None, "InvalidAccessKeyId"),
    });
    for place in ["127.0.0.1:9", "releases.invalid", &odd.to_string()] {
        for login in ["ci:hunter2", "hunter2", ":hunter2", "ci:hunter2%2F%40"] {
            let url = format!("http://{login}@{place}/x");
            fails_without(&url, &open(&url, &once(&[])));
        }
        let proxy = format!("http://ci:hunter2@{place}");
        let through = once(&[("http_proxy", &proxy), ("https_proxy", &proxy)]);
        fails_without(&proxy, &open("http://host.invalid/x", &through));
        fails_without(&proxy, &open("https://host.invalid/x", &through));
    }

    let store = bucket(
        "127.0.0.1:9",
        &once(&[
            ("AWS_ACCESS_KEY_ID", "AK"),
            ("AWS_SECRET_ACCESS_KEY", SECRET),
            ("AWS_SESSION_TOKEN", SECRET),
        ]),
    );
    fails_without("keys", &store);
}

#[test]
fn errors_of_settings_show_no_password() {
    let (seed, rounds) = seed_and_rounds(25);
    let mut random = fastrand::Rng::with_seed(seed);
    let mut pick = |texts: &[&'static str]| texts[random.usize(0..texts.len())];
    let mut refused = 0;
    for _ in 0..rounds {
        let before = pick(&["", "http://", "https://", "http:/", "socks5://", "ftp://"]);
        let user = pick(&["ci:", "", ":", "ci:/", "ci:?", "ci: "]);
        let behind = pick(&[
            "@",
            "@host",
            "@host:x",
            "@[::1",
            "@ho st",
            "@host:99999",
            "/@h",
        ]);
        let text = format!("{before}{user}{SECRET}{behind}");
        for name in [
            "http_proxy",
            "ALL_PROXY",
            "AWS_ENDPOINT_URL",
            "AZURE_STORAGE_ENDPOINT",
        ] {
            let mut settings = keys();
            settings.environment.insert(name.into(), text.clone());
            for url in ["https://host/x", "s3://fleet/x", "az://fleet/x?account=a"] {
                let url = StoreUrl::parse(url, Path::new("/")).expect("valid");
                if let Err(error) = Store::open(&url, &settings) {
                    refused += 1;
                    let shown = format!("{} {error:?}", error.with_hint());
                    hides(&format!("MAKUO_STORE_SEED={seed}: {name}={text}"), &shown);
                }
            }
        }
    }
    assert!(refused > rounds, "MAKUO_STORE_SEED={seed}: {refused}");
}
