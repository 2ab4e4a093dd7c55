//! Several signatures over one release, one after the other in one blob: those of cosigners follow
//! the signer's own.
//!
//! Every signature ends by itself, so the first one is read as if it were alone. A makuo without
//! cosigners refuses such a blob.

use std::sync::Arc;

use super::signature::split;
use super::{MAX_SIGNATURES, Namespace, PublicKey, Signature, Signer, verify};
use crate::{Error, Result};

/// A signer whose releases others sign as well. Orders and heads are its own.
#[derive(Debug)]
pub struct CosignedSigner {
    first: Arc<dyn Signer>,
    others: Vec<Arc<dyn Signer>>,
}

impl CosignedSigner {
    /// The signer `first` with these cosigners, all with different keys.
    pub fn new(first: Arc<dyn Signer>, others: Vec<Arc<dyn Signer>>) -> Result<Self> {
        let all: Vec<&Arc<dyn Signer>> = std::iter::once(&first).chain(&others).collect();
        if all.len() > MAX_SIGNATURES {
            return Err(Error::usage(format!(
                "a release has at most {MAX_SIGNATURES} signatures"
            )));
        }
        for (at, one) in all.iter().enumerate() {
            if all[..at].iter().any(|other| other.public() == one.public()) {
                let key = one.public().fingerprint();
                return Err(Error::usage(format!("{key} signs already"))
                    .hint("cosigners have keys of their own: hosts count different keys"));
            }
        }

        Ok(Self { first, others })
    }
}

impl Signer for CosignedSigner {
    fn sign(&self, namespace: Namespace, message: &[u8]) -> Result<Signature> {
        let mut blob = self.first.sign(namespace, message)?.as_bytes().to_vec();
        if namespace == Namespace::RELEASE {
            for other in &self.others {
                blob.extend_from_slice(other.sign(namespace, message)?.as_bytes());
            }
        }

        Signature::from_bytes(&blob)
            .map_err(|e| Error::usage("the signatures together are too long").because(e))
    }

    fn public(&self) -> &PublicKey {
        self.first.public()
    }

    fn release_keys(&self) -> Vec<PublicKey> {
        let others = self.others.iter().map(|other| *other.public());
        std::iter::once(*self.public()).chain(others).collect()
    }
}

/// The different keys with a signature in `blob` that holds.
pub fn verify_all(namespace: Namespace, message: &[u8], blob: &[u8]) -> Vec<PublicKey> {
    let mut keys: Vec<PublicKey> = Vec::new();
    for one in split(blob).unwrap_or_default() {
        if let Ok(key) = verify(namespace, message, one)
            && !keys.contains(&key)
        {
            keys.push(key);
        }
    }
    keys
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::FileSigner;

    fn signer(seed: u8) -> Arc<dyn Signer> {
        Arc::new(FileSigner::from_seed([seed; 32]))
    }

    fn cosigned(seeds: &[u8]) -> Vec<u8> {
        let others = seeds[1..].iter().map(|seed| signer(*seed)).collect();
        let all = CosignedSigner::new(signer(seeds[0]), others).expect("different");
        let signature = all.sign(Namespace::RELEASE, b"header").expect("signs");
        signature.as_bytes().to_vec()
    }

    fn keys(blob: &[u8]) -> Vec<PublicKey> {
        verify_all(Namespace::RELEASE, b"header", blob)
    }

    #[test]
    fn every_signature_counts_once_and_the_first_is_the_signers() {
        let blob = cosigned(&[1, 2, 3]);
        let expected = [1, 2, 3].map(|seed| *signer(seed).public());
        assert_eq!(keys(&blob), expected);
        assert_eq!(
            verify(Namespace::RELEASE, b"header", &blob),
            Ok(expected[0])
        );

        let twice = [cosigned(&[1]), cosigned(&[1])].concat();
        assert_eq!(keys(&twice), expected[..1]);
        let many = cosigned(&[1]).repeat(MAX_SIGNATURES + 1);
        assert!(keys(&many).is_empty());
        assert!(verify(Namespace::RELEASE, b"header", &many).is_err());
        assert!(keys(b"").is_empty());
    }

    #[test]
    fn a_signature_of_something_else_does_not_count() {
        let (one, two) = (cosigned(&[1]), signer(2));
        let other = two.sign(Namespace::RELEASE, b"another").expect("signs");
        let blob = [&one[..], other.as_bytes()].concat();
        assert_eq!(keys(&blob), [*signer(1).public()]);

        let order = two.sign(Namespace::ORDER, b"header").expect("signs");
        assert_eq!(keys(&[&one[..], order.as_bytes()].concat()).len(), 1);
        assert!(
            keys(&[&one[..], b"x"].concat()).is_empty(),
            "not formed well"
        );
    }

    #[test]
    fn cosigners_sign_releases_alone_and_have_keys_of_their_own() {
        let both = CosignedSigner::new(signer(1), vec![signer(2)]).expect("different");
        let order = both.sign(Namespace::ORDER, b"order").expect("signs");
        let alone = signer(1).sign(Namespace::ORDER, b"order").expect("signs");
        assert_eq!(order, alone);

        assert!(CosignedSigner::new(signer(1), vec![signer(1)]).is_err());
        let many = (2..=5).map(signer).collect();
        assert!(CosignedSigner::new(signer(1), many).is_err());
    }
}
