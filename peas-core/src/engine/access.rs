//! Who is let into a session's swarm, and how we show that we belong to it.
//!
//! Open swarm: whoever names the content is in; a listener that does not know the named content hangs up without a word. Other
//! swarms do not even name it: in place of the content's id a hello carries a tag that only those who have the pea can make or
//! recognise, and its proof. Tag and proof are made for one direction of one link between two peers whose keys were proven, so that
//! what one side shows is of no use to it or to anybody between for showing it elsewhere. Who has no proof gets no answer.

use crate::Error;
use crate::config::{Access, Credentials};
use crate::manifest::{Certificate, Roles, TrustedManifest};
use crate::unit::{PeaId, PeerId};
use crate::wire::Hello;

/// What both ends of a link know of it, and from which end we look.
#[derive(Clone, Copy, Debug)]
pub(super) struct Meeting {
    pub(super) me: PeerId,
    pub(super) peer: PeerId,
    /// Of this very connection.
    pub(super) binding: [u8; 32],
}

/// A peer that was let in.
#[derive(Clone, Debug)]
pub(super) struct Admitted {
    /// What it said, as the machine is to see it.
    pub(super) hello: Hello,
    pub(super) roles: Roles,
    /// When it must prove itself anew, in seconds since 1970.
    pub(super) until_unix_s: Option<u64>,
}

/// How a session knows its own.
pub(super) struct Lock {
    content: PeaId,
    kind: Kind,
}

enum Kind {
    Open,
    Secret { tag_key: [u8; 32], proof_key: [u8; 32] },
    Members { tag_key: [u8; 32], authority: [u8; 32], certificate: Vec<u8> },
}

impl Lock {
    /// # Errors
    /// [`Error::Misuse`] when what the pea asks for was not given, or would not be accepted by others.
    pub(super) fn new(
        pea: &TrustedManifest,
        credentials: &Credentials,
        me: PeerId,
        receives: bool,
        now_unix_s: u64,
    ) -> Result<Lock, Error> {
        let content = pea.id();
        let tag_key = blake3::derive_key("peas 2026 swarm tag", &content.0);
        let kind = match pea.access() {
            Access::Open => Kind::Open,
            Access::Secret => {
                let secret = credentials
                    .secret
                    .ok_or_else(|| Error::Misuse("this swarm lets in only who has its secret, and none was given".into()))?;
                let proof_key = blake3::derive_key("peas 2026 swarm secret", &[content.0, secret].concat());
                Kind::Secret { tag_key, proof_key }
            }
            Access::Members { authority } => {
                let certificate = credentials
                    .certificate
                    .clone()
                    .ok_or_else(|| Error::Misuse("this swarm lets in only members, and no certificate was given".into()))?;
                let ours =
                    Certificate::verify(&certificate, &authority).and_then(|ours| ours.admits(me, content, now_unix_s).map(|()| ours));
                let ours = ours.map_err(|error| Error::Misuse(error.to_string()))?;
                if receives && !ours.roles.contain(Roles::FETCH) {
                    return Err(Error::Misuse("the certificate does not allow to receive".into()));
                }
                if !receives && !ours.roles.may_send() {
                    return Err(Error::Misuse("the certificate does not allow to serve".into()));
                }
                Kind::Members { tag_key, authority, certificate }
            }
        };
        Ok(Lock { content, kind })
    }

    /// Our hello for this link.
    pub(super) fn hello(&self, plain: &Hello, at: &Meeting) -> Hello {
        let (content, proof) = match &self.kind {
            Kind::Open => (self.content.0, Vec::new()),
            Kind::Secret { tag_key, proof_key } => (sealed(tag_key, at.me, at), sealed(proof_key, at.me, at).to_vec()),
            Kind::Members { tag_key, certificate, .. } => (sealed(tag_key, at.me, at), certificate.clone()),
        };
        Hello { content, proof, ..plain.clone() }
    }

    /// Whether a hello means this swarm at all. Says nothing on whether its sender may join.
    pub(super) fn is_meant(&self, hello: &Hello, at: &Meeting) -> bool {
        match &self.kind {
            Kind::Open => hello.content == self.content.0,
            Kind::Secret { tag_key, .. } | Kind::Members { tag_key, .. } => equal(&sealed(tag_key, at.peer, at), &hello.content),
        }
    }

    /// Judges the peer's hello. `None`: it is not to be let in, and not to be answered.
    pub(super) fn admit(&self, hello: Hello, at: &Meeting, now_unix_s: u64) -> Option<Admitted> {
        if !self.is_meant(&hello, at) {
            return None;
        }
        let (roles, until_unix_s) = match &self.kind {
            Kind::Open => (Roles::ALL, None),
            Kind::Secret { proof_key, .. } => {
                equal(&sealed(proof_key, at.peer, at), &hello.proof).then_some(())?;
                (Roles::ALL, None)
            }
            Kind::Members { authority, .. } => {
                let theirs = Certificate::verify(&hello.proof, authority).ok()?;
                theirs.admits(at.peer, self.content, now_unix_s).ok()?;
                (theirs.roles, Some(theirs.ends_unix_s()))
            }
        };
        let origin = hello.origin && roles.contain(Roles::SEED);
        Some(Admitted { hello: Hello { content: self.content.0, proof: Vec::new(), origin, ..hello }, roles, until_unix_s })
    }
}

/// What only the key's holders can make, for one direction of one link.
fn sealed(key: &[u8; 32], sender: PeerId, at: &Meeting) -> [u8; 32] {
    let receiver = if sender == at.me { at.peer } else { at.me };
    let mut hasher = blake3::Hasher::new_keyed(key);
    hasher.update(&sender.0).update(&receiver.0).update(&at.binding);
    *hasher.finalize().as_bytes()
}

/// In a time that does not depend on where they differ.
fn equal(right: &[u8; 32], given: &[u8]) -> bool {
    <&[u8; 32]>::try_from(given).is_ok_and(|given| blake3::Hash::from(*right) == blake3::Hash::from(*given))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lock(kind: Kind) -> Lock {
        Lock { content: PeaId([7; 32]), kind }
    }

    fn secret(secret: u8) -> Lock {
        let tag_key = blake3::derive_key("peas 2026 swarm tag", &[7; 32]);
        lock(Kind::Secret { tag_key, proof_key: [secret; 32] })
    }

    fn hello() -> Hello {
        Hello { version: 1, content: [7; 32], proof: Vec::new(), listen_port: None, region: 3, origin: true, extensions: 0 }
    }

    fn meeting(me: u8, peer: u8, binding: u8) -> Meeting {
        Meeting { me: PeerId([me; 32]), peer: PeerId([peer; 32]), binding: [binding; 32] }
    }

    #[test]
    fn a_secret_is_shown_to_one_peer_on_one_link_and_nobody_else() {
        let shown = secret(1).hello(&hello(), &meeting(1, 2, 9));
        assert!(shown.content != [7; 32], "the content is not named");
        let admitted = secret(1).admit(shown.clone(), &meeting(2, 1, 9), 0).unwrap();
        assert_eq!(admitted.hello, hello(), "the machine sees what it sees in an open swarm");
        assert!(secret(2).admit(shown.clone(), &meeting(2, 1, 9), 0).is_none(), "another secret");
        assert!(secret(1).admit(shown.clone(), &meeting(2, 1, 8), 0).is_none(), "played again on another connection");
        assert!(secret(1).admit(shown.clone(), &meeting(2, 3, 9), 0).is_none(), "carried on by one between");
        assert!(secret(1).admit(shown.clone(), &meeting(1, 2, 9), 0).is_none(), "sent back to where it came from");
        assert!(secret(1).admit(hello(), &meeting(2, 1, 9), 0).is_none(), "a hello as in an open swarm");
        let unproven = Hello { proof: Vec::new(), ..shown };
        assert!(secret(1).admit(unproven, &meeting(2, 1, 9), 0).is_none(), "the pea alone");
    }

    #[test]
    fn members_are_who_the_authority_says_and_may_what_it_says() {
        let authority = crate::transport::Identity::from_secret([5; 32]).peer_id().0;
        let members = |certificate: Vec<u8>| lock(Kind::Members { tag_key: [4; 32], authority, certificate });
        let certificate = |peer: u8, roles: Roles, by: u8| {
            let certificate = Certificate { peer: PeerId([peer; 32]), content: None, roles, not_before_unix_s: 0, not_after_unix_s: 100 };
            certificate.issue(&[by; 32]).unwrap()
        };
        let admit = |shown: Vec<u8>, now| {
            let shown = members(shown).hello(&hello(), &meeting(1, 2, 9));
            members(Vec::new()).admit(shown, &meeting(2, 1, 9), now)
        };
        let fine = admit(certificate(1, Roles::ALL, 5), 50).unwrap();
        assert!(fine.hello.origin && fine.roles == Roles::ALL && fine.until_unix_s == Some(400));
        let client = admit(certificate(1, Roles::FETCH.and(Roles::RELAY), 5), 50).unwrap();
        assert!(!client.hello.origin, "who may not be an origin is none, whatever it says");
        assert!(admit(certificate(3, Roles::ALL, 5), 50).is_none(), "somebody else's certificate");
        assert!(admit(certificate(1, Roles::ALL, 6), 50).is_none(), "another authority");
        assert!(admit(certificate(1, Roles::ALL, 5), 1000).is_none(), "too late");
        assert!(admit(Vec::new(), 50).is_none(), "none at all");
    }
}
