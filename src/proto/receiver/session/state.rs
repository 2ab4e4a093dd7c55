//! State of a session, as reported to its sender.

use super::signer::StateSigner;
use crate::id::{HostName, InstanceId, Nonce, Serial, SessionId};
use crate::keys::HostKey;
use crate::proto::receiver::disk::ReasonText;
use crate::wire::HostStage;
use crate::wire::message::{DiffSummary, StageReport};

/// Stage of a session with its details, signed by this host.
#[derive(Debug)]
pub(super) struct SessionState {
    name: HostName,
    signer: StateSigner,
    /// The session only compares.
    audit: bool,
    stage: HostStage,
    text: Option<ReasonText>,
    /// A commit failed and could not be undone.
    torn: bool,
    /// Why the host commits nothing now.
    held: Option<ReasonText>,
    summary: Option<DiffSummary>,
    serial: Serial,
    /// Packets lost in the receive buffer since the session began.
    dropped: u64,
    /// Number of the list of hosts to which this one passes data on.
    targets: Option<u32>,
}

impl SessionState {
    /// Starts a session of the host `name`.
    pub(super) fn new(name: HostName, key: HostKey, audit: bool) -> Self {
        Self {
            name,
            signer: StateSigner::new(key),
            audit,
            stage: HostStage::Joined,
            text: None,
            torn: false,
            held: None,
            summary: None,
            serial: Serial(0),
            dropped: 0,
            targets: None,
        }
    }

    /// Returns the host's name.
    pub(super) fn name(&self) -> &HostName {
        &self.name
    }

    /// Returns the id of this process.
    pub(super) fn instance(&self) -> InstanceId {
        self.signer.instance()
    }

    /// Returns true if the session only compares.
    pub(super) fn is_audit(&self) -> bool {
        self.audit
    }

    /// Returns the stage.
    pub(super) fn stage(&self) -> HostStage {
        self.stage
    }

    /// Enters a stage.
    pub(super) fn set_stage(&mut self, stage: HostStage) {
        self.stage = stage;
    }

    /// Returns true if the stage is final, apart from a revert of the commit.
    pub(super) fn is_over(&self) -> bool {
        self.stage >= HostStage::Committed || (self.audit && self.stage >= HostStage::Staging)
    }

    /// Returns true if the release is in place.
    pub(super) fn is_in_place(&self) -> bool {
        matches!(self.stage, HostStage::Committed | HostStage::Unhealthy)
    }

    /// Returns true if the stage is the outcome of an order.
    pub(super) fn is_outcome(&self) -> bool {
        self.stage >= HostStage::Committed && self.stage != HostStage::Refused
    }

    /// Returns the reason of a refusal or failure.
    pub(super) fn text(&self) -> Option<&ReasonText> {
        self.text.as_ref()
    }

    /// Explains the next stage.
    pub(super) fn explain(&mut self, text: ReasonText) {
        self.text = Some(text);
    }

    /// Adds the cause to the text of a revert, on the host that caused the revert.
    pub(super) fn with_cause(&self, text: ReasonText) -> ReasonText {
        let cause = self.text.as_ref();
        match cause.filter(|_| self.stage == HostStage::Unhealthy) {
            Some(cause) => format!("{text}, for the {cause}"),
            None => text,
        }
    }

    /// Records that a commit failed and could not be undone.
    pub(super) fn mark_torn(&mut self) {
        self.torn = true;
    }

    /// Sets the reason why the host commits nothing now.
    pub(super) fn set_held(&mut self, why: Option<ReasonText>) {
        self.held = why;
    }

    /// Sets the result of the comparison.
    pub(super) fn set_summary(&mut self, summary: DiffSummary) {
        self.summary = Some(summary);
    }

    /// Returns the number of bytes to fetch, once compared.
    pub(super) fn fetch_bytes(&self) -> Option<u64> {
        self.summary.map(|summary| summary.fetch)
    }

    /// Sets the serial of the commit.
    pub(super) fn set_serial(&mut self, serial: Serial) {
        self.serial = serial;
    }

    /// Counts packets lost in the receive buffer.
    pub(super) fn count_dropped(&mut self, packets: u64) {
        self.dropped += packets;
    }

    /// Sets the number of the list of hosts to which this one passes data on.
    pub(super) fn set_targets(&mut self, number: u32) {
        self.targets = Some(number);
    }

    /// Builds the state message of `session`, signed if the stage is decisive.
    pub(super) fn report(
        &mut self,
        session: SessionId,
        number: u32,
        received: u64,
        nonce: Option<Nonce>,
    ) -> StageReport {
        let mut state = StageReport {
            session,
            number,
            name: self.name.clone(),
            stage: self.stage,
            text: self.text.clone(),
            summary: self.summary,
            received,
            serial: self.serial,
            dropped: Some(self.dropped).filter(|n| *n > 0),
            torn: Some(true).filter(|_| self.torn),
            identity: None,
            signature: None,
            targets: self.targets,
            tags: Some(true),
            keeps: Some(true),
            held: self.held.clone().filter(|_| self.stage == HostStage::Ready),
            nonce,
        };

        self.signer.sign(&mut state, self.audit);
        state
    }
}
