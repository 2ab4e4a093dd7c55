//! The command of a sender that reads the result of a deploy.

use super::json::result_line;
use crate::outcome::{Outcome, Purpose};
use crate::spec::Spec;

/// Runs the command that the spec names for the result, at the end of a deploy. Its failure is a
/// warning: the hosts have what they have.
pub fn notify(spec: &Spec, outcome: &Outcome) {
    let command = spec.commit.notify.as_ref();
    let Some(command) = command.filter(|_| outcome.purpose == Purpose::Deploy) else {
        return;
    };

    if let Err(why) = command.run_with(result_line(outcome).as_bytes()) {
        tracing::warn!("commit.notify: {why}");
    }
}
