//! What can go wrong, sorted by who can mend it.

use crate::manifest::ManifestError;
use std::path::PathBuf;

/// Why something failed. Each has a stable [`code`](Error::code).
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The caller's code or options: nothing was done.
    #[error("{0}")]
    Misuse(String),
    /// The pea.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// The machine: disk, file system, sockets.
    #[error("{op} {}: {source}", path.display())]
    Storage {
        /// What was tried, as a verb: "write", "rename", "listen on".
        op: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system answered.
        source: std::io::Error,
    },
    /// The bytes at a place are not what the pea says, and may not be replaced (a source to seed from, a file in the way).
    #[error("{}: {what}", path.display())]
    Content {
        /// Where.
        path: PathBuf,
        /// What is wrong there.
        what: String,
    },
    /// Another session or process is at work on the same destination.
    #[error("{}: another peas process is at work here", path.display())]
    Busy {
        /// The destination.
        path: PathBuf,
    },
    /// The world: nobody has these pieces now.
    #[error("{missing_pieces} pieces have no reachable holder")]
    Unavailable {
        /// How many.
        missing_pieces: u32,
    },
    /// The caller ended it.
    #[error("cancelled")]
    Cancelled,
    /// The engine is closed.
    #[error("the engine is closed")]
    Closed,
    /// A bug in peas.
    #[error("a bug in peas: {place}")]
    Internal {
        /// Where.
        place: String,
    },
}

impl Error {
    /// Stable number for C and logs; never changes its meaning.
    pub fn code(&self) -> u32 {
        match self {
            Error::Misuse(_) => 1,
            Error::Manifest(_) => 2,
            Error::Storage { source, .. } if is_full(source) => 4,
            Error::Storage { .. } => 3,
            Error::Content { .. } => 5,
            Error::Busy { .. } => 6,
            Error::Unavailable { .. } => 7,
            Error::Cancelled => 8,
            Error::Closed => 9,
            Error::Internal { .. } => 10,
        }
    }

    /// The same error once more: several may wait for one outcome. What the system answered keeps its number and kind.
    #[cfg(feature = "engine")]
    pub(crate) fn again(&self) -> Error {
        match self {
            Error::Misuse(what) => Error::Misuse(what.clone()),
            Error::Manifest(error) => Error::Manifest(error.clone()),
            Error::Storage { op, path, source } => {
                let source = match source.raw_os_error() {
                    Some(number) => std::io::Error::from_raw_os_error(number),
                    None => std::io::Error::new(source.kind(), source.to_string()),
                };
                Error::Storage { op, path: path.clone(), source }
            }
            Error::Content { path, what } => Error::Content { path: path.clone(), what: what.clone() },
            Error::Busy { path } => Error::Busy { path: path.clone() },
            Error::Unavailable { missing_pieces } => Error::Unavailable { missing_pieces: *missing_pieces },
            Error::Cancelled => Error::Cancelled,
            Error::Closed => Error::Closed,
            Error::Internal { place } => Error::Internal { place: place.clone() },
        }
    }

    /// Whether the same call may succeed later without a change by the caller.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Error::Storage { .. } | Error::Busy { .. } | Error::Unavailable { .. })
    }
}

/// Whether the system says that a disk or a quota is full.
pub(crate) fn is_full(error: &std::io::Error) -> bool {
    matches!(error.kind(), std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded)
}
