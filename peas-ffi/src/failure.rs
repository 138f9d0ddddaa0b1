//! Why something failed, on its way to the host: a stable number, the system's number, and a line for people.

use crate::types::{ERROR_TEXT_BYTES, peas_error, peas_status};
use peas_core::{Error, ManifestError};
use safer_ffi::c_char;

/// Status, system's code, one line.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    pub(crate) status: peas_status,
    pub(crate) os_code: i32,
    pub(crate) message: String,
}

impl Failure {
    pub(crate) fn new(status: peas_status, message: impl Into<String>) -> Self {
        Self { status, os_code: 0, message: message.into() }
    }

    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::new(peas_status::PEAS_INVALID, message)
    }

    /// What an ended session said: `Event::Failed`.
    pub(crate) fn of_code(code: u32, message: String) -> Self {
        let status = match code {
            1 => peas_status::PEAS_INVALID,
            2 | 5 => peas_status::PEAS_CORRUPT,
            3 => peas_status::PEAS_IO,
            4 => peas_status::PEAS_FULL,
            6 => peas_status::PEAS_BUSY,
            7 => peas_status::PEAS_UNREACHABLE,
            8 => peas_status::PEAS_CANCELLED,
            9 => peas_status::PEAS_CLOSED,
            _ => peas_status::PEAS_INTERNAL,
        };
        Self::new(status, message)
    }

    pub(crate) fn write_to(&self, error: *mut peas_error) {
        if error.is_null() {
            return;
        }
        let filled = peas_error { status: self.status as i32, os_code: self.os_code, message: text::<ERROR_TEXT_BYTES>(&self.message) };
        // SAFETY: not NULL, and the host says that it is a peas_error it may have written.
        unsafe { error.write(filled) };
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let mut failure = Failure::of_code(error.code(), error.to_string());
        match &error {
            Error::Storage { source, .. } => {
                failure.os_code = source.raw_os_error().unwrap_or(0);
                if source.kind() == std::io::ErrorKind::NotFound {
                    failure.status = peas_status::PEAS_NOT_FOUND;
                }
            }
            Error::Manifest(why) => failure.status = status_of(why),
            _ => {}
        }
        failure
    }
}

impl From<ManifestError> for Failure {
    fn from(error: ManifestError) -> Self {
        Failure::new(status_of(&error), error.to_string())
    }
}

fn status_of(error: &ManifestError) -> peas_status {
    match error {
        ManifestError::NotSigned | ManifestError::TooFewKeys { .. } | ManifestError::WrongContent { .. } => peas_status::PEAS_UNTRUSTED,
        ManifestError::BadTrust(_) => peas_status::PEAS_INVALID,
        ManifestError::WrongChannel { .. } => peas_status::PEAS_WRONG_CHANNEL,
        ManifestError::Expired { .. } => peas_status::PEAS_EXPIRED,
        ManifestError::Rollback { .. } => peas_status::PEAS_ROLLBACK,
        ManifestError::Equivocation { .. } => peas_status::PEAS_EQUIVOCATION,
        // The bytes of the file are not those of a pea that this version may act on.
        _ => peas_status::PEAS_CORRUPT,
    }
}

/// One line, cut at a character to fit with its NUL, as C text. Line breaks become spaces.
pub(crate) fn text<const BYTES: usize>(line: &str) -> [c_char; BYTES] {
    let mut end = line.len().min(BYTES - 1);
    while !line.is_char_boundary(end) {
        end -= 1;
    }
    let mut out = [c_char(0); BYTES];
    for (to, byte) in out.iter_mut().zip(line.as_bytes()[..end].iter()) {
        *to = c_char(if byte.is_ascii_control() { b' ' } else { *byte });
    }
    out
}
