//! Finds out whether a store keeps conditions. Some servers with the interface of S3 ignore
//! `If-Match` or `If-None-Match` and answer 200, and two publishers would overwrite each other.

use std::sync::Mutex;

use super::{Failure, Remote};
use crate::repository::marker::{marker, marker_object};
use crate::repository::object::{Etag, FaultKind, Put, PutCondition, PutReply};
use crate::store::backend::Conditions;
use crate::sync::locked;

/// A tag that no object has.
const NO_TAG: &str = "\"00000000000000000000000000000000\"";

/// What the store has shown so far.
#[derive(Debug, Default)]
pub(super) struct ProvenConditions {
    keeps: Mutex<Keeps>,
}

#[derive(Debug, Default)]
struct Keeps {
    absent: Option<bool>,
    unchanged: Option<bool>,
}

impl Keeps {
    fn of(&mut self, condition: &PutCondition) -> Option<&mut Option<bool>> {
        match condition {
            PutCondition::Any => None,
            PutCondition::Absent => Some(&mut self.absent),
            PutCondition::Unchanged(_) => Some(&mut self.unchanged),
        }
    }
}

impl Remote {
    /// Returns whether the store keeps conditions such as `condition`. A store that may not is
    /// asked once, by a put of the marker that it has to refuse.
    pub(super) async fn keeps(&self, condition: &PutCondition) -> Result<bool, Failure> {
        let known = match self.backend.conditions {
            Conditions::Etags | Conditions::Generations => Some(true),
            Conditions::None => Some(*condition == PutCondition::Any),
            Conditions::Unproven => {
                let mut keeps = locked(&self.proven.keeps);
                keeps.of(condition).map_or(Some(true), |known| *known)
            }
        };
        if let Some(known) = known {
            return Ok(known);
        }

        let keeps = self.proves(condition).await?;
        if !keeps {
            let url = &self.asked.url;
            tracing::debug!("{url} ignores conditions: the serial decides between publishers");
        }
        if let Some(known) = locked(&self.proven.keeps).of(condition) {
            *known = Some(keeps);
        }
        Ok(keeps)
    }

    async fn proves(&self, condition: &PutCondition) -> Result<bool, Failure> {
        let (condition, most) = match condition {
            // The first put makes the marker, if there is none yet.
            PutCondition::Any | PutCondition::Absent => (PutCondition::Absent, 2),
            PutCondition::Unchanged(_) => match Etag::new(NO_TAG) {
                Some(tag) => (PutCondition::Unchanged(tag), 1),
                None => return Ok(false),
            },
        };
        let put = Put {
            object: marker_object(),
            bytes: marker().into(),
            condition,
        };

        for _ in 0..most {
            let failure = match self.put_once(&put).await {
                Ok(_) => continue,
                Err(failure) => failure,
            };
            return match super::put::refused_condition(&put, &failure) {
                Some(reply) => Ok(reply == PutReply::Conflict),
                // Nothing is known of a key that may not store the marker.
                None if failure.fault.kind == FaultKind::Denied => Ok(false),
                None => Err(failure),
            };
        }
        Ok(false)
    }
}
