//! Signatures in the SSHSIG format: the signed bytes, the binary blob, its armor, and strict
//! verification.
//!
//! The wire form is the binary blob. Verification rebuilds the signed bytes and calls
//! `verify_strict`: a signature with a small-order point or a non-canonical scalar is invalid.

use std::fmt;
use std::sync::Arc;

use base64ct::{Base64, Encoding};
use ed25519_dalek::VerifyingKey;
use sha2::{Digest, Sha256, Sha512};

use super::public::{ED25519, KeyError, PublicKey};
use super::security_key::DeviceStatement;
use super::sshwire::{Malformed, SshReader, put_string};
use crate::Result;
use crate::units::printable;

/// Largest signature blob in bytes; makuo's are about 170.
pub const MAX_SIGNATURE_BYTES: usize = 1024;
/// Largest number of signatures over one release.
pub const MAX_SIGNATURES: usize = 4;
const SSHSIG_MAGIC: &[u8; 6] = b"SSHSIG";
const SSHSIG_VERSION: u32 = 1;
const BEGIN: &str = "-----BEGIN SSH SIGNATURE-----";
const END: &str = "-----END SSH SIGNATURE-----";
/// Characters in a line of armor, as written by ssh-keygen.
const ARMOR_WIDTH: usize = 70;

/// Purpose of a signature: one made for one purpose never verifies for another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Namespace(&'static str);

impl Namespace {
    /// Release headers.
    pub const RELEASE: Namespace = Namespace("makuo-release@v1");
    /// Orders to commit or abort.
    pub const ORDER: Namespace = Namespace("makuo-order@v1");
    /// Heads of trees in a repository.
    pub const HEAD: Namespace = Namespace("makuo-head@v1");

    /// Orders to hold a tree.
    pub const HOLD: Namespace = Namespace("makuo-hold@v1");

    /// The namespace in SSHSIG, for `ssh-keygen -Y verify -n`.
    pub fn as_str(self) -> &'static str {
        self.0
    }
}

impl fmt::Display for Namespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

/// Signature as transmitted: the binary SSHSIG blob. The type does not imply a valid signature, see
/// [`verify`].
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Signature(Arc<[u8]>);

/// Reason why a signature was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    /// Not the form of an SSHSIG.
    #[error("the signature is not in the SSHSIG format")]
    Malformed,
    /// A later SSHSIG.
    #[error("the signature has SSHSIG version {0}, this makuo reads version {SSHSIG_VERSION}")]
    Version(u32),
    /// Made for another purpose.
    #[error("the signature was made for {found:?}, not for \"{wanted}\"")]
    Namespace {
        /// Namespace of the signature.
        found: String,
        /// Expected namespace.
        wanted: Namespace,
    },
    /// A hash unknown to SSHSIG.
    #[error("the signature uses the hash {0:?}, not sha512 or sha256")]
    Hash(String),
    /// A key that makuo does not accept.
    #[error("the signature's key: {0}")]
    Key(#[from] KeyError),
    /// Does not match key and message.
    #[error("the signature by {0} does not match what it should sign")]
    Mismatch(super::Fingerprint),
}

impl From<Malformed> for SignatureError {
    fn from(_: Malformed) -> Self {
        SignatureError::Malformed
    }
}

/// Returns the key that signed `message` for `namespace` in `blob`: of several the first one, see
/// [`super::verify_all`]. Whether that key is authorized
/// is a separate question: [`super::AuthorizedKeys::allows`].
pub fn verify(
    namespace: Namespace,
    message: &[u8],
    blob: &[u8],
) -> Result<PublicKey, SignatureError> {
    // Those of cosigners follow, and are verified where they count.
    let first = split(blob)?.into_iter().next().unwrap_or_default();
    let (parts, _) = SignatureParts::parse(first)?;
    if parts.namespace != namespace.0.as_bytes() {
        let found = printable(&parts.namespace[..parts.namespace.len().min(64)]);
        return Err(SignatureError::Namespace {
            found,
            wanted: namespace,
        });
    }

    let mut signed = signed_data(parts.namespace, parts.reserved, parts.hash, message);
    if let (Some(application), Some(statement)) = (parts.key.application(), parts.raw.statement) {
        signed = statement.signed_data(application, &signed);
    }

    let mismatch = || SignatureError::Mismatch(parts.key.fingerprint());
    let key = VerifyingKey::from_bytes(parts.key.as_bytes()).map_err(|_| mismatch())?;
    let signature = ed25519_dalek::Signature::from_bytes(parts.raw.signature);
    key.verify_strict(&signed, &signature)
        .map_err(|_| mismatch())?;

    let is_touched = parts.raw.statement.is_none_or(DeviceStatement::is_present);
    Ok(match is_touched {
        true => parts.key,
        false => parts.key.without_touch(),
    })
}

/// SSH's form of an Ed25519 signature.
pub(super) fn plain_signature(raw: &[u8; 64]) -> Vec<u8> {
    let mut out = Vec::with_capacity(83);
    put_string(&mut out, ED25519.as_bytes());
    put_string(&mut out, raw);
    out
}

/// Makes the blob over `message`; `sign` makes the signature in SSH's form.
pub(super) fn sign_with(
    key: &PublicKey,
    namespace: Namespace,
    message: &[u8],
    sign: impl FnOnce(&[u8]) -> Result<Vec<u8>>,
) -> Result<Signature> {
    let hash = Hash::Sha512;
    let inner = sign(&signed_data(namespace.0.as_bytes(), b"", hash, message))?;
    let mut out = Vec::with_capacity(192);
    out.extend_from_slice(SSHSIG_MAGIC);

    out.extend_from_slice(&SSHSIG_VERSION.to_be_bytes());
    for part in [
        &key.blob()[..],
        namespace.0.as_bytes(),
        b"",
        hash.name().as_bytes(),
        &inner,
    ] {
        put_string(&mut out, part);
    }

    Ok(Signature(out.into()))
}

impl Signature {
    /// Checks size and form of a received blob.
    pub fn from_bytes(blob: &[u8]) -> Result<Self, SignatureError> {
        split(blob).map(|_| Self(blob.into()))
    }

    /// The blob.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Text form, as read by `ssh-keygen -Y verify -s FILE`.
    pub fn to_armor(&self) -> String {
        let text = Base64::encode_string(&self.0);
        let mut out = format!("{BEGIN}\n");
        for line in text.as_bytes().chunks(ARMOR_WIDTH) {
            out.extend(line.iter().map(|&b| char::from(b)));
            out.push('\n');
        }
        out + END + "\n"
    }

    /// Parses the text form.
    pub fn from_armor(text: &str) -> Result<Self, SignatureError> {
        let body = text
            .trim()
            .strip_prefix(BEGIN)
            .and_then(|t| t.strip_suffix(END))
            .ok_or(SignatureError::Malformed)?;
        if body.len() > 2 * MAX_SIGNATURE_BYTES {
            return Err(SignatureError::Malformed);
        }

        let base64: String = body.chars().filter(|c| !c.is_ascii_whitespace()).collect();
        Self::from_bytes(&Base64::decode_vec(&base64).map_err(|_| SignatureError::Malformed)?)
    }
}

impl fmt::Debug for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Signature({} bytes)", self.0.len())
    }
}

/// Hash of the message that the signature covers.
#[derive(Debug, Clone, Copy)]
enum Hash {
    Sha256,
    Sha512,
}

impl Hash {
    fn name(self) -> &'static str {
        match self {
            Hash::Sha256 => "sha256",
            Hash::Sha512 => "sha512",
        }
    }
}

/// Parts of a blob, borrowed from it.
pub(super) struct SignatureParts<'a> {
    key: PublicKey,
    namespace: &'a [u8],
    reserved: &'a [u8],
    hash: Hash,
    raw: RawSignature<'a>,
}

impl<'a> SignatureParts<'a> {
    /// Parses the signature at the start of `blob`; returns what follows as well.
    pub(super) fn parse(blob: &'a [u8]) -> Result<(Self, &'a [u8]), SignatureError> {
        let mut reader = SshReader::new(blob);
        if reader.take(SSHSIG_MAGIC.len())? != SSHSIG_MAGIC {
            return Err(SignatureError::Malformed);
        }

        match reader.u32()? {
            SSHSIG_VERSION => {}
            other => return Err(SignatureError::Version(other)),
        }

        let key = PublicKey::from_blob(reader.string()?)?;
        let namespace = reader.string()?;
        let reserved = reader.string()?;
        let hash = match reader.string()? {
            b"sha256" => Hash::Sha256,
            b"sha512" => Hash::Sha512,
            other => {
                return Err(SignatureError::Hash(printable(
                    &other[..other.len().min(64)],
                )));
            }
        };

        let raw = RawSignature::parse(&key, reader.string()?)?;
        let parts = Self {
            key,
            namespace,
            reserved,
            hash,
            raw,
        };
        Ok((parts, reader.rest()))
    }
}

/// Splits a blob into its signatures, which are formed well and not verified.
pub(super) fn split(mut blob: &[u8]) -> Result<Vec<&[u8]>, SignatureError> {
    if blob.len() > MAX_SIGNATURE_BYTES {
        return Err(SignatureError::Malformed);
    }

    let mut found = Vec::new();
    while !blob.is_empty() || found.is_empty() {
        let (_, rest) = SignatureParts::parse(blob)?;
        if found.len() >= MAX_SIGNATURES {
            return Err(SignatureError::Malformed);
        }
        let (one, _) = blob.split_at(blob.len() - rest.len());
        found.push(one);
        blob = rest;
    }

    Ok(found)
}

/// Parts of SSH's form of an Ed25519 signature.
#[derive(Debug, Clone, Copy)]
pub(super) struct RawSignature<'a> {
    signature: &'a [u8; 64],
    /// Set for a key on a security key.
    statement: Option<DeviceStatement>,
}

impl<'a> RawSignature<'a> {
    /// Parses the signature of `key`, which has to be of the same type.
    pub(super) fn parse(key: &PublicKey, blob: &'a [u8]) -> Result<Self, SignatureError> {
        let mut reader = SshReader::new(blob);
        if reader.string()? != key.algorithm().as_bytes() {
            return Err(SignatureError::Malformed);
        }

        let signature = reader
            .string()?
            .try_into()
            .map_err(|_| SignatureError::Malformed)?;
        let statement = match key.is_on_device() {
            true => Some(DeviceStatement::parse(&mut reader)?),
            false => None,
        };
        reader.end()?;

        Ok(Self {
            signature,
            statement,
        })
    }
}

fn signed_data(namespace: &[u8], reserved: &[u8], hash: Hash, message: &[u8]) -> Vec<u8> {
    let digest = match hash {
        Hash::Sha256 => Sha256::digest(message).to_vec(),
        Hash::Sha512 => Sha512::digest(message).to_vec(),
    };

    let mut out = SSHSIG_MAGIC.to_vec();
    for part in [namespace, reserved, hash.name().as_bytes(), &digest] {
        put_string(&mut out, part);
    }

    out
}

#[cfg(test)]
mod tests;
