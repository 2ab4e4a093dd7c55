//! Keys: SSH keys that sign releases, signatures in the SSHSIG format, authorized keys and their roles.
