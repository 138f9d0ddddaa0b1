//! Certificates of members: which key may take part in a swarm, in what, and until when. Pure.
//!
//! ```text
//! version u8 = 1 | peer 32 B | content 32 B, zeros for every content of this authority | roles u8 | not before u64 LE | not after u64 LE
//! | Ed25519 signature of the authority over "peas-member-v1\0" and all before it, 64 B
//! ```

use crate::unit::{PeaId, PeerId};
use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};

const VERSION: u8 = 1;
const SIGNED_BYTES: usize = 1 + 32 + 32 + 1 + 8 + 8;
const CONTEXT: &[u8] = b"peas-member-v1\0";

/// Clocks may differ by this much: 5 minutes.
const CLOCK_SLACK_S: u64 = 300;

/// Bytes of a certificate.
pub const CERTIFICATE_BYTES: usize = SIGNED_BYTES + 64;

/// What a member may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Roles(u8);

impl Roles {
    /// Serve as an origin.
    pub const SEED: Roles = Roles(1);
    /// Receive.
    pub const FETCH: Roles = Roles(2);
    /// Pass on what it received.
    pub const RELAY: Roles = Roles(4);
    /// All of it: what a certificate is for when nothing else is said, and what everybody may in an open swarm.
    pub const ALL: Roles = Roles(7);

    /// Both.
    pub const fn and(self, other: Roles) -> Roles {
        Roles(self.0 | other.0)
    }

    /// Whether all of these are among them.
    pub const fn contain(self, other: Roles) -> bool {
        self.0 & other.0 == other.0
    }

    /// Whether it may send what it holds.
    pub const fn may_send(self) -> bool {
        self.contain(Roles::SEED) || self.contain(Roles::RELAY)
    }
}

/// What an authority says of a peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// Whose key. The handshake of each link proves it.
    pub peer: PeerId,
    /// In which content; `None`: in all whose pea names this authority.
    pub content: Option<PeaId>,
    /// What it may do.
    pub roles: Roles,
    /// Good from then, in seconds since 1970.
    pub not_before_unix_s: u64,
    /// Good until then, in seconds since 1970.
    pub not_after_unix_s: u64,
}

/// Why a certificate is of no use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CertificateError {
    /// Its length, version or roles.
    #[error("this is not a certificate of a member")]
    Malformed,
    /// Another authority's, or altered.
    #[error("the certificate is not signed by the authority that the pea names")]
    NotSigned,
    /// Another peer's.
    #[error("the certificate is for another key: start with the identity that it was made for")]
    OtherPeer,
    /// A content id of zeros, which no content has and which on the wire means every content.
    #[error("zeros are no content's id; a certificate for every content names none")]
    NoContent,
    /// Another content's.
    #[error("the certificate is for another content")]
    OtherContent,
    /// Too early.
    #[error("the certificate is not good yet; is the clock right?")]
    NotYet,
    /// Too late.
    #[error("the certificate has expired: ask the authority for a new one")]
    Expired,
}

impl Certificate {
    /// Signed by the authority's Ed25519 secret: what the member is to show.
    ///
    /// # Errors
    /// [`CertificateError::NoContent`]: what was meant for one content must not be good for all.
    pub fn issue(&self, authority_secret: &[u8; 32]) -> Result<Vec<u8>, CertificateError> {
        if self.content == Some(PeaId([0; 32])) {
            return Err(CertificateError::NoContent);
        }
        let mut bytes = vec![VERSION];
        bytes.extend_from_slice(&self.peer.0);
        bytes.extend_from_slice(&self.content.map_or([0; 32], |content| content.0));
        bytes.push(self.roles.0);
        bytes.extend_from_slice(&self.not_before_unix_s.to_le_bytes());
        bytes.extend_from_slice(&self.not_after_unix_s.to_le_bytes());
        let signature = SigningKey::from_bytes(authority_secret).sign(&[CONTEXT, &bytes].concat());
        bytes.extend_from_slice(&signature.to_bytes());
        Ok(bytes)
    }

    /// What the authority says, if it says it.
    ///
    /// # Errors
    /// [`CertificateError::Malformed`] and [`CertificateError::NotSigned`].
    pub fn verify(bytes: &[u8], authority: &[u8; 32]) -> Result<Certificate, CertificateError> {
        let (signed, signature) = bytes.split_at_checked(SIGNED_BYTES).ok_or(CertificateError::Malformed)?;
        let signature: &[u8; 64] = signature.try_into().map_err(|_| CertificateError::Malformed)?;
        let key = VerifyingKey::from_bytes(authority).map_err(|_| CertificateError::NotSigned)?;
        let message = [CONTEXT, signed].concat();
        key.verify_strict(&message, &Signature::from_bytes(signature)).map_err(|_| CertificateError::NotSigned)?;
        let field = |at: usize| -> [u8; 32] { signed[at..at + 32].try_into().expect("32 bytes of a checked length") };
        let number = |at: usize| u64::from_le_bytes(signed[at..at + 8].try_into().expect("8 bytes of a checked length"));
        let roles = Roles(signed[65]);
        if signed[0] != VERSION || !Roles::ALL.contain(roles) || roles == Roles(0) {
            return Err(CertificateError::Malformed);
        }
        let content = Some(field(33)).filter(|content| *content != [0; 32]).map(PeaId);
        Ok(Certificate { peer: PeerId(field(1)), content, roles, not_before_unix_s: number(66), not_after_unix_s: number(74) })
    }

    /// Whether it is this peer's, for this content, now.
    ///
    /// # Errors
    /// Of another peer or content, too early, too late.
    pub fn admits(&self, peer: PeerId, content: PeaId, now_unix_s: u64) -> Result<(), CertificateError> {
        if self.peer != peer {
            return Err(CertificateError::OtherPeer);
        }
        if self.content.is_some_and(|only| only != content) {
            return Err(CertificateError::OtherContent);
        }
        if now_unix_s.saturating_add(CLOCK_SLACK_S) < self.not_before_unix_s {
            return Err(CertificateError::NotYet);
        }
        if now_unix_s > self.ends_unix_s() {
            return Err(CertificateError::Expired);
        }
        Ok(())
    }

    /// When others stop accepting it: a little later than it says, because clocks differ.
    pub fn ends_unix_s(&self) -> u64 {
        self.not_after_unix_s.saturating_add(CLOCK_SLACK_S)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AUTHORITY: [u8; 32] = [9; 32];

    fn public(secret: &[u8; 32]) -> [u8; 32] {
        SigningKey::from_bytes(secret).verifying_key().to_bytes()
    }

    fn certificate() -> Certificate {
        let roles = Roles::FETCH.and(Roles::RELAY);
        Certificate { peer: PeerId([1; 32]), content: Some(PeaId([2; 32])), roles, not_before_unix_s: 10_000, not_after_unix_s: 20_000 }
    }

    #[test]
    fn an_authority_is_believed_only_in_its_own_words() {
        let bytes = certificate().issue(&AUTHORITY).unwrap();
        assert_eq!(bytes.len(), CERTIFICATE_BYTES);
        assert_eq!(Certificate::verify(&bytes, &public(&AUTHORITY)), Ok(certificate()));
        assert_eq!(Certificate::verify(&bytes, &public(&[8; 32])), Err(CertificateError::NotSigned));
        for at in 0..bytes.len() {
            let mut altered = bytes.clone();
            altered[at] ^= 1;
            assert_eq!(Certificate::verify(&altered, &public(&AUTHORITY)), Err(CertificateError::NotSigned), "byte {at}");
        }
        for wrong in [&bytes[..bytes.len() - 1], b"", &[&bytes[..], b"x"].concat()] {
            assert_eq!(Certificate::verify(wrong, &public(&AUTHORITY)), Err(CertificateError::Malformed));
        }
        let without_roles = Certificate { roles: Roles(0), ..certificate() }.issue(&AUTHORITY).unwrap();
        assert_eq!(Certificate::verify(&without_roles, &public(&AUTHORITY)), Err(CertificateError::Malformed));
    }

    #[test]
    fn it_is_good_for_one_peer_one_content_and_a_while() {
        let (good, peer, content) = (certificate(), PeerId([1; 32]), PeaId([2; 32]));
        assert_eq!(good.admits(peer, content, 15_000), Ok(()));
        assert_eq!(good.admits(PeerId([3; 32]), content, 15_000), Err(CertificateError::OtherPeer));
        assert_eq!(good.admits(peer, PeaId([3; 32]), 15_000), Err(CertificateError::OtherContent));
        let everywhere = Certificate { content: None, ..certificate() };
        assert_eq!(Certificate::verify(&everywhere.issue(&AUTHORITY).unwrap(), &public(&AUTHORITY)), Ok(everywhere.clone()));
        assert_eq!(everywhere.admits(peer, PeaId([3; 32]), 15_000), Ok(()));
        let nowhere = Certificate { content: Some(PeaId([0; 32])), ..certificate() };
        assert_eq!(nowhere.issue(&AUTHORITY), Err(CertificateError::NoContent));
        for (now, end) in [
            (9_699, Err(CertificateError::NotYet)),
            (9_700, Ok(())),
            (20_300, Ok(())),
            (20_301, Err(CertificateError::Expired)),
            (u64::MAX, Err(CertificateError::Expired)),
            (0, Err(CertificateError::NotYet)),
        ] {
            assert_eq!(good.admits(peer, content, now), end, "at {now}");
        }
    }
}
