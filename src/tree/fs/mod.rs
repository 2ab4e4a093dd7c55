//! The filesystem, without any notion of a release: handles, directories, attributes, errors.

pub(crate) mod dir;
pub(crate) mod errors;
pub(crate) mod fault;
pub(crate) mod xattrs;
