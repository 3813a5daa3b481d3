//! Where a package comes from: recognised by content, never by name.

pub(crate) mod export;
pub(crate) mod zip;
