//! Progress and results, for people and for scripts.
