//! The spec: the TOML file that says what to release, to whom and under which rules.
