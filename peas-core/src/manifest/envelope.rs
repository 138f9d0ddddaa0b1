//! The file around the body: magic, version, signatures, and where the signed bytes lie.
//!
//! ```text
//! magic        8   89 'P' 'E' 'A' 0D 0A 1A 0A
//! version      u16 LE = 1
//! body_len     u32 LE <= 64 MiB
//! nsig         u8 <= 16, each: key id 8 B | algorithm u8 = 1 (Ed25519) | signature 64 B
//! body         body_len bytes, signed as they lie over "peas-manifest-v1\0" || body
//! owners       the rest: the unsigned tail
//! ```
//! Nothing here looks into the body, so signatures can be judged before a parser sees what is inside.

use super::ManifestError;
use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};

const MAGIC: [u8; 8] = [0x89, b'P', b'E', b'A', 0x0D, 0x0A, 0x1A, 0x0A];
const VERSION: u16 = 1;
const HEAD_BYTES: usize = 15;
const ENTRY_BYTES: usize = 73;
const ED25519: u8 = 1;
/// Longest body: ten times a pea of 170,000 files, which has 6.4 MB.
pub(super) const BODY_BYTES_MAX: usize = 64 << 20;
/// Most signatures.
pub(super) const SIGNATURES_MAX: usize = 16;
const CONTEXT: &[u8] = b"peas-manifest-v1\0";

/// A file taken apart.
#[derive(Debug)]
pub(super) struct Envelope<'a> {
    /// In file order.
    pub signatures: Vec<Entry>,
    /// The signed bytes.
    pub body: &'a [u8],
    /// Where the tail begins in the file: everything before is never rewritten.
    pub tail_at: usize,
    /// The rest.
    pub tail: &'a [u8],
}

/// One signature.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub key_id: [u8; 8],
    signature: [u8; 64],
}

impl<'a> Envelope<'a> {
    pub fn parse(bytes: &'a [u8]) -> Result<Self, ManifestError> {
        let known = bytes.len().min(MAGIC.len());
        if known == 0 || bytes[..known] != MAGIC[..known] {
            return Err(ManifestError::NotAPea);
        }
        let cut = |need: usize| ManifestError::CutShort { have: bytes.len() as u64, need: need as u64 };
        let head: &[u8; HEAD_BYTES] = bytes.first_chunk().ok_or(cut(HEAD_BYTES))?;
        let version = u16::from_le_bytes([head[8], head[9]]);
        if version != VERSION {
            return Err(ManifestError::UnknownVersion(version));
        }
        let body_bytes = u32::from_le_bytes([head[10], head[11], head[12], head[13]]) as usize;
        if body_bytes > BODY_BYTES_MAX {
            return Err(ManifestError::BodyTooLong { bytes: body_bytes as u64, limit: BODY_BYTES_MAX as u64 });
        }
        let signature_count = usize::from(head[14]);
        if signature_count > SIGNATURES_MAX {
            return Err(ManifestError::TooManySignatures(signature_count));
        }
        let body_at = HEAD_BYTES + signature_count * ENTRY_BYTES;
        let tail_at = body_at + body_bytes;
        if bytes.len() < tail_at {
            return Err(cut(tail_at));
        }
        let (entries, _) = bytes[HEAD_BYTES..body_at].as_chunks::<ENTRY_BYTES>();
        let signatures = entries.iter().map(Entry::parse).collect::<Result<_, _>>()?;
        Ok(Self { signatures, body: &bytes[body_at..tail_at], tail_at, tail: &bytes[tail_at..] })
    }
}

impl Entry {
    fn parse(bytes: &[u8; ENTRY_BYTES]) -> Result<Self, ManifestError> {
        let (mut key_id, mut signature) = ([0; 8], [0; 64]);
        key_id.copy_from_slice(&bytes[..8]);
        signature.copy_from_slice(&bytes[9..]);
        if bytes[8] == ED25519 { Ok(Self { key_id, signature }) } else { Err(ManifestError::UnknownAlgorithm(bytes[8])) }
    }
}

/// File bytes up to where the tail begins.
pub(super) fn seal(body: &[u8], sign_with: &[[u8; 32]]) -> Result<Vec<u8>, ManifestError> {
    if sign_with.len() > SIGNATURES_MAX {
        return Err(ManifestError::TooManySignatures(sign_with.len()));
    }
    if body.len() > BODY_BYTES_MAX {
        return Err(ManifestError::BodyTooLong { bytes: body.len() as u64, limit: BODY_BYTES_MAX as u64 });
    }
    let mut bytes = Vec::with_capacity(HEAD_BYTES + sign_with.len() * ENTRY_BYTES + body.len());
    bytes.extend_from_slice(&MAGIC);
    bytes.extend_from_slice(&VERSION.to_le_bytes());
    bytes.extend_from_slice(&(body.len() as u32).to_le_bytes());
    bytes.push(sign_with.len() as u8);
    let message = signed_message(body);
    for secret in sign_with {
        let key = SigningKey::from_bytes(secret);
        bytes.extend_from_slice(&key_id(&key.verifying_key().to_bytes()));
        bytes.push(ED25519);
        bytes.extend_from_slice(&key.sign(&message).to_bytes());
    }
    bytes.extend_from_slice(body);
    Ok(bytes)
}

/// Which of these keys signed the body, each once, in their order. Keys that are no keys signed nothing.
pub(super) fn signers(signatures: &[Entry], body: &[u8], keys: &[[u8; 32]]) -> Vec<[u8; 32]> {
    let message = signed_message(body);
    let mut found: Vec<[u8; 32]> = Vec::new();
    for key in keys {
        let (Ok(verifier), id) = (VerifyingKey::from_bytes(key), key_id(key)) else { continue };
        let mut mine = signatures.iter().filter(|entry| entry.key_id == id);
        if !found.contains(key) && mine.any(|entry| verifier.verify_strict(&message, &Signature::from_bytes(&entry.signature)).is_ok()) {
            found.push(*key);
        }
    }
    found
}

/// Whether a signature by this key could ever count.
pub(super) fn is_usable_key(key: &[u8; 32]) -> bool {
    VerifyingKey::from_bytes(key).is_ok_and(|key| !key.is_weak())
}

/// The short name of a public key.
fn key_id(key: &[u8; 32]) -> [u8; 8] {
    *crate::hash::file_hash(key).first_chunk().expect("a hash has more than 8 bytes")
}

fn signed_message(body: &[u8]) -> Vec<u8> {
    [CONTEXT, body].concat()
}
