//! HTTP(S) servers as a source of content: byte ranges in, nothing believed.
//!
//! A pea may name addresses of its content: that of the file, or of a folder with the same tree below it. A [`Fetcher`] reads a
//! range of the *content* from such an address, file by file, over one connection that it keeps. What always holds: every
//! address is judged by the [`Gate`] before it is connected to, after each look-up and at each redirection; heads, redirections
//! and waits are bounded; an answer that is not exactly the range that was asked for is an error and not data. Whether the bytes
//! are right is judged by storage, as with those of peers.
//!
//! What must not come in: when to ask, how often to try again, what to do with the bytes. No task is started here; whoever drops
//! a future or a [`Fetcher`] closes its connection.

mod address;
mod answer;
mod connection;
mod fetcher;
#[cfg(not(feature = "https"))]
mod no_tls;
mod places;
#[cfg(feature = "https")]
mod primitives;
#[cfg(feature = "https")]
mod tls;

pub(crate) use address::Address;
pub(crate) use connection::Stream;
pub(crate) use fetcher::Fetcher;
#[cfg(not(feature = "https"))]
pub(crate) use no_tls::Tls;
pub(crate) use places::Places;
#[cfg(feature = "https")]
pub(crate) use tls::Tls;

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;
use tokio::sync::oneshot;

/// Who says where connections may go, and looks names up.
pub(crate) trait Gate: Send + Sync + 'static {
    /// Looks a name up where waiting hurts nobody. A dropped sender means that there is no answer.
    fn resolve(&self, host: &str, port: u16) -> oneshot::Receiver<Vec<SocketAddr>>;
    /// Whether to connect there. `from`: the server whose redirection leads there; `None` for an address of the pea.
    fn allows(&self, addr: SocketAddr, from: Option<IpAddr>) -> bool;
    /// What a fuzzer has in the place of the network; nobody else has anything.
    fn stands_in(&self, _addr: SocketAddr) -> Option<Box<dyn Stream>> {
        None
    }
}

/// Why a web source gave nothing.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WebError {
    /// The address in the pea, or in a redirection, is none.
    #[error("not an address that can be fetched from: {0}")]
    Address(&'static str),
    /// Nobody of that name.
    #[error("no host of that name was found")]
    NoHost,
    /// The gate said no.
    #[error("{0} may not be connected to")]
    Forbidden(SocketAddr),
    /// The network.
    #[error("{0}")]
    Io(#[from] std::io::Error),
    /// Nothing came for too long.
    #[error("no answer in time")]
    Late,
    /// What came is not HTTP.
    #[error("not a web server's answer: {0}")]
    Http(#[from] hyper::Error),
    /// The certificate authorities that the host gave are none.
    #[error("certificates: {0}")]
    #[cfg(feature = "https")]
    Certificates(String),
    /// The server answered, but not with content.
    #[error("the server answered with status {status}")]
    Status {
        /// The number.
        status: u16,
        /// When it wants to be asked again.
        retry_after: Option<Duration>,
    },
    /// It sends whole files where a part was asked for.
    #[error("the server does not serve parts of files")]
    NoRanges,
    /// It sends another part than the one that was asked for, or has a file of another size.
    #[error("the server has another file there: {0}")]
    Different(&'static str),
    /// Too many redirections.
    #[error("the server sends us in circles")]
    Circles,
}

impl WebError {
    /// Whether asking again is of no use.
    pub(crate) fn is_final(&self) -> bool {
        match self {
            WebError::Address(_) | WebError::NoRanges | WebError::Different(_) | WebError::Circles => true,
            #[cfg(feature = "https")]
            WebError::Certificates(_) => true,
            _ => false,
        }
    }

    /// How long the server wants to be left alone.
    pub(crate) fn retry_after(&self) -> Option<Duration> {
        match self {
            WebError::Status { retry_after, .. } => *retry_after,
            _ => None,
        }
    }
}
