//! A thousand peers at one origin of 16,384 pieces (test E1): each has said what it holds, has asked and been served, and has listened.
//! What the host's process needs at most is promise P9.

mod common;

use common::attackers::{greeted, hello, runtime};
use common::node::{Node, is_optimised, raise_descriptors};
use common::{Made, until};
use peas_core::config::CreateOptions;
use peas_core::session;
use peas_core::transport::{Identity, Incoming, LinkError, LinkReader, LinkWriter, TcpOptions, TcpTransport};
use peas_core::unit::BLOCK_BYTES;
use peas_core::wire::Message;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// A thousand; a hundred where the node is not optimised (`PEAS_NODE` names one that is).
fn peer_count() -> usize {
    if is_optimised() { 1000 } else { 100 }
}

const PIECES: u32 = 16_384;
const PIECE_BYTES: u32 = 64 << 10;
const BLOCKS: u32 = PIECE_BYTES / BLOCK_BYTES;

/// P9: 64 MiB, all data in flight included; for each peer 64 KiB and a bit per piece; 48 bytes per piece.
fn bound_kib(peers: usize) -> u64 {
    (64 << 10) + peers as u64 * (64 + u64::from(PIECES) / 8 / 1024) + u64::from(PIECES) * 48 / 1024
}

/// A gibibyte that takes no room on disk.
fn sparse() -> Made {
    let dir = tempfile::tempdir().unwrap();
    let source = dir.path().join("content.bin");
    std::fs::File::create(&source).unwrap().set_len(u64::from(PIECES) * u64::from(PIECE_BYTES)).unwrap();
    let options = CreateOptions { piece_bytes: Some(PIECE_BYTES), ..Default::default() };
    let created = session::create(&source, &options, &|_, _| true).unwrap();
    Made { dir, source, pea: common::trusted(&created.bytes) }
}

/// Holds every second piece of a stretch (the costly way to say it), takes what it is granted, and listens until the link ends.
async fn peer(made: Arc<Made>, node: std::net::SocketAddr, at: usize, served: Arc<AtomicUsize>) -> Result<(), LinkError> {
    let transport = TcpTransport::new(&Identity::generate(), &TcpOptions::default()).unwrap();
    let mut link = greeted(&transport, node, &hello(&made, None)).await?;
    let mine: Vec<(u32, u32)> = (0..4000).map(|run| ((run * 4 + at as u32 % 4) % PIECES, 1)).collect();
    link.writer.message(&Message::Held { runs: mine, need: PIECES - 4000, queue_ms: 0 }).await?;
    link.writer.message(&Message::Credit { pieces: 1, upload_bytes_per_s: 1 << 20 }).await?;
    link.writer.flush().await?;
    let mut lacking_bytes = None;
    loop {
        let (piece, blocks, is_assigned) = match link.reader.next().await? {
            Incoming::Payload { len, .. } => {
                link.reader.skip().await?;
                let lacking = lacking_bytes.as_mut().expect("nothing comes that was not asked for");
                *lacking -= len;
                if *lacking == 0 {
                    served.fetch_add(1, Ordering::Relaxed);
                }
                continue;
            }
            Incoming::Message(Message::Assign { piece, .. }) => (piece, BLOCKS, true),
            Incoming::Message(Message::Grant { blocks, .. }) => {
                ((at as u32 * 4 + 1 + at as u32 % 4) % PIECES, BLOCKS.min(blocks.into()), false)
            }
            _ => continue,
        };
        let answer = match lacking_bytes {
            None => Message::Request { req: 1, piece, first: 0, count: blocks as u16 },
            Some(_) => Message::Decline { piece: is_assigned.then_some(piece) },
        };
        lacking_bytes.get_or_insert(blocks * BLOCK_BYTES);
        link.writer.message(&answer).await?;
        link.writer.flush().await?;
    }
}

#[test]
fn a_thousand_peers_at_one_engine() {
    let count = peer_count();
    assert!(raise_descriptors() >= 2 * count as u64 + 200, "this test needs descriptors: raise `ulimit -Hn`");
    let made = Arc::new(sparse());
    let mut node = Node::seed(&made, &["links", "1200"]);
    let idle_kib = node.memory_kib("VmRSS:");
    let peers = runtime();
    let served = Arc::new(AtomicUsize::new(0));
    let running: Vec<_> = (0..count)
        .map(|at| {
            let (made, served, addr) = (made.clone(), served.clone(), node.addr);
            peers.spawn(async move {
                // The kernel's queue of connections is not what is under test.
                tokio::time::sleep(Duration::from_millis(4 * at as u64)).await;
                peer(made, addr, at, served).await
            })
        })
        .collect();
    let began = std::time::Instant::now();
    while node.peers() < count as u64 {
        assert!(
            began.elapsed() < Duration::from_secs(120),
            "{} are linked; {} ended",
            node.peers(),
            running.iter().filter(|peer| peer.is_finished()).count()
        );
        std::thread::sleep(Duration::from_millis(50));
    }
    // All have something to tell and to hear for a while.
    until(|| served.load(Ordering::Relaxed) >= count / 2 || began.elapsed() > Duration::from_secs(100));
    let (rss_kib, peak_kib) = (node.memory_kib("VmRSS:"), node.memory_kib("VmHWM:"));
    println!(
        "{count} peers, {PIECES} pieces: {idle_kib} KiB alone, {rss_kib} KiB with them, {peak_kib} KiB at most (bound {}), {:.1} KiB a peer; {} descriptors; {} served",
        bound_kib(count),
        (rss_kib - idle_kib) as f64 / count as f64,
        node.descriptors(),
        served.load(Ordering::Relaxed)
    );
    assert!(served.load(Ordering::Relaxed) >= count / 2, "an origin with a thousand peers still serves");
    assert!(node.descriptors() >= count, "the control: the links are real");
    assert!(peak_kib <= bound_kib(count), "{peak_kib} KiB are more than {}", bound_kib(count));
    drop(peers);
    assert!(node.is_alive());
    assert!(node.end());
}

/// The control: an origin that keeps a mebibyte for each link has more after a hundred of them.
#[test]
#[cfg(feature = "planted")]
fn control_memory_for_each_link_is_seen() {
    const LINKS: usize = 100;
    let made = sparse();
    let node = Node::seed_with_bug(&made, &[], "leak-links");
    runtime().block_on(async {
        let transport = TcpTransport::new(&Identity::generate(), &TcpOptions::default()).unwrap();
        // The other test's thousand may keep this machine too busy for some.
        let mut linked = 0;
        for _ in 0..10 * LINKS {
            linked += usize::from(greeted(&transport, node.addr, &hello(&made, None)).await.is_ok());
            if linked == LINKS {
                return;
            }
        }
        panic!("{linked} links were made");
    });
    let peak_kib = node.memory_kib("VmHWM:");
    assert!(peak_kib > bound_kib(LINKS), "{peak_kib} KiB are within {}", bound_kib(LINKS));
    assert!(node.end());
}
