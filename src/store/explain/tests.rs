//! Tests of the sentences for people: each cause has a way out.

use super::*;
use crate::error::sentence::repetition;
use std::path::Path;
use std::time::Duration;

fn asked(url: &str) -> AskedStore {
    AskedStore {
        url: StoreUrl::parse(url, Path::new("/")).expect("valid"),
        who: "the key AK".into(),
        metadata: MetadataHosts::default(),
    }
}

fn status(status: u16, code: &str) -> RefusalCause {
    RefusalCause::Status(Box::new(StatusAnswer {
        status,
        code: (!code.is_empty()).then(|| code.to_string()),
        region: Some("eu-west-9".into()),
        date: Some("Fri, 31 Dec 1999 23:59:59 GMT".into()),
        ..StatusAnswer::default()
    }))
}

#[track_caller]
fn says(url: &str, action: StoreAction, cause: RefusalCause, words: &[&str]) {
    let host = "host:9000".to_string();
    let refusal = StoreRefusal { host, cause };
    let text = asked(url).fault(action, "trees/www/head", &refusal).text;
    for word in words {
        assert!(text.contains(word), "{word:?} is missing: {text}");
    }
}

#[test]
fn each_cause_has_a_way_out() {
    let s3 = "s3://fleet/p";
    let web = "https://host/p";
    let (get, put, list) = (StoreAction::Get, StoreAction::Put, StoreAction::List);
    says(s3, get, status(404, "NoSuchBucket"), &["no bucket fleet"]);
    says(s3, get, status(403, "InvalidAccessKeyId"), &["the key AK"]);
    says(s3, get, status(403, "SignatureDoesNotMatch"), &["SECRET"]);
    says(
        s3,
        get,
        status(403, "RequestTimeTooSkewed"),
        &["clock", "1999"],
    );
    says(s3, get, status(403, "AccessDenied"), &["does not exist"]);
    says(s3, put, status(403, "AccessDenied"), &["may not store"]);
    says(s3, get, status(301, "PermanentRedirect"), &["eu-west-9"]);
    says(s3, get, status(301, ""), &["AWS_REGION"]);
    says(web, put, status(405, ""), &["dav_methods"]);
    says(web, list, status(405, ""), &["file://"]);
    says(web, put, status(413, ""), &["client_max_body_size"]);
    says(web, get, status(401, ""), &["user:password@"]);
    says(
        web,
        get,
        RefusalCause::Tls(TlsFault::UnknownIssuer),
        &["--ca-file", "repository_ca"],
    );
    says(web, get, RefusalCause::Tls(TlsFault::Plain), &["http://"]);
    says(
        web,
        get,
        RefusalCause::Unreachable("refused".into()),
        &["host:9000"],
    );
    says(
        s3,
        get,
        RefusalCause::UnknownName("no".into()),
        &["AWS_ENDPOINT_URL"],
    );
    says(
        web,
        get,
        RefusalCause::Answer(AnswerFault::NoRanges),
        &["ranges"],
    );
}

#[test]
fn a_machine_without_a_role_is_told_where_keys_come_from() {
    for cause in [
        status(404, ""),
        status(403, ""),
        RefusalCause::Closed("no".into()),
    ] {
        let fault = of_metadata(cause);
        assert_eq!(fault.kind, FaultKind::Denied, "{fault}");
        assert!(fault.text.contains("has no role"), "{fault}");
        assert!(fault.text.contains("~/.aws/credentials"), "{fault}");
        assert!(fault.text.contains("AWS_SKIP_SIGNATURE"), "{fault}");
    }
}

#[test]
fn a_metadata_service_that_is_not_well_is_asked_again() {
    for cause in [
        status(500, ""),
        status(503, ""),
        status(429, ""),
        RefusalCause::Stuck(Duration::from_secs(3)),
        RefusalCause::Unreachable("no route".into()),
        RefusalCause::Cut("reset".into()),
        RefusalCause::UnknownName("not yet".into()),
    ] {
        let fault = of_metadata(cause);
        assert_eq!(fault.kind, FaultKind::Temporary, "{fault}");
        assert!(!fault.text.contains("has no role"), "{fault}");
        assert!(fault.text.contains("AWS_SKIP_SIGNATURE"), "{fault}");
    }
}

fn of_metadata(cause: RefusalCause) -> StoreFault {
    let host = "169.254.169.254".to_string();
    asked("s3://fleet").fault(StoreAction::Get, "a", &StoreRefusal { host, cause })
}

#[test]
fn no_fault_says_a_thing_twice() {
    let statuses = [
        301, 303, 307, 308, 400, 401, 403, 404, 405, 407, 410, 413, 416, 429, 500, 501, 503, 507,
    ];
    let codes = [
        "NoSuchBucket",
        "InvalidAccessKeyId",
        "SignatureDoesNotMatch",
        "ExpiredToken",
        "RequestTimeTooSkewed",
        "AuthenticationFailed",
        "PermanentRedirect",
        "NotImplemented",
        "QuotaExceeded",
    ];
    let mut causes: Vec<RefusalCause> = statuses.map(|number| status(number, "")).into();
    causes.extend(codes.map(|code| status(400, code)));
    causes.extend(
        [
            AnswerFault::NoRanges,
            AnswerFault::OtherRange("bytes 0-1/9".into(), 4, 9),
            AnswerFault::TooShort(7),
            AnswerFault::TooLarge(9, 7),
            AnswerFault::Encoded("gzip".into()),
            AnswerFault::Header("content-range"),
            AnswerFault::NoList,
            AnswerFault::UnfinishedList,
            AnswerFault::Endless,
            AnswerFault::Status(201),
        ]
        .map(RefusalCause::Answer),
    );
    causes.extend(
        [
            TlsFault::UnknownIssuer,
            TlsFault::OtherName("a.example".into()),
            TlsFault::Expired("it ended".into()),
            TlsFault::Authority,
            TlsFault::Plain,
            TlsFault::Other("handshake failure".into()),
        ]
        .map(RefusalCause::Tls),
    );
    causes.extend([
        RefusalCause::UnknownName("failed to look it up".into()),
        RefusalCause::Unreachable("network down".into()),
        RefusalCause::Closed("connection refused".into()),
        RefusalCause::Stuck(Duration::from_secs(30)),
        RefusalCause::Cut("connection reset".into()),
        RefusalCause::Redirect("http://portal.example/".into()),
    ]);

    let mut found = Vec::new();
    let actions = [
        StoreAction::Get,
        StoreAction::Put,
        StoreAction::List,
        StoreAction::Delete,
    ];
    for url in [
        "s3://fleet/p",
        "gs://fleet/p",
        "az://fleet/p",
        "https://web.example/p",
    ] {
        for action in actions {
            for cause in &causes {
                let object = match action {
                    StoreAction::List => "",
                    _ => "trees/www/head",
                };
                let refusal = StoreRefusal {
                    host: "peer.example:9000".into(),
                    cause: cause.clone(),
                };
                let text = asked(url).fault(action, object, &refusal).text;
                assert!(text.starts_with("cannot "), "{text}");
                found.extend(repetition(&text).map(|words| format!("{words:?} in: {text}")));
            }
        }
    }

    assert!(found.is_empty(), "{}", found.join("\n"));
}
