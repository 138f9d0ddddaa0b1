//! Files that earlier versions wrote (`tests/old`) are read as they were meant.

use peas_core::config::Access;
use peas_core::manifest::{Certificate, Roles, TrustContext};
use peas_core::unit::{PeaId, PeerId};
use peas_core::{Manifest, Trust, session};
use std::path::{Path, PathBuf};

const AUTHORITY: &str = "dd7e84d010aed28a416e928f50c4c09ac0f94a8f5b346548168bddb61cdb7263";
const PUBLISHER: &str = "3ee2a8a7283cb2fd728943daa127ef09e483071a8b4bc699ba4522f09b14cfde";
const CONTENT: &str = "2ea79d93a8c8394f813f313b9cde6e52e637deb96b99edb57e830d013a34f996";

fn old(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("old/1").join(name)
}

fn key(hex: &str) -> [u8; 32] {
    hex.parse::<PeerId>().unwrap().0
}

/// The tree that the old peas describe.
fn tree(root: &Path) {
    std::fs::create_dir_all(root.join("dir")).unwrap();
    std::fs::create_dir_all(root.join("nothing")).unwrap();
    std::fs::write(root.join("a.txt"), b"peas\n").unwrap();
    std::fs::write(root.join("run.sh"), b"#!/bin/sh\n").unwrap();
    let cycle: Vec<u8> = (0..300_000).map(|at| (at % 251) as u8).collect();
    std::fs::write(root.join("dir/b.bin"), cycle).unwrap();
    #[cfg(unix)]
    std::os::unix::fs::symlink("../a.txt", root.join("dir/link")).unwrap();
}

#[test]
fn peas_of_version_1_are_read_and_describe_what_they_described() {
    let dir = tempfile::tempdir().unwrap();
    tree(&dir.path().join("tree"));
    for (name, access) in
        [("open.peas", Access::Open), ("secret.peas", Access::Secret), ("members.peas", Access::Members { authority: key(AUTHORITY) })]
    {
        let bytes = session::read_pea(&old(name)).unwrap();
        let pea = Manifest::decode(&bytes).unwrap();
        assert_eq!((pea.id(), pea.access()), (CONTENT.parse::<PeaId>().unwrap(), access), "{name}");
        let pea = pea.trust(&Trust::File, &TrustContext::default()).unwrap();
        let found = session::verify(&pea, &dir.path().join("tree"), &|_, _| true).unwrap();
        assert_eq!((found.pieces_good, found.pieces_bad, found.bad_files), (5, 0, Vec::<String>::new()), "{name}");
        assert_eq!(pea.with_owner_hints(&[]), bytes, "{name} is written again as it was");
    }
}

#[test]
fn what_was_signed_is_still_signed() {
    let bytes = session::read_pea(&old("open.peas")).unwrap();
    let trust = Trust::Keys { keys: vec![key(PUBLISHER)], threshold: 1 };
    let pea = Manifest::decode_trusted(&bytes, &trust, &TrustContext::default()).unwrap();
    assert_eq!((pea.channel(), pea.release(), pea.name()), ("stable", 3, "tree"));
    assert_eq!(pea.owners()[0].addr, "example.org:7000");
    assert_eq!(pea.web(), ["https://example.org/tree"]);
    let other = Trust::Keys { keys: vec![key(AUTHORITY)], threshold: 1 };
    assert!(Manifest::decode_trusted(&bytes, &other, &TrustContext::default()).is_err(), "the control");
}

#[test]
fn a_certificate_of_version_1_is_still_one() {
    let text = std::fs::read_to_string(old("member.cert")).unwrap();
    let digits = text.lines().last().unwrap();
    let bytes: Vec<u8> = (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap()).collect();
    let certificate = Certificate::verify(&bytes, &key(AUTHORITY)).unwrap();
    assert_eq!((certificate.roles, certificate.content), (Roles::FETCH.and(Roles::RELAY), None));
    assert_eq!(certificate.peer.to_string(), format!("{:064}", 1));
    assert!(Certificate::verify(&bytes, &key(PUBLISHER)).is_err(), "the control");
}
