//! A descriptor that is readable exactly while events wait: level, not edge, and nobody need read it.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

#[cfg(any(target_os = "linux", target_os = "android"))]
pub(crate) struct Bell(OwnedFd);

#[cfg(any(target_os = "linux", target_os = "android"))]
impl Bell {
    pub(crate) fn new() -> io::Result<Self> {
        use rustix::event::{EventfdFlags, eventfd};
        Ok(Self(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?))
    }

    /// Readable from now on. Called only while it is not.
    pub(crate) fn raise(&self) {
        // Cannot fail: the counter is 0 and becomes 1.
        let _ = rustix::io::write(&self.0, &1u64.to_ne_bytes());
    }

    /// No longer readable. Called only while it is.
    pub(crate) fn lower(&self) {
        let _ = rustix::io::read(&self.0, &mut [0u8; 8]);
    }

    pub(crate) fn descriptor(&self) -> isize {
        self.0.as_raw_fd() as isize
    }
}

/// Elsewhere a pipe with one byte in it while events wait.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub(crate) struct Bell {
    reader: OwnedFd,
    writer: OwnedFd,
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
impl Bell {
    pub(crate) fn new() -> io::Result<Self> {
        let (reader, writer) = io::pipe()?;
        Ok(Self { reader: reader.into(), writer: writer.into() })
    }

    /// Readable from now on. Called only while it is not.
    pub(crate) fn raise(&self) {
        let _ = rustix::io::write(&self.writer, &[1]);
    }

    /// No longer readable. Called only while it is.
    pub(crate) fn lower(&self) {
        let _ = rustix::io::read(&self.reader, &mut [0u8; 1]);
    }

    pub(crate) fn descriptor(&self) -> isize {
        self.reader.as_raw_fd() as isize
    }
}
