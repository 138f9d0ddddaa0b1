//! Why a pea is refused, or cannot be made.

use crate::unit::{GeometryError, PeaId};
use crate::wire::WireError;

/// Why a pea is refused, or cannot be made. One variant for each cause, each with a stable [`code`](ManifestError::code); each
/// message says what to do where something can be done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    /// The first bytes are not those of a pea.
    #[error("this is not a pea, or it was copied as text; fetch it again as binary")]
    NotAPea,
    /// Made by a later peas.
    #[error("format {0} of this pea is newer than this program; update the program")]
    UnknownVersion(u16),
    /// Bytes are missing.
    #[error("the file is cut short: {have} of {need} bytes; fetch it again")]
    CutShort {
        /// Bytes at hand.
        have: u64,
        /// Bytes that its beginning announces.
        need: u64,
    },
    /// The signed part is longer than allowed.
    #[error("{bytes} bytes of body are more than the {limit} that are allowed")]
    BodyTooLong {
        /// How many are announced.
        bytes: u64,
        /// How many are allowed.
        limit: u64,
    },
    /// More signatures than allowed.
    #[error("{0} signatures are more than the 16 that are allowed")]
    TooManySignatures(usize),
    /// A signature of another kind than Ed25519.
    #[error("signature of unknown kind {0}; update the program")]
    UnknownAlgorithm(u8),
    /// A section is not what it should be.
    #[error("the section {section} is damaged: {why}")]
    Malformed {
        /// Which.
        section: &'static str,
        /// How.
        why: WireError,
    },
    /// Sections are out of order, double, or too many.
    #[error("section {0} is out of order")]
    SectionOrder(u16),
    /// A section that every pea has is not there.
    #[error("the section {0} is missing")]
    MissingSection(&'static str),
    /// An extension that must be understood is not.
    #[error("this pea needs extension {0}, which this program does not know; update the program")]
    UnknownCritical(u16),
    /// Sizes that no content has.
    #[error(transparent)]
    Geometry(#[from] GeometryError),
    /// Another block size than the one of this format.
    #[error("blocks of {0} bytes are not supported")]
    BlockBytes(u32),
    /// More entries than allowed.
    #[error("{0} entries are more than the 1,000,000 that are allowed")]
    TooManyEntries(usize),
    /// The list of files would unpack to more than allowed.
    #[error("the list of files unpacks to {bytes} bytes, more than the {limit} that are allowed")]
    TreeTooLarge {
        /// How many are announced.
        bytes: u64,
        /// How many are allowed for its packed size.
        limit: u64,
    },
    /// The list of files cannot be unpacked or its columns do not match.
    #[error("the list of files is damaged: {0}")]
    TreeDamaged(&'static str),
    /// A path that may not be in a pea.
    #[error("{path:?}: {problem}; rename it")]
    Path {
        /// The path, cut to 200 characters.
        path: String,
        /// What is wrong with it.
        problem: PathProblem,
    },
    /// Entries are not in strictly increasing byte order of their paths.
    #[error("{path:?} is not in order")]
    NotSorted {
        /// The first that is out of order.
        path: String,
    },
    /// Two names that some file system takes for one (case, compatible characters).
    #[error("{path:?} and {other:?} are one name on some systems; rename one")]
    Collision {
        /// The later one.
        path: String,
        /// The earlier one.
        other: String,
    },
    /// An entry lies below something that is not a directory with entries.
    #[error("{below:?} lies below {path:?}, which is no directory with entries")]
    Below {
        /// What is used as a directory.
        path: String,
        /// What lies below it.
        below: String,
    },
    /// A symbolic link that may not be in a pea.
    #[error("the link {path:?} to {target:?} {problem}")]
    Link {
        /// The link.
        path: String,
        /// Where it points.
        target: String,
        /// What is wrong with it.
        problem: LinkProblem,
    },
    /// File sizes do not add up.
    #[error("files of {sum} bytes in a content of {total}")]
    SizeSum {
        /// Of the files, as far as it can be counted.
        sum: u64,
        /// Of the content.
        total: u64,
    },
    /// A file's place is not where the files before it end.
    #[error("{path:?} begins at {offset}, not at {expected}")]
    Offset {
        /// The file.
        path: String,
        /// Where it is said to begin.
        offset: u64,
        /// Where the files before it end.
        expected: u64,
    },
    /// Not one hash for each piece.
    #[error("{have} piece hashes for {need} pieces")]
    PieceLayer {
        /// Hashes at hand.
        have: usize,
        /// Pieces.
        need: usize,
    },
    /// The piece hashes do not give the root.
    #[error("the piece hashes do not belong to this content")]
    Root,
    /// Not one hash for each file.
    #[error("{have} file hashes for {need} files")]
    FileHashes {
        /// Hashes at hand.
        have: usize,
        /// Files.
        need: usize,
    },
    /// A single-file content that is not one file with the content's hash.
    #[error("a single file is one entry without folders whose hash is the content's")]
    SingleFile,
    /// A name, channel, address or the like that may not be.
    #[error("bad {field}: {text:?}")]
    Text {
        /// Which.
        field: &'static str,
        /// The text, cut to 200 characters.
        text: String,
    },
    /// More of something than allowed.
    #[error("{count} {what} are more than the {limit} that are allowed")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many.
        count: usize,
        /// How many are allowed.
        limit: usize,
    },
    /// A swarm policy that this program does not know.
    #[error("swarm policy {0} is not known; update the program")]
    UnknownPolicy(u8),
    /// The unsigned list of owners at the end is damaged.
    #[error("the list of owners at the end is damaged ({0}); fetch the pea again")]
    Tail(&'static str),
    /// No signature by any of the keys given.
    #[error("signed by none of the trusted keys")]
    NotSigned,
    /// Some signatures, but not enough distinct keys.
    #[error("signed by {have} of the {need} trusted keys that are needed")]
    TooFewKeys {
        /// Distinct trusted keys with a right signature.
        have: usize,
        /// The threshold.
        need: usize,
    },
    /// The caller's keys or threshold make no sense; the pea was not looked at.
    #[error("bad trust: {0}")]
    BadTrust(&'static str),
    /// Not the pinned content.
    #[error("the content is {found}, not the expected {expected}")]
    WrongContent {
        /// Of the pea.
        found: PeaId,
        /// Pinned.
        expected: PeaId,
    },
    /// Another channel.
    #[error("the pea is of channel {found:?}, not {expected:?}")]
    WrongChannel {
        /// Of the pea.
        found: String,
        /// Asked for.
        expected: String,
    },
    /// Too old.
    #[error("expired on {} ({expires_unix_s} s since 1970); get a newer one", date(*.expires_unix_s))]
    Expired {
        /// When, in seconds since 1970.
        expires_unix_s: u64,
    },
    /// An older release than one accepted before.
    #[error("rollback: release {release} is older than {accepted}, which was accepted already")]
    Rollback {
        /// Of the pea.
        release: u64,
        /// The lowest that is accepted.
        accepted: u64,
    },
    /// The same release with another content.
    #[error("the content of release {release} differs from the one accepted before (equivocation)")]
    Equivocation {
        /// Of the pea.
        release: u64,
    },
}

/// What is wrong with a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PathProblem {
    /// Nothing at all.
    #[error("a path has at least one name")]
    Empty,
    /// More than 1,024 bytes.
    #[error("longer than 1,024 bytes")]
    TooLong,
    /// More than 64 names.
    #[error("deeper than 64 folders")]
    TooDeep,
    /// `a//b`, `/a`, `a/`.
    #[error("an empty name, or a slash at an end")]
    EmptyName,
    /// `.` or `..`.
    #[error("\".\" and \"..\" are no names")]
    Dots,
    /// A name of more than 255 bytes.
    #[error("a name longer than 255 bytes")]
    NameTooLong,
    /// A control character.
    #[error("a control character")]
    Control,
    /// A character that is not seen or turns the direction of text.
    #[error("an invisible character")]
    Invisible,
    /// One of `\ : * ? " < > |`.
    #[error("the character {0:?}, which Windows does not take")]
    Forbidden(char),
    /// A space at an end of a name, or a dot at its end.
    #[error("a name with a space at an end, or a dot as its last character")]
    Edge,
    /// A device of Windows.
    #[error("a name that is a device on Windows")]
    Device,
    /// Not in Unicode's composed form.
    #[error("not in normal form (NFC)")]
    NotComposed,
    /// The folder in which peas works.
    #[error("names that begin with .peas- belong to peas")]
    Ours,
}

/// What is wrong with a symbolic link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LinkProblem {
    /// Absolute.
    #[error("is not relative; make it so")]
    Absolute,
    /// Leaves the tree.
    #[error("leaves the tree")]
    Outside,
    /// `..` after a name: where it leads depends on what the name is.
    #[error("has \"..\" after a name; write it without")]
    DotsInside,
    /// A name in it may not be in a pea.
    #[error("has a bad name in it: {0}")]
    Name(PathProblem),
    /// Leads through another link.
    #[error("leads through another link")]
    ThroughLink,
    /// Points at itself.
    #[error("points at itself")]
    Itself,
}

impl ManifestError {
    /// Stable number for C and logs; never changes its meaning.
    pub fn code(&self) -> u32 {
        match self {
            Self::NotAPea => 1,
            Self::UnknownVersion(_) => 2,
            Self::CutShort { .. } => 3,
            Self::BodyTooLong { .. } => 4,
            Self::TooManySignatures(_) => 5,
            Self::UnknownAlgorithm(_) => 6,
            Self::Malformed { .. } => 7,
            Self::SectionOrder(_) => 8,
            Self::MissingSection(_) => 9,
            Self::UnknownCritical(_) => 10,
            Self::Geometry(_) => 11,
            Self::BlockBytes(_) => 12,
            Self::TooManyEntries(_) => 13,
            Self::TreeTooLarge { .. } => 14,
            Self::TreeDamaged(_) => 15,
            Self::Path { .. } => 16,
            Self::NotSorted { .. } => 17,
            Self::Collision { .. } => 18,
            Self::Below { .. } => 19,
            Self::Link { .. } => 20,
            Self::SizeSum { .. } => 21,
            Self::Offset { .. } => 22,
            Self::PieceLayer { .. } => 23,
            Self::Root => 24,
            Self::FileHashes { .. } => 25,
            Self::SingleFile => 26,
            Self::Text { .. } => 27,
            Self::TooMany { .. } => 28,
            Self::UnknownPolicy(_) => 29,
            Self::Tail(_) => 30,
            Self::NotSigned => 31,
            Self::TooFewKeys { .. } => 32,
            Self::BadTrust(_) => 33,
            Self::WrongContent { .. } => 34,
            Self::WrongChannel { .. } => 35,
            Self::Expired { .. } => 36,
            Self::Rollback { .. } => 37,
            Self::Equivocation { .. } => 38,
        }
    }
}

/// A text for a message: as much of it as a line can bear.
pub(super) fn clip(text: &str) -> String {
    text.chars().take(200).collect()
}

/// The day in UTC, by counting from 1970 in years that begin in March.
fn date(unix_s: u64) -> String {
    let days = unix_s / 86_400 + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    format!("{year}-{month:02}-{day:02}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_right_at_their_edges() {
        for (unix_s, text) in [
            (0, "1970-01-01"),
            (951_782_400, "2000-02-29"),
            (1_709_164_799, "2024-02-28"),
            (1_767_225_600, "2026-01-01"),
            (4_107_542_400, "2100-03-01"),
        ] {
            assert_eq!(date(unix_s), text);
        }
        date(u64::MAX);
    }
}
