//! Signers: a private key file, or ssh-agent on behalf of a public one.

use std::fmt;
use std::path::{Path, PathBuf};

use ed25519_dalek::{Signer as _, SigningKey};
use ssh_key::private::KeypairData;

use super::agent::Agent;
use super::generate::with_pub;
use super::signature::{plain_signature, sign_with};
use super::{Namespace, PublicKey, Signature, prompt, read_key_file, shown, verify};
use crate::strict::{self, Readers};
use crate::{Error, Result};

/// Variable with the passphrase of an encrypted key, for automation.
const PASSPHRASE_VARIABLE: &str = "MAKUO_PASSPHRASE";
/// Number of attempts to type a passphrase.
const ATTEMPTS: usize = 3;

/// Holder of the private half of a key.
pub trait Signer: Send + Sync + fmt::Debug {
    /// Signs `message` for `namespace`.
    fn sign(&self, namespace: Namespace, message: &[u8]) -> Result<Signature>;

    /// The public half.
    fn public(&self) -> &PublicKey;

    /// All keys that sign a release.
    fn release_keys(&self) -> Vec<PublicKey> {
        vec![*self.public()]
    }
}

/// Opens the signer of `path`: a private key in OpenSSH's format, or a `.pub` file whose private
/// half is held by ssh-agent (or lies beside it). A key with a passphrase is decrypted once, with
/// MAKUO_PASSPHRASE, through an ssh-agent that has the key, or with a prompt on the terminal.
pub fn open_signer(path: &Path) -> Result<Box<dyn Signer>> {
    open_with(
        path,
        Agent::from_env(),
        std::env::var_os(PASSPHRASE_VARIABLE).map(|p| p.into_encoded_bytes()),
    )
}

pub(super) fn open_with(
    path: &Path,
    agent: Option<Agent>,
    passphrase: Option<Vec<u8>>,
) -> Result<Box<dyn Signer>> {
    let (bytes, file) = read_key_file(path, Readers::All).map_err(no_key)?;
    let text = String::from_utf8_lossy(&bytes);
    if text.trim_start().starts_with("-----BEGIN") {
        strict::check_readers(&file, path, Readers::Owner)?;
        return open_private(path, &text, agent, passphrase);
    }

    let (public, _comment) = PublicKey::from_openssh(&text)
        .map_err(|e| Error::usage(format!("{} cannot sign: {e}", shown(path))))?;
    let Some(agent) = agent else {
        return match private_beside(path) {
            Some(private) => open_with(&private, None, passphrase),
            None => Err(Error::usage(format!(
                "{} is a public key, and no ssh-agent is running to sign with it",
                shown(path)
            ))
            .hint("start one (eval $(ssh-agent); ssh-add KEY), or name the private key's file")),
        };
    };

    if agent.holds(&public)? {
        return Ok(Box::new(AgentSigner { public, agent }));
    }

    match private_beside(path) {
        Some(private) => open_with(&private, Some(agent), passphrase),
        None => Err(Error::usage(format!(
            "ssh-agent does not hold {} ({})",
            public.fingerprint(),
            shown(path)
        ))
        .hint("add it with ssh-add; ssh-add -l lists what the agent holds")),
    }
}

fn no_key(error: Error) -> Error {
    error
        .with_kind(crate::Kind::Usage)
        .hint_else("`makuo keygen` makes a deploy key; --key FILE names another one")
}

/// `deploy.key` for `deploy.key.pub`, if it exists.
fn private_beside(path: &Path) -> Option<PathBuf> {
    let private = path.with_extension("");
    (with_pub(&private) == path && private.is_file()).then_some(private)
}

fn open_private(
    path: &Path,
    text: &str,
    agent: Option<Agent>,
    passphrase: Option<Vec<u8>>,
) -> Result<Box<dyn Signer>> {
    let name = shown(path);
    let (key, public) = read_private(&name, text)?;
    if public.is_on_device() {
        return open_device(&name, public, agent);
    }
    if !key.is_encrypted() {
        return FileSigner::from_ssh(&key, public, &name);
    }

    if let Some(passphrase) = passphrase {
        let key = key.decrypt(passphrase).map_err(|_| {
            Error::usage(format!(
                "the passphrase in {PASSPHRASE_VARIABLE} does not open {name}"
            ))
        })?;
        return FileSigner::from_ssh(&key, public, &name);
    }

    // Prompt even if an agent cannot be reached.
    match agent.filter(|a| a.holds(&public).unwrap_or(false)) {
        Some(agent) => Ok(Box::new(AgentSigner { public, agent })),
        None => FileSigner::from_ssh(&ask(&key, &name)?, public, &name),
    }
}

/// Opens a key on a security key, which only an agent reaches.
fn open_device(name: &str, public: PublicKey, agent: Option<Agent>) -> Result<Box<dyn Signer>> {
    match agent {
        Some(agent) if agent.holds(&public)? => Ok(Box::new(AgentSigner { public, agent })),
        _ => Err(Error::usage(format!(
            "{name} is a key on a security key, and no ssh-agent holds it"
        ))
        .hint(format!(
            "plug the security key in, and add it: ssh-add {name}"
        ))),
    }
}

/// Public half of the private key in the file `path`; its passphrase is not needed.
pub fn public_half(path: &Path) -> Result<PublicKey> {
    let (bytes, _) = read_key_file(path, Readers::All)?;
    let text = String::from_utf8_lossy(&bytes);
    read_private(&shown(path), &text).map(|(_, public)| public)
}

/// Parses a private key, perhaps still encrypted.
fn read_private(name: &str, text: &str) -> Result<(ssh_key::PrivateKey, PublicKey)> {
    let key = ssh_key::PrivateKey::from_openssh(text.trim_start()).map_err(|e| {
        Error::usage(format!("{name} is not a private key in OpenSSH's format"))
            .because(e)
            .hint(
                "`makuo keygen` makes a deploy key; ssh-keygen -p -f FILE rewrites an older format",
            )
    })?;

    let blob = key
        .public_key()
        .to_bytes()
        .map_err(|e| Error::usage(format!("{name} cannot be read")).because(e))?;
    let public = PublicKey::from_blob(&blob).map_err(|e| {
        Error::usage(format!("{name} cannot sign: {e}"))
            .hint("make one with `makuo keygen` or ssh-keygen -t ed25519")
    })?;

    Ok((key, public))
}

fn ask(key: &ssh_key::PrivateKey, name: &str) -> Result<ssh_key::PrivateKey> {
    let hint = format!("add it to ssh-agent (ssh-add {name}), or set {PASSPHRASE_VARIABLE}");
    for _ in 0..ATTEMPTS {
        let typed = prompt::passphrase(&format!("Passphrase of {name}: ")).map_err(|e| {
            Error::usage(format!(
                "{name} has a passphrase, and there is no terminal to ask for it"
            ))
            .because(e)
            .hint(&hint)
        })?;
        let Some(typed) = typed else { break };
        if let Ok(open) = key.decrypt(typed) {
            return Ok(open);
        }
    }

    Err(Error::usage(format!("{name} has a passphrase, and it was not given")).hint(hint))
}

/// Private key in this process's memory.
pub struct FileSigner {
    secret: SigningKey,
    public: PublicKey,
}

impl FileSigner {
    /// The key with the 32 secret bytes `seed`: for the simulation and tests, which draw it from
    /// their own seed.
    ///
    /// # Panics
    ///
    /// Never: a key derived from a seed is a multiple of the base point, which is not of small
    /// order.
    pub fn from_seed(seed: [u8; 32]) -> Self {
        let secret = SigningKey::from_bytes(&seed);
        let public = PublicKey::from_bytes(secret.verifying_key().to_bytes())
            .expect("derived keys are sound");
        Self { secret, public }
    }

    fn from_ssh(
        key: &ssh_key::PrivateKey,
        public: PublicKey,
        name: &str,
    ) -> Result<Box<dyn Signer>> {
        let KeypairData::Ed25519(pair) = key.key_data() else {
            return Err(Error::usage(format!("{name} is not an Ed25519 key")));
        };

        let signer = Self::from_seed(pair.private.to_bytes());
        if signer.public != public {
            return Err(Error::usage(format!(
                "{name} is damaged: its two halves do not belong together"
            )));
        }

        Ok(Box::new(signer))
    }
}

impl fmt::Debug for FileSigner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FileSigner({})", self.public.fingerprint())
    }
}

impl Signer for FileSigner {
    fn sign(&self, namespace: Namespace, message: &[u8]) -> Result<Signature> {
        sign_with(&self.public, namespace, message, |data| {
            Ok(plain_signature(&self.secret.sign(data).to_bytes()))
        })
    }

    fn public(&self) -> &PublicKey {
        &self.public
    }
}

/// Key held by ssh-agent.
#[derive(Debug)]
struct AgentSigner {
    public: PublicKey,
    agent: Agent,
}

impl Signer for AgentSigner {
    fn sign(&self, namespace: Namespace, message: &[u8]) -> Result<Signature> {
        if self.public.is_on_device() {
            tracing::warn!("touch the security key of {}", self.public.fingerprint());
        }

        let signature = sign_with(&self.public, namespace, message, |data| {
            self.agent.sign(&self.public, data)
        })?;

        // Better refused here than by every host.
        verify(namespace, message, signature.as_bytes()).map_err(|e| {
            Error::refused("ssh-agent made a signature that does not verify").because(e)
        })?;
        Ok(signature)
    }

    fn public(&self) -> &PublicKey {
        &self.public
    }
}
