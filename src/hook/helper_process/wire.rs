//! Commands of a tree between the daemon and the helper process.

use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::time::Duration;

use minicbor::bytes::ByteVec;
use minicbor::{Decode, Encode};

use crate::hook::{Command, Health, Hooks};

#[derive(Encode, Decode)]
struct WireCommand {
    #[n(0)]
    argv: Vec<ByteVec>,
    #[n(1)]
    timeout: Duration,
}

#[derive(Encode, Decode)]
pub(super) struct WireHooks {
    #[n(0)]
    before: Option<WireCommand>,
    #[n(1)]
    after: Option<WireCommand>,
    #[n(2)]
    health: Option<(WireCommand, Duration, Duration)>,
}

impl From<&Command> for WireCommand {
    fn from(command: &Command) -> Self {
        let argv = command
            .argv()
            .iter()
            .map(|word| ByteVec::from(word.as_bytes().to_vec()))
            .collect();
        Self {
            argv,
            timeout: command.timeout(),
        }
    }
}

impl WireCommand {
    fn parsed(self) -> io::Result<Command> {
        let argv = self
            .argv
            .into_iter()
            .map(|word| OsString::from_vec(word.into()))
            .collect();
        Command::new(argv, self.timeout).map_err(io::Error::other)
    }
}

impl From<&Hooks> for WireHooks {
    fn from(hooks: &Hooks) -> Self {
        Self {
            before: hooks.before.as_ref().map(WireCommand::from),
            after: hooks.after.as_ref().map(WireCommand::from),
            health: hooks
                .health
                .as_ref()
                .map(|h| (WireCommand::from(&h.command), h.interval, h.deadline)),
        }
    }
}

impl WireHooks {
    pub(super) fn parsed(self) -> io::Result<Hooks> {
        let health = self.health.map(|(command, interval, deadline)| {
            command.parsed().map(|command| Health {
                command,
                interval,
                deadline,
            })
        });

        let before = self.before.map(WireCommand::parsed);
        let after = self.after.map(WireCommand::parsed);
        Ok(Hooks {
            before: before.transpose()?,
            after: after.transpose()?,
            health: health.transpose()?,
            helper: None,
        })
    }
}
