//! Making a pea.

use super::{Body, Extension, FileEntry, Manifest, ManifestError, body, envelope, hints};
use crate::config::{Access, Owner};
use crate::hash::{self, Cv};
use crate::unit::Geometry;

/// What goes into a pea: `Builder { .. }.build(sign_with)` gives canonical file bytes; [`Builder::new`] fills in what may be empty.
#[derive(Clone, Debug)]
pub struct Builder {
    /// For people, but by the rules for a file name: programs make one of it.
    pub name: String,
    /// Sizes.
    pub geometry: Geometry,
    /// Whether the content is one file, not a folder.
    pub single_file: bool,
    /// In byte order of their paths, offsets without gaps.
    pub entries: Vec<FileEntry>,
    /// Value of each piece.
    pub piece_cvs: Vec<Cv>,
    /// Where it will be served.
    pub owners: Vec<Owner>,
    /// HTTP(S) addresses of the content.
    pub web: Vec<String>,
    /// At most 64 bytes; may be empty.
    pub channel: String,
    /// Rises with each release of the channel.
    pub release: u64,
    /// Now, in seconds since 1970.
    pub created_unix_s: u64,
    /// In seconds since 1970; 0: never.
    pub expires_unix_s: u64,
}

impl Builder {
    /// A folder of these entries; no owners, no web addresses, no channel, no dates.
    pub fn new(name: impl Into<String>, geometry: Geometry, entries: Vec<FileEntry>, piece_cvs: Vec<Cv>) -> Self {
        Self {
            name: name.into(),
            geometry,
            single_file: false,
            entries,
            piece_cvs,
            owners: Vec::new(),
            web: Vec::new(),
            channel: String::new(),
            release: 0,
            created_unix_s: 0,
            expires_unix_s: 0,
        }
    }

    /// Checks everything `decode` would check, then encodes and signs with these Ed25519 secrets.
    pub fn build(self, sign_with: &[[u8; 32]]) -> Result<Vec<u8>, ManifestError> {
        self.seal(Access::Open, Vec::new(), sign_with)
    }

    /// The same for a swarm that not everybody may join.
    pub fn build_for(self, access: Access, sign_with: &[[u8; 32]]) -> Result<Vec<u8>, ManifestError> {
        self.seal(access, Vec::new(), sign_with)
    }

    /// The same with extension records, in rising order of their kinds. A critical one makes a pea that this version refuses.
    pub fn build_with(self, extensions: Vec<Extension>, sign_with: &[[u8; 32]]) -> Result<Vec<u8>, ManifestError> {
        self.seal(Access::Open, extensions, sign_with)
    }

    fn seal(self, access: Access, extensions: Vec<Extension>, sign_with: &[[u8; 32]]) -> Result<Vec<u8>, ManifestError> {
        let (have, need) = (self.piece_cvs.len(), self.geometry.piece_count() as usize);
        if have != need {
            return Err(ManifestError::PieceLayer { have, need });
        }
        let body = Body {
            root: hash::root(&self.geometry, &self.piece_cvs),
            name: self.name,
            geometry: self.geometry,
            single_file: self.single_file,
            entries: self.entries,
            piece_cvs: self.piece_cvs,
            owners: self.owners,
            web: self.web,
            channel: self.channel,
            release: self.release,
            created_unix_s: self.created_unix_s,
            expires_unix_s: self.expires_unix_s,
            access,
            extensions,
        };
        body.check()?;
        let mut bytes = envelope::seal(&body::encode(&body)?, sign_with)?;
        bytes.extend_from_slice(&hints::encode_tail(&[]));
        debug_assert!(body.extensions.iter().any(|it| it.critical) || Manifest::decode(&bytes).is_ok_and(|back| back.id() == body.id()));
        Ok(bytes)
    }
}
