//! Keys: SSH keys that sign releases, signatures in the SSHSIG format, authorized keys and their
//! roles, the group key.
//!
//! A signature here is exactly the output of `ssh-keygen -Y sign` and input of
//! `ssh-keygen -Y verify` (PROTOCOL.sshsig of OpenSSH), with Ed25519 only, in files, agents and on
//! security keys. [`verify`] returns the
//! signing key; [`AuthorizedKeys::allows`] decides whether that key is authorized. The two are
//! separate on purpose: a valid signature alone allows nothing.
//!
//! This room reads key files and connects to ssh-agent. It knows neither the network nor the
//! meaning of the signed bytes.

mod agent;
mod authorized;
mod cosign;
mod denied;
mod expiry;
mod generate;
mod group;
mod host;
mod key_options;
mod known_hosts;
#[cfg(test)]
mod openssh_tests;
mod prompt;
mod public;
mod role;
mod security_key;
mod signature;
mod signer;
mod sshwire;

pub use authorized::AuthorizedKeys;
pub use cosign::{CosignedSigner, verify_all};
pub use denied::{DenialReason, Denied};
pub use expiry::show as shown_time;
pub use generate::{NewKey, authorized_line, generate, write_file};
pub use group::GroupKey;
pub use host::{HOST_SIGNATURE_BYTES, HostKey, Identity};
pub use known_hosts::{KnownHosts, Learned, MAX_KNOWN_HOSTS_BYTES, MAX_NEW_KEYS};
pub use public::{Fingerprint, KeyError, PublicKey};
pub use role::Role;
pub use signature::{
    MAX_SIGNATURE_BYTES, MAX_SIGNATURES, Namespace, Signature, SignatureError, verify,
};
pub use signer::{FileSigner, Signer, open_signer, public_half};

use std::io::Read;
use std::path::Path;

use crate::error::IoResultExt;
use crate::strict::{self, Readers};
use crate::{Error, Result};

/// Largest key file in bytes.
const MAX_KEY_FILE: u64 = 1 << 20;

/// Reads the key file `path`; returns its contents and the open file. Refuses a file larger than
/// [`MAX_KEY_FILE`], one that others could have changed, or one that others than `readers` may
/// read.
fn read_key_file(path: &Path, readers: Readers) -> Result<(Vec<u8>, std::fs::File)> {
    let file = strict::open(path, readers)?;
    let mut bytes = Vec::new();
    (&file)
        .take(MAX_KEY_FILE + 1)
        .read_to_end(&mut bytes)
        .context("cannot read", path)?;

    if bytes.len() as u64 > MAX_KEY_FILE {
        return Err(Error::usage(format!(
            "{} is too large for a key file",
            shown(path)
        )));
    }

    Ok((bytes, file))
}

/// Path for display, made printable.
fn shown(path: &Path) -> String {
    crate::units::printable(std::os::unix::ffi::OsStrExt::as_bytes(path.as_os_str()))
}

/// Fresh randomness from the system.
pub fn random_bytes<const N: usize>() -> Result<[u8; N]> {
    let mut bytes = [0u8; N];
    let mut filled = 0;
    while filled < N {
        match rustix::rand::getrandom(&mut bytes[filled..], rustix::rand::GetRandomFlags::empty()) {
            Ok(n) => filled += n,
            Err(rustix::io::Errno::INTR) => {}
            Err(e) => {
                let cause = std::io::Error::from(e);
                return Err(
                    Error::new(crate::Kind::Io, "the system provides no randomness").because(cause),
                );
            }
        }
    }

    Ok(bytes)
}
