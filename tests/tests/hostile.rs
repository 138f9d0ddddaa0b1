//! Peers that lie and break the rules, scripted through the transport: the host gets what the pea says, or nothing.

mod common;

use common::{Made, engine, origin, single_file, until, wait};
use peas_core::config::{InstallOptions, SeedPolicy};
use peas_core::transport::{Identity, Incoming, LinkError, LinkOf, LinkReader, LinkWriter, TcpOptions, TcpTransport, Transport};
use peas_core::unit::{BLOCK_BYTES, PeerId, RequestId};
use peas_core::wire::{Hello, Message};
use peas_core::{Event, Session};
use std::net::SocketAddr;
use std::time::Duration;

type Link = LinkOf<TcpTransport>;

/// What a scripted peer sends for a span: the true bytes are given.
type Falsify = fn(Vec<u8>) -> Vec<u8>;

fn hello(made: &Made) -> Message {
    let content = made.pea.id().0;
    Message::Hello(Hello { version: 1, content, proof: vec![], listen_port: None, region: 0, origin: false, extensions: 0 })
}

/// A peer that claims to hold everything, grants at once, and serves what `falsify` makes of the content, whole pieces only.
struct Scripted {
    _runtime: tokio::runtime::Runtime,
    peer: PeerId,
    addr: SocketAddr,
}

impl Scripted {
    fn start(made: &Made, falsify: Falsify) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let identity = Identity::generate();
        let transport = {
            let _inside = runtime.enter();
            TcpTransport::new(&identity, &TcpOptions { listen: Some("127.0.0.1:0".parse().unwrap()), plain: false }).unwrap()
        };
        let (peer, addr) = (identity.peer_id(), transport.listen_addr().unwrap());
        let (pea, content, hello) = (made.pea.clone(), std::fs::read(&made.source).unwrap(), hello(made));
        runtime.spawn(async move {
            loop {
                let Ok(raw) = transport.incoming().await else { continue };
                let Ok(mut link) = transport.accept(raw, Duration::from_secs(5)).await else { continue };
                let geometry = *pea.geometry();
                let serve = async {
                    link.reader.next().await?;
                    link.writer.message(&hello).await?;
                    let runs = vec![(0, geometry.piece_count())];
                    link.writer.message(&Message::Held { runs, need: 0, queue_ms: 0 }).await?;
                    let grant = Message::Grant { blocks: (geometry.piece_bytes() / BLOCK_BYTES) as u16, spare: true };
                    link.writer.message(&grant).await?;
                    link.writer.flush().await?;
                    loop {
                        let Incoming::Message(message) = link.reader.next().await? else { continue };
                        let (req, piece) = match message {
                            Message::Request { req, piece, .. } => (req, piece),
                            Message::Decline { .. } => {
                                // Left alone for a moment, as any granter would.
                                tokio::time::sleep(Duration::from_millis(20)).await;
                                link.writer.message(&grant).await?;
                                link.writer.flush().await?;
                                continue;
                            }
                            _ => continue,
                        };
                        let range = geometry.bytes_of(geometry.piece(piece).unwrap());
                        let bytes = falsify(content[range.start as usize..range.end as usize].to_vec());
                        for frame in bytes.chunks(64 * 1024) {
                            link.writer.payload(RequestId(req), frame).await?;
                        }
                        link.writer.message(&grant).await?;
                        link.writer.flush().await?;
                    }
                    #[allow(unreachable_code, reason = "gives the block its type")]
                    Ok::<(), LinkError>(())
                };
                // It ends when the other side hangs up; then the next may come.
                let _ = serve.await;
            }
        });
        Self { _runtime: runtime, peer, addr }
    }
}

fn install(made: &Made, place: &tempfile::TempDir, engine: &peas_core::Engine, peers: Vec<SocketAddr>) -> Session {
    let options = InstallOptions { peers, seed: SeedPolicy::Forever, ..Default::default() };
    engine.install(made.pea.clone(), &place.path().join("out"), options).unwrap()
}

#[test]
fn the_control_a_scripted_peer_with_the_right_bytes_is_enough() {
    let made = single_file(1 << 20);
    let scripted = Scripted::start(&made, |bytes| bytes);
    let (place, receiver) = (tempfile::tempdir().unwrap(), engine());
    let session = install(&made, &place, &receiver, vec![scripted.addr]);
    wait(&session);
    made.assert_same(&place.path().join("out"));
}

#[test]
fn a_peer_with_wrong_bytes_is_banned_and_does_no_harm() {
    let made = single_file(1 << 20);
    let scripted = Scripted::start(&made, |mut bytes| {
        let last = bytes.len() - 1;
        bytes[last] ^= 1;
        bytes
    });
    let (place, receiver) = (tempfile::tempdir().unwrap(), engine());
    let session = install(&made, &place, &receiver, vec![scripted.addr]);
    let mut events = Vec::new();
    while !events.contains(&Event::PeerBanned { peer: scripted.peer }) {
        events.push(session.next_event_timeout(common::PATIENCE).unwrap_or_else(|| panic!("not banned: {events:?}")));
    }
    let progress = session.progress();
    assert_eq!(progress.bytes_done, 0);
    let (seed_engine, _seed) = origin(&made);
    session.add_peers(&[seed_engine.listen_addr().unwrap()]);
    wait(&session);
    made.assert_same(&place.path().join("out"));
}

/// One rule broken per script, after a proper hello.
async fn break_a_rule(which: usize, made: &Made, link: &mut Link) -> Result<(), LinkError> {
    let writer = &mut link.writer;
    match which {
        0 => writer.message(&hello(made)).await?,
        1 => writer.message(&Message::Held { runs: vec![(0, 17)], need: 0, queue_ms: 0 }).await?,
        2 => writer.message(&Message::Have { runs: vec![(16, 1)], need: 0, queue_ms: 0 }).await?,
        _ => writer.message(&Message::Request { req: 1, piece: 16, first: 0, count: 1 }).await?,
    }
    writer.flush().await
}

#[test]
fn who_breaks_the_rules_is_hung_up_on_and_others_are_served() {
    let made = single_file(1 << 20);
    let (seed_engine, seed) = origin(&made);
    let to = seed_engine.listen_addr().unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    until(|| seed.progress().pieces_done == made.pea.geometry().piece_count());
    runtime.block_on(async {
        for which in 0..4 {
            let transport = TcpTransport::new(&Identity::generate(), &TcpOptions::default()).unwrap();
            let mut link = transport.dial(to, None, Duration::from_secs(5)).await.unwrap();
            link.writer.message(&hello(&made)).await.unwrap();
            link.writer.flush().await.unwrap();
            assert!(matches!(link.reader.next().await.unwrap(), Incoming::Message(Message::Hello(_))));
            break_a_rule(which, &made, &mut link).await.unwrap();
            let hung_up = async { while link.reader.next().await.is_ok() {} };
            tokio::time::timeout(common::PATIENCE, hung_up).await.unwrap_or_else(|_| panic!("rule {which} is not enforced"));
        }
        // Another content, and something else than a hello: no answer at all.
        let transport = TcpTransport::new(&Identity::generate(), &TcpOptions::default()).unwrap();
        let other = Message::Hello(Hello {
            version: 1,
            content: [9; 32],
            proof: vec![],
            listen_port: None,
            region: 0,
            origin: true,
            extensions: 0,
        });
        for first in [other, Message::Bye] {
            let mut link = transport.dial(to, Some(seed_engine.peer_id()), Duration::from_secs(5)).await.unwrap();
            link.writer.message(&first).await.unwrap();
            link.writer.flush().await.unwrap();
            assert!(link.reader.next().await.is_err());
        }
    });
    let (place, receiver) = (tempfile::tempdir().unwrap(), engine());
    let session = install(&made, &place, &receiver, vec![to]);
    wait(&session);
    made.assert_same(&place.path().join("out"));
    assert!(seed_engine.close(Duration::from_secs(5)));
}

#[test]
fn a_link_to_oneself_is_no_link() {
    let made = single_file(1 << 20);
    let (seed_engine, seed) = origin(&made);
    seed.add_peers(&[seed_engine.listen_addr().unwrap()]);
    let (place, receiver) = (tempfile::tempdir().unwrap(), engine());
    let session = install(&made, &place, &receiver, vec![seed_engine.listen_addr().unwrap(), receiver.listen_addr().unwrap()]);
    wait(&session);
    assert_eq!(session.progress().peers, 1);
}
