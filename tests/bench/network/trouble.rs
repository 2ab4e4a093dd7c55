//! Why a run does not count.

/// Why a run does not count.
#[derive(Debug, Clone, PartialEq)]
pub enum Trouble {
    /// It cannot be done here.
    Skipped(String),
    /// It did not end within so many seconds.
    Late(u64),
    /// It did not come to a good end.
    Failed(String),
    /// It came to its end, and a tree is wrong.
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

    /// Whether the tool did not do what it says, however fast.
    pub fn is_wrong(&self) -> bool {
        matches!(self, Trouble::Failed(_) | Trouble::Wrong(_))
    }
}

/// What the surroundings of a run did not allow is told as such.
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
