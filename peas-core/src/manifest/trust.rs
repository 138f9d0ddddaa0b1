//! What makes a pea the one that is wanted. The only place that makes a [`TrustedManifest`].

use super::envelope::{self, Entry, Envelope};
use super::{Manifest, ManifestError, TrustedManifest};
use crate::unit::PeaId;

/// What makes a pea the one that is wanted.
#[derive(Clone, Debug)]
pub enum Trust {
    /// "I trust this file": whoever gave it to me answers for it.
    File,
    /// The content must be this one.
    Pin(PeaId),
    /// At least `threshold` distinct keys of these signed it (Ed25519 public keys).
    Keys {
        /// Ed25519 public keys; one that is listed twice counts once.
        keys: Vec<[u8; 32]>,
        /// How many of them must have signed: 1 to their number.
        threshold: u8,
    },
}

/// Beside the keys: what else is judged, all optional.
#[derive(Clone, Debug, Default)]
pub struct TrustContext {
    /// Seconds since 1970 as the host believes (max of clock and highest time seen); `None`: expiry is not judged.
    pub now_unix_s: Option<u64>,
    /// The channel must be this.
    pub channel: Option<String>,
    /// Lowest release accepted, and the content that this very release had.
    pub release_at_least: Option<(u64, PeaId)>,
}

impl Manifest {
    /// Reads a pea and judges it, signatures over the raw bytes before anything signed is parsed. What hosts should use; the
    /// two steps [`decode`](Manifest::decode) and [`trust`](Manifest::trust) are for programs that only look at peas.
    pub fn decode_trusted(bytes: &[u8], how: &Trust, context: &TrustContext) -> Result<TrustedManifest, ManifestError> {
        if let Trust::Keys { .. } = how {
            let envelope = Envelope::parse(bytes)?;
            check_keys(how, &envelope.signatures, envelope.body)?;
        }
        Manifest::decode(bytes)?.judge(how, context)
    }

    /// Says whether this is the pea that is wanted.
    pub fn trust(self, how: &Trust, context: &TrustContext) -> Result<TrustedManifest, ManifestError> {
        check_keys(how, self.signatures(), self.body_bytes())?;
        self.judge(how, context)
    }

    /// All but the signatures.
    fn judge(self, how: &Trust, context: &TrustContext) -> Result<TrustedManifest, ManifestError> {
        if let Trust::Pin(expected) = how
            && self.id() != *expected
        {
            return Err(ManifestError::WrongContent { found: self.id(), expected: *expected });
        }
        if let Some(expected) = &context.channel
            && self.channel() != expected
        {
            return Err(ManifestError::WrongChannel { found: self.channel().to_owned(), expected: expected.clone() });
        }
        let expires_unix_s = self.expires_unix_s();
        if expires_unix_s > 0 && context.now_unix_s.is_some_and(|now| now >= expires_unix_s) {
            return Err(ManifestError::Expired { expires_unix_s });
        }
        match context.release_at_least {
            Some((accepted, _)) if self.release() < accepted => Err(ManifestError::Rollback { release: self.release(), accepted }),
            Some((accepted, id)) if self.release() == accepted && self.id() != id => Err(ManifestError::Equivocation { release: accepted }),
            _ => Ok(TrustedManifest(self)),
        }
    }
}

fn check_keys(how: &Trust, signatures: &[Entry], body: &[u8]) -> Result<(), ManifestError> {
    let Trust::Keys { keys, threshold } = how else { return Ok(()) };
    let mut distinct = keys.clone();
    distinct.sort();
    distinct.dedup();
    let need = usize::from(*threshold);
    if need == 0 {
        return Err(ManifestError::BadTrust("a threshold of no keys would accept anything"));
    }
    if need > distinct.len() {
        return Err(ManifestError::BadTrust("the threshold is higher than the number of distinct keys"));
    }
    if !distinct.iter().all(envelope::is_usable_key) {
        return Err(ManifestError::BadTrust("one of the keys is no Ed25519 public key"));
    }
    match envelope::signers(signatures, body, &distinct).len() {
        have if have >= need => Ok(()),
        0 => Err(ManifestError::NotSigned),
        have => Err(ManifestError::TooFewKeys { have, need }),
    }
}
