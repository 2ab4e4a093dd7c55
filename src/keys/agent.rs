//! A client of ssh-agent (draft-miller-ssh-agent): looks a key up and signs with it. Accesses no
//! files.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use super::signature::RawSignature;
use super::sshwire::{Malformed, SshReader, put_string};
use super::{PublicKey, shown};
use crate::{Error, Kind, Result};

const REQUEST_IDENTITIES: u8 = 11;
const IDENTITIES_ANSWER: u8 = 12;
const SIGN_REQUEST: u8 = 13;
const SIGN_RESPONSE: u8 = 14;
/// Largest message of an agent; OpenSSH has the same limit.
const MAX_AGENT_MESSAGE: usize = 256 << 10;
/// Timeout of a request: an agent may ask its owner to confirm.
const AGENT_TIMEOUT: Duration = Duration::from_secs(60);

/// The agent at SSH_AUTH_SOCK.
#[derive(Debug, Clone)]
pub(super) struct Agent {
    socket: PathBuf,
}

impl Agent {
    /// The agent of the environment, if there is one.
    pub(super) fn from_env() -> Option<Self> {
        std::env::var_os("SSH_AUTH_SOCK")
            .filter(|s| !s.is_empty())
            .map(|s| Self::at(s.into()))
    }

    /// The agent that listens at `socket`.
    pub(super) fn at(socket: PathBuf) -> Self {
        Self { socket }
    }

    /// Returns whether the agent holds the private half of `key`.
    pub(super) fn holds(&self, key: &PublicKey) -> Result<bool> {
        let answer = self.ask(&[REQUEST_IDENTITIES])?;
        let listed = |answer: &[u8]| -> Result<bool, Malformed> {
            let mut reader = SshReader::new(answer);
            if reader.byte()? != IDENTITIES_ANSWER {
                return Ok(false);
            }
            // The count is not trusted as a size: each iteration consumes existing bytes, or fails.
            for _ in 0..reader.u32()? {
                let blob = reader.string()?;
                reader.string()?;
                if blob == key.blob() {
                    return Ok(true);
                }
            }
            Ok(false)
        };

        listed(&answer).map_err(|_| self.failed("sent an answer that cannot be read"))
    }

    /// Signature of `data` by `key`, in SSH's form.
    pub(super) fn sign(&self, key: &PublicKey, data: &[u8]) -> Result<Vec<u8>> {
        let mut request = vec![SIGN_REQUEST];
        put_string(&mut request, &key.blob());
        put_string(&mut request, data);
        request.extend_from_slice(&0u32.to_be_bytes());
        let answer = self.ask(&request)?;
        let mut reader = SshReader::new(&answer);

        if reader.byte() != Ok(SIGN_RESPONSE) {
            return Err(self
                .failed(&format!("refused to sign with {}", key.fingerprint()))
                .hint(
                    "check that the key is loaded (ssh-add -l) and the agent unlocked, and confirm",
                ));
        }

        let blob = reader.string().ok();
        let blob = blob.filter(|blob| RawSignature::parse(key, blob).is_ok());
        blob.map(<[u8]>::to_vec)
            .ok_or_else(|| self.failed("sent a signature that is not of Ed25519"))
    }

    fn ask(&self, request: &[u8]) -> Result<Vec<u8>> {
        self.exchange(request).map_err(|e| match e.kind() {
            std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut => self.failed(&format!(
                "did not answer within {} s",
                AGENT_TIMEOUT.as_secs()
            )),
            std::io::ErrorKind::InvalidData => self.failed("sent an answer that cannot be read"),
            _ => Error::io("cannot talk to ssh-agent at", &self.socket, e)
                .hint("is SSH_AUTH_SOCK right? see ssh-add -l"),
        })
    }

    fn exchange(&self, request: &[u8]) -> std::io::Result<Vec<u8>> {
        let mut stream = UnixStream::connect(&self.socket)?;
        stream.set_read_timeout(Some(AGENT_TIMEOUT))?;
        stream.set_write_timeout(Some(AGENT_TIMEOUT))?;
        let mut message = Vec::with_capacity(request.len() + 4);
        put_string(&mut message, request);
        stream.write_all(&message)?;
        let mut length = [0; 4];
        stream.read_exact(&mut length)?;
        let length = u32::from_be_bytes(length) as usize;
        if length == 0 || length > MAX_AGENT_MESSAGE {
            return Err(std::io::ErrorKind::InvalidData.into());
        }

        let mut answer = vec![0; length];
        stream.read_exact(&mut answer)?;
        Ok(answer)
    }

    fn failed(&self, what: &str) -> Error {
        Error::new(
            Kind::Refused,
            format!("ssh-agent at {} {what}", shown(&self.socket)),
        )
    }
}
