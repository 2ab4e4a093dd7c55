//! The one error that reaches a person: a message, its causes, and a hint.
//!
//! Rooms have typed errors of their own where a caller decides by them. At the edge of a room they
//! become an [`Error`], whose [`Kind`] is the exit code of the command line.

use std::fmt;
use std::path::{Path, PathBuf};

/// Kind of failure; decides the exit code and nothing else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Wrong command line, spec or configuration; nothing was sent. Exit code 2.
    Usage,
    /// Refused or aborted: no host changed. Exit code 3.
    Refused,
    /// Some hosts have the release and others do not. Exit code 4.
    Mixed,
    /// The machine failed (disk, network, memory) before any host changed. Exit code 3.
    Io,
}

impl Kind {
    /// Process exit code of this kind.
    pub fn exit_code(self) -> u8 {
        match self {
            Kind::Usage => 2,
            Kind::Refused | Kind::Io => 3,
            Kind::Mixed => 4,
        }
    }
}

/// Failure as shown to a person.
#[derive(Debug)]
pub struct Error {
    kind: Kind,
    message: String,
    hint: Option<String>,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// Result of operations that can fail towards a person.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The real path of a path through a file handle of this process, for display.
fn behind_handle(path: &Path) -> PathBuf {
    let mut parts = path.components();
    let handle: PathBuf = parts.by_ref().take(5).collect();
    match std::fs::read_link(&handle) {
        Ok(real) if path.starts_with("/proc/self/fd") => real.join(parts.as_path()),
        _ => path.to_path_buf(),
    }
}

impl Error {
    /// An error of `kind` with `message`.
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            hint: None,
            source: None,
        }
    }

    /// A wrong command line, spec or configuration.
    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(Kind::Usage, message)
    }

    /// A refusal before any host changed.
    pub fn refused(message: impl Into<String>) -> Self {
        Self::new(Kind::Refused, message)
    }

    /// A failed system call on `path`; `action` is a verb phrase such as "cannot open".
    pub fn io(action: &str, path: impl AsRef<Path>, source: impl Into<std::io::Error>) -> Self {
        let shown = behind_handle(path.as_ref()).display().to_string();
        Self::new(
            Kind::Io,
            format!("{action} {}", crate::units::printable(shown.as_bytes())),
        )
        .because(source.into())
    }

    /// Adds a hint, replacing any earlier one.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Adds a hint, unless there is one.
    #[must_use]
    pub fn hint_else(mut self, hint: impl Into<String>) -> Self {
        self.hint.get_or_insert_with(|| hint.into());
        self
    }

    /// Adds the underlying cause.
    #[must_use]
    pub fn because(mut self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// The same failure under another kind.
    #[must_use]
    pub fn with_kind(mut self, kind: Kind) -> Self {
        self.kind = kind;
        self
    }

    /// Kind of the failure.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The message with its hint in parentheses.
    pub fn with_hint(&self) -> String {
        match self.hint_text() {
            Some(hint) => format!("{self} ({hint})"),
            None => self.to_string(),
        }
    }

    /// The hint, if there is one.
    pub fn hint_text(&self) -> Option<&str> {
        self.hint.as_deref()
    }

    /// Returns whether the cause is the operating system's error `kind`.
    pub fn is_os(&self, kind: std::io::ErrorKind) -> bool {
        self.os().is_some_and(|e| e.kind() == kind)
    }

    /// The operating system's error, if that is the cause.
    pub fn os(&self) -> Option<&std::io::Error> {
        self.source.as_ref()?.downcast_ref()
    }
}

/// Adds the failed action and its path to the error of a system call.
pub trait IoResultExt<T> {
    /// Converts an error by [`Error::io`]: `File::open(path).context("cannot open", path)?`.
    fn context(self, action: &str, path: impl AsRef<Path>) -> Result<T>;

    /// Converts an error of a call without a path: `signal(kind).io_context("cannot follow
    /// signals")?`.
    fn io_context(self, message: impl Into<String>) -> Result<T>;
}

impl<T, E: Into<std::io::Error>> IoResultExt<T> for std::result::Result<T, E> {
    fn context(self, action: &str, path: impl AsRef<Path>) -> Result<T> {
        self.map_err(|source| Error::io(action, path, source))
    }

    fn io_context(self, message: impl Into<String>) -> Result<T> {
        self.map_err(|source| Error::new(Kind::Io, message).because(source.into()))
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        let mut source = self.source.as_deref().map(|s| s as &dyn std::error::Error);
        while let Some(cause) = source {
            write!(f, ": {cause}")?;
            source = cause.source();
        }
        Ok(())
    }
}

impl std::error::Error for Error {}

#[cfg(test)]
pub(crate) mod sentence;

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Message and hint of a usage error.
    pub(crate) fn usage_text(error: &Error) -> String {
        assert_eq!(error.kind(), Kind::Usage);
        match error.hint_text() {
            Some(hint) => format!("{error}\n  hint: {hint}"),
            None => error.to_string(),
        }
    }

    #[test]
    fn an_io_error_names_path_and_cause() {
        let e = Error::io(
            "cannot open",
            "/x/y",
            std::io::Error::from(std::io::ErrorKind::NotFound),
        );
        assert_eq!(e.to_string(), "cannot open /x/y: entity not found");
        assert!(e.is_os(std::io::ErrorKind::NotFound));
        assert_eq!(e.kind().exit_code(), 3);
    }
}
