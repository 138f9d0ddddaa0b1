//! What the handshake is made of: the suites, the key exchange and the randomness that rustls works with, and nothing else.
//!
//! rustls' own provider holds every algorithm of the web, and the linker cannot tell that we name three suites of it: RSA, the NIST
//! curves and the post-quantum schemes came along, 1.1 MB of a library that launchers carry. So records are sealed by aws-lc
//! (bytes pass there), while the two operations of a handshake that cost microseconds, X25519 here and Ed25519 in `keys`, are
//! those of the dalek crates, which the manifest's signatures need anyway.
//!
//! What must not come in: a choice of peers, and any primitive of our own.

use rustls::crypto::aws_lc_rs::cipher_suite;
use rustls::crypto::{
    ActiveKeyExchange, CryptoProvider, GetRandomFailed, KeyProvider, SecureRandom, SharedSecret, SupportedKxGroup,
    WebPkiSupportedAlgorithms,
};
use rustls::ffdhe_groups::FfdheGroup;
use rustls::pki_types::PrivateKeyDer;
use rustls::sign::SigningKey;
use rustls::{Error, NamedGroup, PeerMisbehaved};
use std::sync::Arc;
use x25519_dalek::{PublicKey, StaticSecret};

/// Three suites of TLS 1.3 over X25519. Signatures are checked by `keys`, not by what this names.
pub(super) fn provider() -> CryptoProvider {
    CryptoProvider {
        cipher_suites: vec![
            cipher_suite::TLS13_AES_128_GCM_SHA256,
            cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
            cipher_suite::TLS13_AES_256_GCM_SHA384,
        ],
        kx_groups: vec![&X25519],
        signature_verification_algorithms: WebPkiSupportedAlgorithms { all: &[], mapping: &[] },
        secure_random: &System,
        key_provider: &NoFiles,
    }
}

/// The system's randomness.
#[derive(Debug)]
struct System;

impl SecureRandom for System {
    fn fill(&self, bytes: &mut [u8]) -> Result<(), GetRandomFailed> {
        getrandom::fill(bytes).map_err(|_| GetRandomFailed)
    }
}

/// Our key is handed over as it is: there is none to load.
#[derive(Debug)]
struct NoFiles;

impl KeyProvider for NoFiles {
    fn load_private_key(&self, _: PrivateKeyDer<'static>) -> Result<Arc<dyn SigningKey>, Error> {
        Err(Error::General("keys are not loaded from files here".into()))
    }
}

/// Ephemeral Diffie-Hellman on Curve25519 (RFC 7748), one secret for one handshake.
#[derive(Debug)]
struct X25519;

impl SupportedKxGroup for X25519 {
    fn start(&self) -> Result<Box<dyn ActiveKeyExchange>, Error> {
        let mut bytes = [0; 32];
        System.fill(&mut bytes)?;
        let secret = StaticSecret::from(bytes);
        Ok(Box::new(Exchange { public: PublicKey::from(&secret), secret }))
    }

    fn ffdhe_group(&self) -> Option<FfdheGroup<'static>> {
        None
    }

    fn name(&self) -> NamedGroup {
        NamedGroup::X25519
    }
}

/// The secret is wiped when this is dropped.
struct Exchange {
    secret: StaticSecret,
    public: PublicKey,
}

impl ActiveKeyExchange for Exchange {
    fn complete(self: Box<Self>, peer: &[u8]) -> Result<SharedSecret, Error> {
        let peer: [u8; 32] = peer.try_into().map_err(|_| PeerMisbehaved::InvalidKeyShare)?;
        let shared = self.secret.diffie_hellman(&PublicKey::from(peer));
        // RFC 8446, section 7.4.2: a point of small order would make the secret everybody's.
        if !shared.was_contributory() {
            return Err(PeerMisbehaved::InvalidKeyShare.into());
        }
        Ok(SharedSecret::from(&shared.as_bytes()[..]))
    }

    fn ffdhe_group(&self) -> Option<FfdheGroup<'static>> {
        None
    }

    fn group(&self) -> NamedGroup {
        NamedGroup::X25519
    }

    fn pub_key(&self) -> &[u8] {
        self.public.as_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustls::crypto::aws_lc_rs::kx_group;

    /// Against another implementation, either side starting.
    #[test]
    fn both_sides_come_to_the_same_secret() {
        let theirs = kx_group::X25519;
        for (a, b) in [(&X25519 as &dyn SupportedKxGroup, theirs), (theirs, &X25519)] {
            let (a, b) = (a.start().unwrap(), b.start().unwrap());
            let (key_a, key_b) = (a.pub_key().to_vec(), b.pub_key().to_vec());
            assert_ne!(key_a, key_b);
            assert_eq!(a.complete(&key_b).unwrap().secret_bytes(), b.complete(&key_a).unwrap().secret_bytes());
        }
    }

    #[test]
    fn shares_that_give_no_secret_are_refused() {
        let mut one = [0; 32];
        one[0] = 1;
        // Orders 4 and 1; lengths that are no point; the control is in the test above.
        for share in [&[0; 32][..], &one, &[7; 31], &[7; 33], &[]] {
            assert!(X25519.start().unwrap().complete(share).is_err(), "{share:?}");
        }
    }
}
