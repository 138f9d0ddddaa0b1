//! A pea from an http(s) address.
//!
//! The transport proves nothing here: what makes a pea the one that is wanted is decided by trust, afterwards. So the only
//! duties are a bound on size and time, and a plain word when it fails.

use crate::exit::{Failure, PEA, UNREACHABLE};
use std::io::Read;
use std::sync::Arc;
use std::time::Duration;
use ureq::Agent;
use ureq::tls::{RootCerts, TlsConfig, TlsProvider};

/// Largest answer that is read: more than any pea has.
const BYTES_MAX: u64 = 64 << 20;
/// Longest wait for a connection, and then for the answer to begin.
const PATIENCE: Duration = Duration::from_secs(30);
/// Longest time for everything.
const PATIENCE_IN_ALL: Duration = Duration::from_secs(600);

/// Whether this names a pea on a server.
pub fn is_address(text: &str) -> bool {
    let lower = text.to_ascii_lowercase();
    lower.starts_with("http://") || lower.starts_with("https://")
}

/// Reads it whole.
pub fn get(address: &str) -> Result<Vec<u8>, Failure> {
    let mut response = agent().get(address).call().map_err(|error| failure(address, &error))?;
    let mut bytes = Vec::new();
    let mut body = response.body_mut().as_reader().take(BYTES_MAX + 1);
    body.read_to_end(&mut bytes).map_err(|error| Failure::new(UNREACHABLE, format!("{address}: broke off: {error}"), "try again"))?;
    if bytes.len() as u64 > BYTES_MAX {
        return Err(Failure::new(PEA, format!("{address}: more than 64 MiB, so not a pea"), "check the address"));
    }
    Ok(bytes)
}

fn agent() -> Agent {
    let tls = TlsConfig::builder()
        .provider(TlsProvider::Rustls)
        .root_certs(RootCerts::WebPki)
        .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .build();
    Agent::config_builder()
        .tls_config(tls)
        .timeout_connect(Some(PATIENCE))
        .timeout_recv_response(Some(PATIENCE))
        .timeout_global(Some(PATIENCE_IN_ALL))
        .user_agent(concat!("peas/", env!("CARGO_PKG_VERSION")))
        .build()
        .into()
}

fn failure(address: &str, error: &ureq::Error) -> Failure {
    match error {
        ureq::Error::StatusCode(404 | 410) => Failure::new(UNREACHABLE, format!("{address}: there is no such file"), "check the address"),
        ureq::Error::StatusCode(401 | 403) => {
            Failure::new(UNREACHABLE, format!("{address}: the server refuses to give it"), "download it by other means, then give its path")
        }
        ureq::Error::StatusCode(status) => {
            Failure::new(UNREACHABLE, format!("{address}: the server answered with status {status}"), "try again later")
        }
        ureq::Error::BadUri(_) => Failure::usage(format!("{address}: not a valid address"), "it looks like https://example.org/data.peas"),
        ureq::Error::HostNotFound => {
            Failure::new(UNREACHABLE, format!("{address}: no host of that name was found"), "check the address and the network")
        }
        ureq::Error::Timeout(_) => Failure::new(UNREACHABLE, format!("{address}: no answer in time"), "try again later"),
        ureq::Error::Io(error) => Failure::new(
            UNREACHABLE,
            format!("{address}: the server cannot be reached: {error}"),
            "check the address and the network, then try again",
        ),
        other => Failure::new(UNREACHABLE, format!("{address}: {other}"), "check the address and the network, then try again"),
    }
}
