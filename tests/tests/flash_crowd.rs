//! Sixty-four clients in one moment against one capped origin (test C3): all are let in, all become whole, and the origin's memory
//! does not follow their number. And who asks out of turn is told when to come again.

mod common;

use common::attackers::{greeted, hello, runtime};
use common::node::{Node, raise_descriptors};
use common::{Made, config, single_file, until};
use peas_core::config::{EngineConfig, InstallOptions, SeedOptions, SeedPolicy};
use peas_core::transport::{Identity, Incoming, LinkReader, LinkWriter, TcpOptions, TcpTransport};
use peas_core::unit::Rng;
use peas_core::wire::{Message, REFUSE_BUSY};
use peas_core::{Engine, Event, Session, State};
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
    /// Clients that were let in and put out again while pieces were lacking.
    put_out: usize,
    origin_grew_kib: u64,
}

/// Looks at a client from time to time: whether it lost the origin while pieces were lacking. One that is whole may let go of it.
#[derive(Clone, Default)]
struct Look {
    /// Pieces that it had by the picture in view when it had lost the origin: a later picture tells whether some were lacking then.
    had: Option<u32>,
    was_put_out: bool,
}

impl Look {
    /// Whether pieces are lacking.
    fn again(&mut self, session: &Session) -> bool {
        let lost = std::iter::from_fn(|| session.try_next_event()).any(|event| matches!(event, Event::OriginLost));
        let progress = session.progress();
        let lacks = progress.pieces_done < progress.pieces_total || progress.pieces_total == 0;
        self.was_put_out |= lacks && self.had.is_some_and(|had| had < progress.pieces_done);
        if lost {
            self.had.get_or_insert(progress.pieces_done);
        }
        lacks
    }
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
    let (mut first_s, mut looks, mut let_in) = (vec![None; CLIENTS], vec![Look::default(); CLIENTS], 0);
    let mut lacking: Vec<usize> = (0..CLIENTS).collect();
    while !lacking.is_empty() && !left().is_zero() {
        let_in = let_in.max(node.peers());
        lacking.retain(|&at| {
            let session = &clients[at].1;
            let lacks = looks[at].again(session);
            if first_s[at].is_none() && session.progress().pieces_done > 0 {
                first_s[at] = Some(began.elapsed().as_secs_f64());
            }
            lacks
        });
        std::thread::sleep(Duration::from_millis(5));
    }
    let mut whole = 0;
    for (at, (_, session)) in clients.iter().enumerate() {
        match session.wait_installed_timeout(left()) {
            Some(Ok(())) => {
                made.assert_same(&out(at));
                whole += 1;
            }
            Some(Err(error)) => panic!("client {at}: {error}"),
            None => {}
        }
    }
    let put_out = looks.iter().filter(|look| look.was_put_out).count();
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

/// The control of losses: an origin that goes while pieces are lacking is seen to have gone.
#[test]
fn control_a_lost_origin_is_seen() {
    let _alone = alone();
    let made = single_file(8 << 20);
    let [origin, other, client] = std::array::from_fn(|_| Engine::new(config()).unwrap());
    let seeds = [(&origin, true), (&other, false)].map(|(engine, origin)| {
        let session = engine.seed(made.pea.clone(), &made.source, SeedOptions { origin, ..Default::default() }).unwrap();
        session.set_limits(1 << 20, 0);
        session
    });
    let place = tempfile::tempdir().unwrap();
    let peers = vec![origin.listen_addr().unwrap(), other.listen_addr().unwrap()];
    let session = client.install(made.pea.clone(), &place.path().join("out"), InstallOptions { peers, ..Default::default() }).unwrap();
    until(|| session.progress().origin_linked && session.progress().pieces_done > 0);
    let mut look = Look::default();
    assert!(look.again(&session) && !look.was_put_out);
    origin.close(Duration::from_secs(2));
    while look.again(&session) && !look.was_put_out {
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(look.was_put_out);
    drop(seeds);
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
    runtime().block_on(async {
        let transport = TcpTransport::new(&Identity::generate(), &TcpOptions::default()).unwrap();
        let origin = Engine::new(config()).unwrap();
        let addr = origin.listen_addr().unwrap();
        let session = origin.seed(made.pea.clone(), &made.source, SeedOptions { check_first: true, ..Default::default() }).unwrap();
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
