//! Peers that serve wrong bytes, a tenth to a half of a swarm with capped uplinks: what they cost, and that it is not more.
//!
//! Promises P6 and P7 of SECURITY.md. The long form: `PEAS_HOSTILE_MIB` makes the content larger than the gate's 16 MiB, `PEAS_HOSTILE_PEERS`
//! the swarm larger than ten, and `PEAS_HOSTILE_PERCENT` picks one share of poisoners.

mod common;

use common::attackers::{Falsify, Ledger, Poisoner, hello, poison, runtime};
use common::{Made, config, single_file_in_pieces};
use peas_core::config::{EngineConfig, InstallOptions, SeedOptions, SeedPolicy};
use peas_core::unit::PeerId;
use peas_core::{Engine, Event, Session};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

const PIECE_BYTES: u32 = 256 << 10;

/// Uplink of the origin and of each client: low enough that the network and not this machine's processor is what a run waits for.
const UP_BYTES_PER_S: u64 = 4_000_000;

/// Longest run. Only a failing test takes as long.
fn patience() -> Duration {
    Duration::from_secs(120) + Duration::from_secs_f64(10.0 * (number("PEAS_HOSTILE_MIB", 16) << 20) as f64 / UP_BYTES_PER_S as f64)
}

/// What the environment says, or else the gate's form.
fn number(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).ok().map_or(otherwise, |number| number.parse().unwrap())
}

/// What the origin may send for what it sends to the honest ones alone.
const EGRESS_MAX: f64 = 1.2;

struct Outcome {
    took_s: f64,
    ledger: Ledger,
    banned: usize,
    wasted_bytes: u64,
    origin_bytes: u64,
}

fn capped() -> Engine {
    Engine::new(EngineConfig { upload_bytes_per_s: UP_BYTES_PER_S, threads: 1, ..config() }).unwrap()
}

/// Honest clients and poisoners install from one origin; all honest ones must end up with the right bytes.
fn swarm(made: &Made, honest: usize, poisoners: usize, falsify: Falsify) -> Outcome {
    let origin = capped();
    let seed = origin.seed(made.pea.clone(), &made.source, SeedOptions { origin: true, ..Default::default() }).unwrap();
    let engines: Vec<Engine> = (0..honest).map(|_| capped()).collect();
    let place = tempfile::tempdir().unwrap();
    let out = |at: usize| place.path().join(format!("out{at}"));

    let ledger = Ledger::default();
    let attackers = runtime();
    let victims: Vec<SocketAddr> = engines.iter().map(|engine| engine.listen_addr().unwrap()).collect();
    let content = std::fs::read(&made.source).unwrap();
    let shared = Arc::new((content, *made.pea.geometry(), hello(made, None)));
    for _ in 0..poisoners {
        let poisoner = Poisoner { made: shared.clone(), victims: victims.clone(), ledger: ledger.clone(), falsify, keys: 3 };
        attackers.spawn(Arc::new(poisoner).run());
    }

    let began = Instant::now();
    let peers = vec![origin.listen_addr().unwrap()];
    let sessions: Vec<Session> = engines
        .iter()
        .enumerate()
        .map(|(at, engine)| {
            let options = InstallOptions { peers: peers.clone(), seed: SeedPolicy::Forever, ..Default::default() };
            engine.install(made.pea.clone(), &out(at), options).unwrap()
        })
        .collect();
    for session in &sessions {
        match session.wait_installed_timeout(patience().saturating_sub(began.elapsed())) {
            Some(Ok(())) => {}
            other => panic!("{other:?} with {poisoners} poisoners: {}", session.stats_json()),
        }
    }
    let took_s = began.elapsed().as_secs_f64();
    let mut banned = 0;
    for (at, session) in sessions.iter().enumerate() {
        made.assert_same(&out(at));
        banned += std::iter::from_fn(|| session.try_next_event()).filter(|event| matches!(event, Event::PeerBanned { .. })).count();
    }
    let wasted_bytes = sessions.iter().map(|session| session.progress().bytes_wasted).sum();
    let origin_bytes = seed.progress().bytes_sent;
    attackers.shutdown_background();
    Outcome { took_s, ledger, banned, wasted_bytes, origin_bytes }
}

fn content() -> Made {
    single_file_in_pieces((number("PEAS_HOSTILE_MIB", 16) << 20) as usize, PIECE_BYTES)
}

/// P6: under one key, to one victim: one piece, and nothing after it; nor is such a peer given anything.
fn assert_cheap(outcome: &Outcome, what: &str) {
    let ledger = outcome.ledger.lock().unwrap();
    let mut poisoned = 0;
    for ((attacker, victim), tally) in &*ledger {
        let case = || format!("{what}: {attacker} to {victim}: {tally:?}");
        assert!(tally.bad_bytes <= PIECE_BYTES.into(), "more than one bad piece was taken. {}", case());
        if tally.bad_bytes > 0 {
            poisoned += 1;
            assert_eq!((tally.asked_after, tally.got_after), (0, 0), "a banned peer was asked or served. {}", case());
        }
    }
    assert!(poisoned > 0, "{what}: the attack did not happen");
    assert_eq!(outcome.banned, poisoned, "{what}: each bad piece is a ban");
    let bound = poisoned as u64 * u64::from(PIECE_BYTES);
    println!("{what}: {poisoned} bad pieces taken by {} victims and keys, {} bytes wasted in all", ledger.len(), outcome.wasted_bytes);
    // Hedged requests waste a little in any swarm: four pieces a client.
    assert!(
        outcome.wasted_bytes <= bound + 4 * number("PEAS_HOSTILE_PEERS", 10) * u64::from(PIECE_BYTES),
        "{what}: {} bytes wasted, {bound} of them bad",
        outcome.wasted_bytes
    );
}

#[test]
fn a_tenth_to_a_half_of_a_swarm_poisons() {
    let made = content();
    let (peers, only) = (number("PEAS_HOSTILE_PEERS", 10) as usize, number("PEAS_HOSTILE_PERCENT", 0) as usize);
    for (percent, ratio_max) in [(10, 1.25), (30, 1.25), (50, 1.5)].into_iter().filter(|&(percent, _)| only == 0 || only == percent) {
        let poisoners = peers * percent / 100;
        let honest = peers - poisoners;
        // A ratio of times is only as good as the machine is idle: the best of three. An origin whose hand-out is over helps where that saves
        // half a second, which is an eighth of the gate's content: the origin's bytes are those of all runs.
        let mut ratios = Vec::new();
        let mut origin_bytes = [0, 0];
        let mut egress = 0.0;
        for _ in 0..3 {
            let clean = swarm(&made, honest, 0, poison);
            let attacked = swarm(&made, honest, poisoners, poison);
            assert_cheap(&attacked, &format!("{honest} honest, {poisoners} poisoners"));
            println!("{honest} honest: {:.2} s alone, {:.2} s with {poisoners} poisoners", clean.took_s, attacked.took_s);
            origin_bytes = [origin_bytes[0] + clean.origin_bytes, origin_bytes[1] + attacked.origin_bytes];
            egress = origin_bytes[1] as f64 / origin_bytes[0] as f64;
            println!("{honest} honest: the origin sent {egress:.3} times as much as to them alone");
            ratios.push(attacked.took_s / clean.took_s);
            if egress <= EGRESS_MAX && ratios.iter().any(|&ratio| ratio <= ratio_max) {
                break;
            }
        }
        assert!(egress <= EGRESS_MAX, "{poisoners} of {peers}: the origin sent {egress} times as much");
        assert!(ratios.iter().any(|&ratio| ratio <= ratio_max), "{poisoners} of {}: {ratios:?}, above {ratio_max}", honest + poisoners);
    }
}

/// The control: the same peers with the right bytes are neither banned nor limited to a piece, so the ledger would show it.
#[test]
fn control_the_ledger_sees_who_is_not_stopped() {
    let made = single_file_in_pieces(8 << 20, PIECE_BYTES);
    let outcome = swarm(&made, 3, 2, |bytes| bytes);
    assert_eq!(outcome.banned, 0);
    let ledger = outcome.ledger.lock().unwrap();
    let most = ledger.values().map(|tally| tally.bad_bytes).max().unwrap_or(0);
    assert!(most > u64::from(PIECE_BYTES), "{most} bytes: one who is not stopped sends more than one piece");
    let given: u64 = ledger.values().map(|tally| tally.got_before).sum();
    let _: Vec<&(PeerId, PeerId)> = ledger.keys().collect();
    assert!(given > 0, "and is given something");
}
