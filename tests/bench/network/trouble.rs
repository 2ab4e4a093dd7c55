//! Reasons for an invalid run.

/// Reason for an invalid run.
#[derive(Debug, Clone, PartialEq)]
pub enum Trouble {
    /// Not possible on this machine.
    Skipped(String),
    /// Not finished within this number of seconds.
    Late(u64),
    /// Ended with an error.
    Failed(String),
    /// Ended successfully with a wrong tree.
    Wrong(String),
}

impl Trouble {
    pub fn text(&self) -> String {
        match self {
            Trouble::Skipped(why) => format!("skipped: {why}"),
            Trouble::Late(seconds) => format!("did not end within {seconds} s"),
            Trouble::Failed(why) => format!("FAILED: {why}"),
            Trouble::Wrong(why) => format!("WRONG: {why}"),
        }
    }

    /// Returns true if the tool's result was wrong, regardless of speed.
    pub fn is_wrong(&self) -> bool {
        matches!(self, Trouble::Failed(_) | Trouble::Wrong(_))
    }
}

/// Errors of the environment are failures of the run.
impl From<std::io::Error> for Trouble {
    fn from(e: std::io::Error) -> Self {
        Trouble::Skipped(e.to_string())
    }
}

impl From<String> for Trouble {
    fn from(why: String) -> Self {
        Trouble::Skipped(why)
    }
}
