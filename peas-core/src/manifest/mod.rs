//! The pea: what a content is, and whether it is the one that is wanted.
//!
//! Bytes of a file become a [`Manifest`] (right in itself), and that becomes a [`TrustedManifest`] (wanted by the host), the only
//! form that other rooms accept. What always holds: limits are judged before room is made; signatures are judged over the raw
//! bytes; sizes add up, the piece hashes give the root, and every path of the tree may be created. A pea that is made passes
//! exactly the checks of one that is read. No disk, clock or socket here: time and memory of earlier releases are arguments.
//!
//! Parts: `envelope` (file layout, signatures), `body` (what is signed), `check` (do the parts fit), `path` (names and links),
//! `trust`, `hints` (the unsigned tail), `build`, `certificate` (of members, for swarms that are not open).

mod body;
mod build;
mod certificate;
mod check;
mod envelope;
mod error;
mod hints;
mod path;
#[cfg(test)]
mod tests;
mod trust;

pub use build::Builder;
pub use certificate::{CERTIFICATE_BYTES, Certificate, CertificateError, Roles};
pub use error::{LinkProblem, ManifestError, PathProblem};
pub use hints::{OWNER_HINTS_MAX, OwnerHint, owner_hint_message};
pub use path::check_path;
pub use trust::{Trust, TrustContext};

use crate::config::{Access, Owner};
use crate::hash::Cv;
use crate::unit::{Geometry, PeaId, PieceIdx};
use envelope::{Entry, Envelope};
use std::sync::Arc;

/// Parsed and checked for consistency, but nobody has said yet that it is the one that is wanted. Cloning is cheap.
#[derive(Clone, Debug)]
pub struct Manifest(Arc<Parsed>);

/// The host's word on a manifest was asked and is yes. What all other rooms accept.
#[derive(Clone, Debug)]
pub struct TrustedManifest(Manifest);

impl std::ops::Deref for TrustedManifest {
    type Target = Manifest;
    fn deref(&self) -> &Manifest {
        &self.0
    }
}

#[derive(Debug)]
struct Parsed {
    /// The file up to its tail: as it came, because that is what was signed.
    sealed: Vec<u8>,
    body_at: usize,
    signatures: Vec<Entry>,
    body: Body,
    id: PeaId,
    hints: Vec<OwnerHint>,
}

/// What is signed.
#[derive(Debug)]
struct Body {
    name: String,
    geometry: Geometry,
    single_file: bool,
    root: Cv,
    entries: Vec<FileEntry>,
    piece_cvs: Vec<Cv>,
    owners: Vec<Owner>,
    web: Vec<String>,
    channel: String,
    release: u64,
    created_unix_s: u64,
    expires_unix_s: u64,
    access: Access,
    extensions: Vec<Extension>,
}

/// One entry of the content's tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileEntry {
    /// Relative path, `/` between components. For a single-file content: the file's name.
    pub path: String,
    /// What is there.
    pub kind: EntryKind,
}

/// What is at a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EntryKind {
    /// Bytes at `offset` of the content; `hash` is the file's own BLAKE3.
    File {
        /// Where its bytes begin in the content: where those of the file before end.
        offset: u64,
        /// Its size.
        bytes: u64,
        /// Whether it may be executed.
        executable: bool,
        /// What `b3sum` prints for it.
        hash: Cv,
    },
    /// An empty directory (others follow from their files).
    Directory,
    /// Relative link that stays inside the tree.
    Symlink {
        /// Relative to the link's folder.
        target: String,
    },
}

impl FileEntry {
    /// The file's own BLAKE3; `None` for what is no file.
    pub const fn hash(&self) -> Option<&Cv> {
        match &self.kind {
            EntryKind::File { hash, .. } => Some(hash),
            _ => None,
        }
    }
}

/// A record for which this version has no field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Extension {
    /// What it is: 5 or more.
    pub kind: u16,
    /// Whether a program that does not know it must refuse the pea.
    pub critical: bool,
    /// At most 1 MiB.
    pub bytes: Vec<u8>,
}

impl Manifest {
    /// Reads a pea. Says nothing on whether it is the one that is wanted: see [`decode_trusted`](Manifest::decode_trusted).
    pub fn decode(bytes: &[u8]) -> Result<Manifest, ManifestError> {
        let envelope = Envelope::parse(bytes)?;
        let body = body::decode(envelope.body)?;
        body.check()?;
        let hints = hints::decode_tail(envelope.tail)?;
        let (sealed, body_at) = (bytes[..envelope.tail_at].to_vec(), envelope.tail_at - envelope.body.len());
        Ok(Manifest(Arc::new(Parsed { sealed, body_at, signatures: envelope.signatures, id: body.id(), body, hints })))
    }

    /// Which content this is. Owners, release and signatures don't change it: the same bytes are the same swarm.
    pub fn id(&self) -> PeaId {
        self.0.id
    }

    /// For people.
    pub fn name(&self) -> &str {
        &self.0.body.name
    }

    /// Whether the content is one file (installed as a file), not a folder.
    pub fn is_single_file(&self) -> bool {
        self.0.body.single_file
    }

    /// Sizes.
    pub fn geometry(&self) -> &Geometry {
        &self.0.body.geometry
    }

    /// Hash of the content.
    pub fn root(&self) -> &Cv {
        &self.0.body.root
    }

    /// Hash of each piece (`hash::piece_cv`).
    pub fn piece_cv(&self, piece: PieceIdx) -> &Cv {
        &self.0.body.piece_cvs[piece.at()]
    }

    /// In canonical order (bytes of the path); file offsets rise.
    pub fn entries(&self) -> &[FileEntry] {
        &self.0.body.entries
    }

    /// Where the publisher serves it.
    pub fn owners(&self) -> &[Owner] {
        &self.0.body.owners
    }

    /// HTTP(S) addresses of the content.
    pub fn web(&self) -> &[String] {
        &self.0.body.web
    }

    /// Who may join its swarm.
    pub fn access(&self) -> Access {
        self.0.body.access
    }

    /// Channel; empty if it has none.
    pub fn channel(&self) -> &str {
        &self.0.body.channel
    }

    /// Rises with each release of the channel.
    pub fn release(&self) -> u64 {
        self.0.body.release
    }

    /// When it was made, in seconds since 1970.
    pub fn created_unix_s(&self) -> u64 {
        self.0.body.created_unix_s
    }

    /// When it ends to be accepted, in seconds since 1970. 0: never.
    pub fn expires_unix_s(&self) -> u64 {
        self.0.body.expires_unix_s
    }

    /// Records that this version does not know and that need not be known.
    pub fn extensions(&self) -> &[Extension] {
        &self.0.body.extensions
    }

    /// Which of these Ed25519 public keys signed it, each once. The file itself names no keys, only their ids.
    pub fn signed_by(&self, keys: &[[u8; 32]]) -> Vec<[u8; 32]> {
        envelope::signers(self.signatures(), self.body_bytes(), keys)
    }

    /// First eight bytes of the BLAKE3 of each key that is said to have signed it. Unchecked: for people who look for the key.
    pub fn signature_key_ids(&self) -> Vec<[u8; 8]> {
        self.signatures().iter().map(|entry| entry.key_id).collect()
    }

    /// The unsigned tail: hints only.
    pub fn owner_hints(&self) -> &[OwnerHint] {
        &self.0.hints
    }

    /// The file with another tail (at most 64 hints, the rest is cut off); signed bytes untouched.
    pub fn with_owner_hints(&self, hints: &[OwnerHint]) -> Vec<u8> {
        [&self.0.sealed[..], &hints::encode_tail(hints)].concat()
    }

    fn signatures(&self) -> &[Entry] {
        &self.0.signatures
    }

    fn body_bytes(&self) -> &[u8] {
        &self.0.sealed[self.0.body_at..]
    }
}
