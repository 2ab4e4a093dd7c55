//! Tests of the sentences for people: each cause has a way out.

use super::*;
use std::path::Path;

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
        RefusalCause::Stuck(std::time::Duration::from_secs(3)),
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
