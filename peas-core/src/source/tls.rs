//! TLS with web servers: who certifies them, and the cover over a connection.

use super::WebError;
use super::connection::{Single, Stream};
use super::primitives::provider;
use once_cell::sync::OnceCell;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::version::TLS13;
use rustls::{ClientConfig, RootCertStore};
use std::sync::Arc;
use tokio_rustls::TlsConnector;

/// What TLS needs, made when the first https address is met.
pub(crate) struct Tls {
    /// More certificate authorities, DER.
    authorities: Vec<Vec<u8>>,
    config: OnceCell<Arc<ClientConfig>>,
}

impl Tls {
    /// Trusts the authorities of the web (Mozilla's list, as of the build) and these.
    pub(crate) fn new(authorities: Vec<Vec<u8>>) -> Self {
        Self { authorities, config: OnceCell::new() }
    }

    /// Proves that the server is who it should be. Dropping this half-way closes the connection.
    pub(super) async fn cover(&self, host: &str, stream: Single) -> Result<Box<dyn Stream>, WebError> {
        let name = ServerName::try_from(host.to_owned()).map_err(|_| WebError::Address("its host is no name"))?;
        Ok(Box::new(TlsConnector::from(self.config()?).connect(name, stream).await?))
    }

    fn config(&self) -> Result<Arc<ClientConfig>, WebError> {
        // Fails for certificates that are none; the next caller tries again and hears the same.
        let config = self.config.get_or_try_init(|| {
            let bad = |error: rustls::Error| WebError::Certificates(error.to_string());
            let mut roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
            for authority in &self.authorities {
                roots.add(CertificateDer::from(authority.clone())).map_err(bad)?;
            }
            let builder = ClientConfig::builder_with_provider(Arc::new(provider())).with_protocol_versions(&[&TLS13]).map_err(bad)?;
            let mut config = builder.with_root_certificates(roots).with_no_client_auth();
            config.alpn_protocols = vec![b"http/1.1".to_vec()];
            Ok::<_, WebError>(Arc::new(config))
        })?;
        Ok(config.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn certificates_that_are_none_are_named_each_time() {
        let tls = Tls::new(vec![b"not a certificate".to_vec()]);
        for _ in 0..2 {
            assert!(matches!(tls.config(), Err(WebError::Certificates(_))));
        }
        let fine = Tls::new(Vec::new());
        assert!(Arc::ptr_eq(&fine.config().unwrap(), &fine.config().unwrap()), "made once");
    }
}
