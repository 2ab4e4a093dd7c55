//! Roles of a key.

use std::fmt;

use crate::manifest::Intent;

/// Permission of a key on a tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// Deploy a release; includes the other two.
    Deploy,
    /// Compare the tree with a release, and read the differences.
    Audit,
    /// Deploy a release that the tree had before.
    Rollback,
}

impl Role {
    /// The option's word in the file.
    pub fn as_str(self) -> &'static str {
        match self {
            Role::Deploy => "deploy",
            Role::Audit => "audit",
            Role::Rollback => "rollback",
        }
    }

    pub(super) fn from_word(word: &str) -> Option<Self> {
        [Role::Deploy, Role::Audit, Role::Rollback]
            .into_iter()
            .find(|r| r.as_str() == word)
    }
}

impl From<Intent> for Role {
    fn from(intent: Intent) -> Self {
        match intent {
            Intent::Deploy => Role::Deploy,
            Intent::Audit => Role::Audit,
            Intent::Rollback => Role::Rollback,
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
