//! Links without a network, for tests and simulators: the same frames through pipes of bounded size.
//!
//! Addresses are names in a [`Net`]; nothing is opened. Keys are exchanged, not proven: each side says its peer id when the
//! connection is made, so a link has the same shape as a real one and an attacker is out of scope. What must not come in: delays
//! and losses, which are the simulator's.

use super::frames::{FrameReader, FrameWriter};
use super::{HANDSHAKE_MAX, Identity, Link, LinkError, LinkOf, RoundTrip, Transport, Unproven};
use crate::unit::PeerId;
use std::collections::HashMap;
use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, ReadHalf, WriteHalf, duplex, split};
use tokio::sync::mpsc;
use tokio::time::timeout;

/// 128 KiB in each direction: what a socket's unsent backlog holds, too.
const PIPE_BYTES: usize = 128 << 10;
/// 1024 connections wait for a listener, as with TCP.
const BACKLOG: usize = 1024;
/// First port given to those who do not name one; dialling sides count up from here as well.
const FIRST_PORT: u16 = 10_000;

/// A world of addresses. Clones are the same world.
#[derive(Clone, Debug, Default)]
pub struct Net {
    listeners: Arc<Mutex<HashMap<SocketAddr, mpsc::Sender<MemoryRaw>>>>,
}

impl Net {
    /// An empty one.
    pub fn new() -> Self {
        Self::default()
    }

    /// A bare pipe to a listener, with no word of who we are: for tests that play a stranger.
    ///
    /// # Errors
    /// `ConnectionRefused` when nobody listens there or its backlog is full.
    pub fn connect(&self, from: SocketAddr, to: SocketAddr) -> io::Result<DuplexStream> {
        let listener = self.lock().get(&to).cloned().ok_or(ErrorKind::ConnectionRefused)?;
        let (near, far) = duplex(PIPE_BYTES);
        listener.try_send(MemoryRaw { pipe: far, addr: from }).map_err(|_| ErrorKind::ConnectionRefused)?;
        Ok(near)
    }

    /// A listener that never answers, for tests that dial one: connections wait in what this returns.
    ///
    /// # Errors
    /// As [`MemoryTransport::new`].
    pub fn listen(&self, addr: SocketAddr) -> io::Result<(SocketAddr, mpsc::Receiver<MemoryRaw>)> {
        let mut listeners = self.lock();
        let addr = match addr.port() {
            0 => free_port(addr, &listeners).ok_or(ErrorKind::AddrNotAvailable)?,
            _ if listeners.contains_key(&addr) => return Err(ErrorKind::AddrInUse.into()),
            _ => addr,
        };
        let (sender, receiver) = mpsc::channel(BACKLOG);
        listeners.insert(addr, sender);
        Ok((addr, receiver))
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<SocketAddr, mpsc::Sender<MemoryRaw>>> {
        self.listeners.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn free_port(addr: SocketAddr, taken: &HashMap<SocketAddr, mpsc::Sender<MemoryRaw>>) -> Option<SocketAddr> {
    (FIRST_PORT..=u16::MAX).map(|port| SocketAddr::new(addr.ip(), port)).find(|addr| !taken.contains_key(addr))
}

/// Makes links inside a [`Net`].
#[derive(Debug)]
pub struct MemoryTransport {
    net: Net,
    identity: Identity,
    listener: Option<(SocketAddr, tokio::sync::Mutex<mpsc::Receiver<MemoryRaw>>)>,
}

impl MemoryTransport {
    /// Starts to listen at this name of the world; port 0: any that is free; `None`: nowhere.
    ///
    /// # Errors
    /// `AddrInUse`, `AddrNotAvailable` when all ports are taken.
    pub fn new(net: &Net, identity: &Identity, listen: Option<SocketAddr>) -> io::Result<Self> {
        let listener = listen.map(|addr| net.listen(addr)).transpose()?;
        let listener = listener.map(|(addr, receiver)| (addr, tokio::sync::Mutex::new(receiver)));
        Ok(Self { net: net.clone(), identity: identity.clone(), listener })
    }

    /// Says who we are and hears who the peer is.
    async fn introduce(&self, mut pipe: DuplexStream) -> Result<(PeerId, DuplexStream), LinkError> {
        let hung_up = |_| LinkError::Handshake("the peer hung up".into());
        pipe.write_all(&self.identity.peer_id().0).await.map_err(hung_up)?;
        let mut peer = [0; 32];
        pipe.read_exact(&mut peer).await.map_err(hung_up)?;
        Ok((PeerId(peer), pipe))
    }
}

impl Drop for MemoryTransport {
    fn drop(&mut self) {
        if let Some((addr, _)) = &self.listener {
            self.net.lock().remove(addr);
        }
    }
}

/// An accepted pipe before the peer said who it is.
#[derive(Debug)]
pub struct MemoryRaw {
    pipe: DuplexStream,
    addr: SocketAddr,
}

impl Unproven for MemoryRaw {
    fn addr(&self) -> SocketAddr {
        self.addr
    }
}

impl super::frames::Backlog for WriteHalf<DuplexStream> {
    /// The pipe has its own bound.
    fn limit_backlog(&self, _bytes: u32) {}

    fn round_trip(&self) -> Option<RoundTrip> {
        None
    }
}

impl Transport for MemoryTransport {
    type Reader = FrameReader<ReadHalf<DuplexStream>>;
    type Writer = FrameWriter<WriteHalf<DuplexStream>>;
    type Raw = MemoryRaw;

    async fn dial(&self, addr: SocketAddr, expect: Option<PeerId>, within: Duration) -> Result<LinkOf<Self>, LinkError> {
        let from = self.listen_addr().unwrap_or_else(|| (Ipv4Addr::UNSPECIFIED, FIRST_PORT).into());
        let pipe = self.net.connect(from, addr)?;
        let (peer, pipe) = timeout(within, self.introduce(pipe)).await.map_err(|_| too_long())??;
        match expect {
            Some(expected) if expected != peer => Err(LinkError::Stranger(peer)),
            _ => Ok(link(peer, addr, pipe, [self.identity.peer_id(), peer])),
        }
    }

    async fn incoming(&self) -> Result<MemoryRaw, LinkError> {
        match &self.listener {
            Some((_, receiver)) => receiver.lock().await.recv().await.ok_or(LinkError::Closed),
            None => std::future::pending().await,
        }
    }

    async fn accept(&self, raw: MemoryRaw, within: Duration) -> Result<LinkOf<Self>, LinkError> {
        let (peer, pipe) = timeout(within.min(HANDSHAKE_MAX), self.introduce(raw.pipe)).await.map_err(|_| too_long())??;
        Ok(link(peer, raw.addr, pipe, [peer, self.identity.peer_id()]))
    }

    fn listen_addr(&self) -> Option<SocketAddr> {
        self.listener.as_ref().map(|(addr, _)| *addr)
    }
}

/// `ends`: who dialled, and who accepted.
fn link(peer: PeerId, addr: SocketAddr, pipe: DuplexStream, ends: [PeerId; 2]) -> LinkOf<MemoryTransport> {
    let (reader, writer) = split(pipe);
    let binding = blake3::derive_key("peas 2026 pipe binding", &ends.map(|end| end.0).concat());
    Link { peer, binding, addr, round_trip: None, reader: FrameReader::new(reader), writer: FrameWriter::new(writer) }
}

fn too_long() -> LinkError {
    LinkError::Handshake("took too long".into())
}
