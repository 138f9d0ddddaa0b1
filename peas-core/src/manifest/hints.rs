//! The unsigned tail: who was seen to have the content. Hints only, never more trusted than a stranger's word.
//!
//! ```text
//! count u16 LE <= 64, each: len u16 LE | MemberRecord in the one codec, len bytes | signature of that peer, 64 B
//! ```

use super::ManifestError;
use crate::unit::PeaId;
use crate::wire::{MemberRecord, codec};
use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};

/// Most entries of the tail.
pub const OWNER_HINTS_MAX: usize = 64;

const RECORD_BYTES_MAX: usize = 256;

/// Entry of the unsigned tail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnerHint {
    /// Who, where, and how old the word is, in seconds at the time the tail was written.
    pub record: MemberRecord,
    /// Ed25519, by the peer itself, over [`owner_hint_message`]. [`verify`](OwnerHint::verify) checks it; decoding does not.
    pub signature: [u8; 64],
}

impl OwnerHint {
    /// Signs with the secret key of the peer that the record is about.
    pub fn sign(record: MemberRecord, id: PeaId, secret: &[u8; 32]) -> Self {
        let signature = SigningKey::from_bytes(secret).sign(&owner_hint_message(id, &record)).to_bytes();
        Self { record, signature }
    }

    /// Whether the peer itself says so, of this content.
    pub fn verify(&self, id: PeaId) -> bool {
        let message = owner_hint_message(id, &self.record);
        VerifyingKey::from_bytes(&self.record.peer)
            .is_ok_and(|key| key.verify_strict(&message, &Signature::from_bytes(&self.signature)).is_ok())
    }
}

/// What the peer signs: all but what changes with each retelling (age, share held, region).
pub fn owner_hint_message(id: PeaId, record: &MemberRecord) -> Vec<u8> {
    let addr = record.addr.to_string();
    let mut message = b"peas-owner-v1\0".to_vec();
    message.extend_from_slice(&id.0);
    message.extend_from_slice(&record.peer);
    message.push(addr.len() as u8);
    message.extend_from_slice(addr.as_bytes());
    message.extend_from_slice(&record.epoch.to_le_bytes());
    message.extend_from_slice(&record.ttl_s.to_le_bytes());
    message
}

/// The tail as it is written. More than [`OWNER_HINTS_MAX`] are cut off.
pub(super) fn encode_tail(hints: &[OwnerHint]) -> Vec<u8> {
    let hints = &hints[..hints.len().min(OWNER_HINTS_MAX)];
    let mut tail = (hints.len() as u16).to_le_bytes().to_vec();
    for hint in hints {
        let record = codec::encode(&hint.record);
        tail.extend_from_slice(&(record.len() as u16).to_le_bytes());
        tail.extend_from_slice(&record);
        tail.extend_from_slice(&hint.signature);
    }
    tail
}

/// The tail as it lies; none at all is fine, a damaged one is not.
pub(super) fn decode_tail(tail: &[u8]) -> Result<Vec<OwnerHint>, ManifestError> {
    let Some((count, mut rest)) = tail.split_first_chunk() else {
        return if tail.is_empty() { Ok(Vec::new()) } else { Err(ManifestError::Tail("cut short")) };
    };
    let count = usize::from(u16::from_le_bytes(*count));
    if count > OWNER_HINTS_MAX {
        return Err(ManifestError::Tail("too many entries"));
    }
    let mut hints: Vec<OwnerHint> = Vec::with_capacity(count);
    for _ in 0..count {
        let (hint, after) = decode_hint(rest)?;
        if hints.iter().any(|known| known.record.peer == hint.record.peer) {
            return Err(ManifestError::Tail("a peer twice"));
        }
        hints.push(hint);
        rest = after;
    }
    if rest.is_empty() { Ok(hints) } else { Err(ManifestError::Tail("bytes after its end")) }
}

fn decode_hint(rest: &[u8]) -> Result<(OwnerHint, &[u8]), ManifestError> {
    let short = ManifestError::Tail("cut short");
    let (len, rest) = rest.split_first_chunk().ok_or(short.clone())?;
    let (record, rest) = rest.split_at_checked(u16::from_le_bytes(*len).into()).ok_or(short.clone())?;
    let (signature, rest) = rest.split_first_chunk().ok_or(short)?;
    let record: MemberRecord =
        codec::decode::<RECORD_BYTES_MAX, MemberRecord>(record).map_err(|_| ManifestError::Tail("an entry is no record"))?;
    record.check().map_err(|_| ManifestError::Tail("an impossible record"))?;
    Ok((OwnerHint { record, signature: *signature }, rest))
}
