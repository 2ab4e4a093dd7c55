//! The live mode: a release for each quiet batch of changes of a source.

pub mod batch;
