//! Whether the parts of a body make sense together, and which content they describe. The one set of rules for peas that are
//! read and peas that are made.

use super::body::{ENTRIES_MAX, EXTENSION_MIN, MEMBERS, PATHS_BYTES_MAX, SECTIONS_MAX, check_text};
use super::error::clip;
use super::path::{check_tree, problem_of_name};
use super::{Body, EntryKind, FileEntry, ManifestError};
use crate::hash;
use crate::unit::{BLOCK_BYTES, PeaId};

const CHANNEL_BYTES_MAX: usize = 64;
const ADDR_BYTES_MAX: usize = 261;
const WEB_BYTES_MAX: usize = 2048;
/// Most signed owners, and most web addresses: a few are used, the rest of a swarm is learnt from them.
const OWNERS_MAX: usize = 64;
const EXTENSION_BYTES_MAX: usize = 1 << 20;

impl Body {
    /// All rules.
    pub(super) fn check(&self) -> Result<(), ManifestError> {
        self.check_texts()?;
        self.check_extensions()?;
        if self.entries.len() > ENTRIES_MAX {
            return Err(ManifestError::TooManyEntries(self.entries.len()));
        }
        let path_bytes: usize = self.entries.iter().map(|entry| entry.path.len()).sum();
        if path_bytes > PATHS_BYTES_MAX {
            return Err(ManifestError::TooMany { what: "bytes of paths", count: path_bytes, limit: PATHS_BYTES_MAX });
        }
        check_tree(&self.entries)?;
        self.check_sizes()?;
        self.check_hashes()
    }

    fn check_texts(&self) -> Result<(), ManifestError> {
        check_text("name", &self.name, !self.name.contains('/') && problem_of_name(&self.name).is_none())?;
        let channel_is_right =
            self.channel.len() <= CHANNEL_BYTES_MAX && (self.channel.is_empty() || problem_of_name(&self.channel).is_none());
        check_text("channel", &self.channel, channel_is_right)?;
        for (what, count) in [("owners", self.owners.len()), ("web addresses", self.web.len())] {
            if count > OWNERS_MAX {
                return Err(ManifestError::TooMany { what, count, limit: OWNERS_MAX });
            }
        }
        self.owners.iter().try_for_each(|owner| check_text("owner", &owner.addr, is_owner_addr(&owner.addr)))?;
        self.web.iter().try_for_each(|web| check_text("web address", web, is_web_addr(web)))
    }

    fn check_extensions(&self) -> Result<(), ManifestError> {
        let (count, limit) = (self.extensions.len(), SECTIONS_MAX - usize::from(EXTENSION_MIN - 1));
        if count > limit {
            return Err(ManifestError::TooMany { what: "extensions", count, limit });
        }
        let mut before = EXTENSION_MIN - 1;
        for extension in &self.extensions {
            if extension.kind <= before || extension.kind == MEMBERS {
                return Err(ManifestError::SectionOrder(extension.kind));
            }
            if extension.bytes.len() > EXTENSION_BYTES_MAX {
                return Err(ManifestError::TooMany {
                    what: "bytes of an extension",
                    count: extension.bytes.len(),
                    limit: EXTENSION_BYTES_MAX,
                });
            }
            before = extension.kind;
        }
        Ok(())
    }

    fn check_sizes(&self) -> Result<(), ManifestError> {
        let total = self.geometry.total_bytes();
        let mut sum: u64 = 0;
        for entry in &self.entries {
            if let EntryKind::File { offset, bytes, .. } = entry.kind {
                if offset != sum {
                    return Err(ManifestError::Offset { path: clip(&entry.path), offset, expected: sum });
                }
                sum = sum.checked_add(bytes).ok_or(ManifestError::SizeSum { sum: u64::MAX, total })?;
            }
        }
        if sum == total { Ok(()) } else { Err(ManifestError::SizeSum { sum, total }) }
    }

    fn check_hashes(&self) -> Result<(), ManifestError> {
        let (have, need) = (self.piece_cvs.len(), self.geometry.piece_count() as usize);
        if have != need {
            return Err(ManifestError::PieceLayer { have, need });
        }
        if hash::root(&self.geometry, &self.piece_cvs) != self.root {
            return Err(ManifestError::Root);
        }
        if !self.single_file {
            return Ok(());
        }
        match &self.entries[..] {
            [FileEntry { path, kind: EntryKind::File { hash, .. } }] if !path.contains('/') && *hash == self.root => Ok(()),
            _ => Err(ManifestError::SingleFile),
        }
    }

    /// Which content this is: derived from sizes, geometry, root and tree, and from nothing else. Every length stands before
    /// what it measures, so two contents never feed the same bytes.
    pub(super) fn id(&self) -> PeaId {
        let mut hasher = blake3::Hasher::new_derive_key("peas 2026 content id version 1");
        hasher.update(&self.geometry.total_bytes().to_le_bytes());
        hasher.update(&self.geometry.piece_bytes().to_le_bytes());
        hasher.update(&BLOCK_BYTES.to_le_bytes());
        hasher.update(&[self.single_file.into()]);
        hasher.update(&self.root);
        hasher.update(&(self.entries.len() as u64).to_le_bytes());
        for entry in &self.entries {
            hasher.update(&(entry.path.len() as u32).to_le_bytes()).update(entry.path.as_bytes());
            match &entry.kind {
                EntryKind::File { bytes, executable, hash, .. } => {
                    hasher.update(&[u8::from(*executable)]).update(&bytes.to_le_bytes()).update(hash)
                }
                EntryKind::Directory => hasher.update(&[2]),
                EntryKind::Symlink { target } => hasher.update(&[3]).update(&(target.len() as u32).to_le_bytes()).update(target.as_bytes()),
            };
        }
        PeaId(*hasher.finalize().as_bytes())
    }
}

/// Host name or address, and a port.
fn is_owner_addr(addr: &str) -> bool {
    let Some((host, port)) = addr.rsplit_once(':') else { return false };
    let is_host = !host.is_empty() && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_:[]%".contains(&byte));
    let is_plain = !host.contains(':') || (host.starts_with('[') && host.ends_with(']'));
    addr.len() <= ADDR_BYTES_MAX && is_host && is_plain && !port.starts_with('+') && port.parse::<u16>().is_ok_and(|port| port > 0)
}

fn is_web_addr(web: &str) -> bool {
    let rest = web.strip_prefix("https://").or(web.strip_prefix("http://"));
    web.len() <= WEB_BYTES_MAX && rest.is_some_and(|rest| !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_graphic()))
}
