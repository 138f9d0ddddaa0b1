//! Engines in one process, real sockets on loopback, real disks: what is installed is what was made, whatever happens meanwhile.

mod common;

use common::{Made, engine, folder, origin, scatter, single_file, single_file_in_pieces, wait};
use peas_core::config::{InstallOptions, SeedPolicy};
use peas_core::{Event, State};
use std::time::Duration;

fn install_everywhere(made: &Made, receivers: usize) {
    let (seed_engine, seed) = origin(made);
    let from = seed_engine.listen_addr().unwrap();
    // One copy takes the origin a second: by then all receivers are there, and the second copy is theirs to make.
    seed.set_limits(made.pea.geometry().total_bytes(), 0);
    let places: Vec<_> = (0..receivers).map(|_| tempfile::tempdir().unwrap()).collect();
    let engines: Vec<_> = places.iter().map(|_| engine()).collect();
    let sessions: Vec<_> = engines
        .iter()
        .zip(&places)
        .map(|(engine, place)| {
            let options = InstallOptions { peers: vec![from], seed: SeedPolicy::Forever, ..Default::default() };
            engine.install(made.pea.clone(), &place.path().join("out"), options).unwrap()
        })
        .collect();
    for (session, place) in sessions.iter().zip(&places) {
        wait(session);
        made.assert_same(&place.path().join("out"));
        let progress = session.progress();
        assert_eq!((progress.state, progress.bytes_done), (State::Sharing, progress.bytes_total));
    }
    let from_peers: u64 = sessions.iter().map(|session| session.progress().bytes_from_peers).sum();
    let from_origin: u64 = sessions.iter().map(|session| session.progress().bytes_from_origin).sum();
    let total = made.pea.geometry().total_bytes();
    assert!(from_peers + from_origin >= total * receivers as u64, "{from_peers} + {from_origin}");
    assert!(from_peers > 0 || receivers == 1, "peers must have helped");
    drop(seed);
    engines.iter().chain([&seed_engine]).for_each(|engine| assert!(engine.close(Duration::from_secs(10))));
}

#[test]
fn four_peers_install_one_file() {
    install_everywhere(&single_file(8 << 20), 4);
}

#[test]
fn pieces_of_many_frames_are_pieces_too() {
    install_everywhere(&single_file_in_pieces((16 << 20) + 5, 1 << 20), 1);
}

#[test]
fn four_peers_install_a_folder_of_many_small_files() {
    install_everywhere(&folder(300), 4);
}

#[test]
fn tiny_and_empty_contents_are_contents_too() {
    for len in [0, 1, 16_384, 65_537] {
        let made = single_file(len);
        let (seed_engine, _seed) = origin(&made);
        let place = tempfile::tempdir().unwrap();
        let receiver = engine();
        let options = InstallOptions { peers: vec![seed_engine.listen_addr().unwrap()], ..Default::default() };
        let session = receiver.install(made.pea.clone(), &place.path().join("out"), options).unwrap();
        wait(&session);
        made.assert_same(&place.path().join("out"));
    }
}

#[test]
fn what_was_received_before_is_not_received_again() {
    let made = single_file(8 << 20);
    let (seed_engine, _seed) = origin(&made);
    let place = tempfile::tempdir().unwrap();
    let options = || InstallOptions { peers: vec![seed_engine.listen_addr().unwrap()], ..Default::default() };
    let dest = place.path().join("out");
    let receiver = engine();
    receiver.set_limits(0, 2 << 20);
    let session = receiver.install(made.pea.clone(), &dest, options()).unwrap();
    common::until(|| session.progress().bytes_done > 1 << 20);
    let departure = receiver.runtime().block_on(session.leave(Duration::from_secs(5)));
    assert_eq!(departure.tasks_aborted, 0);
    assert!(!dest.exists(), "nothing appears under the final name before it is whole");
    receiver.close(Duration::from_secs(5));

    let receiver = engine();
    let session = receiver.install(made.pea.clone(), &dest, options()).unwrap();
    wait(&session);
    let progress = session.progress();
    assert!(progress.bytes_reused > 1 << 20, "{progress:?}");
    assert!(progress.bytes_from_origin + progress.bytes_from_peers <= progress.bytes_total - progress.bytes_reused);
    made.assert_same(&dest);
    assert_eq!(session.next_event_timeout(Duration::ZERO), Some(Event::Started { bytes_reused: progress.bytes_reused }));
}

#[test]
fn peers_finish_when_the_origin_is_gone_after_one_copy() {
    let made = single_file(8 << 20);
    let (seed_engine, seed) = origin(&made);
    let from = seed_engine.listen_addr().unwrap();
    // Enough for the hand-out to take a moment, and for peers to be incomplete when it is over.
    seed.set_limits(8 << 20, 0);
    let places: Vec<_> = (0..4).map(|_| tempfile::tempdir().unwrap()).collect();
    let engines: Vec<_> = places.iter().map(|_| engine()).collect();
    let sessions: Vec<_> = engines
        .iter()
        .zip(&places)
        .map(|(engine, place)| {
            engine.set_limits(2 << 20, 0);
            let options = InstallOptions { peers: vec![from], seed: SeedPolicy::Forever, ..Default::default() };
            engine.install(made.pea.clone(), &place.path().join("out"), options).unwrap()
        })
        .collect();
    // A client that is too busy to ask in time is not the only one that its piece is sent to: what left the origin may be more than a copy.
    let total = made.pea.geometry().total_bytes();
    common::until(|| seed.progress().bytes_sent >= total && seed.stats_json().contains("\"pieces_alone\":0,"));
    assert!(sessions.iter().any(|session| session.progress().state == State::Receiving), "the origin must be gone before the end");
    assert!(seed_engine.close(Duration::from_secs(5)));
    engines.iter().for_each(|engine| engine.set_limits(0, 0));
    for (session, place) in sessions.iter().zip(&places) {
        wait(session);
        made.assert_same(&place.path().join("out"));
    }
}

#[test]
fn a_pea_handed_on_finds_the_swarm_without_its_distributor() {
    let made = single_file(1 << 20);
    let (seed_engine, _seed) = origin(&made);
    let places = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let first = engine();
    let options = InstallOptions { peers: vec![seed_engine.listen_addr().unwrap()], seed: SeedPolicy::Forever, ..Default::default() };
    let session = first.install(made.pea.clone(), &places[0].path().join("out"), options).unwrap();
    wait(&session);
    let refreshed = common::trusted(&session.refreshed_pea());
    assert!(refreshed.owner_hints()[0].verify(refreshed.id()), "our own entry is signed");
    seed_engine.close(Duration::from_secs(5));

    let second = engine();
    let session = second.install(refreshed, &places[1].path().join("out"), InstallOptions::default()).unwrap();
    wait(&session);
    made.assert_same(&places[1].path().join("out"));
}

/// How long an installation shares is the host's wish: a time, or a part of what it received.
#[test]
fn sharing_ends_after_its_time_or_its_ratio() {
    let made = single_file(2 << 20);
    let (seed_engine, _seed) = origin(&made);
    let places = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let install = |engine: &peas_core::Engine, at: usize, from: &peas_core::Engine, seed| {
        let options = InstallOptions { peers: vec![from.listen_addr().unwrap()], seed, ..Default::default() };
        engine.install(made.pea.clone(), &places[at].path().join("out"), options).unwrap()
    };
    let (for_a_time, for_a_ratio, third) = (engine(), engine(), engine());
    let ratio = install(&for_a_ratio, 0, &seed_engine, SeedPolicy::Ratio(0.5));
    wait(&ratio);
    // From before it was there: a busy machine may tell of it late.
    let began = std::time::Instant::now();
    let time = install(&for_a_time, 1, &seed_engine, SeedPolicy::For(Duration::from_secs(1)));
    wait(&time);
    common::until(|| time.is_ended());
    assert!(began.elapsed() >= Duration::from_secs(1), "it left after {:?}", began.elapsed());
    assert!(seed_engine.close(Duration::from_secs(5)));
    let (sent, enough) = (|| ratio.progress().bytes_sent, made.pea.geometry().total_bytes() / 2);
    assert!(!ratio.is_ended() || sent() >= enough, "{} sent", sent());
    let _third = install(&third, 2, &for_a_ratio, SeedPolicy::Forever);
    common::until(|| ratio.is_ended());
    assert!(sent() >= enough, "{} sent", sent());
}

#[test]
fn one_content_has_one_session_per_engine_and_makes_room_when_it_ends() {
    let made = single_file(1 << 20);
    let (seed_engine, seed) = origin(&made);
    let other = tempfile::tempdir().unwrap();
    let again = |engine: &peas_core::Engine| engine.install(made.pea.clone(), &other.path().join("out"), InstallOptions::default());
    assert_eq!(again(&seed_engine).unwrap_err().code(), 1);
    seed.cancel();
    assert!(seed.wait_ended_timeout(Duration::from_secs(10)));
    assert!(again(&seed_engine).is_ok());
    seed_engine.close(Duration::from_secs(5));
    assert_eq!(again(&seed_engine).unwrap_err().code(), 9);
}

#[test]
fn a_pause_holds_and_a_resume_goes_on() {
    let made = single_file(4 << 20);
    let (seed_engine, _seed) = origin(&made);
    let place = tempfile::tempdir().unwrap();
    let receiver = engine();
    let options = InstallOptions { peers: vec![seed_engine.listen_addr().unwrap()], paused: true, ..Default::default() };
    let session = receiver.install(made.pea.clone(), &place.path().join("out"), options).unwrap();
    common::until(|| session.progress().peers == 1);
    assert_eq!(session.progress().bytes_done, 0);
    session.resume();
    wait(&session);
    let events: Vec<Event> = std::iter::from_fn(|| session.try_next_event()).collect();
    let at = |event: &Event| events.iter().position(|seen| seen == event).unwrap_or_else(|| panic!("{event:?} in {events:?}"));
    assert!(at(&Event::Paused(peas_core::PauseReason::Host)) < at(&Event::Resumed));
    assert!(at(&Event::Resumed) < at(&Event::Installed));
    scatter(&place);
}
