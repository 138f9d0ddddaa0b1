//! Eight processes that install from one another while they are killed, begun again and visited by strangers (THREATS E7): all become
//! whole, no byte is wrong, and those that are never killed end with the memory and the descriptors that they had.
//!
//! The short form takes `SHORT`; `PEAS_SOAK_S=3600 cargo test -p peas-tests --test soak -- --nocapture` is the long one. A failure
//! prints its seed; the order of kills follows from it, their instants do not.

mod common;

use common::attackers::{Slow, crowd, greeted, hello, runtime};
use common::node::{Node, raise_descriptors};
use common::{Made, single_file};
use peas_core::transport::{Identity, TcpOptions, TcpTransport};
use peas_core::unit::Rng;
use std::path::PathBuf;
use std::time::{Duration, Instant};

const SHORT: Duration = Duration::from_secs(40);

/// Six that are killed; one that is not, and the origin.
const KILLED: usize = 6;

/// What is done in one step, and how often one begins.
const STEP: Duration = Duration::from_millis(500);
const GUESTS: usize = 8;

/// Fewer would show nothing: a busy machine takes longer than it was given.
const STEPS_MIN: usize = 30;

/// Descriptors more in the last third than in the second.
const DESCRIPTORS_MORE_MAX: i64 = 12;

/// The same for memory. What an allocator keeps for later grows for a while: in an hour it must have come to rest.
fn memory_more_max_kib(length: Duration) -> i64 {
    if length >= Duration::from_secs(600) { 2 << 10 } else { 8 << 10 }
}

/// Figures of one process, one for each step.
#[derive(Default)]
struct Watched {
    descriptors: Vec<i64>,
    memory_kib: Vec<i64>,
}

impl Watched {
    fn look(&mut self, node: &Node) {
        self.descriptors.push(node.descriptors() as i64);
        self.memory_kib.push(node.memory_kib("VmRSS:") as i64);
    }
}

/// Median of the last third less that of the second; the first is for warming up.
fn growth(figures: &[i64]) -> i64 {
    let third = figures.len() / 3;
    let median = |part: &[i64]| {
        let mut part = part.to_vec();
        part.sort_unstable();
        part[part.len() / 2]
    };
    median(&figures[2 * third..]) - median(&figures[third..2 * third])
}

/// Peers that come, say hello and go.
async fn guests(made: &Made, to: std::net::SocketAddr) -> usize {
    let hello = hello(made, None);
    let mut visits = tokio::task::JoinSet::new();
    for _ in 0..GUESTS {
        let hello = hello.clone();
        visits.spawn(async move {
            let transport = TcpTransport::new(&Identity::generate(), &TcpOptions::default()).unwrap();
            greeted(&transport, to, &hello).await.is_ok()
        });
    }
    visits.join_all().await.into_iter().filter(|&linked| linked).count()
}

/// What grew, by name; empty: nothing.
fn soak(made: &Made, mut origin: Node, length: Duration, seed: u64) -> Vec<String> {
    let mut rng = Rng::new(seed);
    let place = tempfile::tempdir().unwrap();
    let at = |number: usize| -> PathBuf { place.path().join(format!("out{number}")) };
    let install = |number: usize, peers: &[std::net::SocketAddr]| {
        let peers: Vec<String> = peers.iter().map(ToString::to_string).collect();
        let options: Vec<&str> = peers.iter().flat_map(|peer| ["peer", peer]).collect();
        Node::install(made, &at(number), &options)
    };
    let mut elder = install(KILLED, &[origin.addr]);
    let known = [origin.addr, elder.addr];
    let mut others: Vec<Node> = (0..KILLED).map(|number| install(number, &known)).collect();
    let (mut of_origin, mut of_elder) = (Watched::default(), Watched::default());
    let (mut kills, mut links) = (0, 0);
    let strangers = runtime();
    let began = Instant::now();
    let mut step = 0;
    while began.elapsed() < length || step < STEPS_MIN {
        let victim = rng.below(KILLED);
        // Killed wherever it is; every third has lost its disk, too.
        let gone = others.remove(victim);
        drop(gone);
        if rng.chance(0.33) {
            let _ = std::fs::remove_file(at(victim)); // it may not have been whole
        }
        others.insert(victim, install(victim, &known));
        kills += 1;
        for to in known {
            links += strangers.block_on(guests(made, to));
        }
        if step % 8 == 0 {
            // Some who only stand in the door, each time anew before the last ones are put out.
            let first = [Slow::HalfHandshake, Slow::Mute][step / 8 % 2];
            strangers.block_on(crowd(made, known[step / 8 % 2], first, 4, STEP / 2));
        }
        of_origin.look(&origin);
        of_elder.look(&elder);
        step += 1;
        // A pace and not a wait: so that an hour is seven thousand steps on any machine that keeps up.
        std::thread::sleep((STEP * step as u32).saturating_sub(began.elapsed()));
    }
    for (number, node) in others.iter_mut().chain([&mut elder]).enumerate() {
        let patience = Instant::now() + common::PATIENCE;
        while node.pieces_done() < u64::from(made.pea.geometry().piece_count()) {
            assert!(Instant::now() < patience, "seed {seed}: {number} is not whole: {}", node.stats());
            std::thread::sleep(Duration::from_millis(20));
        }
        common::until(|| at(number).exists());
        made.assert_same(&at(number));
    }
    assert!(origin.is_alive() && elder.is_alive());
    assert!(links >= step * GUESTS, "the control: {links} links in {step} steps are too few to see anything");
    let mut grown = Vec::new();
    for (name, watched) in [("origin", &of_origin), ("elder", &of_elder)] {
        let (descriptors, memory_kib) = (growth(&watched.descriptors), growth(&watched.memory_kib));
        println!(
            "{name}: {kills} kills, {links} visits in {:.0} s; {} descriptors and {} KiB at the end, {descriptors:+} and {memory_kib:+} from the second third to the last",
            began.elapsed().as_secs_f64(),
            watched.descriptors.last().unwrap(),
            watched.memory_kib.last().unwrap(),
        );
        if descriptors > DESCRIPTORS_MORE_MAX {
            grown.push(format!("{name}: descriptors {descriptors:+}"));
        }
        if memory_kib > memory_more_max_kib(length) {
            grown.push(format!("{name}: memory {memory_kib:+} KiB"));
        }
    }
    assert!(origin.end() && elder.end());
    grown
}

#[test]
fn eight_nodes_with_churn() {
    raise_descriptors();
    let length = std::env::var("PEAS_SOAK_S").map_or(SHORT, |text| Duration::from_secs(text.parse().expect("seconds")));
    let seed = std::env::var("PEAS_SOAK_SEED").map_or(1, |text| text.parse().expect("a number"));
    let made = single_file(16 << 20);
    let grown = soak(&made, Node::seed(&made, &[]), length, seed);
    assert!(grown.is_empty(), "seed {seed}: {grown:?}");
}

/// The control: an origin that leaves a descriptor and a little memory behind with each link is found out by both.
#[test]
#[cfg(feature = "planted")]
fn control_a_leak_for_each_link() {
    raise_descriptors();
    let made = single_file(2 << 20);
    let grown = soak(&made, Node::seed_with_bug(&made, &[], "leak-links"), Duration::from_secs(15), 2);
    assert!(grown.iter().any(|grown| grown.starts_with("origin: descriptors")), "{grown:?}");
    assert!(grown.iter().any(|grown| grown.starts_with("origin: memory")), "{grown:?}");
    assert!(!grown.iter().any(|grown| grown.starts_with("elder")), "{grown:?}");
}
