//! Sixty-four clients in one moment against one capped origin (test C3): all are let in, all become whole, and the origin's memory
//! does not follow their number. And who asks out of turn is told when to come again.

mod common;

use common::attackers::{greeted, hello, runtime};
use common::node::{Node, raise_descriptors};
use common::{Made, config, single_file};
use peas_core::config::{EngineConfig, InstallOptions, SeedOptions, SeedPolicy};
use peas_core::transport::{Identity, Incoming, LinkReader, LinkWriter, TcpOptions, TcpTransport};
use peas_core::unit::Rng;
use peas_core::wire::{Message, REFUSE_BUSY};
use peas_core::{Engine, Event, State};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

const CLIENTS: usize = 64;
const PATIENCE: Duration = Duration::from_secs(120);

/// What the origin may grow by.
const GROWTH_KIB: u64 = 64 << 10;

/// One crowd at a time: they would be each other's load.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What a flash crowd came to.
struct Crowd {
    /// When each client had its first piece; `None`: not within the patience.
    first_s: Vec<Option<f64>>,
    whole: usize,
    /// The most clients that the origin was linked with at one time.
    let_in: u64,
    /// Clients that were let in and put out again.
    put_out: usize,
    origin_grew_kib: u64,
}

/// All clients begin in one moment; `made` must be whole at each of them within the patience.
fn flash(made: &Made, mut node: Node, patience: Duration) -> Crowd {
    raise_descriptors();
    let before_kib = node.memory_kib("VmRSS:");
    let place = tempfile::tempdir().unwrap();
    let out = |at: usize| place.path().join(format!("out{at}"));
    let began = Instant::now();
    let left = || patience.saturating_sub(began.elapsed());
    let clients: Vec<_> = (0..CLIENTS)
        .map(|at| {
            let engine = Engine::new(EngineConfig { threads: 1, ..config() }).unwrap();
            let options = InstallOptions { peers: vec![node.addr], seed: SeedPolicy::Forever, ..Default::default() };
            let session = engine.install(made.pea.clone(), &out(at), options).unwrap();
            (engine, session)
        })
        .collect();
    // First pieces first, then all of them.
    let mut first_s = vec![None; CLIENTS];
    let mut let_in = 0;
    while first_s.iter().any(Option::is_none) && !left().is_zero() {
        let_in = let_in.max(node.peers());
        for (first, (_, session)) in first_s.iter_mut().zip(&clients).filter(|(first, _)| first.is_none()) {
            *first = (session.progress().pieces_done > 0).then(|| began.elapsed().as_secs_f64());
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    let (mut whole, mut put_out) = (0, 0);
    for (at, (_, session)) in clients.iter().enumerate() {
        match session.wait_installed_timeout(left()) {
            Some(Ok(())) => {
                made.assert_same(&out(at));
                whole += 1;
            }
            Some(Err(error)) => panic!("client {at}: {error}"),
            None => {}
        }
        let lost = std::iter::from_fn(|| session.try_next_event()).any(|event| matches!(event, Event::OriginLost));
        put_out += usize::from(lost);
    }
    let origin_grew_kib = node.memory_kib("VmHWM:").saturating_sub(before_kib);
    println!(
        "{CLIENTS} clients, {whole} whole after {:.1} s, {let_in} let in at once, {put_out} put out; last first piece after {:?} s; origin grew by {origin_grew_kib} KiB",
        began.elapsed().as_secs_f64(),
        first_s.iter().flatten().max_by(|a, b| a.total_cmp(b))
    );
    drop(clients);
    assert!(node.end());
    Crowd { first_s, whole, let_in, put_out, origin_grew_kib }
}

const UPLOAD: [&str; 2] = ["upload", "10000000"];

#[test]
fn sixty_four_at_once() {
    let _alone = alone();
    let made = single_file(8 << 20);
    let crowd = flash(&made, Node::seed(&made, &UPLOAD), PATIENCE);
    assert_eq!((crowd.whole, crowd.let_in, crowd.put_out), (CLIENTS, CLIENTS as u64, 0), "{:?}", crowd.first_s);
    assert!(crowd.first_s.iter().all(Option::is_some));
    assert!(crowd.origin_grew_kib < GROWTH_KIB, "the origin grew by {} KiB", crowd.origin_grew_kib);
}

/// The control: an origin with a door for four never has all of them inside, though they may well become whole through one another.
#[test]
fn control_a_narrow_door_is_seen() {
    let _alone = alone();
    let made = single_file(8 << 20);
    let narrow = Node::seed(&made, &[UPLOAD[0], UPLOAD[1], "links", "4"]);
    let crowd = flash(&made, narrow, Duration::from_secs(6));
    assert!(crowd.let_in < CLIENTS as u64, "all were inside at once, through a door for four");
}

/// The control of memory: an origin that keeps a mebibyte for each link grows by more than is allowed.
#[test]
#[cfg(feature = "planted")]
fn control_memory_for_each_client_is_seen() {
    let _alone = alone();
    let made = single_file(1 << 20);
    let crowd = flash(&made, Node::seed_with_bug(&made, &UPLOAD, "leak-links"), PATIENCE);
    assert!(crowd.origin_grew_kib >= GROWTH_KIB, "a leak of {CLIENTS} MiB, and the origin grew by {} KiB", crowd.origin_grew_kib);
}

/// Who comes while the origin still reads through its source waits at the door, and is let in with it.
#[test]
fn who_comes_early_waits_for_the_origin_to_open() {
    let _alone = alone();
    let made = single_file(48 << 20);
    let origin = Engine::new(config()).unwrap();
    let addr = origin.listen_addr().unwrap();
    let session = origin.seed(made.pea.clone(), &made.source, SeedOptions { check_first: true, ..Default::default() }).unwrap();
    runtime().block_on(async {
        let transport = TcpTransport::new(&Identity::generate(), &TcpOptions::default()).unwrap();
        assert_eq!(session.progress().state, State::Checking);
        greeted(&transport, addr, &hello(&made, None)).await.unwrap();
    });
}

/// A request that nobody granted is refused at once, with a time; a queue in which it could wait does not exist.
#[test]
fn who_asks_out_of_turn_is_told_when_to_come_again() {
    let _alone = alone();
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
