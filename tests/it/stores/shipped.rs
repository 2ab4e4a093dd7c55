//! The configuration of nginx that is shipped as an example: everybody reads, a publisher writes.

use super::kinds::behaves;
use super::*;

/// Ways to write the path of one file.
const PATHS: &[&str] = &[
    "/fleet/trees/www/head",
    "/fleet//trees/www/head",
    "/fleet/trees/www/%68ead",
    "/fleet/x/../trees/www/head",
    "/fleet/trees/www/head?x=1",
    "/fleet/makuo-repository",
    "/fleet/packs/ab/abcd.pack",
    "/fleet/packs/head",
    "/fleet/trees/new/head",
    "/fleet/head",
];

fn ask(nginx: &Nginx, method: &str, path: &str, body: &[u8]) -> Answer {
    let question = Question {
        line: format!("{method} {path} HTTP/1.1"),
        headers: vec![("Host".into(), "releases.example".into())],
        body: body.to_vec(),
    };
    question.ask(nginx.shipped()).expect("an answer")
}

#[test]
fn only_a_publisher_writes_to_the_shipped_server() {
    let Some(nginx) = nginx() else { return };
    let place = |login: &str| {
        let url = format!("http://{login}{}/fleet", nginx.shipped());
        open(&url, &options(&[]))
    };
    let publisher = place(&format!("ci:{}@", Nginx::PASSWORD));
    behaves(&publisher);
    stored(put(&publisher, HEAD, b"head", PutCondition::Any));

    for login in ["", "ci:wrong@", "other:hunter2@"] {
        let stranger = place(login);
        for object in [HEAD, PACK, "trees/new/head"] {
            let PutReply::Failed(fault) = put(&stranger, object, b"bad", PutCondition::Any) else {
                panic!("{login} stored {object}");
            };
            assert_eq!(fault.kind, FaultKind::Denied, "{login} {object}: {fault}");
            assert!(!fault.text.contains("hunter2"), "{fault}");
            let fault = run(stranger.delete(&path(object))).expect_err(object);
            assert_eq!(fault.kind, FaultKind::Denied, "{login} {object}: {fault}");
        }
    }

    for method in [
        "PUT",
        "DELETE",
        "MKCOL",
        "MOVE",
        "COPY",
        "POST",
        "PATCH",
        "PROPPATCH",
    ] {
        for path in PATHS {
            let status = ask(&nginx, method, path, b"bad").status;
            assert_eq!(status, 401, "{method} {path}");
        }
    }
    assert_eq!(get(&place(""), whole(HEAD)).bytes(), b"head");
    assert!(!nginx.fleet().join("trees/new").exists());
}

#[test]
fn caches_keep_packs_and_ask_for_heads() {
    let Some(nginx) = nginx() else { return };
    write(&nginx.fleet().join(HEAD), "head");
    write(&nginx.fleet().join(PACK), "pack");
    write(&nginx.fleet().join("makuo-repository"), "format = 1");
    for (object, control) in [
        (HEAD, "no-cache"),
        ("makuo-repository", "no-cache"),
        (PACK, "public, max-age=31536000, immutable"),
    ] {
        let answer = ask(&nginx, "GET", &format!("/fleet/{object}"), b"");
        assert_eq!(answer.status, 200, "{object}");
        let named = |name: &str| {
            let of_name = |(known, _): &&(String, String)| known.eq_ignore_ascii_case(name);
            let found = answer.headers.iter().filter(of_name);
            found.map(|(_, value)| value.as_str()).collect::<Vec<_>>()
        };
        assert_eq!(named("cache-control"), [control], "{object}");
        assert!(named("expires").is_empty(), "{object}");
        assert!(named("etag").len() == 1, "{object}");
    }

    let missing = ask(&nginx, "GET", "/fleet/packs/ab/none.pack", b"");
    assert_eq!(missing.status, 404);
    let control = support::http::named(&missing.headers);
    assert_eq!(
        control.get("cache-control"),
        None,
        "what is missing may come"
    );
}
