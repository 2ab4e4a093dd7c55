//! Tests of the files of AWS: sections, keys and rotation.

use super::*;

const CREDENTIALS: &str = "\
# keys
[default]
aws_access_key_id = AKDEFAULT
aws_secret_access_key = s1
[fleet]
AWS_ACCESS_KEY_ID=AKFLEET
aws_secret_access_key = s2 # comment
aws_session_token = t
[empty]
";
const CONFIG: &str = "\
[default]
region = eu-west-1
[profile fleet]
region = eu-central-1
s3 =
    addressing_style = path
endpoint_url = https://s3.example
[profile sso]
sso_session = x
";

fn home() -> (tempfile::TempDir, StoreOptions) {
    let dir = tempfile::tempdir().expect("a directory");
    let aws = dir.path().join(".aws");
    std::fs::create_dir(&aws).expect("writable");
    std::fs::write(aws.join("credentials"), CREDENTIALS).expect("writable");
    std::fs::write(aws.join("config"), CONFIG).expect("writable");
    let home = dir.path().to_str().expect("UTF-8").to_string();
    let options = StoreOptions {
        environment: [("HOME".to_string(), home)].into(),
        ..StoreOptions::default()
    };
    (dir, options)
}

#[test]
fn both_files_make_a_profile() {
    let (_dir, options) = home();
    let fleet = AwsProfile::read(Some("fleet"), &options).expect("valid");
    let fleet = fleet.expect("there");
    let key = fleet.key().expect("a key");
    assert_eq!(
        (key.key_id.as_str(), key.secret_key.as_str()),
        ("AKFLEET", "s2")
    );
    assert_eq!(key.token.as_deref(), Some("t"));
    assert_eq!(fleet.get("region"), Some("eu-central-1"));
    assert_eq!(fleet.get("endpoint_url"), Some("https://s3.example"));
    assert_eq!(fleet.get("addressing_style"), None);

    let default = AwsProfile::read(None, &options).expect("valid");
    assert_eq!(default.expect("there").get("region"), Some("eu-west-1"));
}

#[test]
fn the_environment_names_profile_and_files() {
    let (dir, mut options) = home();
    let set = |options: &mut StoreOptions, name: &str, value: &str| {
        options.environment.insert(name.into(), value.into());
    };
    set(&mut options, "AWS_PROFILE", "fleet");
    let named = AwsProfile::read(None, &options).expect("valid");
    assert_eq!(named.expect("there").name, "fleet");

    let other = dir.path().join("other");
    std::fs::write(&other, "[fleet]\naws_access_key_id=AKOTHER\n").expect("writable");
    let other = other.to_str().expect("UTF-8");
    set(&mut options, "AWS_SHARED_CREDENTIALS_FILE", other);
    let named = AwsProfile::read(None, &options).expect("valid");
    let named = named.expect("there");
    assert_eq!(named.get("aws_access_key_id"), Some("AKOTHER"));
    assert!(named.key().is_none(), "half a key is none");
}

#[test]
fn a_profile_that_is_missing_or_leads_elsewhere_is_an_error() {
    let (_dir, options) = home();
    let error = AwsProfile::read(Some("nobody"), &options).expect_err("missing");
    assert!(error.with_hint().contains("[nobody]"), "{error}");
    assert!(error.with_hint().contains(".aws/credentials"), "{error}");

    let sso = AwsProfile::read(Some("sso"), &options).expect("valid");
    let error = sso.expect("there").check_way().expect_err("another way");
    assert!(error.with_hint().contains("export-credentials"), "{error}");
    let none = StoreOptions::default();
    assert_eq!(AwsProfile::read(None, &none).expect("valid"), None);
}

#[tokio::test]
async fn a_rotated_key_is_taken() {
    let (dir, options) = home();
    let default = AwsProfile::read(None, &options).expect("valid");
    let key = ProfileKey::of(&default.expect("there"), &options).expect("a key");
    let id = async || key.get_credential().await.expect("a key").key_id.clone();
    assert_eq!(id().await, "AKDEFAULT");

    let path = dir.path().join(".aws/credentials");
    std::fs::write(&path, CREDENTIALS.replace("AKDEFAULT", "AKNEW")).expect("writable");
    let later = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(4_000_000_000);
    let file = std::fs::File::options()
        .write(true)
        .open(&path)
        .expect("open");
    file.set_modified(later).expect("settable");
    assert_eq!(id().await, "AKNEW");
}

proptest::proptest! {
    #[test]
    fn any_text_is_read(text in "[\\[\\]=#; \\tab\\n\"p]{0,80}", name in "[ab]{0,2}") {
        section(&text, &name, FileKind::Config);
        section(&text, &name, FileKind::Credentials);
    }
}
