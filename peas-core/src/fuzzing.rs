//! Doors for the fuzzers (`tests/fuzz`) to what strangers reach only through sockets and disks. Not part of the interface.

use crate::config::Scope;
use crate::engine::may_dial as filter;
use crate::manifest::TrustedManifest;
use crate::source::{Fetcher, Gate, Places, Stream, Tls};
use crate::storage::journal::{self, Record};
use crate::unit::{Geometry, PeaId, PieceSet};
use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::oneshot;

/// Whether an address that somebody told of is dialled.
pub fn may_dial(scope: Scope, addr: SocketAddr, named: &[SocketAddr], ours: &[IpAddr]) -> bool {
    filter(scope, addr, named, ours)
}

/// The pieces that a journal proves; `None`: it is not this content's.
pub fn journal(bytes: &[u8], pea: PeaId, geometry: &Geometry) -> Option<PieceSet> {
    journal::parse(bytes, pea, geometry).map(|contents| contents.pieces)
}

/// The first record of a journal.
pub fn journal_start(pea: PeaId) -> Vec<u8> {
    let mut bytes = Vec::new();
    journal::encode(&Record::Start { pea, data_inode: 1 }, &mut bytes);
    bytes
}

/// A record of these bytes, with the length and the checksum that it should have.
pub fn journal_frame(payload: &[u8]) -> Vec<u8> {
    [&(payload.len() as u32).to_le_bytes()[..], &crc32fast::hash(payload).to_le_bytes(), payload].concat()
}

/// Where the web source of [`http_origin`] may connect, and nowhere else.
pub const WEB_ALLOWED: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(203, 0, 113, 7));

/// What came of reading a range from a web server.
#[derive(Clone, Copy, Debug)]
pub struct HttpEnd {
    /// Bytes that were taken as content.
    pub bytes: u64,
    /// Whether the range was read to its end.
    pub whole: bool,
    /// Connections that were made.
    pub connections: usize,
}

/// A web source reads this range, once more after an error, from a server that says `says[n]` on its n-th connection and hangs up,
/// whatever it was asked. Panics if it connects to a place that is forbidden.
pub fn http_origin(pea: Arc<TrustedManifest>, address: &str, range: Range<u64>, says: Vec<Vec<u8>>) -> HttpEnd {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    let server = Arc::new(Server { says: Mutex::new(says.into_iter()), connections: AtomicUsize::new(0) });
    let Ok(places) = Places::new(pea, address) else { return HttpEnd { bytes: 0, whole: false, connections: 0 } };
    let mut fetcher = Fetcher::new(Arc::new(places), server.clone(), Arc::new(Tls::new(Vec::new())), || 784_111_777);
    let (bytes, whole) = runtime.block_on(async {
        let mut start = range.start;
        for _ in 0..2 {
            fetcher.begin(start..range.end);
            loop {
                match fetcher.next().await {
                    Ok(Some(bytes)) => start += bytes.len() as u64,
                    Ok(None) => return (start - range.start, true),
                    Err(error) => {
                        let _ = (error.is_final(), error.retry_after(), error.to_string());
                        break;
                    }
                }
            }
        }
        (start - range.start, false)
    });
    HttpEnd { bytes, whole, connections: server.connections.load(Ordering::Relaxed) }
}

/// A server and the network before it.
struct Server {
    says: Mutex<std::vec::IntoIter<Vec<u8>>>,
    connections: AtomicUsize,
}

impl Gate for Server {
    fn resolve(&self, host: &str, port: u16) -> oneshot::Receiver<Vec<SocketAddr>> {
        let (tx, rx) = oneshot::channel();
        // One name of each kind: here, within our own walls, nowhere.
        let addrs = match host.as_bytes().first() {
            Some(b'i') => vec![SocketAddr::new([127, 0, 0, 1].into(), port)],
            Some(b'n') => vec![],
            _ => vec![SocketAddr::new(WEB_ALLOWED, port)],
        };
        let _ = tx.send(addrs); // who asked may have gone
        rx
    }

    fn allows(&self, addr: SocketAddr, _from: Option<IpAddr>) -> bool {
        addr.ip() == WEB_ALLOWED
    }

    fn stands_in(&self, addr: SocketAddr) -> Option<Box<dyn Stream>> {
        assert_eq!(addr.ip(), WEB_ALLOWED, "a connection to a forbidden place");
        self.connections.fetch_add(1, Ordering::Relaxed);
        let says = self.says.lock().expect("nothing panics while holding it").next().unwrap_or_default();
        Some(Box::new(Monologue { says, said: 0, heard: false }))
    }
}

/// Says what it has to say once it was asked something, and hangs up.
struct Monologue {
    says: Vec<u8>,
    said: usize,
    heard: bool,
}

impl AsyncRead for Monologue {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        if !self.heard {
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        let end = self.says.len().min(self.said + into.remaining());
        into.put_slice(&self.says[self.said..end]);
        self.said = end;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Monologue {
    fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        self.heard = true;
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
