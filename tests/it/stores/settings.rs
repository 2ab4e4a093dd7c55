//! Settings of a store: credentials, certificates, proxies, and the errors of wrong ones.

use super::*;

#[test]
fn wrong_settings_are_named_with_a_way_out() {
    let Some((_nginx, between, _)) = troubled(1000) else {
        return;
    };
    let few = StoreOptions {
        attempts: 2,
        ..keys()
    };
    let store = bucket(between.address(), &few);
    for (mishap, kind, words) in [
        (
            Mishap::Status(404, None, "NoSuchBucket"),
            FaultKind::Permanent,
            "there is no bucket fleet",
        ),
        (
            Mishap::Status(403, None, "InvalidAccessKeyId"),
            FaultKind::Denied,
            "the key AK",
        ),
        (
            Mishap::Status(403, None, "SignatureDoesNotMatch"),
            FaultKind::Denied,
            "AWS_SECRET_ACCESS_KEY",
        ),
        (
            Mishap::Status(403, None, "RequestTimeTooSkewed"),
            FaultKind::Denied,
            "1999",
        ),
        (
            Mishap::Status(301, None, "PermanentRedirect"),
            FaultKind::Permanent,
            "AWS_REGION",
        ),
        (
            Mishap::Redirect("http://elsewhere.invalid/".into()),
            FaultKind::Permanent,
            "region",
        ),
    ] {
        between.script([mishap.clone()]);
        let fault = get(&store, whole(HEAD)).fault();
        assert_eq!(fault.kind, kind, "{mishap:?}: {fault}");
        assert!(fault.text.contains(words), "{mishap:?}: {fault}");
        assert!(fault.text.contains("s3://fleet/site"), "{fault}");
        assert!(!fault.text.contains("s3cr3t"), "{fault}");
    }

    // nginx is no S3 server: its 404 must not look like an empty repository.
    let fault = get(&store, whole(HEAD)).fault();
    assert_eq!(fault.kind, FaultKind::Permanent, "{fault}");
    let nobody = bucket("127.0.0.1:9", &few);
    let fault = get(&nobody, whole(HEAD)).fault();
    assert!(
        fault.text.contains("127.0.0.1:9 is not reachable"),
        "{fault}"
    );
    assert!(fault.text.contains("AWS_ENDPOINT_URL"), "{fault}");
    let unknown = open("http://releases.invalid/x", &few);
    let fault = get(&unknown, whole(HEAD)).fault();
    assert!(fault.text.contains("releases.invalid"), "{fault}");
}

#[test]
fn certificates_decide_who_is_heard() {
    let Some((nginx, port, trusting)) = encrypted() else {
        return;
    };
    let url = format!("https://localhost:{port}");
    assert_eq!(get(&open(&url, &trusting), whole(HEAD)).bytes(), b"head");

    let fault = get(&open(&url, &options(&[])), whole(HEAD)).fault();
    assert_eq!(fault.kind, FaultKind::Permanent, "{fault}");
    assert!(fault.text.contains("--ca-file"), "{fault}");
    let other = format!("https://127.0.0.1:{port}");
    let fault = get(&open(&other, &trusting), whole(HEAD)).fault();
    assert!(fault.text.contains("certificate is for"), "{fault}");
    let plain = format!("https://localhost:{}", nginx.http().port());
    let fault = get(&open(&plain, &trusting), whole(HEAD)).fault();
    assert!(fault.text.contains("http://"), "{fault}");
    let plain = format!("http://localhost:{port}");
    let fault = get(&open(&plain, &trusting), whole(HEAD)).fault();
    assert!(fault.text.contains("https"), "{fault}");
}

#[test]
fn requests_pass_a_proxy_of_the_environment() {
    let Some((_nginx, between, bytes)) = troubled(1000) else {
        return;
    };
    let proxy = format!("http://{}", between.address());
    let through = options(&[("http_proxy", &proxy), ("NO_PROXY", "direct.invalid")]);
    let store = open("http://releases.invalid", &through);
    assert!(get(&store, whole(PACK)).bytes() == bytes);
    let line = format!("GET http://releases.invalid/{PACK} HTTP/1.1");
    assert_eq!(between.passed()[0].line, line);
    let store = open("http://direct.invalid", &through);
    let fault = get(&store, whole(PACK)).fault();
    assert!(fault.text.contains("direct.invalid"), "{fault}");
    assert!(between.passed().is_empty());
}

#[test]
fn credentials_come_from_the_usual_places() {
    let Some(moto) = moto() else { return };
    let between = Middleman::start(moto.address());
    let key = |options: &StoreOptions| {
        let store = bucket(between.address(), options);
        assert_eq!(get(&store, whole(HEAD)), Got::Missing);
        let passed = between.passed().pop().expect("a request");
        let text = passed.headers.get("authorization").cloned();
        text.map(|text| {
            text.split(['=', '/'])
                .nth(1)
                .unwrap_or_default()
                .to_string()
        })
    };
    assert_eq!(key(&keys()).as_deref(), Some("AK"));
    let public = options(&[("AWS_SKIP_SIGNATURE", "true")]);
    let store = bucket(between.address(), &public);
    let _ = get(&store, whole(HEAD));
    let passed = between.passed().pop().expect("a request");
    assert_eq!(passed.headers.get("authorization"), None);

    let dir = tempfile::tempdir().expect("a directory");
    let text = "[default]\naws_access_key_id = AKFILE\naws_secret_access_key = s\n";
    write(&dir.path().join(".aws/credentials"), text);
    let home = dir.path().display().to_string();
    assert_eq!(key(&options(&[("HOME", &home)])).as_deref(), Some("AKFILE"));

    let role = format!("http://{}", metadata());
    let instance = options(&[("AWS_METADATA_ENDPOINT", &role)]);
    assert_eq!(key(&instance).as_deref(), Some("AKROLE"));
    write(&Path::new(&home).join("token"), "a token");
    let identity = options(&[
        ("AWS_WEB_IDENTITY_TOKEN_FILE", &format!("{home}/token")),
        ("AWS_ROLE_ARN", "arn:aws:iam::1:role/fleet"),
        ("AWS_ENDPOINT_URL_STS", &format!("http://{}", tokens())),
    ]);
    assert_eq!(key(&identity).as_deref(), Some("AKTOKEN"));

    let nobody = options(&[("AWS_METADATA_ENDPOINT", "http://127.0.0.1:9")]);
    let fault = get(&bucket(between.address(), &nobody), whole(HEAD)).fault();
    assert!(fault.text.contains("127.0.0.1:9"), "{fault}");
}
