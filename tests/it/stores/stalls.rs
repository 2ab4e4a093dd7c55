//! Servers that stop in the middle of an answer: every body has a floor under its speed, those of
//! objects as well as lists, tokens and the keys of roles.

use super::*;

fn impatient(options: StoreOptions) -> StoreOptions {
    StoreOptions {
        patience: Duration::from_millis(300),
        attempts: 2,
        ..options
    }
}

#[track_caller]
fn is_stuck(fault: &StoreFault) {
    assert_eq!(fault.kind, FaultKind::Temporary, "{fault}");
    assert!(fault.text.contains("nothing for"), "{fault}");
}

#[test]
fn a_list_that_stops_is_given_up() {
    let Some(moto) = moto() else { return };
    let between = Middleman::start(moto.address());
    let store = bucket(between.address(), &impatient(keys()));
    stored(put(&store, PACK, b"pack", PutCondition::Any));
    between.passed();
    for at in [0, 5, 200] {
        between.script(vec![Mishap::Stall(at); 2]);
        is_stuck(&listed(&store).expect_err("stuck"));
        assert_eq!(between.passed().len(), 2, "asked again");
    }

    let patient = bucket(between.address(), &keys());
    between.script([Mishap::Cut(5)]);
    assert_eq!(listed(&patient).expect("a list").len(), 1);
}

#[test]
fn a_list_of_a_web_server_that_stops_is_given_up() {
    let answer = "<D:multistatus xmlns:D=\"DAV:\"></D:multistatus>".repeat(9);
    let server = serve_by(move |_| Answer::new(207, &[], answer.as_bytes()));
    let between = Middleman::start(server);
    let store = near(&between, &impatient(options(&[])));
    between.script(vec![Mishap::Stall(20); 2]);
    is_stuck(&listed(&store).expect_err("stuck"));
}

#[test]
fn a_service_for_tokens_that_stops_is_given_up() {
    let Some(moto) = moto() else { return };
    let between = Middleman::start(tokens());
    let dir = tempfile::tempdir().expect("a directory");
    let token = dir.path().join("token");
    write(&token, "a token");
    let identity = options(&[
        ("AWS_WEB_IDENTITY_TOKEN_FILE", &token.display().to_string()),
        ("AWS_ROLE_ARN", "arn:aws:iam::1:role/fleet"),
        (
            "AWS_ENDPOINT_URL_STS",
            &format!("http://{}", between.address()),
        ),
    ]);
    let store = bucket(moto.address(), &impatient(identity.clone()));
    for at in [0, 30] {
        between.script(vec![Mishap::Stall(at); 2]);
        is_stuck(&ends(get_later(&store, whole(HEAD))).fault());
    }
    let patient = bucket(moto.address(), &identity);
    assert_eq!(ends(get_later(&patient, whole(HEAD))), Got::Missing);
}

#[test]
fn a_metadata_service_that_is_not_well_is_asked_again() {
    let Some(moto) = moto() else { return };
    let between = Middleman::start(metadata());
    let role = format!("http://{}", between.address());
    let instance = options(&[("AWS_METADATA_ENDPOINT", &role)]);
    for mishap in [
        Mishap::Stall(0),
        Mishap::Stall(3),
        Mishap::Reset,
        Mishap::Cut(2),
        Mishap::Status(503, None, ""),
        Mishap::Status(500, None, ""),
        Mishap::Status(429, None, ""),
    ] {
        let store = bucket(moto.address(), &instance);
        between.script([mishap.clone()]);
        let found = ends(get_later(&store, whole(HEAD)));
        assert_eq!(
            found,
            Got::Missing,
            "{mishap:?}: the second time it is well"
        );

        let store = bucket(moto.address(), &impatient(instance.clone()));
        between.script(vec![mishap.clone(); 2]);
        let fault = ends(get_later(&store, whole(HEAD))).fault();
        assert_eq!(fault.kind, FaultKind::Temporary, "{mishap:?}: {fault}");
        assert!(!fault.text.contains("has no role"), "{mishap:?}: {fault}");
    }
}

#[test]
fn a_machine_without_a_role_is_told_at_once() {
    let Some(moto) = moto() else { return };
    let between = Middleman::start(metadata());
    let role = format!("http://{}", between.address());
    let instance = options(&[("AWS_METADATA_ENDPOINT", &role)]);
    for status in [401, 404] {
        between.passed();
        between.script(vec![Mishap::Status(status, None, ""); 9]);
        let fault = get(&bucket(moto.address(), &instance), whole(HEAD)).fault();
        assert_eq!(fault.kind, FaultKind::Denied, "{status}: {fault}");
        assert!(fault.text.contains("has no role"), "{status}: {fault}");
        assert_eq!(between.passed().len(), 1, "{status}");
    }
    let nobody = options(&[("AWS_METADATA_ENDPOINT", "http://127.0.0.1:9")]);
    let fault = get(&bucket(moto.address(), &nobody), whole(HEAD)).fault();
    assert_eq!(fault.kind, FaultKind::Denied, "{fault}");
}

#[test]
fn a_list_without_end_ends() {
    let page = "<ListBucketResult><IsTruncated>true</IsTruncated>\
                <NextContinuationToken>again</NextContinuationToken></ListBucketResult>";
    let server = serve_by(move |_| Answer::new(200, &[], page.as_bytes()));
    let store = bucket(server, &impatient(keys()));
    let fault = ends(store.list(|_| {})).expect_err("no end");
    assert_eq!(fault.kind, FaultKind::Permanent, "{fault}");
    assert!(fault.text.contains("no end"), "{fault}");
}
