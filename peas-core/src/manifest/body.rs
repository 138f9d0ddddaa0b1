//! The body: what is signed.
//!
//! ```text
//! sections in rising order of kind, each: kind u16 LE | critical u8 (0 or 1) | len u32 LE | len bytes
//! 1  head     Head in the one codec
//! 2  tree     method u8 (0 plain, 1 zstd) | raw length u32 LE | Tree in the one codec, as it is or packed
//! 3  hashes   32 B for each file, in order
//! 4  pieces   32 B for each piece, in order
//! 5..         extension records: a critical one that is not known refuses the pea, another is kept
//! 256 members 32 B: the authority whose certificates let in, in a pea of policy 2 (0: open, 1: secret)
//! ```
//! Paths are front-coded and the tree is stored by columns, because equal things next to one another are what packs well; hashes
//! are left out of it since they don't pack at all. Lengths are judged before room is made for them: the packed tree by what it
//! says it unpacks to, the front-coded paths by a budget for their sum.

use super::error::clip;
use super::path::PATH_BYTES_MAX;
use super::{Body, EntryKind, Extension, FileEntry, ManifestError, PathProblem};
use crate::config::Access;
use crate::hash::Cv;
use crate::unit::{BLOCK_BYTES, Geometry, PeerId};
use crate::wire::codec;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;

/// Most entries of a tree.
pub(super) const ENTRIES_MAX: usize = 1_000_000;
/// Most sections: those of this version and some extensions.
pub(super) const SECTIONS_MAX: usize = 64;
const HEAD_BYTES_MAX: usize = 256 << 10;
/// Longest unpacked tree: 64 bytes for each entry that there may be, of which names that share their folders leave most unused.
const TREE_BYTES_MAX: usize = 64 << 20;
/// A packed tree may be this much larger than it is packed, beyond the first MiB. A tree that
/// packs better than that is stored plain.
const TREE_RATIO_MAX: usize = 200;
const TREE_FREE_BYTES: usize = 1 << 20;
/// Most bytes in all paths together.
pub(super) const PATHS_BYTES_MAX: usize = 128 << 20;
const PLAIN: u8 = 0;
const ZSTD: u8 = 1;
/// Packing level: a pea of 170,000 files is made in 0.25 s with it (2 cores, 2026-11; the test prints the time).
const ZSTD_LEVEL: i32 = 12;
const POLICY_OPEN: u8 = 0;
const POLICY_SECRET: u8 = 1;
const POLICY_MEMBERS: u8 = 2;

const HEAD: u16 = 1;
const TREE: u16 = 2;
const HASHES: u16 = 3;
const PIECES: u16 = 4;
/// Who admits members.
pub(super) const MEMBERS: u16 = 256;
/// First kind that is an extension.
pub(super) const EXTENSION_MIN: u16 = 5;

#[derive(Serialize, Deserialize)]
struct Head {
    name: String,
    channel: String,
    release: u64,
    created_unix_s: u64,
    expires_unix_s: u64,
    total_bytes: u64,
    piece_bytes: u32,
    block_bytes: u32,
    root: Cv,
    single_file: bool,
    policy: u8,
    #[serde(deserialize_with = "codec::list")]
    owners: Vec<HeadOwner>,
    #[serde(deserialize_with = "codec::list")]
    web: Vec<String>,
}

#[derive(Serialize, Deserialize)]
struct HeadOwner {
    addr: String,
    peer: Option<[u8; 32]>,
}

/// The tree by columns.
#[derive(Default, Serialize, Deserialize)]
struct Tree {
    /// Bytes that a path shares with the one before: as many as they have in common.
    #[serde(deserialize_with = "codec::list_of_at_most::<ENTRIES_MAX, _, _>")]
    shared: Vec<u16>,
    /// What follows them, each with a line feed at its end.
    rests: String,
    /// 0 file, 1 executable file, 2 empty directory, 3 symbolic link.
    #[serde(deserialize_with = "codec::list_of_at_most::<ENTRIES_MAX, _, _>")]
    kinds: Vec<u8>,
    /// Of the files.
    #[serde(deserialize_with = "codec::list_of_at_most::<ENTRIES_MAX, _, _>")]
    sizes: Vec<u64>,
    /// Of the links.
    #[serde(deserialize_with = "codec::list_of_at_most::<ENTRIES_MAX, _, _>")]
    targets: Vec<String>,
}

/// The sections of a body, not yet understood.
#[derive(Default)]
struct Sections<'a> {
    known: [Option<&'a [u8]>; 4],
    members: Option<&'a [u8]>,
    extensions: Vec<Extension>,
}

/// The body as it will be signed. The body was checked; only what depends on its encoded size can be wrong.
pub(super) fn encode(body: &Body) -> Result<Vec<u8>, ManifestError> {
    let raw = codec::encode(&tree_of(&body.entries));
    if raw.len() > TREE_BYTES_MAX {
        return Err(ManifestError::TreeTooLarge { bytes: raw.len() as u64, limit: TREE_BYTES_MAX as u64 });
    }
    let mut bytes = Vec::new();
    push_section(&mut bytes, HEAD, true, &codec::encode(&head_of(body)));
    push_section(&mut bytes, TREE, true, &pack(&raw));
    let hashes: Vec<u8> = body.entries.iter().filter_map(FileEntry::hash).flatten().copied().collect();
    push_section(&mut bytes, HASHES, true, &hashes);
    push_section(&mut bytes, PIECES, true, body.piece_cvs.as_flattened());
    let (before, after) = body.extensions.split_at(body.extensions.partition_point(|extension| extension.kind < MEMBERS));
    before.iter().for_each(|extension| push_section(&mut bytes, extension.kind, extension.critical, &extension.bytes));
    if let Access::Members { authority } = body.access {
        push_section(&mut bytes, MEMBERS, true, &authority);
    }
    after.iter().for_each(|extension| push_section(&mut bytes, extension.kind, extension.critical, &extension.bytes));
    Ok(bytes)
}

fn push_section(bytes: &mut Vec<u8>, kind: u16, critical: bool, section: &[u8]) {
    bytes.extend_from_slice(&kind.to_le_bytes());
    bytes.push(critical.into());
    bytes.extend_from_slice(&(section.len() as u32).to_le_bytes());
    bytes.extend_from_slice(section);
}

/// The parts of a body, of right form; whether they make sense together is for [`Body::check`].
pub(super) fn decode(bytes: &[u8]) -> Result<Body, ManifestError> {
    let sections = Sections::parse(bytes)?;
    let head: Head = codec::decode::<HEAD_BYTES_MAX, Head>(sections.get(HEAD, "head")?).map_err(malformed("head"))?;
    if head.block_bytes != BLOCK_BYTES {
        return Err(ManifestError::BlockBytes(head.block_bytes));
    }
    let access = match (head.policy, sections.members) {
        (POLICY_OPEN, None) => Access::Open,
        (POLICY_SECRET, None) => Access::Secret,
        (POLICY_MEMBERS, Some(authority)) => {
            Access::Members { authority: authority.try_into().map_err(|_| malformed("members")(crate::wire::WireError::CutShort))? }
        }
        (POLICY_MEMBERS, None) => return Err(ManifestError::MissingSection("members")),
        (POLICY_OPEN | POLICY_SECRET, Some(_)) => return Err(ManifestError::SectionOrder(MEMBERS)),
        (unknown, _) => return Err(ManifestError::UnknownPolicy(unknown)),
    };
    let geometry = Geometry::new(head.total_bytes, head.piece_bytes)?;
    let piece_cvs = hashes(sections.get(PIECES, "pieces")?, "pieces")?;
    if piece_cvs.len() != geometry.piece_count() as usize {
        return Err(ManifestError::PieceLayer { have: piece_cvs.len(), need: geometry.piece_count() as usize });
    }
    let file_hashes = hashes(sections.get(HASHES, "hashes")?, "hashes")?;
    let raw = unpack(sections.get(TREE, "tree")?)?;
    let tree: Tree = codec::decode::<TREE_BYTES_MAX, Tree>(&raw).map_err(malformed("tree"))?;
    drop(raw);
    Ok(Body {
        name: head.name,
        geometry,
        single_file: head.single_file,
        root: head.root,
        entries: entries_of(&tree, file_hashes)?,
        piece_cvs: piece_cvs.to_vec(),
        owners: head.owners.into_iter().map(|owner| crate::config::Owner { addr: owner.addr, peer: owner.peer.map(PeerId) }).collect(),
        web: head.web,
        channel: head.channel,
        release: head.release,
        created_unix_s: head.created_unix_s,
        expires_unix_s: head.expires_unix_s,
        access,
        extensions: sections.extensions,
    })
}

impl<'a> Sections<'a> {
    fn parse(mut rest: &'a [u8]) -> Result<Self, ManifestError> {
        let short = malformed("sections")(crate::wire::WireError::CutShort);
        let (mut sections, mut before, mut count) = (Self::default(), 0, 0);
        while !rest.is_empty() {
            let (&[kind_low, kind_high, critical, a, b, c, d], after) = rest.split_first_chunk().ok_or(short.clone())?;
            let (bytes, after) = after.split_at_checked(u32::from_le_bytes([a, b, c, d]) as usize).ok_or(short.clone())?;
            let kind = u16::from_le_bytes([kind_low, kind_high]);
            count += 1;
            let known = (HEAD..EXTENSION_MIN).contains(&kind);
            if kind <= before || count > SECTIONS_MAX || critical > 1 || (known && critical == 0) {
                return Err(ManifestError::SectionOrder(kind));
            }
            if known {
                sections.known[usize::from(kind - HEAD)] = Some(bytes);
            } else if kind == MEMBERS && critical == 1 {
                sections.members = Some(bytes);
            } else if critical == 1 {
                return Err(ManifestError::UnknownCritical(kind));
            } else {
                sections.extensions.push(Extension { kind, critical: false, bytes: bytes.to_vec() });
            }
            (rest, before) = (after, kind);
        }
        Ok(sections)
    }

    fn get(&self, kind: u16, name: &'static str) -> Result<&'a [u8], ManifestError> {
        self.known[usize::from(kind - HEAD)].ok_or(ManifestError::MissingSection(name))
    }
}

fn malformed(section: &'static str) -> impl Fn(crate::wire::WireError) -> ManifestError {
    move |why| ManifestError::Malformed { section, why }
}

fn hashes<'a>(bytes: &'a [u8], section: &'static str) -> Result<&'a [Cv], ManifestError> {
    let (hashes, rest) = bytes.as_chunks::<32>();
    if rest.is_empty() { Ok(hashes) } else { Err(malformed(section)(crate::wire::WireError::CutShort)) }
}

fn head_of(body: &Body) -> Head {
    Head {
        name: body.name.clone(),
        channel: body.channel.clone(),
        release: body.release,
        created_unix_s: body.created_unix_s,
        expires_unix_s: body.expires_unix_s,
        total_bytes: body.geometry.total_bytes(),
        piece_bytes: body.geometry.piece_bytes(),
        block_bytes: BLOCK_BYTES,
        root: body.root,
        single_file: body.single_file,
        policy: match body.access {
            Access::Open => POLICY_OPEN,
            Access::Secret => POLICY_SECRET,
            Access::Members { .. } => POLICY_MEMBERS,
        },
        owners: body.owners.iter().map(|owner| HeadOwner { addr: owner.addr.clone(), peer: owner.peer.map(|peer| peer.0) }).collect(),
        web: body.web.clone(),
    }
}

fn tree_of(entries: &[FileEntry]) -> Tree {
    let (mut tree, mut before) = (Tree::default(), "");
    for entry in entries {
        let shared = shared_bytes(before, &entry.path);
        tree.shared.push(shared as u16);
        tree.rests.push_str(&entry.path[shared..]);
        tree.rests.push('\n');
        match &entry.kind {
            EntryKind::File { bytes, executable, .. } => {
                tree.kinds.push(u8::from(*executable));
                tree.sizes.push(*bytes);
            }
            EntryKind::Directory => tree.kinds.push(2),
            EntryKind::Symlink { target } => {
                tree.kinds.push(3);
                tree.targets.push(target.clone());
            }
        }
        before = &entry.path;
    }
    tree
}

fn entries_of(tree: &Tree, file_hashes: &[Cv]) -> Result<Vec<FileEntry>, ManifestError> {
    let count = tree.kinds.len();
    let mut rests = tree.rests.split_terminator('\n');
    let lines = tree.rests.bytes().filter(|byte| *byte == b'\n').count();
    if tree.shared.len() != count || lines != count || !(tree.rests.is_empty() || tree.rests.ends_with('\n')) {
        return Err(ManifestError::TreeDamaged("not one path for each entry"));
    }
    // Known before a path is made: the columns say a gigabyte in a few bytes.
    let path_bytes = tree.shared.iter().fold(tree.rests.len() - lines, |sum, &shared| sum.saturating_add(shared.into()));
    if path_bytes > PATHS_BYTES_MAX {
        return Err(ManifestError::TooMany { what: "bytes of paths", count: path_bytes, limit: PATHS_BYTES_MAX });
    }
    let file_count = tree.kinds.iter().filter(|kind| **kind < 2).count();
    if tree.sizes.len() != file_count || tree.targets.len() != tree.kinds.iter().filter(|kind| **kind == 3).count() {
        return Err(ManifestError::TreeDamaged("not one size for each file, or not one target for each link"));
    }
    if file_hashes.len() != file_count {
        return Err(ManifestError::FileHashes { have: file_hashes.len(), need: file_count });
    }
    let (mut sizes, mut hashes, mut targets) = (tree.sizes.iter(), file_hashes.iter(), tree.targets.iter());
    let (mut entries, mut offset): (Vec<FileEntry>, u64) = (Vec::with_capacity(count), 0);
    for (&kind, &shared) in tree.kinds.iter().zip(&tree.shared) {
        let before = entries.last().map_or("", |entry| &entry.path);
        let path = join(before, shared.into(), rests.next().unwrap_or(""))?;
        let kind = match kind {
            0 | 1 => {
                let (Some(&bytes), Some(&hash)) = (sizes.next(), hashes.next()) else { unreachable!("both columns were counted") };
                let at = offset;
                offset = offset.checked_add(bytes).ok_or(ManifestError::SizeSum { sum: u64::MAX, total: 0 })?;
                EntryKind::File { offset: at, bytes, executable: kind == 1, hash }
            }
            2 => EntryKind::Directory,
            3 => EntryKind::Symlink { target: targets.next().cloned().unwrap_or_default() },
            _ => return Err(ManifestError::TreeDamaged("an entry of unknown kind")),
        };
        entries.push(FileEntry { path, kind });
    }
    Ok(entries)
}

fn join(before: &str, shared: usize, rest: &str) -> Result<String, ManifestError> {
    let start = before.get(..shared).ok_or(ManifestError::TreeDamaged("a path shares more than there is"))?;
    if start.len() + rest.len() > PATH_BYTES_MAX {
        return Err(ManifestError::Path { path: clip(rest), problem: PathProblem::TooLong });
    }
    let path = [start, rest].concat();
    if shared_bytes(before, &path) != shared {
        return Err(ManifestError::TreeDamaged("a path is not stored in its one way"));
    }
    Ok(path)
}

/// How many bytes the paths have in common at their start, whole characters only.
fn shared_bytes(before: &str, path: &str) -> usize {
    let mut shared = before.bytes().zip(path.bytes()).take_while(|(a, b)| a == b).count();
    while !path.is_char_boundary(shared) {
        shared -= 1;
    }
    shared
}

fn pack(raw: &[u8]) -> Vec<u8> {
    let packed = zstd::bulk::compress(raw, ZSTD_LEVEL).expect("packing into memory does not fail");
    let worth = packed.len() < raw.len() && raw.len() <= unpacked_limit(packed.len());
    let (method, bytes) = if worth { (ZSTD, &packed[..]) } else { (PLAIN, raw) };
    [&[method][..], &(raw.len() as u32).to_le_bytes(), bytes].concat()
}

fn unpack(section: &[u8]) -> Result<Cow<'_, [u8]>, ManifestError> {
    let damaged = ManifestError::TreeDamaged("it does not unpack");
    let (&[method, a, b, c, d], bytes) = section.split_first_chunk().ok_or(damaged.clone())?;
    let raw_bytes = u32::from_le_bytes([a, b, c, d]) as usize;
    let limit = if method == PLAIN { bytes.len() } else { unpacked_limit(bytes.len()) }.min(TREE_BYTES_MAX);
    if raw_bytes > limit {
        return Err(ManifestError::TreeTooLarge { bytes: raw_bytes as u64, limit: limit as u64 });
    }
    let raw = match method {
        PLAIN => Cow::Borrowed(bytes),
        ZSTD => {
            let mut raw = Vec::with_capacity(raw_bytes);
            let mut unpacker = zstd::bulk::Decompressor::new().map_err(|_| damaged.clone())?;
            unpacker.decompress_to_buffer(bytes, &mut raw).map_err(|_| damaged.clone())?;
            Cow::Owned(raw)
        }
        _ => return Err(damaged),
    };
    if raw.len() != raw_bytes {
        return Err(damaged);
    }
    // Its first list has one element for each entry: judged before room is made for them.
    match codec::count_ahead(&raw) {
        Some(count) if count > ENTRIES_MAX as u64 && count <= raw_bytes as u64 => Err(ManifestError::TooManyEntries(count as usize)),
        _ => Ok(raw),
    }
}

const fn unpacked_limit(packed_bytes: usize) -> usize {
    TREE_FREE_BYTES + packed_bytes * TREE_RATIO_MAX
}

/// Texts that people or programs will read.
pub(super) fn check_text(field: &'static str, text: &str, is_right: bool) -> Result<(), ManifestError> {
    if is_right { Ok(()) } else { Err(ManifestError::Text { field, text: clip(text) }) }
}
