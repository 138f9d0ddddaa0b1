//! Bugs on purpose, so that the crash tests can show that they would find them.
//!
//! Compiled for unit tests, and with the feature `planted` into debug builds of programs, where the variable `PEAS_PLANTED` chooses. A
//! release build with it does not compile.

#[cfg(all(feature = "planted", not(debug_assertions), not(doc)))]
compile_error!("the feature `planted` puts bugs in on purpose: it is for test builds with debug assertions");

/// Which bug.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(dead_code, reason = "with the feature alone, the variable chooses; in unit tests alone, the test does")]
pub(crate) enum Planted {
    Nothing,
    /// Journal records before their data are durable.
    NoDataSync,
    /// Success before the new names are durable.
    NoDirectorySync,
    /// The old content goes before the new one comes.
    RemoveBeforeRename,
    /// What a journal says is published without a look.
    BelieveJournal,
    /// A failed sync is repeated, and the second one believed.
    BelieveSecondSync,
    /// A write that failed counts as done.
    SwallowWriteErrors,
    /// Each link that is accepted leaves a descriptor and a mebibyte behind.
    LeakLinks,
}

impl Planted {
    /// As the environment says.
    #[cfg(feature = "planted")]
    pub fn chosen() -> Self {
        match std::env::var("PEAS_PLANTED").as_deref() {
            Ok("no-data-sync") => Self::NoDataSync,
            Ok("no-directory-sync") => Self::NoDirectorySync,
            Ok("remove-before-rename") => Self::RemoveBeforeRename,
            Ok("believe-journal") => Self::BelieveJournal,
            Ok("believe-second-sync") => Self::BelieveSecondSync,
            Ok("swallow-write-errors") => Self::SwallowWriteErrors,
            Ok("leak-links") => Self::LeakLinks,
            Ok(other) if !other.is_empty() => panic!("PEAS_PLANTED={other}: no such bug"),
            _ => Self::Nothing,
        }
    }

    #[cfg(not(feature = "planted"))]
    pub fn chosen() -> Self {
        Self::Nothing
    }
}
