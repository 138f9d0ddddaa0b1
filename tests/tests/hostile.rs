//! Peers that lie and break the rules, scripted through the transport: the host gets what the pea says, or nothing.

mod common;

use common::{Made, engine, origin, single_file, single_file_in_pieces, until, wait};
use peas_core::config::{InstallOptions, SeedPolicy};
use peas_core::hash::{Cv, SpanProof, SpanVerifier, block_cvs};
use peas_core::transport::{Identity, Incoming, LinkError, LinkOf, LinkReader, LinkWriter, TcpOptions, TcpTransport, Transport};
use peas_core::unit::{BLOCK_BYTES, PeerId, RequestId};
use peas_core::wire::{Hello, Message};
use peas_core::{Event, Session};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

type Link = LinkOf<TcpTransport>;

/// What a scripted peer sends for a span: the true bytes are given.
type Falsify = fn(Vec<u8>) -> Vec<u8>;

/// How a scripted peer serves.
struct Manners {
    /// Blocks that it grants at a time.
    blocks: u16,
    /// What it sends as the proof of a part of a piece: the true nodes are given; none: no proof is sent.
    proof: fn(Vec<Cv>) -> Vec<Cv>,
    payload: Falsify,
}

fn hello(made: &Made) -> Message {
    let content = made.pea.id().0;
    Message::Hello(Hello { version: 1, content, proof: vec![], listen_port: None, region: 0, origin: false, extensions: 0 })
}

/// A peer that claims to hold everything, grants at once, and serves what its manners make of the content.
struct Scripted {
    _runtime: tokio::runtime::Runtime,
    peer: PeerId,
    addr: SocketAddr,
    /// Parts of pieces that it was asked for.
    parts: Arc<AtomicU32>,
}

impl Scripted {
    /// Grants whole pieces.
    fn start(made: &Made, falsify: Falsify) -> Self {
        let blocks = (made.pea.geometry().piece_bytes() / BLOCK_BYTES) as u16;
        Self::start_with(made, Manners { blocks, proof: |nodes| nodes, payload: falsify })
    }

    fn start_with(made: &Made, manners: Manners) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let identity = Identity::generate();
        let transport = {
            let _inside = runtime.enter();
            TcpTransport::new(&identity, &TcpOptions { listen: Some("127.0.0.1:0".parse().unwrap()), plain: false }).unwrap()
        };
        let (peer, addr) = (identity.peer_id(), transport.listen_addr().unwrap());
        let (pea, content, hello) = (made.pea.clone(), std::fs::read(&made.source).unwrap(), hello(made));
        let parts = Arc::new(AtomicU32::new(0));
        let counter = parts.clone();
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
                    let grant = Message::Grant { blocks: manners.blocks, spare: true };
                    link.writer.message(&grant).await?;
                    link.writer.flush().await?;
                    loop {
                        let Incoming::Message(message) = link.reader.next().await? else { continue };
                        let (req, span) = match message {
                            Message::Request { req, piece, first, count } => {
                                (RequestId(req), geometry.span(geometry.piece(piece).unwrap(), first, count).unwrap())
                            }
                            Message::Decline { .. } => {
                                // Left alone for a moment, as any granter would.
                                tokio::time::sleep(Duration::from_millis(20)).await;
                                link.writer.message(&grant).await?;
                                link.writer.flush().await?;
                                continue;
                            }
                            _ => continue,
                        };
                        let range = geometry.bytes_of(span.piece());
                        let piece = &content[range.start as usize..range.end as usize];
                        if !geometry.is_whole(span) {
                            counter.fetch_add(1, Ordering::Relaxed);
                            let nodes = SpanProof::new(&geometry, span, &block_cvs(&geometry, span.piece(), piece)).nodes;
                            let nodes = (manners.proof)(nodes);
                            if !nodes.is_empty() {
                                link.writer.proof(req, &nodes).await?;
                            }
                        }
                        let range = geometry.bytes_in_piece(span);
                        for frame in (manners.payload)(piece[range.start as usize..range.end as usize].to_vec()).chunks(64 * 1024) {
                            link.writer.payload(req, frame).await?;
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
        Self { _runtime: runtime, peer, addr, parts }
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

/// The content of the tests of parts: pieces of sixteen blocks, of which three are granted at a time.
fn of_parts() -> Made {
    single_file_in_pieces((1 << 20) - 5, 1 << 18)
}

#[test]
fn parts_of_pieces_with_their_proofs_are_enough() {
    let made = of_parts();
    let scripted = Scripted::start_with(&made, Manners { blocks: 3, proof: |nodes| nodes, payload: |bytes| bytes });
    let (place, receiver) = (tempfile::tempdir().unwrap(), engine());
    let session = install(&made, &place, &receiver, vec![scripted.addr]);
    wait(&session);
    made.assert_same(&place.path().join("out"));
    let progress = session.progress();
    assert_eq!((progress.bytes_from_peers, progress.bytes_wasted), (progress.bytes_total, 0));
    assert_eq!(scripted.parts.load(Ordering::Relaxed), 4 * 6, "sixteen blocks in threes");
}

/// Of a part, too, nothing is kept or passed on that did not verify; who sends no proof broke the rules, and is left for others.
#[test]
fn wrong_parts_and_wrong_proofs_do_no_harm() {
    let flipped: Falsify = |mut bytes| {
        bytes[0] ^= 1;
        bytes
    };
    let wrong = [
        Manners { blocks: 3, proof: |nodes| nodes, payload: flipped },
        Manners {
            blocks: 3,
            proof: |mut nodes| {
                nodes[0][0] ^= 1;
                nodes
            },
            payload: |bytes| bytes,
        },
        Manners { blocks: 3, proof: |nodes| nodes[1..].to_vec(), payload: |bytes| bytes },
        Manners { blocks: 3, proof: |_| Vec::new(), payload: |bytes| bytes },
        Manners { blocks: 3, proof: |nodes| nodes, payload: |bytes| [&bytes[..], &[0]].concat() },
    ];
    let made = of_parts();
    for (at, manners) in wrong.into_iter().enumerate() {
        let scripted = Scripted::start_with(&made, manners);
        let (place, receiver) = (tempfile::tempdir().unwrap(), engine());
        let session = install(&made, &place, &receiver, vec![scripted.addr]);
        if at < 3 {
            let mut events = Vec::new();
            while !events.contains(&Event::PeerBanned { peer: scripted.peer }) {
                events.push(session.next_event_timeout(common::PATIENCE).unwrap_or_else(|| panic!("{at}: not banned: {events:?}")));
            }
        } else {
            until(|| scripted.parts.load(Ordering::Relaxed) > 0 && session.progress().peers == 0);
        }
        assert_eq!(session.progress().bytes_done, 0, "{at}");
        let (seed_engine, _seed) = origin(&made);
        session.add_peers(&[seed_engine.listen_addr().unwrap()]);
        wait(&session);
        made.assert_same(&place.path().join("out"));
    }
}

/// A part is sent with what proves it, before its bytes.
#[test]
fn an_origin_proves_the_parts_that_it_is_asked_for() {
    let made = of_parts();
    let (seed_engine, seed) = origin(&made);
    until(|| seed.progress().pieces_done == made.pea.geometry().piece_count());
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let talk = async {
        let transport = TcpTransport::new(&Identity::generate(), &TcpOptions::default()).unwrap();
        let mut link = transport.dial(seed_engine.listen_addr().unwrap(), None, Duration::from_secs(5)).await.unwrap();
        link.writer.message(&hello(&made)).await.unwrap();
        link.writer.message(&Message::Held { runs: vec![], need: made.pea.geometry().piece_count(), queue_ms: 0 }).await.unwrap();
        link.writer.message(&Message::Credit { pieces: 1, upload_bytes_per_s: 1 << 20 }).await.unwrap();
        link.writer.flush().await.unwrap();
        let geometry = made.pea.geometry();
        // An origin chooses itself which piece it gives first.
        let piece = loop {
            if let Incoming::Message(Message::Assign { piece, .. }) = link.reader.next().await.unwrap() {
                break piece;
            }
        };
        link.writer.message(&Message::Request { req: 9, piece, first: 5, count: 7 }).await.unwrap();
        link.writer.flush().await.unwrap();
        let span = geometry.span(geometry.piece(piece).unwrap(), 5, 7).unwrap();
        let (mut verifier, mut bytes) = (None, Vec::new());
        while bytes.len() < geometry.len_of_span(span) as usize {
            match link.reader.next().await.unwrap() {
                Incoming::Message(_) => {}
                Incoming::Proof { req, nodes } => {
                    assert_eq!((req, bytes.len()), (RequestId(9), 0), "the proof comes first");
                    verifier = Some(SpanVerifier::new(geometry, span, &SpanProof { nodes }, made.pea.piece_cv(span.piece())).unwrap());
                }
                Incoming::Payload { len, .. } => {
                    let had = bytes.len();
                    bytes.resize(had + len as usize, 0);
                    link.reader.payload(&mut bytes[had..]).await.unwrap();
                }
            }
        }
        let verifier = verifier.expect("a proof");
        let blocks = bytes.chunks(BLOCK_BYTES as usize).zip(5..);
        blocks.for_each(|(block, at)| verifier.block(at, block).unwrap());
    };
    runtime.block_on(async { tokio::time::timeout(common::PATIENCE, talk).await.expect("it is served") });
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
