//! What can be wrong with a file: where, and why.

use std::io;

/// What is wrong, and at which byte.
#[derive(Debug, thiserror::Error)]
#[error("at byte {offset}: {reason}")]
pub struct Error {
    /// Where, counted from the start of what was given to the reader.
    pub offset: u64,
    /// What is wrong there.
    #[source]
    pub reason: Reason,
}

impl Error {
    pub(crate) fn new(offset: u64, reason: Reason) -> Self {
        Self { offset, reason }
    }

    /// The error of a read that failed at `offset`. An [`Error`] that travelled through an [`io::Error`], as those of
    /// [`checksum::Verifying`](crate::checksum::Verifying) do, comes out as it went in.
    pub fn io(offset: u64, error: io::Error) -> Self {
        error.downcast::<Self>().unwrap_or_else(|source| Self::new(offset, Reason::Io { source }))
    }
}

/// Why a file is refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Reason {
    /// The bytes could not be read.
    #[error("cannot read: {source}")]
    Io {
        /// The system's reason.
        source: io::Error,
    },
    /// Something else than the magic bytes of the format.
    #[error("no {format}: it starts with {found:02x?} instead of {expected:02x?}")]
    NotThisFormat {
        /// The format that was expected.
        format: &'static str,
        /// Its first bytes.
        expected: &'static [u8],
        /// What is there.
        found: Vec<u8>,
    },
    /// A version that is not read.
    #[error("version {found} of the {format} is not supported; supported: {supported}")]
    Version {
        /// The format.
        format: &'static str,
        /// The version in the file.
        found: u32,
        /// The versions that are read.
        supported: &'static str,
    },
    /// The data end within something.
    #[error(
        "the data end within {what}: {needed} bytes needed, {left} left; the file is truncated or damaged"
    )]
    Truncated {
        /// What is being read.
        what: &'static str,
        /// Bytes that it needs, at least.
        needed: u64,
        /// Bytes that are left.
        left: u64,
    },
    /// More data than belong there.
    #[error("{left} bytes are left after {what}")]
    Trailing {
        /// What was read completely.
        what: &'static str,
        /// Bytes after it.
        left: u64,
    },
    /// A length, count or flag that cannot be.
    #[error("{what} is {found}; allowed is {allowed}")]
    OutOfRange {
        /// What the number says.
        what: &'static str,
        /// The number.
        found: i64,
        /// The values that are allowed.
        allowed: &'static str,
    },
    /// More than a limit of the reader allows.
    #[error("{what}: {found} where the limit is {limit}; raise the limit if the file can be trusted")]
    Limit {
        /// What is limited.
        what: &'static str,
        /// How much there is, at least.
        found: u64,
        /// How much is allowed.
        limit: u64,
    },
    /// A string that is not in its encoding.
    #[error("{what} is not {encoding}: {problem}")]
    Text {
        /// What the string is for.
        what: &'static str,
        /// The encoding that it should have.
        encoding: &'static str,
        /// What is wrong with the bytes at the offset.
        problem: &'static str,
    },
    /// A feature of the format that is not read.
    #[error("{what} {name} is not supported; supported: {supported}")]
    Unsupported {
        /// The kind of feature.
        what: &'static str,
        /// Its name in the file.
        name: String,
        /// What is supported in its place.
        supported: &'static str,
    },
    /// A sync marker that differs from the header's.
    #[error("the sync marker is {found:02x?}, the header's is {expected:02x?}; the file is damaged")]
    Sync {
        /// The header's marker.
        expected: [u8; 16],
        /// The marker found.
        found: [u8; 16],
    },
    /// Compressed data that cannot be inflated.
    #[error("{what} cannot be inflated as {format}: {message}")]
    Inflate {
        /// What is compressed.
        what: &'static str,
        /// `zlib` or `gzip`.
        format: &'static str,
        /// The inflater's words.
        message: String,
    },
    /// Something is wrong within data that are compressed; the error's offset is where these start.
    #[error("inside the compressed data that start there, at their byte {offset}: {reason}")]
    Inflated {
        /// Where in the inflated data.
        offset: u64,
        /// What is wrong there.
        reason: Box<Reason>,
    },
    /// An object stream's tag at a place where it cannot stand.
    #[error("{found} where {expected} is expected")]
    Tag {
        /// What may stand there.
        expected: &'static str,
        /// The tag, by name if it has one.
        found: String,
    },
    /// A reference to something that the object stream has not had yet.
    #[error(
        "reference to handle {handle:#x}, but only {known} handles from {first:#x} are assigned",
        first = 0x7e_0000
    )]
    UnknownHandle {
        /// The handle referred to.
        handle: u32,
        /// Handles assigned so far.
        known: u64,
    },
    /// A reference to an object that is still being read: the objects form a cycle.
    #[error("reference to handle {handle:#x}, which is still being read: cyclic objects are not supported")]
    Cycle {
        /// The handle referred to.
        handle: u32,
    },
    /// A value or class of another kind than is needed.
    #[error("{found} where {expected} is expected")]
    Kind {
        /// What is needed.
        expected: &'static str,
        /// What is there: a class name, or a primitive type.
        found: String,
    },
    /// A class descriptor that contradicts itself.
    #[error("class {class}: {problem}")]
    Class {
        /// The class's name.
        class: String,
        /// The contradiction.
        problem: &'static str,
    },
    /// Not the JSON that is expected.
    #[error("no {what}: {source}")]
    Json {
        /// What was expected.
        what: &'static str,
        /// The parser's reason, with line and column.
        source: serde_json::Error,
    },
    /// A chunk of a file whose checksum differs from the one beside the file.
    #[error(
        "the {length} bytes from there have the checksum {found:08x} instead of {expected:08x}; the file is damaged"
    )]
    Checksum {
        /// Bytes in the chunk.
        length: u64,
        /// The checksum in the side file.
        expected: u32,
        /// The checksum of the bytes.
        found: u32,
    },
    /// A file that is longer or shorter than its checksums.
    #[error(
        "the file has {found} bytes, its checksums cover {expected}; one of the two is from another version of it"
    )]
    ChecksumLength {
        /// Bytes covered: the largest file that has this number of checksums.
        expected: u64,
        /// Bytes that were read.
        found: u64,
    },
}
