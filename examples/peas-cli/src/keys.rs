//! Keys as text: public ones on the command line, secret ones in files.
//!
//! A key file holds 64 hexadecimal digits and comment lines. Secrets never appear in output or messages.

use crate::exit::{DISK, Failure, USAGE};
use peas_core::config::Owner;
use peas_core::manifest::CERTIFICATE_BYTES;
use peas_core::unit::PeerId;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use std::path::Path;
use std::str::FromStr;

/// Largest key file that is read: a key, and room for comments.
const KEY_FILE_BYTES_MAX: u64 = 64 * 1024;

/// An Ed25519 public key, as 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct PublicKey(pub [u8; 32]);

impl FromStr for PublicKey {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        // The same text form as an identity of a peer, which is a public key too.
        text.trim().parse::<PeerId>().map(|key| Self(key.0)).map_err(|error| format!("{error}, as printed by \"peas keygen\""))
    }
}

/// 64 hexadecimal digits.
pub fn hex(key: &[u8; 32]) -> String {
    PeerId(*key).to_string()
}

/// "HOST:PORT" or "KEY@HOST:PORT".
pub fn owner(text: &str) -> Result<Owner, String> {
    let (peer, addr) = match text.split_once('@') {
        Some((key, addr)) => (Some(PeerId(key.parse::<PublicKey>()?.0)), addr),
        None => (None, text),
    };
    let (host, port) = addr.rsplit_once(':').ok_or("expected HOST:PORT")?;
    if host.is_empty() || !matches!(port.parse::<u16>(), Ok(1..)) {
        return Err("expected HOST:PORT with a port from 1 to 65535".into());
    }
    if host.contains(':') && !(host.starts_with('[') && host.ends_with(']')) {
        return Err("write an IPv6 address in brackets: [::1]:7000".into());
    }
    Ok(Owner { addr: addr.to_owned(), peer })
}

/// The secret key in a file written by `peas keygen`.
pub fn read_secret(path: &Path) -> Result<[u8; 32], Failure> {
    let metadata = std::fs::metadata(path).map_err(|source| Failure::file("read", path, source))?;
    let not_a_key = || Failure::new(USAGE, format!("{}: not a key file", path.display()), "make one with: peas keygen FILE");
    if !metadata.is_file() || metadata.len() > KEY_FILE_BYTES_MAX {
        return Err(not_a_key());
    }
    let text = std::fs::read(path).map_err(|source| Failure::file("read", path, source))?;
    let text = String::from_utf8(text).map_err(|_| not_a_key())?;
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    match (lines.next().map(PublicKey::from_str), lines.next()) {
        (Some(Ok(key)), None) => Ok(key.0),
        _ => Err(not_a_key()),
    }
}

/// The certificate in a file written by `peas admit`: one line of hexadecimal digits, and comments.
pub fn read_certificate(path: &Path) -> Result<Vec<u8>, Failure> {
    let bytes = std::fs::read(path).map_err(|source| Failure::file("read", path, source))?;
    let digits: String = String::from_utf8_lossy(&bytes).lines().filter(|line| !line.starts_with('#')).map(str::trim).collect();
    let byte = |pair: &[u8]| std::str::from_utf8(pair).ok().and_then(|pair| u8::from_str_radix(pair, 16).ok());
    let bytes: Option<Vec<u8>> = digits.as_bytes().chunks(2).map(byte).collect();
    bytes
        .filter(|bytes| bytes.len() == CERTIFICATE_BYTES)
        .ok_or_else(|| Failure::new(USAGE, format!("{}: not a certificate", path.display()), "the authority makes one with: peas admit"))
}

/// Certificate authorities for web servers, in DER.
pub fn read_authorities(path: &Path) -> Result<Vec<Vec<u8>>, Failure> {
    let bytes = std::fs::read(path).map_err(|source| Failure::file("read", path, source))?;
    if !bytes.starts_with(b"-----") && !bytes.windows(11).any(|part| part == b"-----BEGIN ") {
        return Ok(vec![bytes]);
    }
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).map(|found| found.map(|found| found.to_vec())).collect();
    let none = || Failure::new(USAGE, format!("{}: no certificate in it", path.display()), "give a PEM or DER file to --web-ca");
    found.ok().filter(|found| !found.is_empty()).ok_or_else(none)
}

/// The public half of a secret key.
pub fn public_of(secret: &[u8; 32]) -> [u8; 32] {
    ed25519_dalek::SigningKey::from_bytes(secret).verifying_key().to_bytes()
}

/// A new secret key from the system's source of randomness.
pub fn new_secret() -> Result<[u8; 32], Failure> {
    let mut secret = [0; 32];
    getrandom::fill(&mut secret).map_err(|error| Failure::new(DISK, format!("the system gives no randomness: {error}"), ""))?;
    Ok(secret)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owners_are_read() {
        assert_eq!(owner("example.org:7000"), Ok(Owner { addr: "example.org:7000".into(), peer: None }));
        let key = "ab".repeat(32);
        let with_key = owner(&format!("{key}@[::1]:7000")).expect("a key and an address");
        assert_eq!((with_key.addr.as_str(), with_key.peer), ("[::1]:7000", Some(PeerId([0xab; 32]))));
        for bad in ["", "example.org", ":7000", "example.org:0", "example.org:99999", "::1:7000", "key@example.org:7000"] {
            assert!(owner(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_key_file_is_read_back() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("key");
        let secret = new_secret().expect("randomness");
        std::fs::write(&path, format!("# comment\n\n{}\n", hex(&secret))).expect("written");
        assert_eq!(read_secret(&path).expect("a key"), secret);
        for bad in ["", "# only a comment", "12", &format!("{0}\n{0}", hex(&secret))] {
            std::fs::write(&path, bad).expect("written");
            assert_eq!(read_secret(&path).expect_err("no key").exit, USAGE, "{bad}");
        }
    }
}
