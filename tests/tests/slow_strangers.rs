//! A thousand connections of each kind that never get anywhere: they are put out, memory stays, and those who came to work do.
//!
//! Test C2: a byte in ten seconds, half a handshake, peers that link and never read. The host is a process of its own, so that its
//! memory is only its own. With `PEAS_MEASURED` set, on a machine that does nothing else and with an optimised node, the swarm may not be
//! slowed by more than a tenth.

mod common;

use common::attackers::{Lives, Slow, crowd, runtime};
use common::node::{Node, is_optimised, raise_descriptors};
use common::{Made, engine, single_file, until};
use peas_core::config::{InstallOptions, SeedPolicy};
use peas_core::{Engine, Session};
use std::time::{Duration, Instant};

/// How many of each kind; of those that link a hundred where the node is not optimised (`PEAS_NODE` names one that is).
const CROWD: usize = 1000;

fn linked() -> usize {
    if is_optimised() { CROWD } else { CROWD / 10 }
}

/// Every connection must be over by then, time to wait for its turn included; and what a busy machine may add.
const EVICTED_WITHIN: Duration = Duration::from_secs(20);
const BUSY: Duration = Duration::from_secs(10);

/// What a swarm may take for what it takes alone.
const SLOWED_MAX: f64 = 1.1;

/// What the host may grow by.
const GROWTH_KIB: u64 = 64 << 10;

const UP_BYTES_PER_S: &str = "8000000";

/// Clients that install from the node.
struct Clients {
    began: Instant,
    place: tempfile::TempDir,
    all: Vec<(Engine, Session)>,
}

impl Clients {
    fn start(made: &Made, node: &Node, count: usize) -> Self {
        let (began, place) = (Instant::now(), tempfile::tempdir().unwrap());
        let install = |at: usize| {
            let engine = engine();
            let options = InstallOptions { peers: vec![node.addr], seed: SeedPolicy::Forever, ..Default::default() };
            let session = engine.install(made.pea.clone(), &place.path().join(format!("out{at}")), options).unwrap();
            (engine, session)
        };
        let all = (0..count).map(install).collect();
        Self { began, place, all }
    }

    /// Until all are whole; how long it took.
    fn wait(&self, made: &Made) -> f64 {
        for (_, session) in &self.all {
            match session.wait_installed_timeout(Duration::from_secs(180)) {
                Some(Ok(())) => {}
                other => panic!("{other:?}: {}", session.stats_json()),
            }
        }
        let took_s = self.began.elapsed().as_secs_f64();
        (0..self.all.len()).for_each(|at| made.assert_same(&self.place.path().join(format!("out{at}"))));
        took_s
    }
}

fn longest(lives: &Lives) -> Duration {
    lives.iter().map(|life| life.expect("some connection was never ended")).max().unwrap()
}

/// A swarm alone; then the same, with the crowd coming when it is under way, and one more client that comes while the crowd is there.
fn under(slow: Slow, count: usize, evicted_within: Duration) {
    raise_descriptors();
    let made = single_file(32 << 20);
    let mut node = Node::seed(&made, &["upload", UP_BYTES_PER_S]);
    let clean_s = Clients::start(&made, &node, 8).wait(&made);
    drop(node);
    node = Node::seed(&made, &["upload", UP_BYTES_PER_S]);
    let swarm = Clients::start(&made, &node, 8);
    until(|| swarm.all.iter().all(|(_, session)| session.progress().pieces_done > 0));
    let before_kib = node.memory_kib("VmRSS:");
    node.forget_peak();
    let attackers = runtime();
    let (lives, attacked_s, late_s) = std::thread::scope(|scope| {
        let crowd = scope.spawn(|| attackers.block_on(crowd(&made, node.addr, slow, count, EVICTED_WITHIN * 6)));
        std::thread::sleep(Duration::from_millis(1500));
        let late = Clients::start(&made, &node, 1);
        let attacked_s = swarm.wait(&made);
        let late_s = late.wait(&made);
        (crowd.join().unwrap(), attacked_s, late_s)
    });
    let growth_kib = node.memory_kib("VmHWM:").saturating_sub(before_kib);
    assert_eq!(lives.len(), count);
    println!(
        "{count} {slow:?}: swarm alone {clean_s:.2} s, attacked {attacked_s:.2} s ({:.2}), latecomer {late_s:.2} s; longest life {:.1} s; host grew by {growth_kib} KiB",
        attacked_s / clean_s,
        longest(&lives).as_secs_f64()
    );
    assert!(longest(&lives) <= evicted_within + BUSY, "{slow:?}: one stood for {:?}", longest(&lives));
    assert!(growth_kib <= GROWTH_KIB, "{slow:?}: the host grew by {growth_kib} KiB");
    if std::env::var_os("PEAS_MEASURED").is_some() {
        assert!(attacked_s <= clean_s * SLOWED_MAX, "{slow:?}: {attacked_s:.2} s instead of {clean_s:.2}");
    }
    assert!(node.is_alive());
    assert!(node.end());
}

#[test]
fn a_byte_in_ten_seconds() {
    under(Slow::Drip, CROWD, EVICTED_WITHIN);
}

#[test]
fn half_a_handshake() {
    under(Slow::HalfHandshake, CROWD, EVICTED_WITHIN);
}

#[test]
fn peers_that_never_read() {
    under(Slow::Mute, linked(), EVICTED_WITHIN);
}

/// The worst of them: each takes what the system's buffers hold before it is seen to stand still. Before newcomers were kept behind those who had
/// shown that they take what they ask for, 250 of them held up a swarm for 24 s.
#[test]
fn peers_that_ask_and_never_read() {
    under(Slow::AskingMute, linked(), EVICTED_WITHIN);
}

/// The control: a host that keeps everybody is found out.
#[test]
fn control_a_host_that_puts_nobody_out() {
    let made = single_file(1 << 20);
    let attackers = runtime();
    let lives = attackers.block_on(async {
        let listener = tokio::net::TcpListener::bind(common::attackers::HERE).await.unwrap();
        let addr = listener.local_addr().unwrap();
        let keeping = tokio::spawn(async move {
            let mut kept = Vec::new();
            while let Ok(stream) = listener.accept().await {
                kept.push(stream);
            }
        });
        let lives = crowd(&made, addr, Slow::HalfHandshake, 20, Duration::from_secs(2)).await;
        keeping.abort();
        lives
    });
    assert_eq!(lives, vec![None; 20]);
}
