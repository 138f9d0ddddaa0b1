//! An origin whose process may have only 64 descriptors and little memory (test E3), and a crowd that takes what it can of them: who
//! is there goes on being served, nothing is taken for damaged, and the processor is not burnt.

mod common;

use common::attackers::{Slow, crowd, runtime};
use common::node::Node;
use common::{engine, folder};
use peas_core::config::{InstallOptions, SeedPolicy};
use std::time::{Duration, Instant};

#[test]
fn sixty_four_descriptors() {
    let made = folder(400);
    let mut node = Node::seed_under(&made, &["upload", "800000"], "ulimit -n 64; ulimit -v 1500000;");
    let place = tempfile::tempdir().unwrap();
    let clients: Vec<_> = (0..3)
        .map(|at| {
            let engine = engine();
            let options = InstallOptions { peers: vec![node.addr], seed: SeedPolicy::Forever, ..Default::default() };
            let session = engine.install(made.pea.clone(), &place.path().join(format!("out{at}")), options).unwrap();
            (engine, session)
        })
        .collect();
    common::until(|| clients.iter().all(|(_, session)| session.progress().origin_linked));
    assert!(clients.iter().any(|(_, session)| session.progress().remaining_s != Some(0.0)), "there is something left to serve");

    let attackers = runtime();
    let most = std::thread::scope(|scope| {
        let strangers = scope.spawn(|| attackers.block_on(crowd(&made, node.addr, Slow::HalfHandshake, 300, Duration::from_secs(60))));
        let mutes = scope.spawn(|| runtime().block_on(crowd(&made, node.addr, Slow::Mute, 60, Duration::from_secs(60))));
        let mut most = 0;
        while clients.iter().any(|(_, session)| session.wait_installed_timeout(Duration::from_millis(20)).is_none()) {
            most = most.max(node.descriptors());
        }
        for (at, (_, session)) in clients.iter().enumerate() {
            assert!(matches!(session.wait_installed_timeout(Duration::ZERO), Some(Ok(()))), "{}", session.stats_json());
            made.assert_same(&place.path().join(format!("out{at}")));
        }
        assert!(strangers.join().unwrap().iter().all(Option::is_some), "strangers are put out all the same");
        assert!(mutes.join().unwrap().iter().all(Option::is_some));
        most
    });
    assert!(most >= 40, "the control: descriptors were short ({most} of 64 were in use at most)");
    let stats = node.stats();
    assert_eq!(stats["pieces_done"], stats["pieces_total"], "a file that could not be opened is not a damaged one: {stats}");

    // With the crowd gone and the work done, the node sleeps: a loop that spins takes a whole core, 100 ticks of a second.
    let (ticks, began) = (node.cpu_ticks(), Instant::now());
    std::thread::sleep(Duration::from_secs(1));
    let busy = (node.cpu_ticks() - ticks) as f64 / began.elapsed().as_secs_f64();
    assert!(busy < 50.0, "{busy} ticks a second with nothing to do");
    println!("at most {most} of 64 descriptors in use; {busy:.0} ticks a second afterwards");
    assert!(node.end());
}
