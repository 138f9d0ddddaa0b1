//! A peer's key pair.
//!
//! The public half is the peer's name ([`PeerId`]); the secret half signs handshakes and owner hints. The secret never leaves
//! this file except through [`Identity::secret`], for a host that keeps it.

use crate::unit::PeerId;
use ed25519_dalek::{Signer, SigningKey};
use std::fmt;
use std::sync::Arc;

/// A peer's key pair (Ed25519). The peer id is its public key. Cheap to clone.
#[derive(Clone)]
pub struct Identity {
    pair: Arc<SigningKey>,
}

impl Identity {
    /// A new one, from the system's randomness.
    ///
    /// # Panics
    /// When the system has no randomness to give: nothing safe can be done then.
    pub fn generate() -> Self {
        let mut secret = [0; 32];
        getrandom::fill(&mut secret).expect("the system gives random bytes: without them no key is safe");
        Self::from_secret(secret)
    }

    /// The one with this secret (the seed of RFC 8032).
    pub fn from_secret(secret: [u8; 32]) -> Self {
        Self { pair: Arc::new(SigningKey::from_bytes(&secret)) }
    }

    /// The public key.
    pub fn peer_id(&self) -> PeerId {
        PeerId(self.pair.verifying_key().to_bytes())
    }

    /// What [`from_secret`](Self::from_secret) takes.
    pub fn secret(&self) -> [u8; 32] {
        self.pair.to_bytes()
    }

    /// Ed25519 signature, for owner hints.
    pub fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.pair.sign(message).to_bytes()
    }
}

impl fmt::Debug for Identity {
    /// The public half only.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({:?})", self.peer_id())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};

    fn bytes<const N: usize>(hex: &str) -> [u8; N] {
        std::array::from_fn(|at| u8::from_str_radix(&hex[at * 2..at * 2 + 2], 16).expect("hex"))
    }

    #[test]
    fn a_secret_gives_the_key_of_rfc_8032() {
        // Section 7.1, test 2.
        let identity = Identity::from_secret(bytes("4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb"));
        assert_eq!(identity.peer_id().0, bytes("3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c"));
        let signature = "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da\
                         085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00";
        assert_eq!(identity.sign(&[0x72]), bytes(signature));
    }

    #[test]
    fn signatures_hold_in_another_implementation() {
        let identity = Identity::generate();
        let key = UnparsedPublicKey::new(&ED25519, identity.peer_id().0);
        let signature = identity.sign(b"peas");
        assert!(key.verify(b"peas", &signature).is_ok());
        assert!(key.verify(b"pears", &signature).is_err());
        assert_ne!(Identity::generate().peer_id(), identity.peer_id());
        assert_eq!(Identity::from_secret(identity.secret()).peer_id(), identity.peer_id());
    }
}
