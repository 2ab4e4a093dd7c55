//! Signs a host's decisive state messages.

use minicbor::bytes::ByteArray;

use crate::id::InstanceId;
use crate::keys::{HOST_SIGNATURE_BYTES, HostKey};
use crate::wire::message::StageReport;

/// Key of a host with its last signature.
#[derive(Debug)]
pub(super) struct StateSigner {
    key: HostKey,
    /// The last signed statement and its signature.
    last: Option<(Vec<u8>, [u8; HOST_SIGNATURE_BYTES])>,
}

impl StateSigner {
    /// Signs with `key`.
    pub(super) fn new(key: HostKey) -> Self {
        Self { key, last: None }
    }

    /// Returns the id of this process.
    pub(super) fn instance(&self) -> InstanceId {
        self.key.instance()
    }

    /// Adds identity and signature to `state` if the stage is decisive.
    pub(super) fn sign(&mut self, state: &mut StageReport, audit: bool) {
        let decisive = state.is_decisive(audit);

        // Heartbeats carry no identity.
        if state.number != 0 || decisive {
            state.identity = Some(self.key.identity());
        }

        if !decisive {
            return;
        }

        let word = state.statement(self.key.instance());

        // Signed once, although it is sent repeatedly.
        let (_, signature) = match self.last.take_if(|(signed, _)| *signed == word) {
            Some(signed) => self.last.insert(signed),
            None => {
                let signature = self.key.sign(&word);
                self.last.insert((word, signature))
            }
        };

        state.signature = Some(ByteArray::from(*signature));
    }
}
