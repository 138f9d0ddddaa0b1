//! Peers that mean harm, scripted through the real transport or on bare sockets. Each keeps a ledger of what it got away with.

use super::Made;
use peas_core::transport::{Identity, Incoming, LinkError, LinkOf, LinkReader, LinkWriter, TcpOptions, TcpTransport, Transport};
use peas_core::unit::{BLOCK_BYTES, Geometry, PeerId, RequestId, Rng};
use peas_core::wire::{Hello, Message};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;

pub type Link = LinkOf<TcpTransport>;

pub const HERE: &str = "127.0.0.1:0";
const LONG: Duration = Duration::from_secs(60);

pub fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

pub fn hello(made: &Made, listen_port: Option<u16>) -> Message {
    let content = made.pea.id().0;
    Message::Hello(Hello { version: 1, content, proof: vec![], listen_port, region: 0, origin: false, extensions: 0 })
}

/// A link whose hellos are exchanged.
pub async fn greeted(transport: &TcpTransport, to: SocketAddr, hello: &Message) -> Result<Link, LinkError> {
    let mut link = transport.dial(to, None, LONG).await?;
    link.writer.message(hello).await?;
    link.writer.flush().await?;
    match tokio::time::timeout(LONG, link.reader.next()).await.map_err(|_| LinkError::Closed)?? {
        Incoming::Message(Message::Hello(_)) => Ok(link),
        _ => Err(LinkError::Protocol("no hello")),
    }
}

/// What a poisoner did to one victim under one key.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    /// Wrong bytes sent for requests.
    pub bad_bytes: u64,
    /// Requests that came after the victim had hung up on this key once.
    pub asked_after: u64,
    /// Content bytes that the victim gave, before and after it had hung up once.
    pub got_before: u64,
    pub got_after: u64,
    /// Links ended by the victim.
    pub hangups: u32,
}

pub type Ledger = Arc<Mutex<BTreeMap<(PeerId, PeerId), Tally>>>;

/// What a poisoner answers with: the true bytes are given.
pub type Falsify = fn(Vec<u8>) -> Vec<u8>;

/// Flips a bit of the last byte.
pub fn poison(mut bytes: Vec<u8>) -> Vec<u8> {
    *bytes.last_mut().unwrap() ^= 1;
    bytes
}

/// A peer that says it holds the first half of the content and serves a falsified one, takes what it is given of the second half,
/// dials all its victims, comes back when it is thrown out, four times under the same key and then under another, `keys` in all.
pub struct Poisoner {
    pub made: Arc<(Vec<u8>, Geometry, Message)>,
    pub victims: Vec<SocketAddr>,
    pub ledger: Ledger,
    pub falsify: Falsify,
    pub keys: usize,
}

impl Poisoner {
    pub async fn run(self: Arc<Self>) {
        for _ in 0..self.keys {
            let identity = Identity::generate();
            let me = identity.peer_id();
            let transport = Arc::new(TcpTransport::new(&identity, &TcpOptions::default()).unwrap());
            let mut attacks = tokio::task::JoinSet::new();
            for &victim in &self.victims {
                let (this, transport) = (self.clone(), transport.clone());
                attacks.spawn(async move {
                    for _ in 0..5 {
                        let _ = this.attack(&transport, me, victim).await;
                        tokio::time::sleep(Duration::from_millis(400)).await;
                    }
                });
            }
            while attacks.join_next().await.is_some() {}
        }
    }

    fn note(&self, me: PeerId, victim: PeerId, note: impl FnOnce(&mut Tally)) {
        note(self.ledger.lock().unwrap().entry((me, victim)).or_default());
    }

    async fn attack(&self, transport: &TcpTransport, me: PeerId, at: SocketAddr) -> Result<(), LinkError> {
        let (_, geometry, hello) = &*self.made;
        let mut link = greeted(transport, at, hello).await?;
        let victim = link.peer;
        let ended = self.converse(&mut link, me, geometry).await;
        self.note(me, victim, |tally| tally.hangups += 1);
        ended
    }

    async fn converse(&self, link: &mut Link, me: PeerId, geometry: &Geometry) -> Result<(), LinkError> {
        let victim = link.peer;
        let half = geometry.piece_count() / 2;
        let need = geometry.piece_count() - half;
        link.writer.message(&Message::Held { runs: vec![(0, half)], need, queue_ms: 0 }).await?;
        link.writer.message(&Message::Credit { pieces: 2, upload_bytes_per_s: 1 << 40 }).await?;
        let grant = Message::Grant { blocks: (geometry.piece_bytes() / BLOCK_BYTES) as u16, spare: true };
        link.writer.message(&grant).await?;
        link.writer.flush().await?;
        let mut theirs = BTreeSet::new();
        let mut next_req = 0;
        loop {
            match link.reader.next().await? {
                Incoming::Payload { len, .. } => {
                    link.reader.skip().await?;
                    self.note(me, victim, |tally| match tally.hangups {
                        0 => tally.got_before += u64::from(len),
                        _ => tally.got_after += u64::from(len),
                    });
                }
                Incoming::Message(Message::Request { req, piece, first, count }) => {
                    let span = geometry.piece(piece).and_then(|piece| geometry.span(piece, first, count)).unwrap();
                    if !geometry.is_whole(span) {
                        link.writer.message(&Message::Refuse { req, reason: 2, retry_after_ms: 10 }).await?;
                        continue;
                    }
                    self.serve(link, me, RequestId(req), piece).await?;
                    link.writer.message(&grant).await?;
                }
                Incoming::Message(Message::Decline { .. }) => {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    link.writer.message(&grant).await?;
                }
                Incoming::Message(Message::Held { runs, .. } | Message::Have { runs, .. }) => {
                    theirs.extend(runs.into_iter().flat_map(|(first, count)| first..first + count).filter(|&piece| piece >= half));
                }
                Incoming::Message(Message::Grant { blocks, .. }) => match theirs.pop_first() {
                    Some(piece) => {
                        next_req += 1;
                        let count = geometry.blocks_of(geometry.piece(piece).unwrap()).min(blocks);
                        link.writer.message(&Message::Request { req: next_req, piece, first: 0, count }).await?;
                    }
                    None => link.writer.message(&Message::Decline { piece: None }).await?,
                },
                Incoming::Message(Message::Assign { piece, .. }) => {
                    next_req += 1;
                    let count = geometry.blocks_of(geometry.piece(piece).unwrap());
                    link.writer.message(&Message::Request { req: next_req, piece, first: 0, count }).await?;
                }
                _ => {}
            }
            link.writer.flush().await?;
        }
    }

    async fn serve(&self, link: &mut Link, me: PeerId, req: RequestId, piece: u32) -> Result<(), LinkError> {
        let (content, geometry, _) = &*self.made;
        let range = geometry.bytes_of(geometry.piece(piece).unwrap());
        let bytes = (self.falsify)(content[range.start as usize..range.end as usize].to_vec());
        let len = bytes.len() as u64;
        self.note(me, link.peer, |tally| {
            tally.bad_bytes += len;
            tally.asked_after += u64::from(tally.hangups > 0);
        });
        for frame in bytes.chunks(64 * 1024) {
            link.writer.payload(req, frame).await?;
        }
        Ok(())
    }
}

/// How long each of a crowd of connections lived: from the connect to the host's end of it. `None`: it was still open at the end.
pub type Lives = Vec<Option<Duration>>;

/// What a slow stranger says, and never more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Slow {
    /// A byte of a handshake every ten seconds.
    Drip,
    /// The first half of a handshake.
    HalfHandshake,
    /// All that is right and proper, and then it neither reads nor answers.
    Mute,
    /// As `Mute`, but it asks for what it is granted and does not read that.
    AskingMute,
}

/// This many of them at once, until all are hung up on or time is up.
pub async fn crowd(made: &Made, to: SocketAddr, slow: Slow, count: usize, patience: Duration) -> Lives {
    let hello = hello(made, None);
    let first_flight = first_flight().await;
    let mut running = tokio::task::JoinSet::new();
    for at in 0..count {
        let (hello, first_flight) = (hello.clone(), first_flight.clone());
        running.spawn(async move {
            // Not all in one moment: the kernel's queue for connections is not what is under test.
            tokio::time::sleep(Duration::from_millis(at as u64)).await;
            let began = Instant::now();
            let life = async {
                match slow {
                    Slow::Drip => stranger(to, &[0x16], true).await,
                    Slow::HalfHandshake => stranger(to, &first_flight, false).await,
                    Slow::Mute | Slow::AskingMute => mute(to, &hello, slow == Slow::AskingMute).await,
                }
            };
            tokio::time::timeout(patience, life).await.ok().map(|()| began.elapsed())
        });
    }
    let mut lives = Vec::new();
    while let Some(life) = running.join_next().await {
        lives.push(life.unwrap());
    }
    lives
}

/// Returns when the other side has ended the connection.
async fn stranger(to: SocketAddr, says: &[u8], drips: bool) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let Ok(stream) = tokio::net::TcpStream::connect(to).await else { return };
    let (mut hears, mut speaks) = stream.into_split();
    if speaks.write_all(says).await.is_err() {
        return;
    }
    let mut bytes = [0; 4096];
    let hearing = async { while matches!(hears.read(&mut bytes).await, Ok(1..)) {} };
    let dripping = async {
        if !drips {
            return std::future::pending().await;
        }
        loop {
            tokio::time::sleep(Duration::from_secs(10)).await;
            if speaks.write_all(&[3]).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = hearing => {}
        () = dripping => {}
    }
}

/// Links, says what it lacks, and from then on only pokes the connection to learn of its end.
async fn mute(to: SocketAddr, hello: &Message, asks: bool) {
    let transport = TcpTransport::new(&Identity::generate(), &TcpOptions::default()).unwrap();
    let Ok(mut link) = greeted(&transport, to, hello).await else { return };
    let said = async {
        link.writer.message(&Message::Held { runs: vec![], need: 99, queue_ms: 0 }).await?;
        link.writer.message(&Message::Credit { pieces: 8, upload_bytes_per_s: 1 << 40 }).await?;
        link.writer.flush().await
    };
    if said.await.is_err() {
        return;
    }
    if asks {
        let asked = async {
            for req in 0..2 {
                let piece = loop {
                    match link.reader.next().await? {
                        Incoming::Message(Message::Grant { .. }) => break Rng::new(req).below(8) as u32,
                        Incoming::Message(Message::Assign { piece, .. }) => break piece,
                        Incoming::Payload { .. } => link.reader.skip().await?,
                        _ => {}
                    }
                };
                link.writer.message(&Message::Request { req, piece, first: 0, count: 4 }).await?;
                link.writer.flush().await?;
            }
            Ok::<(), LinkError>(())
        };
        if asked.await.is_err() {
            return;
        }
    }
    let poke = Message::Cancel { req: 77 };
    while tokio::time::timeout(LONG, link.writer.message(&poke)).await.is_ok_and(|sent| sent.is_ok()) {
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

/// The first bytes that an honest dialler sends.
pub async fn first_flight() -> Vec<u8> {
    use tokio::io::AsyncReadExt;
    let listener = tokio::net::TcpListener::bind(HERE).await.unwrap();
    let addr = listener.local_addr().unwrap();
    let transport = TcpTransport::new(&Identity::generate(), &TcpOptions::default()).unwrap();
    let dialling = async { transport.dial(addr, None, Duration::from_millis(300)).await.is_err() };
    let hearing = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut flight = Vec::new();
        stream.read_to_end(&mut flight).await.unwrap();
        flight
    };
    tokio::join!(dialling, hearing).1
}
