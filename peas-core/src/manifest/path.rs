//! What a tree may be called: refused, never repaired, and by the same rule when a pea is made and when it is installed.
//!
//! After [`check_tree`] every entry can be created on Linux, macOS and Windows below one folder without meeting another entry,
//! a device or the way out. Nothing here looks at a disk.

use super::error::clip;
use super::{EntryKind, FileEntry, LinkProblem, ManifestError, PathProblem};
use std::borrow::Cow;
use std::collections::BTreeMap;
use unicode_normalization::{UnicodeNormalization, is_nfc};

/// Longest path, and longest target of a link.
pub(super) const PATH_BYTES_MAX: usize = 1024;
const NAMES_MAX: usize = 64;
const NAME_BYTES_MAX: usize = 255;

/// Why a path may not be in a pea (the same rule for making and installing).
pub fn check_path(path: &str) -> Result<(), ManifestError> {
    problem_of(path).map_or(Ok(()), |problem| Err(ManifestError::Path { path: clip(path), problem }))
}

fn problem_of(path: &str) -> Option<PathProblem> {
    if path.is_empty() {
        return Some(PathProblem::Empty);
    }
    if path.len() > PATH_BYTES_MAX {
        return Some(PathProblem::TooLong);
    }
    if path.split('/').count() > NAMES_MAX {
        return Some(PathProblem::TooDeep);
    }
    if path.split('/').next().is_some_and(|first| first.len() >= 6 && first.as_bytes()[..6].eq_ignore_ascii_case(b".peas-")) {
        return Some(PathProblem::Ours);
    }
    path.split('/').find_map(problem_of_name)
}

/// What is wrong with one name of a path, by the same rules.
pub(super) fn problem_of_name(name: &str) -> Option<PathProblem> {
    match name {
        "" => return Some(PathProblem::EmptyName),
        "." | ".." => return Some(PathProblem::Dots),
        _ if name.len() > NAME_BYTES_MAX => return Some(PathProblem::NameTooLong),
        _ => {}
    }
    // Most names are of these characters alone, and a million names are to be checked in a moment.
    let is_plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.'));
    if !is_plain && let Some(problem) = name.chars().find_map(problem_of_char) {
        return Some(problem);
    }
    if name.starts_with(' ') || name.ends_with([' ', '.']) {
        return Some(PathProblem::Edge);
    }
    if is_device(name) {
        return Some(PathProblem::Device);
    }
    (!name.is_ascii() && !is_nfc(name)).then_some(PathProblem::NotComposed)
}

fn problem_of_char(char: char) -> Option<PathProblem> {
    match char {
        '\\' | ':' | '*' | '?' | '"' | '<' | '>' | '|' => Some(PathProblem::Forbidden(char)),
        _ if char.is_control() => Some(PathProblem::Control),
        '\u{61C}' | '\u{200B}'..='\u{200F}' | '\u{202A}'..='\u{202E}' | '\u{2060}'..='\u{2069}' | '\u{FEFF}' => {
            Some(PathProblem::Invisible)
        }
        _ => None,
    }
}

/// Whether Windows takes the name for a device, with or without an extension.
fn is_device(name: &str) -> bool {
    // No device begins with another letter.
    if !matches!(name.as_bytes().first(), Some(b'c' | b'C' | b'p' | b'P' | b'a' | b'A' | b'n' | b'N' | b'l' | b'L')) {
        return false;
    }
    let stem = name.split('.').next().unwrap_or(name).trim_end_matches(' ');
    if stem.len() > 8 {
        return false;
    }
    let stem = stem.to_ascii_uppercase();
    let numbered = |rest: &str| matches!(rest, "¹" | "²" | "³") || (rest.len() == 1 && rest.as_bytes()[0].is_ascii_digit());
    matches!(&stem[..], "CON" | "PRN" | "AUX" | "NUL" | "CLOCK$" | "CONIN$" | "CONOUT$")
        || stem.strip_prefix("COM").or(stem.strip_prefix("LPT")).is_some_and(numbered)
}

/// All rules for a tree: each path, their order, no two that some system takes for one, links that stay inside.
pub(super) fn check_tree(entries: &[FileEntry]) -> Result<(), ManifestError> {
    let mut names = Names { entries, known: BTreeMap::new() };
    let mut before = "";
    for (at, entry) in entries.iter().enumerate() {
        check_path(&entry.path)?;
        if at > 0 && entry.path.as_str() <= before {
            return Err(ManifestError::NotSorted { path: clip(&entry.path) });
        }
        names.add(at, before)?;
        before = &entry.path;
    }
    for entry in entries {
        if let EntryKind::Symlink { target } = &entry.kind
            && let Some(problem) = names.problem_of_link(&entry.path, target)
        {
            return Err(ManifestError::Link { path: clip(&entry.path), target: clip(target), problem });
        }
    }
    Ok(())
}

/// Every name that is taken, entry or folder, as the most forgiving file system sees it.
struct Names<'a> {
    entries: &'a [FileEntry],
    known: BTreeMap<[u8; 16], Taken>,
}

#[derive(Clone, Copy)]
struct Taken {
    /// The entry that took the name, or the first below the folder.
    by: u32,
    /// Whether it is the entry's own path; else that of a folder above it.
    own: bool,
}

impl Names<'_> {
    fn add(&mut self, at: usize, before: &str) -> Result<(), ManifestError> {
        let path = &self.entries[at].path;
        for (end, _) in path.match_indices('/') {
            // All paths below one folder follow one another in byte order, so a folder is new unless the path before shares it.
            if before.get(..=end) == Some(&path[..=end]) {
                continue;
            }
            if let Some(taken) = self.known.insert(key(&path[..end]), Taken { by: at as u32, own: false }) {
                return Err(self.clash(taken, &path[..end], at));
            }
        }
        match self.known.insert(key(path), Taken { by: at as u32, own: true }) {
            Some(taken) => Err(self.clash(taken, path, at)),
            None => Ok(()),
        }
    }

    fn clash(&self, taken: Taken, name: &str, at: usize) -> ManifestError {
        let other = &self.entries[taken.by as usize].path;
        if taken.own && other == name {
            return ManifestError::Below { path: clip(other), below: clip(&self.entries[at].path) };
        }
        ManifestError::Collision { path: clip(&self.entries[at].path), other: clip(other) }
    }

    fn problem_of_link(&self, path: &str, target: &str) -> Option<LinkProblem> {
        if target.starts_with('/') {
            return Some(LinkProblem::Absolute);
        }
        if target.len() > PATH_BYTES_MAX {
            return Some(LinkProblem::Name(PathProblem::TooLong));
        }
        let mut resolved: Vec<&str> = path.split('/').collect();
        resolved.pop();
        let mut after_name = false;
        for name in target.split('/') {
            if name == ".." {
                if after_name {
                    return Some(LinkProblem::DotsInside);
                }
                if resolved.pop().is_none() {
                    return Some(LinkProblem::Outside);
                }
            } else if let Some(problem) = problem_of_name(name) {
                return Some(LinkProblem::Name(problem));
            } else {
                after_name = true;
                resolved.push(name);
            }
        }
        if resolved.is_empty() {
            return Some(LinkProblem::Outside);
        }
        let resolved = resolved.join("/");
        if key(&resolved) == key(path) {
            return Some(LinkProblem::Itself);
        }
        let through_link = resolved.match_indices('/').any(|(end, _)| {
            let taken = self.known.get(&key(&resolved[..end]));
            taken.is_some_and(|taken| taken.own && matches!(self.entries[taken.by as usize].kind, EntryKind::Symlink { .. }))
        });
        through_link.then_some(LinkProblem::ThroughLink)
    }
}

/// Half a hash of the folded name: memory stays small for a million names.
fn key(name: &str) -> [u8; 16] {
    let hash = crate::hash::file_hash(fold(name).as_bytes());
    *hash.first_chunk().expect("a hash has more than 16 bytes")
}

/// Compatible characters as one, case as one.
fn fold(name: &str) -> Cow<'_, str> {
    if name.is_ascii() {
        let has_upper = name.bytes().any(|byte| byte.is_ascii_uppercase());
        return if has_upper { Cow::Owned(name.to_ascii_lowercase()) } else { Cow::Borrowed(name) };
    }
    // Twice, because lower case may be composed differently.
    let lower = |text: &str| text.nfkc().flat_map(char::to_lowercase).collect::<String>();
    Cow::Owned(lower(&lower(name)).nfkc().collect())
}
