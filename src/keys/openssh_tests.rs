//! Interoperability with the real OpenSSH: each side verifies the signatures of the other.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use super::agent::Agent;
use super::security_key::tests::device_signs;
use super::signer::open_with;
use super::*;

/// Runs a program of OpenSSH; `None` if it is not installed.
fn run(program: &str, args: &[&str], dir: &Path, stdin: &[u8]) -> Option<Output> {
    let spawned = Command::new(program)
        .args(args)
        .current_dir(dir)
        .env_remove("SSH_AUTH_SOCK")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();

    let mut child = match spawned {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            crate::skip::skipped(format!("{program} is not installed"));
            return None;
        }
        other => other.expect("starts"),
    };

    child
        .stdin
        .take()
        .expect("piped")
        .write_all(stdin)
        .expect("written");

    Some(child.wait_with_output().expect("ends"))
}

fn said(output: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

/// A directory with `key` and `key.pub` made by ssh-keygen with `extra` arguments.
fn ssh_key(extra: &[&str]) -> Option<tempfile::TempDir> {
    let dir = tempfile::tempdir().expect("temp");
    let args = [&["-q", "-f", "key", "-C", "ci@example"], extra].concat();
    let made = run("ssh-keygen", &args, dir.path(), b"")?;
    assert!(made.status.success(), "{}", said(&made));
    Some(dir)
}

fn message() -> Vec<u8> {
    crate::manifest::header::tests::a_header().encode()
}

#[test]
fn ssh_keygen_verifies_our_signature_of_a_header() {
    let dir = tempfile::tempdir().expect("temp");
    let new = generate(&dir.path().join("key"), "ci@example", false).expect("made");
    let signer = open_signer(&new.private_file).expect("opens");
    let signature = signer.sign(Namespace::RELEASE, &message()).expect("signs");
    std::fs::write(dir.path().join("sig"), signature.to_armor()).expect("written");
    std::fs::write(
        dir.path().join("allowed"),
        format!("ci@example {}\n", new.public),
    )
    .expect("written");

    let verify = |namespace: &str, message: &[u8]| {
        let args = [
            "-Y",
            "verify",
            "-f",
            "allowed",
            "-I",
            "ci@example",
            "-s",
            "sig",
            "-n",
            namespace,
        ];
        run("ssh-keygen", &args, dir.path(), message)
    };

    let Some(good) = verify(Namespace::RELEASE.as_str(), &message()) else {
        return;
    };

    assert!(good.status.success(), "{}", said(&good));
    assert!(
        said(&good).contains(&new.public.fingerprint().to_string()),
        "{}",
        said(&good)
    );

    assert!(
        !verify(Namespace::RELEASE.as_str(), b"other")
            .expect("installed")
            .status
            .success()
    );

    assert!(
        !verify(Namespace::ORDER.as_str(), &message())
            .expect("installed")
            .status
            .success()
    );

    let listed = run("ssh-keygen", &["-l", "-f", "key.pub"], dir.path(), b"").expect("installed");

    assert!(
        said(&listed).contains(&new.public.fingerprint().to_string()),
        "{}",
        said(&listed)
    );

    let derived = run("ssh-keygen", &["-y", "-f", "key"], dir.path(), b"").expect("installed");
    assert!(
        said(&derived).contains(&new.public.to_string()),
        "{}",
        said(&derived)
    );
}

#[test]
fn a_signature_by_ssh_keygen_verifies_here() {
    let Some(dir) = ssh_key(&["-t", "ed25519", "-N", ""]) else {
        return;
    };

    let public = *open_signer(&dir.path().join("key"))
        .expect("opens")
        .public();

    for hash in ["sha512", "sha256"] {
        let option = format!("hashalg={hash}");
        let args = [
            "-Y",
            "sign",
            "-f",
            "key",
            "-n",
            Namespace::RELEASE.as_str(),
            "-O",
            &option,
        ];
        let signed = run("ssh-keygen", &args, dir.path(), &message()).expect("installed");
        assert!(signed.status.success(), "{}", said(&signed));
        let signature =
            Signature::from_armor(&String::from_utf8_lossy(&signed.stdout)).expect("armor");
        assert_eq!(
            verify(Namespace::RELEASE, &message(), signature.as_bytes()),
            Ok(public),
            "{hash}"
        );
        assert!(verify(Namespace::RELEASE, b"other", signature.as_bytes()).is_err());
        assert!(verify(Namespace::ORDER, &message(), signature.as_bytes()).is_err());
    }
}

#[test]
fn a_key_with_a_passphrase_is_opened_by_it() {
    let Some(dir) = ssh_key(&["-t", "ed25519", "-N", "open sesame"]) else {
        return;
    };

    let path = dir.path().join("key");
    let signer = open_with(&path, None, Some(b"open sesame".to_vec())).expect("opens");
    let signature = signer.sign(Namespace::ORDER, b"x").expect("signs");
    assert_eq!(
        verify(Namespace::ORDER, b"x", signature.as_bytes()),
        Ok(*signer.public())
    );

    let refused = open_with(&path, None, Some(b"wrong".to_vec()))
        .expect_err("refused")
        .to_string();

    assert!(
        refused.contains("MAKUO_PASSPHRASE does not open"),
        "{refused}"
    );
}

#[test]
fn keys_that_are_shared_or_not_ed25519_are_refused() {
    let Some(dir) = ssh_key(&["-t", "ed25519", "-N", ""]) else {
        return;
    };

    let path = dir.path().join("key");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).expect("chmod");
    let refused = open_signer(&path).expect_err("refused");
    assert!(
        refused
            .to_string()
            .contains("key is a secret that others can read (owner "),
        "{refused}"
    );

    assert_eq!(
        refused.hint_text(),
        Some(&*format!("chmod 0600 {}", path.display()))
    );

    for (kind, bits) in [("rsa", "2048"), ("ecdsa", "256")] {
        let dir = ssh_key(&["-t", kind, "-b", bits, "-N", ""]).expect("installed");
        for file in ["key", "key.pub"] {
            let refused = open_with(&dir.path().join(file), None, None)
                .expect_err("refused")
                .to_string();
            assert!(
                refused.contains("makuo takes only ssh-ed25519 keys"),
                "{kind} {file}: {refused}"
            );
        }
    }

    let refused = open_signer(Path::new("/nonexistent/key")).expect_err("refused");
    assert_eq!(refused.kind(), crate::Kind::Usage);
}

/// ssh-agent in the foreground, terminated with the test.
struct RunningAgent(std::process::Child);

impl Drop for RunningAgent {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn ssh_agent_signs_for_a_public_key() {
    let Some(dir) = ssh_key(&["-t", "ed25519", "-N", ""]) else {
        return;
    };

    let socket = dir.path().join("agent");
    let log = File::create(dir.path().join("log")).expect("made");
    let started = Command::new("ssh-agent")
        .arg("-D")
        .arg("-a")
        .arg(&socket)
        .stdout(log)
        .spawn();

    let Ok(child) = started else {
        crate::skip::skipped("ssh-agent is not installed");
        return;
    };

    let _running = RunningAgent(child);
    for _ in 0..500 {
        if std::os::unix::net::UnixStream::connect(&socket).is_ok() {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }

    let agent = Agent::at(socket.clone());
    let public_file = dir.path().join("key.pub");
    let private_file = dir.path().join("key");

    let hidden = dir.path().join("elsewhere");
    let added = Command::new("ssh-add")
        .arg("-q")
        .arg(&private_file)
        .env("SSH_AUTH_SOCK", &socket)
        .status();

    std::fs::rename(&private_file, &hidden).expect("renamed");
    assert!(added.expect("runs").success());

    let signer = open_with(&public_file, Some(agent.clone()), None).expect("opens");
    let signature = signer.sign(Namespace::RELEASE, &message()).expect("signs");
    assert_eq!(
        verify(Namespace::RELEASE, &message(), signature.as_bytes()),
        Ok(*signer.public())
    );

    // A key that the agent lost meanwhile gives a clear error.
    let emptied = Command::new("ssh-add")
        .args(["-q", "-D"])
        .env("SSH_AUTH_SOCK", &socket)
        .status();

    assert!(emptied.expect("runs").success());
    let refused = signer
        .sign(Namespace::RELEASE, b"x")
        .expect_err("refused")
        .to_string();
    assert!(
        refused.contains("refused to sign with SHA256:"),
        "{refused}"
    );

    let refused = open_with(&public_file, Some(agent.clone()), None)
        .expect_err("refused")
        .to_string();
    assert!(
        refused.contains("ssh-agent does not hold SHA256:"),
        "{refused}"
    );

    let refused = open_with(&public_file, None, None)
        .expect_err("refused")
        .to_string();
    assert!(refused.contains("no ssh-agent is running"), "{refused}");

    // The private half beside it works as well.
    std::fs::rename(&hidden, &private_file).expect("renamed");

    assert!(open_with(&public_file, Some(agent), None).is_ok());
    assert!(open_with(&public_file, None, None).is_ok());
    let gone = open_with(
        &public_file,
        Some(Agent::at("/nonexistent/agent".into())),
        None,
    )
    .expect_err("refused");

    assert!(
        gone.to_string().contains("cannot talk to ssh-agent"),
        "{gone}"
    );
}

#[test]
fn ssh_keygen_agrees_about_the_signatures_of_security_keys() {
    let dir = tempfile::tempdir().expect("temp");
    let (key, blob) = device_signs(1, &message());
    std::fs::write(dir.path().join("allowed"), format!("ci {key}\n")).expect("written");

    let mut flipped = blob.clone();
    let last = flipped.len() - 1;
    flipped[last] ^= 1;
    for (blob, holds) in [(&blob, true), (&flipped, false)] {
        let signature = Signature::from_bytes(blob).expect("formed");
        std::fs::write(dir.path().join("sig"), signature.to_armor()).expect("written");
        let namespace = Namespace::RELEASE.as_str();
        let args = [
            "-Y", "verify", "-f", "allowed", "-I", "ci", "-s", "sig", "-n", namespace,
        ];
        let Some(theirs) = run("ssh-keygen", &args, dir.path(), &message()) else {
            return;
        };
        assert_eq!(theirs.status.success(), holds, "{}", said(&theirs));
        let ours = verify(Namespace::RELEASE, &message(), blob);
        assert_eq!(ours.is_ok(), holds);
    }

    std::fs::write(dir.path().join("key.pub"), format!("{key} ci\n")).expect("written");
    let listed = run("ssh-keygen", &["-l", "-f", "key.pub"], dir.path(), b"").expect("installed");
    let fingerprint = key.fingerprint().to_string();
    assert!(said(&listed).contains(&fingerprint), "{}", said(&listed));
}
