//! From the core's errors to Python's: one place decides which exception a caller catches. The classes themselves are
//! written in Python (`peas/_errors.py`), where a class can also be `FileNotFoundError` or `ValueError`.

use peas_core::{Error, ManifestError};
use pyo3::prelude::*;
use std::path::Path;

/// What Python needs to build an exception.
struct Parts<'a> {
    kind: &'static str,
    code: u32,
    message: String,
    errno: Option<i32>,
    path: Option<&'a Path>,
    retryable: bool,
}

/// The exception for an error of the core.
pub fn to_python(py: Python<'_>, error: &Error) -> PyErr {
    build(py, parts_of(error)).unwrap_or_else(|failure| failure)
}

/// The caller said something that cannot be.
pub fn misuse(py: Python<'_>, message: impl Into<String>) -> PyErr {
    to_python(py, &Error::Misuse(message.into()))
}

/// The engine is closed, or this process is the child of a fork.
pub fn closed(py: Python<'_>) -> PyErr {
    to_python(py, &Error::Closed)
}

/// The pea is not one, or not the one that is wanted.
pub fn manifest(py: Python<'_>, error: ManifestError) -> PyErr {
    to_python(py, &Error::Manifest(error))
}

fn build(py: Python<'_>, parts: Parts<'_>) -> PyResult<PyErr> {
    let make = py.import("peas._errors")?.getattr("from_core")?;
    let path = parts.path.map(Path::as_os_str);
    let exception = make.call1((parts.kind, parts.code, parts.message, parts.errno, path, parts.retryable))?;
    Ok(PyErr::from_value(exception))
}

fn parts_of(error: &Error) -> Parts<'_> {
    let (errno, path) = match error {
        Error::Storage { path, source, .. } => (source.raw_os_error(), Some(path.as_path())),
        Error::Content { path, .. } | Error::Busy { path } => (None, Some(path.as_path())),
        _ => (None, None),
    };
    Parts { kind: kind_of(error), code: error.code(), message: error.to_string(), errno, path, retryable: error.is_retryable() }
}

fn kind_of(error: &Error) -> &'static str {
    use std::io::ErrorKind;
    match error {
        Error::Misuse(_) => "invalid",
        Error::Manifest(error) if is_refusal(error) => "refused",
        Error::Manifest(_) => "manifest",
        Error::Storage { source, .. } => match source.kind() {
            ErrorKind::NotFound => "not-found",
            ErrorKind::PermissionDenied => "permission",
            _ => "disk",
        },
        Error::Content { .. } => "content",
        Error::Busy { .. } => "busy",
        Error::Unavailable { .. } => "unreachable",
        Error::Cancelled => "cancelled",
        Error::Closed => "closed",
        _ => "internal",
    }
}

/// A sound pea, but not the one that is wanted.
fn is_refusal(error: &ManifestError) -> bool {
    use ManifestError::*;
    matches!(
        error,
        NotSigned | TooFewKeys { .. } | WrongContent { .. } | WrongChannel { .. } | Expired { .. } | Rollback { .. } | Equivocation { .. }
    )
}
