//! How the program ends: a stable exit code, a sentence on what happened, a sentence on what to do.
//!
//! The codes are a promise to scripts; they are listed in the help and in the README, and never change their meaning.

use peas_core::Error;
use std::io;
use std::path::Path;

/// The command line is wrong (clap's own code as well).
pub const USAGE: u8 = 2;
/// The pea is refused.
pub const PEA: u8 = 3;
/// A disk or file problem.
pub const DISK: u8 = 4;
/// Another process has the destination or the port.
pub const BUSY: u8 = 5;
/// Nobody reachable, or not finished.
pub const UNREACHABLE: u8 = 6;
/// What lies on the disk is not what the pea says.
pub const VERIFY: u8 = 7;
/// A bug in peas (EX_SOFTWARE of sysexits.h).
pub const BUG: u8 = 70;
/// Interrupted (what shells report for SIGINT).
pub const INTERRUPTED: u8 = 130;

/// Why a command did not succeed.
#[derive(Debug)]
pub struct Failure {
    /// What the process returns.
    pub exit: u8,
    /// What happened.
    pub message: String,
    /// What to do about it; empty if there is nothing to say.
    pub hint: String,
}

impl Failure {
    pub fn new(exit: u8, message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { exit, message: message.into(), hint: hint.into() }
    }

    pub fn usage(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::new(USAGE, message, hint)
    }

    pub fn bug() -> Self {
        Self::new(BUG, "this is a bug in peas", "please report the lines above; what is verified on disk is safe, the same command resumes")
    }

    pub fn interrupted(resumable: bool) -> Self {
        Self::new(INTERRUPTED, "interrupted", if resumable { "what is verified is kept: the same command resumes" } else { "" })
    }

    /// Of a file that this program itself reads or writes.
    pub fn file(op: &'static str, path: &Path, source: io::Error) -> Self {
        Self::from(Error::Storage { op, path: path.to_owned(), source })
    }

    /// Of a session that ended: its stable number and text.
    pub fn session(code: u32, message: String) -> Self {
        let (exit, hint) = match code {
            1 => (USAGE, ""),
            2 => (PEA, PEA_HINT),
            4 => (DISK, FULL_HINT),
            3 => (DISK, "mend what the system says above, then run the same command: it resumes"),
            5 => (DISK, "move it away, or choose another place with --output"),
            6 => (BUSY, BUSY_HINT),
            7 => (UNREACHABLE, "what is verified is kept: run the same command again later, or name a peer with --peer HOST:PORT"),
            8 => (INTERRUPTED, "what is verified is kept: the same command resumes"),
            _ => (BUG, "please report this; what is verified on disk is safe, the same command resumes"),
        };
        Self::new(exit, message, hint)
    }
}

const PEA_HINT: &str = "fetch the pea again from whoever publishes it";
const FULL_HINT: &str = "make room, then run the same command: it resumes";
const BUSY_HINT: &str = "let it finish or stop it, or choose another place with --output";

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        match &error {
            Error::Storage { op, path, source } => storage(op, path, source, &error),
            _ => Self::session(error.code(), error.to_string()),
        }
    }
}

fn storage(op: &str, path: &Path, source: &io::Error, error: &Error) -> Failure {
    let place = path.display();
    if op.contains("listen") || op.contains("bind") {
        return listening(&place.to_string(), source);
    }
    match source.kind() {
        io::ErrorKind::NotFound => Failure::new(DISK, format!("{place}: no such file or folder"), "check the path"),
        io::ErrorKind::PermissionDenied => {
            Failure::new(DISK, format!("{place}: no permission to {op}"), "choose another place, or run as a user who may")
        }
        io::ErrorKind::ReadOnlyFilesystem => Failure::new(DISK, format!("{place}: the file system is read-only"), "choose another place"),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Failure::new(DISK, format!("{place}: the disk is full"), FULL_HINT),
        _ => Failure::session(error.code(), error.to_string()),
    }
}

/// `place`: the address that was asked for.
fn listening(place: &str, source: &io::Error) -> Failure {
    match source.kind() {
        io::ErrorKind::AddrInUse => Failure::new(
            BUSY,
            format!("{place}: the port is in use"),
            "choose another with --listen ADDR:PORT (port 0: any unused one), or stop the other program",
        ),
        io::ErrorKind::AddrNotAvailable => Failure::new(
            USAGE,
            format!("{place}: this machine has no such address"),
            "use one of its own with --listen ADDR:PORT; 0.0.0.0:PORT stands for all",
        ),
        io::ErrorKind::PermissionDenied => {
            Failure::new(DISK, format!("{place}: no permission to listen there"), "choose a port above 1023 with --listen ADDR:PORT")
        }
        _ => Failure::new(DISK, format!("{place}: cannot listen: {source}"), "choose another address with --listen ADDR:PORT"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_error_has_its_code_and_a_hint() {
        let listen = |kind: io::ErrorKind| Error::Storage { op: "listen on", path: "127.0.0.1:7000".into(), source: kind.into() };
        let cases = [
            (listen(io::ErrorKind::AddrInUse), BUSY),
            (listen(io::ErrorKind::AddrNotAvailable), USAGE),
            (Error::Storage { op: "write", path: "x".into(), source: io::ErrorKind::StorageFull.into() }, DISK),
            (Error::Storage { op: "create", path: "x".into(), source: io::ErrorKind::PermissionDenied.into() }, DISK),
            (Error::Busy { path: "x".into() }, BUSY),
            (Error::Unavailable { missing_pieces: 3 }, UNREACHABLE),
            (Error::Internal { place: "x".into() }, BUG),
            (Error::Cancelled, INTERRUPTED),
        ];
        for (error, exit) in cases {
            let text = error.to_string();
            let failure = Failure::from(error);
            assert_eq!(failure.exit, exit, "{text}");
            assert!(!failure.hint.is_empty(), "{text}");
        }
        assert!(Failure::from(listen(io::ErrorKind::AddrInUse)).message.contains("7000"));
    }
}
