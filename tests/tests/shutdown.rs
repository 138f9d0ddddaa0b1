//! Ending: in time from every state, and without leaving anything behind.

mod common;

use common::{engine, origin, single_file, until, wait};
use peas_core::config::{CreateOptions, EngineConfig, InstallOptions, Owner, SeedPolicy};
use peas_core::storage::{Storage, StorageOptions};
use peas_core::{Engine, Error, Event, session};
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// Threads and descriptors are counted for the whole process, so these tests take turns.
static TURN: Mutex<()> = Mutex::new(());

fn turn() -> std::sync::MutexGuard<'static, ()> {
    TURN.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn count(what: &str) -> usize {
    std::fs::read_dir(format!("/proc/self/{what}")).unwrap().count()
}

/// Ends within the grace and what the text of `leave` and `close` allow beyond it.
fn in_time(grace: Duration, work: impl FnOnce()) {
    let start = Instant::now();
    work();
    assert!(start.elapsed() < grace + Duration::from_millis(500), "took {:?}", start.elapsed());
}

const GRACE: Duration = Duration::from_secs(2);

#[test]
fn nothing_is_left_behind() {
    let _turn = turn();
    let made = single_file(1 << 20);
    // What the process makes once and keeps (the ciphers' random source) is made now.
    drop(engine());
    let once = || {
        let (seed_engine, seed) = origin(&made);
        let place = tempfile::tempdir().unwrap();
        let receiver = engine();
        let options = InstallOptions { peers: vec![seed_engine.listen_addr().unwrap()], seed: SeedPolicy::Forever, ..Default::default() };
        let session = receiver.install(made.pea.clone(), &place.path().join("out"), options).unwrap();
        wait(&session);
        assert!(receiver.close(Duration::from_secs(5)));
        assert!(seed_engine.close(Duration::from_secs(5)));
        drop((seed, session));
    };
    once();
    let before = (count("task"), count("fd"));
    (0..20).for_each(|_| once());
    // A thread that was joined may be listed for a moment longer.
    until(|| count("task") <= before.0);
    assert!(count("fd") <= before.1, "{} descriptors, {} before", count("fd"), before.1);

    let (kept, _seed) = origin(&made);
    assert!(count("task") > before.0 && count("fd") > before.1, "the control: a living engine is seen");
    drop(kept);
}

#[test]
fn leaving_is_in_time_from_every_state() {
    let _turn = turn();
    let made = single_file(8 << 20);
    let (seed_engine, seed) = origin(&made);
    let from = seed_engine.listen_addr().unwrap();
    let place = tempfile::tempdir().unwrap();
    let receiver = engine();
    let install = |peers: Vec<_>, name: &str| {
        let options = InstallOptions { peers, seed: SeedPolicy::Forever, ..Default::default() };
        receiver.install(made.pea.clone(), &place.path().join(name), options).unwrap()
    };
    let leave = |session: peas_core::Session| {
        let runtime = receiver.runtime();
        in_time(GRACE, || {
            let departure = runtime.block_on(session.leave(GRACE));
            assert_eq!(departure.tasks_aborted, 0);
        });
    };
    // Checking, or barely beyond.
    leave(install(vec![from], "a"));
    // Receiving from nobody.
    let session = install(vec![], "b");
    until(|| session.progress().state == peas_core::State::Receiving);
    leave(session);
    // Receiving.
    receiver.set_limits(0, 4 << 20);
    let session = install(vec![from], "c");
    until(|| session.progress().bytes_done > 0);
    leave(session);
    receiver.set_limits(0, 0);
    // Sharing.
    let session = install(vec![from], "d");
    wait(&session);
    leave(session);
    // Serving, so slowly that it cannot be served to the end.
    let session = install(vec![from], "e");
    seed.set_limits(10_000, 0);
    until(|| session.progress().peers > 0);
    in_time(GRACE, || {
        receiver.runtime().block_on(seed.leave(GRACE));
    });
    // Paused.
    session.pause();
    leave(session);
    in_time(GRACE, || assert!(receiver.close(GRACE)));
    in_time(GRACE, || assert!(seed_engine.close(GRACE)));
}

/// Engine after engine on one target, each closed at another moment of its start: none finds the lock of the one before.
///
/// It did once: a session that was told to go while it opened its disk left the storage to end by itself.
#[test]
fn a_closed_engine_has_let_go_of_its_target() {
    let _turn = turn();
    let made = single_file(4 << 20);
    let place = tempfile::tempdir().unwrap();
    let out = place.path().join("out");
    let options = StorageOptions { threads: 1, pooled_bytes_max: 1 << 20 };
    let is_free = || match Storage::open_install(made.pea.clone(), &out, &options, &|_, _| true) {
        Ok(opened) => opened.storage.close(Duration::from_secs(60)),
        Err(Error::Busy { .. }) => false,
        Err(error) => panic!("{error}"),
    };
    for round in 0..200 {
        let receiver = engine();
        let session = receiver.install(made.pea.clone(), &out, InstallOptions::default()).unwrap();
        std::thread::sleep(Duration::from_micros(10 * round));
        assert!(receiver.close(Duration::from_secs(60)), "round {round}");
        assert!(is_free(), "round {round}: {:?}", session.progress());
    }
    let receiver = engine();
    let session = receiver.install(made.pea.clone(), &out, InstallOptions::default()).unwrap();
    until(|| session.progress().state == peas_core::State::Receiving);
    assert!(!is_free(), "the control: an engine at work holds it");
    session.cancel();
    session.wait_ended_timeout(Duration::from_secs(60));
    assert!(is_free(), "a session that is over has let go, too");
}

#[test]
fn closing_ends_sessions_and_says_so() {
    let _turn = turn();
    let made = single_file(8 << 20);
    let (seed_engine, seed) = origin(&made);
    seed.set_limits(1 << 20, 0);
    let place = tempfile::tempdir().unwrap();
    let receiver = engine();
    let options = InstallOptions { peers: vec![seed_engine.listen_addr().unwrap()], ..Default::default() };
    let session = receiver.install(made.pea.clone(), &place.path().join("out"), options).unwrap();
    until(|| session.progress().bytes_done > 0);
    in_time(GRACE, || assert!(receiver.close(GRACE)));
    assert_eq!(session.wait_installed_timeout(Duration::ZERO).unwrap().unwrap_err().code(), 8);
    let last = std::iter::from_fn(|| session.next_event_timeout(Duration::ZERO)).last();
    assert_eq!(last, Some(Event::Left));
    assert!(receiver.close(GRACE), "closing again is nothing");
}

#[test]
fn a_name_that_nobody_answers_for_holds_nothing_up() {
    let _turn = turn();
    let dir = tempfile::tempdir().unwrap();
    let source = dir.path().join("content");
    std::fs::write(&source, common::bytes(100_000, 1)).unwrap();
    let owners = vec![Owner { addr: "nobody.invalid:7000".into(), peer: None }];
    let created = session::create(&source, &CreateOptions { owners, ..Default::default() }, &|_, _| true).unwrap();
    let receiver = engine();
    let session = receiver.install(common::trusted(&created.bytes), &dir.path().join("out"), InstallOptions::default()).unwrap();
    until(|| session.progress().state == peas_core::State::Receiving);
    in_time(GRACE, || assert!(receiver.close(GRACE)));
}

#[test]
fn engines_are_dropped_from_anywhere() {
    let _turn = turn();
    let made = single_file(1 << 20);
    let host = tokio::runtime::Runtime::new().unwrap();
    host.block_on(async {
        // With own threads, dropped on a host's runtime.
        let (engine, session) = origin(&made);
        drop(engine);
        drop(session);
        // On the host's runtime.
        let engine = Engine::on(tokio::runtime::Handle::current(), common::config()).unwrap();
        let place = tempfile::tempdir().unwrap();
        let session = engine.install(made.pea.clone(), &place.path().join("out"), InstallOptions::default()).unwrap();
        drop(engine);
        session.cancel();
        session.wait_ended().await;
    });
}

#[test]
fn an_address_that_is_taken_is_an_error_of_the_machine() {
    let _turn = turn();
    let first = engine();
    let again = EngineConfig { listen: first.listen_addr(), ..common::config() };
    assert_eq!(Engine::new(again).unwrap_err().code(), 3);
}
