//! What every transport promises, tried on each: TCP sealed, TCP in clear, memory.
//!
//! Nothing here waits for time to pass except for a handshake's limit, which is the thing under test there.

use peas_core::transport::memory::{MemoryRaw, MemoryTransport, Net};
use peas_core::transport::{
    Backlog, FrameWriter, Identity, Incoming, Link, LinkError, LinkOf, LinkReader, LinkWriter, TcpOptions, TcpOutbound, TcpTransport,
    Transport,
};
use peas_core::unit::RequestId;
use peas_core::wire::{Hello, Message};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncWrite, AsyncWriteExt, DuplexStream, WriteHalf};
use tokio::sync::mpsc;

const LONG: Duration = Duration::from_secs(60);
const SHORT: Duration = Duration::from_millis(150);
const HERE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// How to make the transports under test and the strangers around them.
trait Kit: Default {
    type Below: AsyncWrite + Backlog + Unpin + Send + 'static;
    type T: Transport<Writer = FrameWriter<Self::Below>>;
    /// Something that keeps a connection or a listener open.
    type Held: Send;
    /// Whether a reader can tell a peer that vanished from one that said farewell.
    const TELLS_CUT_FROM_END: bool;

    fn make(&self, identity: &Identity, listen: Option<SocketAddr>) -> std::io::Result<Self::T>;
    /// A listener that takes connections and says nothing.
    fn silent_listener(&self) -> (SocketAddr, Self::Held);
    /// A connection that says nothing, or these bytes.
    async fn stranger(&self, to: SocketAddr, says: &[u8]) -> Self::Held;
}

#[derive(Default)]
struct Sealed;
#[derive(Default)]
struct Clear;
#[derive(Default)]
struct Memory(Net);

enum TcpHeld {
    Listener { _it: std::net::TcpListener },
    Stream { _it: tokio::net::TcpStream },
}

macro_rules! tcp_kit {
    ($kit:ident, plain: $plain:literal) => {
        impl Kit for $kit {
            type Below = TcpOutbound;
            type T = TcpTransport;
            type Held = TcpHeld;
            const TELLS_CUT_FROM_END: bool = !$plain;

            fn make(&self, identity: &Identity, listen: Option<SocketAddr>) -> std::io::Result<TcpTransport> {
                TcpTransport::new(identity, &TcpOptions { listen, plain: $plain })
            }

            fn silent_listener(&self) -> (SocketAddr, TcpHeld) {
                let listener = std::net::TcpListener::bind(HERE).unwrap();
                (listener.local_addr().unwrap(), TcpHeld::Listener { _it: listener })
            }

            async fn stranger(&self, to: SocketAddr, says: &[u8]) -> TcpHeld {
                let mut stream = tokio::net::TcpStream::connect(to).await.unwrap();
                stream.write_all(says).await.unwrap();
                TcpHeld::Stream { _it: stream }
            }
        }
    };
}
tcp_kit!(Sealed, plain: false);
tcp_kit!(Clear, plain: true);

enum MemoryHeld {
    Listener { _it: mpsc::Receiver<MemoryRaw> },
    Pipe { _it: DuplexStream },
}

impl Kit for Memory {
    type Below = WriteHalf<DuplexStream>;
    type T = MemoryTransport;
    type Held = MemoryHeld;
    const TELLS_CUT_FROM_END: bool = false;

    fn make(&self, identity: &Identity, listen: Option<SocketAddr>) -> std::io::Result<MemoryTransport> {
        MemoryTransport::new(&self.0, identity, listen)
    }

    fn silent_listener(&self) -> (SocketAddr, MemoryHeld) {
        let (addr, receiver) = self.0.listen(HERE).unwrap();
        (addr, MemoryHeld::Listener { _it: receiver })
    }

    /// The bytes of a TCP stranger are nothing here: in memory any 32 bytes are a name.
    async fn stranger(&self, to: SocketAddr, _says: &[u8]) -> MemoryHeld {
        MemoryHeld::Pipe { _it: self.0.connect(HERE, to).unwrap() }
    }
}

type Ends<K> = (LinkOf<<K as Kit>::T>, LinkOf<<K as Kit>::T>);

/// Both ends of a link on which nothing was said: the dialling one first.
async fn strangers<K: Kit>(kit: &K) -> Ends<K> {
    let identity = Identity::generate();
    let listener = kit.make(&identity, Some(HERE)).unwrap();
    let dialler = kit.make(&Identity::generate(), None).unwrap();
    let accepting = async { listener.accept(listener.incoming().await.unwrap(), LONG).await.unwrap() };
    let dialling = async { dialler.dial(listener.listen_addr().unwrap(), Some(identity.peer_id()), LONG).await.unwrap() };
    tokio::join!(dialling, accepting)
}

/// Both ends of a link whose hellos are exchanged.
async fn linked<K: Kit>(kit: &K) -> Ends<K> {
    let (mut near, mut far) = strangers(kit).await;
    greet(&mut near, &mut far).await;
    greet(&mut far, &mut near).await;
    (near, far)
}

async fn greet<R: LinkReader, W: LinkWriter>(from: &mut Link<R, W>, to: &mut Link<R, W>) {
    from.writer.message(&hello(3)).await.unwrap();
    assert!(matches!(to.reader.next().await, Ok(Incoming::Message(message)) if message == hello(3)));
}

fn hello(region: u32) -> Message {
    Message::Hello(Hello {
        version: 1,
        content: [9; 32],
        proof: vec![1, 2],
        listen_port: Some(7),
        region,
        origin: true,
        extensions: 1 << 63,
    })
}

/// The byte of a stream of content at this place: no two stretches look alike.
fn byte_at(seed: u64, at: u64) -> u8 {
    ((at ^ seed << 40).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 56) as u8
}

struct Chance(u64);

impl Chance {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % limit as u64) as usize
    }
}

async fn keys<K: Kit>() {
    let kit = K::default();
    let (host, guest, other) = (Identity::generate(), Identity::generate(), Identity::generate());
    let listener = kit.make(&host, Some(HERE)).unwrap();
    let addr = listener.listen_addr().unwrap();
    let dialler = kit.make(&guest, None).unwrap();
    for expect in [Some(host.peer_id()), None] {
        let accepting = async { listener.accept(listener.incoming().await.unwrap(), LONG).await.unwrap().peer };
        let (link, caller) = tokio::join!(dialler.dial(addr, expect, LONG), accepting);
        let link = link.unwrap();
        assert_eq!((link.peer, link.addr), (host.peer_id(), addr));
        assert_eq!(caller, guest.peer_id());
    }
    let accepting = async { drop(listener.accept(listener.incoming().await.unwrap(), LONG).await) };
    let (wrong, ()) = tokio::join!(dialler.dial(addr, Some(other.peer_id()), LONG), accepting);
    assert!(matches!(wrong, Err(LinkError::Stranger(_))), "another key than expected: {:?}", wrong.err());

    assert!(dialler.listen_addr().is_none());
    tokio::select! {
        biased;
        _ = dialler.incoming() => panic!("nobody can call one who does not listen"),
        () = tokio::task::yield_now() => {}
    }
}

async fn nobody_there<K: Kit>() {
    let kit = K::default();
    let listener = kit.make(&Identity::generate(), Some(HERE)).unwrap();
    let addr = listener.listen_addr().unwrap();
    let second = kit.make(&Identity::generate(), Some(addr));
    assert_eq!(second.err().map(|error| error.kind()), Some(std::io::ErrorKind::AddrInUse));
    drop(listener);
    let refused = kit.make(&Identity::generate(), None).unwrap().dial(addr, None, LONG).await;
    assert!(matches!(refused, Err(LinkError::Io(_))), "{:?}", refused.err());
}

async fn order<K: Kit>() {
    let (mut near, mut far) = linked(&K::default()).await;
    let sending = async {
        for req in 0..1000 {
            near.writer.message(&Message::Cancel { req }).await.unwrap();
        }
        // Together they are longer than any buffer on their way.
        let together: Vec<Message> = (1000..21_000).map(|req| Message::Cancel { req }).collect();
        near.writer.messages(&together).await.unwrap();
        near.writer.finish().await;
    };
    let receiving = async {
        for req in 0..21_000 {
            assert!(matches!(far.reader.next().await, Ok(Incoming::Message(message)) if message == Message::Cancel { req }));
        }
        assert!(matches!(far.reader.next().await, Err(LinkError::Closed)));
    };
    tokio::join!(sending, receiving);
    // One side has ended; the other may go on.
    far.writer.message(&Message::Bye).await.unwrap();
    assert!(matches!(near.reader.next().await, Ok(Incoming::Message(Message::Bye))));
}

const FLOOD_BYTES: u64 = 12 << 20;

async fn pour<W: LinkWriter>(writer: &mut W, seed: u64) {
    let mut chance = Chance(seed);
    let (mut at, mut req) = (0, 0);
    let mut bytes = Vec::new();
    while at < FLOOD_BYTES {
        let len = match chance.below(4) {
            0 => 1 + chance.below(40),
            1 => 64 << 10,
            _ => 1 + chance.below(64 << 10),
        };
        bytes.clear();
        bytes.extend((at..at + len as u64).map(|at| byte_at(seed, at)));
        if chance.below(3) == 0 {
            writer.message(&Message::Cancel { req }).await.unwrap();
        }
        if chance.below(5) == 0 {
            writer.proof(RequestId(req), &vec![[req as u8; 32]; 1 + chance.below(1100)]).await.unwrap();
        }
        writer.payload(RequestId(req), &bytes).await.unwrap();
        (at, req) = (at + len as u64, req + 1);
    }
    writer.finish().await;
}

async fn drink<R: LinkReader>(reader: &mut R, seed: u64) {
    let mut chance = Chance(seed + 1);
    let (mut at, mut expected_req) = (0, 0);
    let mut bytes = vec![0; 64 << 10];
    loop {
        match reader.next().await {
            Err(LinkError::Closed) => break,
            Err(error) => panic!("{error}"),
            Ok(Incoming::Message(message)) => assert_eq!(message, Message::Cancel { req: expected_req }),
            Ok(Incoming::Proof { req, nodes }) => {
                assert_eq!(req.0, expected_req);
                assert!(!nodes.is_empty() && nodes.iter().all(|node| *node == [req.0 as u8; 32]));
            }
            Ok(Incoming::Payload { req, len }) => {
                assert_eq!(req.0, expected_req);
                expected_req += 1;
                let end = at + u64::from(len);
                while at < end {
                    let left = (end - at) as usize;
                    let take = if chance.below(2) == 0 { left } else { 1 + chance.below(left) };
                    reader.payload(&mut bytes[..take]).await.unwrap();
                    assert!(bytes[..take].iter().zip(at..).all(|(byte, at)| *byte == byte_at(seed, at)), "content near {at}");
                    at += take as u64;
                    if chance.below(16) == 0 {
                        reader.skip().await.unwrap();
                        at = end;
                    }
                }
            }
        }
    }
    assert!(at >= FLOOD_BYTES, "only {at} bytes came");
}

async fn both_ways<K: Kit>() {
    let (mut near, mut far) = linked(&K::default()).await;
    tokio::join!(pour(&mut near.writer, 11), pour(&mut far.writer, 12), drink(&mut near.reader, 12), drink(&mut far.reader, 11));
}

/// What a reader makes of bytes that stand where a frame should.
async fn verdict<K: Kit>(greeted: bool, bytes: &[u8]) -> LinkError {
    let kit = K::default();
    let (near, mut far) = if greeted { linked(&kit).await } else { strangers(&kit).await };
    let mut below = near.writer.into_inner();
    below.write_all(bytes).await.unwrap();
    below.shutdown().await.unwrap();
    loop {
        match far.reader.next().await {
            Ok(Incoming::Payload { .. }) => match far.reader.skip().await {
                Ok(()) => {}
                Err(error) => return error,
            },
            Ok(Incoming::Message(_) | Incoming::Proof { .. }) => {}
            Err(error) => return error,
        }
    }
}

fn frame(len: u32, kind: u8, body: &[u8]) -> Vec<u8> {
    [&len.to_le_bytes()[..], &[kind], body].concat()
}

async fn nonsense<K: Kit>() {
    let cases: [(&str, bool, Vec<u8>); 12] = [
        ("message too long", true, frame(65_537, 0, &[0; 100])),
        ("payload too long", true, frame(65_536 + 9, 1, &[0; 100])),
        ("proof too long", true, frame(u32::MAX, 2, &[0; 100])),
        ("proof of half a node", true, frame(8 + 33, 2, &[0; 41])),
        ("payload of nothing", true, frame(8, 1, &[0; 8])),
        ("unknown kind", true, frame(8, 3, &[0; 8])),
        ("garbage", true, b"GET / HTTP/1.1\r\nHost: example.org\r\n\r\n".to_vec()),
        ("message of no kind", true, frame(3, 0, &[0xFA, 1, 1])),
        ("message with a tail", true, frame(3, 0, &[BYE, 0, 0])),
        ("payload before the hello", false, frame(9, 1, &[0; 9])),
        ("proof before the hello", false, frame(40, 2, &[0; 40])),
        ("another message before the hello", false, frame(1, 0, &[BYE])),
    ];
    for (what, greeted, bytes) in cases {
        let error = verdict::<K>(greeted, &bytes).await;
        assert!(matches!(error, LinkError::Protocol(_)), "{what}: {error:?}");
    }
    // The control: what is right passes by the same road and ends politely.
    let right = [frame(1, 0, &[BYE]), frame(9, 1, &[0; 9]), frame(40, 2, &[0; 40])].concat();
    let error = verdict::<K>(true, &right).await;
    assert!(matches!(error, LinkError::Closed), "{error:?}");
    // Cut in a head, a request, a body: never a clean end.
    for len in [1, 4, 5, 7, 14, 15, 19, 21, 25, 64] {
        let error = verdict::<K>(true, &right[..len]).await;
        assert!(matches!(error, LinkError::Io(_)), "{len} bytes: {error:?}");
    }
}

/// Number of the last message.
const BYE: u8 = 12;

async fn vanished<K: Kit>() {
    let (near, mut far) = linked(&K::default()).await;
    drop(near);
    let error = far.reader.next().await.expect_err("nobody is there");
    match K::TELLS_CUT_FROM_END {
        true => assert!(matches!(error, LinkError::Io(_)), "{error:?}"),
        false => assert!(matches!(error, LinkError::Closed), "{error:?}"),
    }
    // Sooner or later the sender hears of it, and it is an error, not a signal or a panic.
    let told = async { while far.writer.payload(RequestId(1), &[0; 4096]).await.is_ok() {} };
    tokio::time::timeout(LONG, told).await.expect("writing to nobody fails");
}

async fn dropped_calls<K: Kit>() {
    let (near, mut far) = linked(&K::default()).await;
    let mut below = near.writer.into_inner();
    for part in frame(40, 2, &[7; 40]).chunks(3) {
        tokio::select! {
            biased;
            early = far.reader.next() => panic!("{early:?} from a part of a frame"),
            () = tokio::task::yield_now() => {}
        }
        below.write_all(part).await.unwrap();
        below.flush().await.unwrap();
    }
    assert!(matches!(far.reader.next().await, Ok(Incoming::Proof { nodes, .. }) if nodes == [[7; 32]]));
}

async fn silence<K: Kit>() {
    let kit = K::default();
    let (addr, _held) = kit.silent_listener();
    let dialler = kit.make(&Identity::generate(), None).unwrap();
    let error = dialler.dial(addr, None, SHORT).await.err().expect("nobody answers");
    assert!(matches!(error, LinkError::Handshake(_)), "{error:?}");

    let listener = kit.make(&Identity::generate(), Some(HERE)).unwrap();
    for says in [&b""[..], &[22, 3, 1], b"\x16\x03\x01\xff\xff", b"GET / HTTP/1.1\r\n\r\n"] {
        let _held = kit.stranger(listener.listen_addr().unwrap(), says).await;
        let raw = listener.incoming().await.unwrap();
        let error = listener.accept(raw, SHORT).await.err().expect("no handshake comes");
        assert!(matches!(error, LinkError::Handshake(_)), "{error:?}");
    }
}

/// Says back each message, counts payload, until the peer ends.
async fn echo<R: LinkReader, W: LinkWriter>(mut link: Link<R, W>) -> u32 {
    let mut sum = 0;
    loop {
        match link.reader.next().await {
            Ok(Incoming::Message(message)) => link.writer.message(&message).await.unwrap(),
            Ok(Incoming::Payload { len, .. }) => {
                link.reader.skip().await.unwrap();
                sum += len;
            }
            Ok(Incoming::Proof { .. }) => panic!("nobody sent one"),
            Err(LinkError::Closed) => return sum,
            Err(error) => panic!("{error}"),
        }
    }
}

/// 200 links at once between two transports, each of them used, and 100 strangers who say nothing in their way.
async fn crowd<K: Kit>() {
    let kit = K::default();
    let listener = Arc::new(kit.make(&Identity::generate(), Some(HERE)).unwrap());
    let dialler = Arc::new(kit.make(&Identity::generate(), None).unwrap());
    let addr = listener.listen_addr().unwrap();
    let mut silent = Vec::new();
    for _ in 0..100 {
        silent.push(kit.stranger(addr, b"").await);
    }
    let accepting = tokio::spawn(async move {
        let mut served = tokio::task::JoinSet::new();
        for _ in 0..300 {
            let raw = listener.incoming().await.unwrap();
            let listener = listener.clone();
            served.spawn(async move {
                match listener.accept(raw, LONG).await {
                    Ok(link) => echo(link).await,
                    Err(_) => 0,
                }
            });
        }
        served.join_all().await.into_iter().sum::<u32>()
    });
    let mut dialling = tokio::task::JoinSet::new();
    for at in 0..200 {
        let dialler = dialler.clone();
        dialling.spawn(async move {
            let mut link = dialler.dial(addr, None, LONG * 3).await.unwrap();
            link.writer.message(&hello(at)).await.unwrap();
            assert!(matches!(link.reader.next().await, Ok(Incoming::Message(message)) if message == hello(at)));
            link
        });
    }
    // All of them open at once.
    let mut links = dialling.join_all().await;
    assert_eq!(links.len(), 200);
    for link in &mut links {
        link.writer.payload(RequestId(1), &[5; 50_000]).await.unwrap();
        link.writer.finish().await;
    }
    drop(silent);
    assert_eq!(accepting.await.unwrap(), 200 * 50_000);
}

macro_rules! suite {
    ($($kit:ident in $module:ident),*) => {
        $(mod $module {
            suite!(@each super::$kit: keys, nobody_there, order, both_ways, nonsense, vanished, dropped_calls, silence, crowd);
        })*
    };
    (@each $kit:path: $($case:ident),*) => {
        $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $case() {
            super::$case::<$kit>().await;
        })*
    };
}
suite!(Sealed in sealed, Clear in clear, Memory in memory);
