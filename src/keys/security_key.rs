//! Keys on security keys (FIDO2): `sk-ssh-ed25519@openssh.com` of OpenSSH's PROTOCOL.u2f.
//!
//! The device signs hashes together with what it knows: whether somebody touched it, and a counter.
//! The counter is not compared: a signature is used once by its release or order.

use sha2::{Digest, Sha256};

use super::sshwire::{Malformed, SshReader};

/// Name of the key type.
pub(super) const SK_ED25519: &str = "sk-ssh-ed25519@openssh.com";
/// Largest name of an application in bytes; OpenSSH's own is `ssh:`.
const MAX_APPLICATION: usize = 64;
/// Flag of a device that somebody touched.
const USER_PRESENT: u8 = 1;

/// Application that a key on a security key is made for, a part of its public key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Application {
    length: u8,
    bytes: [u8; MAX_APPLICATION],
}

impl Application {
    pub(super) fn new(name: &[u8]) -> Result<Self, Malformed> {
        let mut bytes = [0; MAX_APPLICATION];
        let place = bytes.get_mut(..name.len()).ok_or(Malformed)?;
        place.copy_from_slice(name);
        Ok(Self {
            length: name.len() as u8,
            bytes,
        })
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.length)]
    }
}

/// Statement of a security key beside its signature.
#[derive(Debug, Clone, Copy)]
pub(super) struct DeviceStatement {
    flags: u8,
    counter: u32,
}

impl DeviceStatement {
    pub(super) fn parse(reader: &mut SshReader<'_>) -> Result<Self, Malformed> {
        Ok(Self {
            flags: reader.byte()?,
            counter: reader.u32()?,
        })
    }

    /// Returns whether somebody touched the device.
    pub(super) fn is_present(self) -> bool {
        self.flags & USER_PRESENT != 0
    }

    /// The bytes that the device signs in place of `message`.
    pub(super) fn signed_data(self, application: &Application, message: &[u8]) -> Vec<u8> {
        let mut out = Sha256::digest(application.as_bytes()).to_vec();
        out.push(self.flags);
        out.extend_from_slice(&self.counter.to_be_bytes());
        out.extend_from_slice(&Sha256::digest(message));
        out
    }
}

#[cfg(test)]
pub(super) mod tests {
    use ed25519_dalek::{Signer as _, SigningKey};

    use super::super::sshwire::put_string;
    use super::super::{AuthorizedKeys, Namespace, PublicKey, Role, SignatureError, verify};
    use super::*;
    use crate::id::TreeName;
    use crate::units::WallTime;

    /// What a security key with these flags returns for a message.
    pub fn device_signs(flags: u8, message: &[u8]) -> (PublicKey, Vec<u8>) {
        let secret = SigningKey::from_bytes(&[9; 32]);
        let mut blob = Vec::new();
        put_string(&mut blob, SK_ED25519.as_bytes());
        put_string(&mut blob, secret.verifying_key().as_bytes());
        put_string(&mut blob, b"ssh:");
        let key = PublicKey::from_blob(&blob).expect("sound");

        let statement = DeviceStatement { flags, counter: 7 };
        let signed = |data: &[u8]| {
            let application = Application::new(b"ssh:").expect("short");
            let raw = secret.sign(&statement.signed_data(&application, data));
            let mut inner = Vec::new();
            put_string(&mut inner, SK_ED25519.as_bytes());
            put_string(&mut inner, &raw.to_bytes());
            inner.push(flags);
            inner.extend_from_slice(&7u32.to_be_bytes());
            Ok(inner)
        };
        let sign = super::super::signature::sign_with;
        let signature = sign(&key, Namespace::RELEASE, message, signed).expect("signs");
        (key, signature.as_bytes().to_vec())
    }

    #[test]
    fn a_security_key_signs_for_its_message_and_key_alone() {
        let (key, blob) = device_signs(USER_PRESENT, b"header");
        assert_eq!(verify(Namespace::RELEASE, b"header", &blob), Ok(key));
        assert!(verify(Namespace::RELEASE, b"headeR", &blob).is_err());
        assert!(verify(Namespace::ORDER, b"header", &blob).is_err());
        for bit in 0..blob.len() * 8 {
            let mut other = blob.clone();
            other[bit / 8] ^= 1 << (bit % 8);
            let found = verify(Namespace::RELEASE, b"header", &other);
            assert!(found.is_err(), "bit {bit}");
        }
        let cut = &blob[..blob.len() - 1];
        let malformed = Err(SignatureError::Malformed);
        assert_eq!(verify(Namespace::RELEASE, b"header", cut), malformed);
    }

    #[test]
    fn a_key_on_a_device_is_another_than_the_same_point_in_a_file() {
        let (key, _) = device_signs(USER_PRESENT, b"x");
        let in_file = PublicKey::from_bytes(*key.as_bytes()).expect("sound");
        assert_ne!(key, in_file);
        assert_ne!(key.fingerprint(), in_file.fingerprint());

        let line = format!("{key} someone");
        assert_eq!(PublicKey::from_openssh(&line), Ok((key, "someone".into())));
        let swapped = line.replacen(SK_ED25519, "ssh-ed25519", 1);
        assert!(PublicKey::from_openssh(&swapped).is_err(), "{swapped}");
        assert!(Application::new(&[b'x'; MAX_APPLICATION + 1]).is_err());
    }

    #[test]
    fn a_signature_without_a_touch_needs_permission() {
        let www = TreeName::new("www").expect("legal");
        let allowed = |options: &str, flags: u8| {
            let (key, blob) = device_signs(flags, b"header");
            let line = format!("{options} {key}");
            let path = std::path::Path::new("authorized_keys");
            let keys = AuthorizedKeys::parse(line.trim().as_bytes(), path).expect("legal");
            let by = verify(Namespace::RELEASE, b"header", &blob).expect("holds");
            keys.allows(&by, &www, Role::Deploy, WallTime(0))
                .map_err(|denied| denied.to_string())
        };

        assert_eq!(allowed("", USER_PRESENT), Ok(()));
        assert_eq!(allowed("no-touch-required", 0), Ok(()));
        assert_eq!(allowed("deploy,no-touch-required", USER_PRESENT), Ok(()));
        let denied = allowed("deploy", 0).expect_err("untouched");
        assert!(
            denied.contains("its security key was not touched"),
            "{denied}"
        );
        assert!(
            denied.contains("deploy,no-touch-required sk-ssh"),
            "{denied}"
        );
        assert!(allowed("audit", 0).is_err());
    }
}
