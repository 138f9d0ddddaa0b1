//! Web sources: contents from HTTP servers that are no peers, honest ones and others.

mod common;
#[path = "common/web.rs"]
mod web_server;

use common::{Made, config, folder, single_file, single_file_in_pieces, until, wait};
use peas_core::config::{CreateOptions, EngineConfig, InstallOptions, Owner, Scope, WebPolicy};
use peas_core::{Engine, Event, Session, TrustedManifest, session};
use serde_json::Value;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use web_server::{Closes, Manner, WebServer, authority};

/// The same content with web addresses, and perhaps with owners.
fn with_web(made: &Made, web: &[String], owners: &[String]) -> Arc<TrustedManifest> {
    let options = CreateOptions {
        piece_bytes: Some(made.pea.geometry().piece_bytes()),
        web: web.to_vec(),
        owners: owners.iter().map(|addr| Owner { addr: addr.clone(), peer: None }).collect(),
        ..Default::default()
    };
    let created = session::create(&made.source, &options, &|_, _| true).unwrap();
    assert_eq!(created.manifest.id(), made.pea.id(), "web sources are no part of the content");
    common::trusted(&created.bytes)
}

fn install(engine: &Engine, pea: &Arc<TrustedManifest>, dest: &Path, options: InstallOptions) -> Session {
    engine.install(pea.clone(), dest, options).unwrap()
}

fn stats(session: &Session) -> Value {
    serde_json::from_str(&session.stats_json()).unwrap()
}

fn state_of(session: &Session, source: usize) -> String {
    stats(session)["web"][source]["state"].as_str().unwrap_or_default().to_owned()
}

fn error_of(session: &Session, source: usize) -> String {
    stats(session)["web"][source]["error"].as_str().unwrap_or_default().to_owned()
}

fn web_failures(session: &Session) -> Vec<(String, String)> {
    let events = std::iter::from_fn(|| session.try_next_event());
    let failures = events.filter_map(|event| match event {
        Event::WebFailed { url, message } => Some((url, message)),
        _ => None,
    });
    failures.collect()
}

#[test]
fn a_file_comes_from_a_web_server_alone_in_few_requests_on_few_connections() {
    let made = single_file(8 << 20);
    let server = WebServer::new(made.dir.path(), [Manner::Honest]);
    let pea = with_web(&made, &[server.url("content.bin")], &[]);
    let (engine, dest) = (common::engine(), tempfile::tempdir().unwrap());
    let session = install(&engine, &pea, &dest.path().join("copy"), InstallOptions::default());
    wait(&session);
    made.assert_same(&dest.path().join("copy"));
    let progress = session.progress();
    assert_eq!((progress.bytes_from_web, progress.bytes_from_peers, progress.bytes_from_origin), (8 << 20, 0, 0));
    let asked = server.asked();
    assert!(asked.len() <= 48, "{} requests for 128 pieces of 64 KiB", asked.len());
    let bytes: u64 = asked.iter().map(|asked| asked.bytes).sum();
    assert!(bytes <= (8 << 20) * 11 / 10, "{bytes} bytes were asked for");
    assert!(server.connections_max() <= 2, "{} connections", server.connections_max());
    // Nothing is left open when there is nothing more to fetch.
    until(|| server.connections() == 0);
}

#[test]
fn a_folder_comes_file_by_file() {
    let made = folder(60);
    std::fs::write(made.source.join("part0/\u{fc}ml #1 100%.txt"), b"an odd name").unwrap();
    std::fs::write(made.source.join("part0/large"), common::bytes(300_000, 9)).unwrap();
    let server = WebServer::new(made.dir.path(), [Manner::Honest]);
    let options = CreateOptions { web: vec![server.url("content")], ..Default::default() };
    let pea = common::trusted(&session::create(&made.source, &options, &|_, _| true).unwrap().bytes);
    let (engine, dest) = (common::engine(), tempfile::tempdir().unwrap());
    wait(&install(&engine, &pea, &dest.path().join("copy"), InstallOptions::default()));
    made.assert_same(&dest.path().join("copy"));
}

#[test]
fn a_server_that_lies_is_dropped_and_the_next_one_helps() {
    let made = single_file_in_pieces(4 << 20, 256 << 10);
    let liar = WebServer::new(made.dir.path(), [Manner::Lies]);
    let pea = with_web(&made, &[liar.url("content.bin")], &[]);
    let (engine, dest) = (common::engine(), tempfile::tempdir().unwrap());
    let session = install(&engine, &pea, &dest.path().join("copy"), InstallOptions::default());
    until(|| state_of(&session, 0) == "dropped");
    assert_eq!(error_of(&session, 0), "it sent wrong bytes");
    let requests = liar.asked().len();
    assert!(requests <= 1 + 2 * 2, "{requests} requests to a liar");
    let banned = std::iter::from_fn(|| session.try_next_event()).find(|event| matches!(event, Event::PeerBanned { .. }));
    let Some(Event::PeerBanned { peer }) = banned else { panic!("nobody was told") };
    assert_eq!(stats(&session)["web"][0]["peer"], peer.to_string());
    assert_eq!(session.progress().pieces_done, 0);
    session.cancel();
    session.wait_ended_timeout(common::PATIENCE);

    let honest = WebServer::new(made.dir.path(), [Manner::Honest]);
    let pea = with_web(&made, &[liar.url("content.bin"), honest.url("content.bin")], &[]);
    let session = install(&engine, &pea, &dest.path().join("copy"), InstallOptions::default());
    wait(&session);
    made.assert_same(&dest.path().join("copy"));
    // Which of the two was asked first is chance.
    assert_eq!(stats(&session)["web"][1]["bytes"], 4 << 20);
}

#[test]
fn a_server_that_stalls_does_not_hold_up_the_content() {
    let made = single_file_in_pieces(2 << 20, 256 << 10);
    // The first answer is the first byte, for which a stall is no stall.
    let server = WebServer::new(made.dir.path(), [Manner::Honest, Manner::Stalls, Manner::Honest]);
    let pea = with_web(&made, &[server.url("content.bin")], &[]);
    let (engine, dest) = (common::engine(), tempfile::tempdir().unwrap());
    wait(&install(&engine, &pea, &dest.path().join("copy"), InstallOptions::default()));
    made.assert_same(&dest.path().join("copy"));
}

#[test]
fn a_server_without_ranges_is_of_use_only_where_none_are_needed() {
    let made = single_file(1 << 20);
    let server = WebServer::new(made.dir.path(), [Manner::IgnoresRanges]);
    let pea = with_web(&made, &[server.url("content.bin")], &[]);
    let (engine, dest) = (common::engine(), tempfile::tempdir().unwrap());
    let session = install(&engine, &pea, &dest.path().join("copy"), InstallOptions::default());
    until(|| state_of(&session, 0) == "dropped");
    assert_eq!(error_of(&session, 0), "the server does not serve parts of files");
    assert_eq!(server.asked().len(), 1);
}

/// `python3 -m http.server` and its like: a connection is over with its answer. Once a second request on such a connection waited for
/// 20 s, again and again, while the source was "linked" and nobody said a word.
#[test]
fn a_server_that_closes_after_each_answer_gives_all_of_it_or_is_named() {
    let made = single_file_in_pieces(2 << 20, 256 << 10);
    for closes in [Closes::Http10, Closes::Http11] {
        let server = WebServer::closing(made.dir.path(), [Manner::Honest], closes);
        let pea = with_web(&made, &[server.url("content.bin")], &[]);
        let (engine, dest) = (common::engine(), tempfile::tempdir().unwrap());
        let session = install(&engine, &pea, &dest.path().join("copy"), InstallOptions::default());
        wait(&session);
        made.assert_same(&dest.path().join("copy"));
        let stale = std::iter::from_fn(|| session.try_next_event()).find(|event| matches!(event, Event::WebFailed { .. }));
        assert_eq!(stale, None, "{closes:?}: a closed connection is no failure");

        let server = WebServer::closing(made.dir.path(), [Manner::IgnoresRanges], closes);
        let (url, why) = (server.url("content.bin"), "the server does not serve parts of files");
        let pea = with_web(&made, std::slice::from_ref(&url), &[]);
        let session = install(&common::engine(), &pea, &dest.path().join("other"), InstallOptions::default());
        until(|| state_of(&session, 0) == "dropped");
        assert_eq!(error_of(&session, 0), why);
        assert_eq!(web_failures(&session), [(url, why.to_owned())]);
    }
}

#[test]
fn why_a_web_server_gives_nothing_is_told_once_until_it_was_of_use() {
    let made = single_file_in_pieces(1 << 20, 256 << 10);
    let server = WebServer::new(made.dir.path(), [Manner::Refuses(500, "")]);
    let pea = with_web(&made, &[server.url("content.bin")], &[]);
    let (engine, dest) = (common::engine(), tempfile::tempdir().unwrap());
    let session = install(&engine, &pea, &dest.path().join("copy"), InstallOptions::default());
    until(|| server.asked().len() >= 3);
    server.behave(Manner::Honest);
    wait(&session);
    let told = web_failures(&session);
    assert_eq!(told, [(server.url("content.bin"), "the server answered with status 500".to_owned())]);
}

#[test]
fn a_server_with_another_file_is_dropped_by_its_own_words() {
    let made = single_file(1 << 20);
    let server = WebServer::new(made.dir.path(), [Manner::Honest]);
    let pea = with_web(&made, &[server.url("content.bin")], &[]);
    std::fs::write(made.dir.path().join("content.bin"), common::bytes(2 << 20, 1)).unwrap();
    let (engine, dest) = (common::engine(), tempfile::tempdir().unwrap());
    let session = install(&engine, &pea, &dest.path().join("copy"), InstallOptions::default());
    until(|| state_of(&session, 0) == "dropped");
    assert!(error_of(&session, 0).contains("another file"), "{}", error_of(&session, 0));

    let shifted = single_file(1_500_000);
    let server = WebServer::new(shifted.dir.path(), [Manner::Shifts]);
    let pea = with_web(&shifted, &[server.url("content.bin")], &[]);
    let session = install(&engine, &pea, &dest.path().join("other"), InstallOptions::default());
    until(|| state_of(&session, 0) == "dropped");
    assert!(error_of(&session, 0).contains("another part"), "{}", error_of(&session, 0));
}

#[test]
fn redirections_are_followed_to_where_they_may_lead() {
    let made = single_file_in_pieces(1 << 20, 256 << 10);
    let there = WebServer::new(made.dir.path(), [Manner::Honest]);
    let to = |target: String| WebServer::new(made.dir.path(), [Manner::Redirects(target)]);
    let config = || EngineConfig { scope: Scope::Auto, ..config() };
    let dest = tempfile::tempdir().unwrap();

    let near = to(format!("http://{}", there.addr));
    let pea = with_web(&made, &[near.url("content.bin")], &[]);
    let engine = Engine::new(config()).unwrap();
    wait(&install(&engine, &pea, &dest.path().join("copy"), InstallOptions::default()));
    made.assert_same(&dest.path().join("copy"));
    assert!(near.asked().len() < there.asked().len(), "the new place is remembered");

    for (target, state, says) in [
        ("http://169.254.169.254", "resting", "169.254.169.254:80 may not be connected to"),
        ("http://10.0.0.1:8080", "resting", "10.0.0.1:8080 may not be connected to"),
        ("http://[::ffff:192.168.0.1]:8080", "resting", "may not be connected to"),
        ("file:///etc", "dropped", "not an address that can be fetched from"),
    ] {
        let server = to(target.into());
        let pea = with_web(&made, &[server.url("content.bin")], &[]);
        let engine = Engine::new(config()).unwrap();
        let session = install(&engine, &pea, &dest.path().join("other"), InstallOptions::default());
        until(|| state_of(&session, 0) == state);
        assert!(error_of(&session, 0).contains(says), "{target}: {}", error_of(&session, 0));
        assert!(engine.close(Duration::from_secs(5)));
    }
    let circle = to(String::new());
    let pea = with_web(&made, &[circle.url("content.bin")], &[]);
    let session = install(&Engine::new(config()).unwrap(), &pea, &dest.path().join("other"), InstallOptions::default());
    until(|| state_of(&session, 0) == "dropped");
    assert_eq!(circle.asked().len(), 6, "one request and five redirections");
}

#[test]
fn a_private_address_in_a_pea_is_not_for_those_who_are_elsewhere() {
    let made = single_file(100_000);
    let server = WebServer::new(made.dir.path(), [Manner::Honest]);
    let pea = with_web(&made, &[server.url("content.bin")], &[]);
    let dest = tempfile::tempdir().unwrap();
    let engine = Engine::new(EngineConfig { scope: Scope::Public, ..config() }).unwrap();
    let session = install(&engine, &pea, &dest.path().join("copy"), InstallOptions::default());
    until(|| state_of(&session, 0) == "resting");
    assert!(error_of(&session, 0).contains("may not be connected to"), "{}", error_of(&session, 0));
    assert_eq!(server.connections_max(), 0);
}

#[test]
fn who_is_asked_to_come_back_later_does() {
    let made = single_file(500_000);
    let server = WebServer::new(made.dir.path(), [Manner::Refuses(503, "Retry-After: 4\r\n"), Manner::Honest]);
    let pea = with_web(&made, &[server.url("content.bin")], &[]);
    let (engine, dest) = (common::engine(), tempfile::tempdir().unwrap());
    wait(&install(&engine, &pea, &dest.path().join("copy"), InstallOptions::default()));
    let asked = server.asked();
    let waited = asked[1].at - asked[0].at;
    assert!(waited >= Duration::from_secs(4), "asked again after {waited:?}");
}

#[test]
fn a_dead_origin_and_a_web_server_that_comes_back() {
    let made = single_file_in_pieces(2 << 20, 256 << 10);
    let server = WebServer::new(made.dir.path(), [Manner::Refuses(500, "")]);
    // Nobody listens on port 9 of this machine, and if somebody did it would not speak our protocol.
    let pea = with_web(&made, &[server.url("content.bin")], &["127.0.0.1:9".into()]);
    let (engine, dest) = (common::engine(), tempfile::tempdir().unwrap());
    let session = install(&engine, &pea, &dest.path().join("copy"), InstallOptions::default());
    until(|| server.asked().len() >= 2);
    assert_eq!(session.progress().pieces_done, 0);
    server.behave(Manner::Honest);
    wait(&session);
    made.assert_same(&dest.path().join("copy"));
}

#[test]
fn while_peers_do_well_a_web_server_is_left_alone_unless_it_is_wanted() {
    let made = single_file_in_pieces(4 << 20, 256 << 10);
    let (origin, _seeding) = common::origin(&made);
    let server = WebServer::new(made.dir.path(), [Manner::Honest]);
    let pea = with_web(&made, &[server.url("content.bin")], &[origin.listen_addr().unwrap().to_string()]);
    let dest = tempfile::tempdir().unwrap();
    let session = install(&common::engine(), &pea, &dest.path().join("copy"), InstallOptions::default());
    wait(&session);
    assert_eq!(server.asked().len(), 0, "peers sufficed");
    assert_eq!(session.progress().bytes_from_web, 0);

    // The control: a host that wants it from the start. The origin is slow, so that there is something left to fetch.
    origin.set_limits(256 << 10, 0);
    let options = InstallOptions { web: WebPolicy::Always, ..Default::default() };
    let session = install(&common::engine(), &pea, &dest.path().join("other"), options);
    wait(&session);
    assert!(session.progress().bytes_from_web > 0);
    made.assert_same(&dest.path().join("other"));

    let options = InstallOptions { web: WebPolicy::Never, ..Default::default() };
    let before = server.asked().len();
    origin.set_limits(0, 0);
    wait(&install(&common::engine(), &pea, &dest.path().join("third"), options));
    assert_eq!(server.asked().len(), before);
}

#[test]
fn peers_get_the_rest_from_a_web_server_when_the_origin_dies() {
    let made = single_file_in_pieces(8 << 20, 256 << 10);
    let (origin, seeding) = common::origin(&made);
    origin.set_limits(2 << 20, 0);
    let server = WebServer::new(made.dir.path(), [Manner::Honest]);
    let pea = with_web(&made, &[server.url("content.bin")], &[origin.listen_addr().unwrap().to_string()]);
    let (engine, dest) = (common::engine(), tempfile::tempdir().unwrap());
    let session = install(&engine, &pea, &dest.path().join("copy"), InstallOptions::default());
    until(|| session.progress().pieces_done >= 4);
    drop(seeding);
    origin.close(Duration::from_secs(5));
    wait(&session);
    made.assert_same(&dest.path().join("copy"));
    let progress = session.progress();
    assert!(progress.bytes_from_origin > 0 && progress.bytes_from_web > 0, "{progress:?}");
    assert!(progress.bytes_from_origin + progress.bytes_from_web <= (8 << 20) + (1 << 20), "{progress:?}");
}

#[test]
fn https_is_fetched_from_servers_that_are_certified_and_from_no_others() {
    let made = single_file_in_pieces(1 << 20, 256 << 10);
    let server = WebServer::secure(made.dir.path());
    let pea = with_web(&made, &[format!("https://localhost:{}/content.bin", server.addr.port())], &[]);
    let dest = tempfile::tempdir().unwrap();
    let stranger = install(&common::engine(), &pea, &dest.path().join("copy"), InstallOptions::default());
    until(|| state_of(&stranger, 0) == "resting");
    assert!(error_of(&stranger, 0).contains("certificate"), "{}", error_of(&stranger, 0));
    assert_eq!(server.asked().len(), 0);
    stranger.cancel();
    assert!(stranger.wait_ended_timeout(common::PATIENCE));

    let engine = Engine::new(EngineConfig { web_authorities: vec![authority()], scope: Scope::Auto, ..config() }).unwrap();
    wait(&install(&engine, &pea, &dest.path().join("copy"), InstallOptions::default()));
    made.assert_same(&dest.path().join("copy"));
}

#[test]
fn leaving_waits_for_no_web_server() {
    let made = single_file(1 << 20);
    let server = WebServer::new(made.dir.path(), [Manner::Honest, Manner::Stalls]);
    let pea = with_web(&made, &[server.url("content.bin")], &[]);
    let (engine, dest) = (common::engine(), tempfile::tempdir().unwrap());
    let session = install(&engine, &pea, &dest.path().join("copy"), InstallOptions::default());
    until(|| server.asked().len() >= 2);
    session.cancel();
    assert!(session.wait_ended_timeout(Duration::from_secs(10)));
    assert!(engine.close(Duration::from_secs(5)), "nothing was left behind");
    until(|| server.connections() <= 1);
}
