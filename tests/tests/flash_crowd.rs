//! Sixty-four clients in one moment against one capped origin (test C3): all are let in, all become whole, and the origin's memory
//! does not follow their number. And who asks out of turn is told when to come again.

mod common;

use common::attackers::{greeted, hello, runtime};
use common::node::{Node, raise_descriptors};
use common::{config, single_file};
use peas_core::config::{EngineConfig, InstallOptions, SeedPolicy};
use peas_core::transport::{Identity, Incoming, LinkReader, LinkWriter, TcpOptions, TcpTransport};
use peas_core::unit::Rng;
use peas_core::wire::{Message, REFUSE_BUSY};
use peas_core::{Engine, Event};
use std::time::{Duration, Instant};

const CLIENTS: usize = 64;
const PATIENCE: Duration = Duration::from_secs(120);

#[test]
fn sixty_four_at_once() {
    raise_descriptors();
    let made = single_file(8 << 20);
    let node = Node::seed(&made, &["upload", "10000000"]);
    let before_kib = node.memory_kib("VmRSS:");
    let place = tempfile::tempdir().unwrap();
    let began = Instant::now();
    let clients: Vec<_> = (0..CLIENTS)
        .map(|at| {
            let engine = Engine::new(EngineConfig { threads: 1, ..config() }).unwrap();
            let options = InstallOptions { peers: vec![node.addr], seed: SeedPolicy::Forever, ..Default::default() };
            let session = engine.install(made.pea.clone(), &place.path().join(format!("out{at}")), options).unwrap();
            (engine, session)
        })
        .collect();
    // First pieces first, then all of them.
    let mut first_s = vec![None; CLIENTS];
    while first_s.iter().any(Option::is_none) {
        assert!(began.elapsed() < PATIENCE, "some never had a piece: {first_s:?}");
        for (first, (_, session)) in first_s.iter_mut().zip(&clients).filter(|(first, _)| first.is_none()) {
            *first = (session.progress().pieces_done > 0).then(|| began.elapsed().as_secs_f64());
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    for (at, (_, session)) in clients.iter().enumerate() {
        match session.wait_installed_timeout(PATIENCE.saturating_sub(began.elapsed())) {
            Some(Ok(())) => {}
            other => panic!("{other:?}: {}", session.stats_json()),
        }
        made.assert_same(&place.path().join(format!("out{at}")));
        let lost = std::iter::from_fn(|| session.try_next_event()).any(|event| matches!(event, Event::OriginLost));
        assert!(!lost, "client {at} was let in and put out again");
    }
    let took_s = began.elapsed().as_secs_f64();
    let growth_kib = node.memory_kib("VmHWM:").saturating_sub(before_kib);
    first_s.sort_by(|a, b| a.partial_cmp(b).unwrap());
    println!(
        "{CLIENTS} clients: last first piece after {:?} s, all whole after {took_s:.1} s, origin grew by {growth_kib} KiB",
        first_s.last()
    );
    assert!(growth_kib < 64 << 10, "the origin grew by {growth_kib} KiB");
    drop(clients);
    assert!(node.end());
}

/// A request that nobody granted is refused at once, with a time; a queue in which it could wait does not exist.
#[test]
fn who_asks_out_of_turn_is_told_when_to_come_again() {
    let made = single_file(4 << 20);
    let node = Node::seed(&made, &["upload", "1000000"]);
    runtime().block_on(async {
        let transport = TcpTransport::new(&Identity::generate(), &TcpOptions::default()).unwrap();
        let mut link = greeted(&transport, node.addr, &hello(&made, None)).await.unwrap();
        let mut rng = Rng::new(1);
        let asks = 50;
        for req in 0..asks {
            let piece = rng.below(64) as u32;
            link.writer.message(&Message::Request { req, piece, first: 0, count: 4 }).await.unwrap();
        }
        link.writer.flush().await.unwrap();
        let mut refused = 0;
        while refused < asks {
            match tokio::time::timeout(PATIENCE, link.reader.next()).await.expect("an answer").unwrap() {
                Incoming::Message(Message::Refuse { reason, retry_after_ms, .. }) => {
                    assert_eq!(reason, REFUSE_BUSY);
                    assert!((10..=2000).contains(&retry_after_ms), "come again in {retry_after_ms} ms");
                    refused += 1;
                }
                Incoming::Message(_) => {}
                other => panic!("served without a grant: {other:?}"),
            }
        }
    });
    assert!(node.end());
}
