//! Files of certificate authorities: what `web_ca` names.

use crate::failure::Failure;
use std::path::Path;

/// Certificates (DER) in a file of PEM or DER. Blocking: reads the file.
#[cfg(feature = "https")]
pub(crate) fn read(file: &Path) -> Result<Vec<Vec<u8>>, Failure> {
    let read = std::fs::read(file).map_err(|source| peas_core::Error::Storage { op: "read", path: file.into(), source });
    found_in(&read?).ok_or_else(|| Failure::invalid(format!("web_ca: {}: no certificate in it; expected PEM or DER", file.display())))
}

#[cfg(not(feature = "https"))]
pub(crate) fn read(_: &Path) -> Result<Vec<Vec<u8>>, Failure> {
    Err(Failure::invalid("web_ca: this build of peas has no https"))
}

#[cfg(feature = "https")]
fn found_in(bytes: &[u8]) -> Option<Vec<Vec<u8>>> {
    use rustls::pki_types::CertificateDer;
    use rustls::pki_types::pem::PemObject;
    // A certificate in DER is a sequence that fills its file: tag, two bytes of length, and that many more.
    if let [0x30, 0x82, high, low, rest @ ..] = bytes
        && rest.len() == usize::from(u16::from_be_bytes([*high, *low]))
    {
        return Some(vec![bytes.to_vec()]);
    }
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(bytes).map(|found| found.map(|found| found.to_vec())).collect();
    found.ok().filter(|found| !found.is_empty())
}

#[cfg(all(test, feature = "https"))]
mod tests {
    use super::*;

    #[test]
    fn certificates_are_found_in_both_forms_and_nowhere_else() {
        let der = [[0x30, 0x82, 0, 3].as_slice(), b"abc"].concat();
        assert_eq!(found_in(&der), Some(vec![der.clone()]));
        let pem = b"names\n-----BEGIN CERTIFICATE-----\nMIIAA2FiYw==\n-----END CERTIFICATE-----\n";
        assert_eq!(found_in(pem), Some(vec![der.clone()]));
        assert_eq!(found_in(&pem.repeat(2)), Some(vec![der.clone(), der.clone()]));
        for bad in [b"".as_slice(), b"noise", &der[..6], &pem[..40], b"-----BEGIN CERTIFICATE-----\n*\n-----END CERTIFICATE-----\n"] {
            assert_eq!(found_in(bad), None, "{bad:?}");
        }
    }
}
