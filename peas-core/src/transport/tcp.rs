//! The transport for the world: TCP, TLS 1.3 between raw keys, or in clear where both hosts say so.
//!
//! One connection per link. Each half owns its half of the socket; nothing is shared but the source of the next keys, touched once
//! in 64 GiB. No tasks of its own.
//!
//! The accept loop survives a machine that runs out of descriptors: it keeps one spare, gives it up to take the next connection and hang
//! up on it (else the connection would stay and the kernel report it again at once), and pauses, longer each time.

use super::buffers::Buffers;
use super::frames::{FrameReader, FrameWriter};
use super::gate::{Gate, Place, places};
use super::outlet::Outlet;
use super::record::{KEY_RECORDS, Opener, Sealer};
use super::streams::{ClearReader, Inbound, NoSignal, Outbound, TcpInbound, TcpOutbound};
use super::tls::{Cover, Proven, Secrets, Tls};
use super::{HANDSHAKE_MAX, Identity, Link, LinkError, LinkOf, LinkWriter, Transport, Unproven};
use crate::unit::PeerId;
use rustix::io::Errno;
use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use std::fs::File;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, sleep, timeout};

/// 1024 connections wait in the kernel while the door is full. The kernel cuts it to `net.core.somaxconn`.
const BACKLOG: i32 = 1024;
/// 128 KiB may wait unsent in the kernel: two payload frames. What is handed over later than that can still be overtaken by a control
/// message. Chosen, not measured: less risks an idle path between two wake-ups, more delays grants.
const UNSENT_BYTES: u32 = 128 << 10;
/// 30 s without an answer from the peer's machine end a link, whether data is under way (user timeout) or not (keepalive).
const DEAD_AFTER: Duration = Duration::from_secs(30);
const KEEPALIVE_IDLE: Duration = Duration::from_secs(15);
const KEEPALIVE_EVERY: Duration = Duration::from_secs(5);
const KEEPALIVE_TRIES: u32 = 3;
/// First and longest pause of the accept loop after an error of our machine.
const PAUSE_MIN: Duration = Duration::from_millis(10);
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// What a host says about its links.
#[derive(Clone, Debug, Default)]
pub struct TcpOptions {
    /// Where to accept; port 0: any that is free. `None`: nowhere.
    pub listen: Option<SocketAddr>,
    /// Go on in clear after the handshake with peers that say so too.
    pub plain: bool,
}

/// Makes links over TCP.
#[derive(Debug)]
pub struct TcpTransport {
    tls: Tls,
    listener: Option<Listener>,
    buffers: Buffers,
    outlet: Arc<Outlet>,
}

#[derive(Debug)]
struct Listener {
    socket: TcpListener,
    addr: SocketAddr,
    gate: Gate,
    /// A descriptor to give up when there are no more.
    spare: Mutex<Option<File>>,
}

impl TcpTransport {
    /// Starts to listen. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// What the system says about the listen address.
    pub fn new(identity: &Identity, options: &TcpOptions) -> io::Result<Self> {
        let listener = options.listen.map(Listener::bind).transpose()?;
        Ok(Self { tls: Tls::new(identity, options.plain), listener, buffers: Buffers::default(), outlet: Arc::default() })
    }

    /// What of all links waits before this machine's network.
    pub fn outlet(&self) -> &Arc<Outlet> {
        &self.outlet
    }

    /// `answered_in`: how far the peer seems to be where the system does not tell.
    fn link(&self, proven: Proven, addr: SocketAddr, answered_in: Duration) -> LinkOf<Self> {
        let (inbound, outbound) = proven.stream.into_split();
        let outbound = NoSignal::new(outbound, &self.outlet);
        let (inbound, outbound) = match proven.cover {
            Cover::Clear => (Inbound::Clear(ClearReader::new(inbound, &proven.early)), Outbound::Clear(outbound)),
            Cover::Sealed(secrets) => {
                let Secrets { sending, receiving, kernel } = *secrets;
                let kernel = Arc::new(Mutex::new(kernel));
                let opener = Opener::new(inbound, receiving, kernel.clone(), KEY_RECORDS, self.buffers.clone(), &proven.early);
                let sealer = Sealer::new(outbound, sending, kernel, KEY_RECORDS, self.buffers.clone());
                (Inbound::Sealed(Box::new(opener)), Outbound::Sealed(Box::new(sealer)))
            }
        };
        let (reader, writer) = (FrameReader::new(TcpInbound(inbound)), FrameWriter::new(TcpOutbound(outbound)));
        let round_trip = Some(writer.round_trip().map_or(answered_in, |round_trip| round_trip.least));
        Link { peer: proven.peer, binding: proven.binding, addr, round_trip, reader, writer }
    }
}

/// An accepted connection before its handshake; holds a place in the door.
#[derive(Debug)]
pub struct TcpRaw {
    stream: TcpStream,
    addr: SocketAddr,
    place: Arc<Place>,
}

impl TcpRaw {
    /// Its place in the door. Who keeps it counts the connection as a stranger beyond the handshake: until its hello.
    pub(crate) fn place(&self) -> Arc<Place> {
        self.place.clone()
    }
}

/// Descriptors that this process may have open.
#[cfg(unix)]
pub(crate) fn descriptors_max() -> usize {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    limit.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX))
}

/// Descriptors that this process may have open: sockets are not among them here.
#[cfg(not(unix))]
pub(crate) fn descriptors_max() -> usize {
    1 << 16
}

impl Unproven for TcpRaw {
    fn addr(&self) -> SocketAddr {
        self.addr
    }
}

impl Transport for TcpTransport {
    type Reader = FrameReader<TcpInbound>;
    type Writer = FrameWriter<TcpOutbound>;
    type Raw = TcpRaw;

    async fn dial(&self, addr: SocketAddr, expect: Option<PeerId>, within: Duration) -> Result<LinkOf<Self>, LinkError> {
        let work = async {
            let began = Instant::now();
            let stream = TcpStream::connect(addr).await?;
            let answered_in = began.elapsed();
            tune(&stream)?;
            Ok::<_, LinkError>((self.tls.connect(stream, addr, expect).await?, answered_in))
        };
        let (proven, answered_in) = timeout(within, work).await.map_err(|_| too_long())??;
        Ok(self.link(proven, addr, answered_in))
    }

    async fn incoming(&self) -> Result<TcpRaw, LinkError> {
        match &self.listener {
            Some(listener) => Ok(listener.next().await?),
            None => std::future::pending().await,
        }
    }

    async fn accept(&self, raw: TcpRaw, within: Duration) -> Result<LinkOf<Self>, LinkError> {
        let TcpRaw { stream, addr, place } = raw;
        tune(&stream)?;
        // The dialler speaks first, and at once; what takes time is its answer to our hello.
        let began = Instant::now();
        let proven = tokio::select! {
            proven = timeout(within.min(HANDSHAKE_MAX), self.tls.accept(stream)) => proven.map_err(|_| too_long())??,
            () = place.wanted() => return Err(LinkError::Handshake("too slow while others wait".into())),
        };
        Ok(self.link(proven, addr, began.elapsed()))
    }

    fn listen_addr(&self) -> Option<SocketAddr> {
        self.listener.as_ref().map(|listener| listener.addr)
    }
}

fn too_long() -> LinkError {
    LinkError::Handshake("took too long".into())
}

fn tune(stream: &TcpStream) -> io::Result<()> {
    let socket = SockRef::from(stream);
    socket.set_tcp_nodelay(true)?;
    let keepalive = TcpKeepalive::new().with_time(KEEPALIVE_IDLE).with_interval(KEEPALIVE_EVERY).with_retries(KEEPALIVE_TRIES);
    socket.set_tcp_keepalive(&keepalive)?;
    #[cfg(target_os = "linux")]
    {
        socket.set_tcp_user_timeout(Some(DEAD_AFTER))?;
        socket.set_tcp_notsent_lowat(UNSENT_BYTES)?;
    }
    Ok(())
}

impl Listener {
    fn bind(addr: SocketAddr) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
        if addr.is_ipv6() && addr.ip().is_unspecified() {
            socket.set_only_v6(false)?;
        }
        socket.set_reuse_address(true)?;
        socket.set_nonblocking(true)?;
        socket.bind(&addr.into())?;
        socket.listen(BACKLOG)?;
        let socket = TcpListener::from_std(socket.into())?;
        let addr = socket.local_addr()?;
        Ok(Self { socket, addr, gate: Gate::new(places(descriptors_max())), spare: Mutex::new(spare()) })
    }

    /// The next stranger. Errors of our machine are waited out; any other ends the listener.
    async fn next(&self) -> io::Result<TcpRaw> {
        let place = self.gate.enter().await;
        let mut pause = PAUSE_MIN;
        loop {
            match self.socket.accept().await {
                Ok((stream, addr)) => return Ok(TcpRaw { stream, addr, place: Arc::new(place) }),
                Err(error) => match error.raw_os_error().map(Errno::from_raw_os_error) {
                    Some(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM) => {
                        self.hang_up_on_one();
                        sleep(pause).await;
                        pause = (pause * 2).min(PAUSE_MAX);
                    }
                    // The listener itself is broken; nothing else can be.
                    Some(Errno::BADF | Errno::INVAL | Errno::NOTSOCK | Errno::OPNOTSUPP | Errno::FAULT) => return Err(error),
                    // The connection died before we took it (accept(2) passes on its network's errors).
                    _ => tokio::task::yield_now().await,
                },
            }
        }
    }

    fn hang_up_on_one(&self) {
        let mut held = self.spare.lock().unwrap_or_else(PoisonError::into_inner);
        drop(held.take());
        let socket = SockRef::from(&self.socket);
        drop(socket.accept());
        *held = spare();
    }
}

fn spare() -> Option<File> {
    File::open("/dev/null").ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::{Incoming, LinkReader, LinkWriter};
    use crate::unit::RequestId;
    use crate::wire::{Hello, Message};
    use std::net::Ipv4Addr;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::tcp::OwnedReadHalf;

    const HERE: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
    const LONG: Duration = Duration::from_secs(10);

    async fn proven(plain: bool) -> (Proven, Proven) {
        let (host, guest) = (Identity::generate(), Identity::generate());
        let listener = TcpListener::bind(HERE).await.unwrap();
        let addr = listener.local_addr().unwrap();
        let (host_tls, guest_tls) = (Tls::new(&host, plain), Tls::new(&guest, plain));
        let dialling = async { guest_tls.connect(TcpStream::connect(addr).await.unwrap(), addr, None).await.unwrap() };
        let accepting = async { host_tls.accept(listener.accept().await.unwrap().0).await.unwrap() };
        let (near, far) = tokio::join!(dialling, accepting);
        assert_eq!((near.peer, far.peer), (host.peer_id(), guest.peer_id()));
        (near, far)
    }

    type Halves = (Opener<OwnedReadHalf>, Sealer<NoSignal>);

    fn halves(proven: Proven, receive_records: u64, send_records: u64) -> Halves {
        let Cover::Sealed(secrets) = proven.cover else { panic!("sealed") };
        let Secrets { sending, receiving, kernel } = *secrets;
        let (inbound, outbound) = proven.stream.into_split();
        let kernel = Arc::new(Mutex::new(kernel));
        let buffers = Buffers::default();
        let opener = Opener::new(inbound, receiving, kernel.clone(), receive_records, buffers.clone(), &proven.early);
        (opener, Sealer::new(NoSignal::new(outbound, &Arc::default()), sending, kernel, send_records, buffers))
    }

    /// Keys change every 8 records in one direction and every 5 in the other, while both directions are busy.
    #[tokio::test]
    async fn links_outlive_their_keys() {
        let (near, far) = proven(false).await;
        let (mut near_in, mut near_out) = halves(near, 5, 8);
        let (mut far_in, mut far_out) = halves(far, 8, 5);
        let bytes: Vec<u8> = (0..3_000_000u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        let (mut up, mut down) = (Vec::new(), Vec::new());
        let (sent_up, sent_down, got_up, got_down) = tokio::join!(
            async {
                near_out.write_all(&bytes).await?;
                near_out.shutdown().await
            },
            async {
                far_out.write_all(&bytes[1..]).await?;
                far_out.shutdown().await
            },
            far_in.read_to_end(&mut up),
            near_in.read_to_end(&mut down),
        );
        sent_up.and(sent_down).unwrap();
        assert_eq!((got_up.unwrap(), got_down.unwrap()), (bytes.len(), bytes.len() - 1));
        assert!(up == bytes && down == bytes[1..]);
    }

    /// The receiver does not work for a peer that changes keys without need.
    #[tokio::test]
    async fn new_keys_without_need_end_the_link() {
        let (near, far) = proven(false).await;
        let (_near_in, mut near_out) = halves(near, KEY_RECORDS, 8);
        let (mut far_in, _far_out) = halves(far, KEY_RECORDS, KEY_RECORDS);
        near_out.write_all(&vec![0; 1_000_000]).await.unwrap();
        near_out.flush().await.ok();
        let error = far_in.read_to_end(&mut Vec::new()).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    }

    #[tokio::test]
    async fn clear_is_agreed_by_both() {
        let (near, far) = proven(true).await;
        assert!(matches!((near.cover, far.cover), (Cover::Clear, Cover::Clear)));
    }

    /// Where many begin at once every program is slow to answer. Counted as distance, it made sixteen clients on one switch take one another
    /// for far regions.
    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn who_is_slow_to_answer_is_not_far() {
        const SLOW: Duration = Duration::from_millis(300);
        let options = TcpOptions { listen: Some(HERE), plain: false };
        let host = TcpTransport::new(&Identity::generate(), &options).unwrap();
        let guest = Identity::generate();
        let addr = host.listen_addr().unwrap();
        let accepting = async {
            let raw = host.incoming().await.unwrap();
            host.accept(raw, LONG).await.unwrap().round_trip.unwrap()
        };
        let dialling = async {
            let stream = TcpStream::connect(addr).await.unwrap();
            sleep(SLOW).await;
            Tls::new(&guest, false).connect(stream, addr, None).await.unwrap()
        };
        let (accepted, _) = tokio::join!(accepting, dialling);
        let slow_host = async {
            let raw = host.incoming().await.unwrap();
            sleep(SLOW).await;
            host.accept(raw, LONG).await.unwrap()
        };
        let guest = TcpTransport::new(&guest, &TcpOptions::default()).unwrap();
        let (dialled, _) = tokio::join!(guest.dial(addr, None, LONG), slow_host);
        let dialled = dialled.unwrap().round_trip.unwrap();
        assert!(accepted < SLOW / 2 && dialled < SLOW / 2, "{accepted:?} and {dialled:?}");
    }

    /// A peer's machine may put off an answer by 40 ms; anything far off that is another number of the system's.
    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn what_the_network_takes_lately_is_known() {
        let (near, far) = proven(false).await;
        let transport = TcpTransport::new(&Identity::generate(), &TcpOptions::default()).unwrap();
        let (mut near, mut far) = (transport.link(near, HERE, Duration::ZERO), transport.link(far, HERE, Duration::ZERO));
        near.writer.message(&hello()).await.unwrap();
        far.reader.next().await.unwrap();
        for req in 0..20 {
            near.writer.message(&Message::Cancel { req }).await.unwrap();
            far.reader.next().await.unwrap();
        }
        let took = near.writer.round_trip().unwrap();
        assert!(took.least > Duration::ZERO && took.lately >= took.least && took.lately < Duration::from_millis(500), "{took:?}");
        assert_eq!(took.queue() + took.least, took.lately);
    }

    fn hello() -> Message {
        let proof = vec![];
        Message::Hello(Hello { version: 1, content: [0; 32], proof, listen_port: None, region: 0, origin: false, extensions: 0 })
    }

    /// A payload goes out in few system calls and a link keeps working when the kernel takes only parts of what it is given.
    #[tokio::test]
    async fn a_slow_reader_loses_nothing() {
        for plain in [false, true] {
            let (near, far) = proven(plain).await;
            SockRef::from(&near.stream).set_send_buffer_size(8192).unwrap();
            let transport = TcpTransport::new(&Identity::generate(), &TcpOptions::default()).unwrap();
            let mut near = transport.link(near, HERE, Duration::ZERO);
            let mut far = transport.link(far, HERE, Duration::ZERO);
            let sending = async {
                near.writer.message(&hello()).await.unwrap();
                for req in 0..20 {
                    near.writer.payload(RequestId(req), &vec![req as u8; 65_536]).await.unwrap();
                }
                near.writer.finish().await;
            };
            let receiving = async {
                assert!(matches!(far.reader.next().await, Ok(Incoming::Message(message)) if message == hello()));
                let mut bytes = vec![0; 65_536];
                for expected in 0..20 {
                    assert!(matches!(far.reader.next().await, Ok(Incoming::Payload { req, len: 65_536 }) if req.0 == expected));
                    for part in bytes.chunks_mut(1000) {
                        far.reader.payload(part).await.unwrap();
                        tokio::task::yield_now().await;
                    }
                    assert!(bytes.iter().all(|&byte| byte == expected as u8));
                }
                assert!(matches!(far.reader.next().await, Err(LinkError::Closed)));
            };
            tokio::time::timeout(LONG, async { tokio::join!(sending, receiving) }).await.expect("it goes on");
        }
    }
}
