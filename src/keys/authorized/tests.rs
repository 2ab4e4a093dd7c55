//! Tests of the authorized keys: permissions of each line, and messages for wrong ones.

use std::os::unix::fs::PermissionsExt;

use proptest::prelude::*;

use super::*;
use crate::keys::{FileSigner, Signer};

const NOW: WallTime = WallTime(1_763_697_540);

fn key(n: u8) -> PublicKey {
    *FileSigner::from_seed([n; 32]).public()
}

fn parse(text: &str) -> Result<AuthorizedKeys> {
    AuthorizedKeys::parse(text.as_bytes(), Path::new("/etc/makuo/authorized_keys"))
}

fn tree(name: &str) -> TreeName {
    TreeName::new(name).expect("legal")
}

fn reason(keys: &AuthorizedKeys, n: u8, name: &str, role: Role) -> Option<DenialReason> {
    keys.allows(&key(n), &tree(name), role, NOW)
        .err()
        .map(|d| d.reason)
}

#[test]
fn nothing_listed_is_nothing_accepted() {
    let keys = parse("\n# a comment\r\n   \n").expect("legal");
    assert!(keys.is_empty());
    for role in [Role::Deploy, Role::Audit, Role::Rollback] {
        assert_eq!(reason(&keys, 1, "www", role), Some(DenialReason::NotListed));
    }
}

#[test]
fn options_restrict_tree_role_and_time() {
    let text = format!(
        "tree=\"www,static*\",deploy {} ci@example with words\r\n\
         audit,tree=\"a\",tree=\"b\" {}\n{}\n{},expires=\"2020-01-01\" {}",
        key(1),
        key(2),
        key(3),
        "rollback",
        key(4)
    );

    let keys = parse(&text).expect("legal");
    assert_eq!(keys.len(), 4);
    assert_eq!(reason(&keys, 1, "static-eu", Role::Rollback), None);
    assert_eq!(reason(&keys, 1, "www", Role::Audit), None);
    assert_eq!(
        reason(&keys, 1, "www2", Role::Deploy),
        Some(DenialReason::OtherTree)
    );

    assert_eq!(reason(&keys, 2, "b", Role::Audit), None);
    assert_eq!(
        reason(&keys, 2, "b", Role::Deploy),
        Some(DenialReason::LacksRole)
    );
    assert_eq!(
        reason(&keys, 2, "b", Role::Rollback),
        Some(DenialReason::LacksRole)
    );
    assert_eq!(reason(&keys, 3, "any", Role::Deploy), None);

    assert_eq!(
        reason(&keys, 4, "any", Role::Rollback),
        Some(DenialReason::Expired(WallTime(1_577_836_800)))
    );

    assert_eq!(
        reason(&keys, 5, "www", Role::Deploy),
        Some(DenialReason::NotListed)
    );
}

#[test]
fn a_key_on_two_lines_may_what_one_of_them_allows() {
    let text = format!(
        "tree=\"a\",audit {0}\ntree=\"b\" {0}\ntree=\"c\",expires=\"20200101\" {0}",
        key(1)
    );
    let keys = parse(&text).expect("legal");
    assert_eq!(reason(&keys, 1, "b", Role::Deploy), None);
    assert_eq!(
        reason(&keys, 1, "a", Role::Deploy),
        Some(DenialReason::LacksRole)
    );

    assert!(matches!(
        reason(&keys, 1, "c", Role::Deploy),
        Some(DenialReason::Expired(_))
    ));
}

#[test]
fn a_refusal_says_how_to_allow() {
    let denied = parse("")
        .expect("legal")
        .allows(&key(1), &tree("www"), Role::Deploy, NOW)
        .expect_err("refused");
    insta::assert_snapshot!(denied, @r#"key SHA256:fe85JkIjo8VPe+XqXJGH5Mau1EMFdK1OdKvJUFicyA8 may not deploy www: it is not listed in /etc/makuo/authorized_keys; to allow it, add this line: tree="www",deploy ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIIqI4910CfGV/VLbLTy6XXLKZwm/HZQSG/N0iAG0D29c"#);
}

#[test]
fn what_is_not_understood_is_an_error_with_its_line() {
    let said = |line: &str| {
        parse(&format!("# keys\n{line}\n"))
            .expect_err("refused")
            .to_string()
    };

    let k = key(1);
    let all = [
        said(&format!("no-pty {k}")),
        said(&format!("tree=www {k}")),
        said(&format!("tree=\"www {k}")),
        said(&format!("tree=\"w/w\" {k}")),
        said(&format!("tree {k}")),
        said(&format!("deploy=\"x\" {k}")),
        said(&format!("tree=\"a\"deploy {k}")),
        said(&format!("expires=\"soon\" {k}")),
        said(&format!("deploy, {k}")),
        said("deploy"),
        said("ssh-rsa AAAAB3Nza x"),
        said("ssh-ed25519 AAAAB3Nza x"),
        said("garbage"),
    ];
    insta::assert_snapshot!(all.join("\n"), @r#"
    /etc/makuo/authorized_keys:2: unknown option "no-pty"; there are tree="...", deploy, audit, rollback, expires="..." and no-touch-required
    /etc/makuo/authorized_keys:2: a value must be in quotes, as in tree="www"
    /etc/makuo/authorized_keys:2: a quote is not closed
    /etc/makuo/authorized_keys:2: "w/w" is not a tree's name or glob such as www or static*
    /etc/makuo/authorized_keys:2: the option tree needs a value: tree="..."
    /etc/makuo/authorized_keys:2: the option deploy takes no value
    /etc/makuo/authorized_keys:2: a comma or blank is missing after the option "tree"
    /etc/makuo/authorized_keys:2: "soon" is not a date: write it as 2027-01-31 or 2027-01-31T18:00Z (UTC)
    /etc/makuo/authorized_keys:2: unknown option ""; there are tree="...", deploy, audit, rollback, expires="..." and no-touch-required
    /etc/makuo/authorized_keys:2: no key on this line; it should be like: tree="www",deploy ssh-ed25519 AAAA... ci@example
    /etc/makuo/authorized_keys:2: it is a ssh-rsa key, and makuo takes only ssh-ed25519 keys, also on security keys
    /etc/makuo/authorized_keys:2: it is not an SSH public key (`ssh-ed25519 AAAA... comment`)
    /etc/makuo/authorized_keys:2: unknown option "garbage"; there are tree="...", deploy, audit, rollback, expires="..." and no-touch-required
    "#);
}

#[test]
fn a_file_that_others_can_write_is_refused() {
    let file = tempfile::NamedTempFile::new().expect("temp");
    std::fs::write(file.path(), format!("{}\n", key(1))).expect("writes");
    assert_eq!(AuthorizedKeys::load(file.path()).expect("legal").len(), 1);
    std::fs::set_permissions(file.path(), std::fs::Permissions::from_mode(0o664)).expect("chmod");
    let refused = AuthorizedKeys::load(file.path()).expect_err("refused");
    assert!(
        refused
            .hint_text()
            .is_some_and(|h| h.starts_with("chmod go-w")),
        "{refused}"
    );
    let missing = AuthorizedKeys::load(Path::new("/nonexistent/keys")).expect_err("refused");

    assert!(missing.is_os(std::io::ErrorKind::NotFound));
}

proptest! {
    #[test]
    fn arbitrary_files_never_panic(bytes: Vec<u8>, text in "[a-z=\",# \t\r\n\\\\0-9-]{0,80}") {
        let _ = AuthorizedKeys::parse(&bytes, Path::new("x"));
        let _ = AuthorizedKeys::parse(text.as_bytes(), Path::new("x"));
    }
}
