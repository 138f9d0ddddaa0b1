//! Commands that talk to others: serving, installing, resuming, repairing, and leaving when told to.

use crate::harness::{Running, World, same, unused_addr};
use serde_json::Value;
use std::fs;

const MIB: usize = 1 << 20;

/// A world with a folder, its pea, and a server of it.
fn served(bytes: usize) -> (World, Running, String) {
    let (world, addr) = (World::new(), unused_addr());
    world.tree("game", bytes);
    world.create("game", &addr, "game.peas");
    let server = serve(&world, &addr);
    (world, server, addr)
}

fn serve(world: &World, addr: &str) -> Running {
    let mut server = world.start(&["seed", "game.peas", "--file", "game", "--listen", addr]);
    server.until_line("listens on");
    server
}

const INSTALL: [&str; 6] = ["install", "game.peas", "--output", "copy", "--listen", "127.0.0.1:0"];

#[test]
fn install_says_complete_and_keeps_serving() {
    let (world, mut server, _) = served(3 * MIB);
    let mut client = world.start(&[&INSTALL[..], &["--keep-seeding"]].concat());
    client.until_line("complete");
    assert!(same(&world.path("game"), &world.path("copy")));
    assert!(client.is_alive());
    // The first client serves: another one needs the server no more.
    server.kill();
    let second = world.peas(&["install", "game.peas", "--output", "second", "--listen", "127.0.0.1:0"]);
    let second = second.exits(0);
    assert!(same(&world.path("game"), &world.path("second")), "{}", second.stdout);
    client.signal("TERM");
    let ended = client.end().exits(0);
    for line in ended.stdout.lines().chain(ended.stderr.lines()).chain(second.stderr.lines()) {
        assert!(line.chars().count() < 80 || line.contains('/'), "too wide: {line}");
        assert!(!line.contains(|c: char| c.is_control()), "control characters: {line:?}");
    }
}

#[test]
fn install_says_whom_it_trusts_and_where_it_writes() {
    let (world, _server, _) = served(MIB);
    let here = World::new();
    fs::copy(world.path("game.peas"), here.path("handed-out.peas")).expect("copied");
    let ended = here.peas(&["install", "handed-out.peas"]).exits(0);
    assert!(ended.stdout.contains("this file itself, unsigned"), "{}", ended.stdout);
    assert!(ended.stdout.contains("writes to   ./game\n"), "{}", ended.stdout);
    assert!(same(&world.path("game"), &here.path("game")));
}

#[test]
fn a_killed_install_resumes_and_a_whole_one_is_only_checked() {
    let (world, _server, _) = served(12 * MIB);
    let slow = [&INSTALL[..], &["--json", "--progress-every", "50ms"]].concat();
    let mut client = world.start(&[&slow[..], &["--download-limit", "3M"]].concat());
    client.until_event("progress", |event| event["bytes_done"].as_u64() > Some(4 << 20));
    client.kill();
    assert!(!world.path("copy").exists(), "nothing unfinished under the final name");
    let status = world.peas(&["status", "copy"]).exits(0);
    assert!(status.stdout.contains("pieces") && status.stdout.contains("game"), "{}", status.stdout);

    let ended = world.peas(&slow).exits(0);
    assert!(ended.event("complete")["bytes_reused"].as_u64() > Some(MIB as u64), "{}", ended.stdout);
    assert!(same(&world.path("game"), &world.path("copy")));
    let again = world.peas(&slow).exits(0).event("complete");
    assert_eq!(again["bytes_reused"], again["bytes_total"]);
    assert_eq!(again["bytes_from_origin"], 0);
}

#[test]
fn signals_end_it_at_once_and_say_how_it_goes_on() {
    let (world, server, _) = served(8 * MIB);
    for signal in ["INT", "TERM"] {
        let mut client = world.start(&[&INSTALL[..], &["--download-limit", "200K"]].concat());
        client.until_line("listens on");
        client.signal(signal);
        let ended = client.end().exits(130);
        assert!(ended.stderr.contains("the same command resumes"), "{}", ended.stderr);
    }
    // A server that is told to stop has done what it was asked to.
    server.signal("TERM");
    server.end().exits(0);
    let mut client = world.start(&[&INSTALL[..], &["--while-stdin"]].concat());
    client.until_line("listens on");
    client.close_stdin();
    client.end().exits(130);
}

#[test]
fn nobody_reachable_is_said_and_it_goes_on_trying() {
    let (world, mut server, addr) = served(MIB);
    server.kill();
    let mut client = world.start(&INSTALL);
    assert!(client.until_error("nobody reachable").contains("still trying 1 address"));
    let _server = serve(&world, &addr);
    client.until_line("complete");
    client.end().exits(0);
}

#[test]
fn it_gives_up_when_told_to() {
    let (world, mut server, _) = served(MIB);
    server.kill();
    let ended = world.peas(&[&INSTALL[..], &["--give-up", "500ms"]].concat()).exits(6);
    assert!(ended.stderr.contains("gave up") && ended.stderr.contains("--peer"), "{}", ended.stderr);
}

#[test]
fn what_is_taken_is_named() {
    let (world, _server, addr) = served(8 * MIB);
    let port = world.peas(&["seed", "game.peas", "--file", "game", "--listen", &addr]).exits(5);
    assert!(port.stderr.contains(&addr) && port.stderr.contains("--listen"), "{}", port.stderr);
    let mut client = world.start(&[&INSTALL[..], &["--json", "--progress-every", "50ms", "--download-limit", "200K"]].concat());
    client.until_event("progress", |event| event["state"] == "receiving");
    let busy = world.peas(&INSTALL).exits(5);
    assert!(busy.stderr.contains("copy") && busy.stderr.contains("--output"), "{}", busy.stderr);
}

#[test]
fn a_place_that_cannot_be_written_is_named() {
    let (world, _server, _) = served(MIB);
    world.file("in-the-way", 10, 1);
    let ended = world.peas(&["install", "game.peas", "--output", "in-the-way/copy"]).exits(4);
    assert!(ended.stderr.contains("in-the-way"), "{}", ended.stderr);
}

#[test]
fn a_server_refuses_what_the_pea_does_not_say() {
    let world = World::new();
    world.tree("game", MIB);
    world.create("game", "127.0.0.1:1", "game.peas");
    world.tree("other", MIB / 2);
    let ended = world.peas(&["seed", "game.peas", "--file", "other", "--listen", "127.0.0.1:0"]).exits(7);
    assert!(ended.stderr.contains("peas create"), "{}", ended.stderr);
    world.peas(&["seed", "game.peas", "--file", "nothing"]);
}

#[test]
fn repair_fetches_what_is_damaged() {
    let (world, _server, _) = served(6 * MIB);
    world.peas(&INSTALL).exits(0);
    let path = world.path("copy/large.bin");
    let mut bytes = fs::read(&path).expect("a file");
    bytes[MIB] ^= 1;
    fs::write(&path, bytes).expect("written");
    world.peas(&["verify", "game.peas", "copy"]).exits(7);
    let repair = ["verify", "game.peas", "copy", "--repair", "--listen", "127.0.0.1:0", "--json"];
    let ended = world.peas(&repair).exits(0);
    assert!(ended.event("complete")["bytes_reused"].as_u64() > Some(4 << 20), "{}", ended.stdout);
    assert!(same(&world.path("game"), &world.path("copy")));
}

#[test]
fn the_pea_at_hand_learns_who_serves() {
    let (world, _server, _) = served(MIB);
    let before = fs::read(world.path("game.peas")).expect("a pea");
    fs::copy(world.path("game.peas"), world.path("kept.peas")).expect("copied");
    let mut client = world.start(&[&INSTALL[..], &["--json", "--keep-seeding"]].concat());
    let listening = client.until_event("listening", |_| true);
    client.until_event("complete", |_| true);
    // Whoever hears the word may hand the pea on.
    fs::copy(world.path("game.peas"), world.path("handed-on.peas")).expect("copied");
    client.signal("INT");
    client.end().exits(0);
    let inspect = |name: &str| -> Value { serde_json::from_str(&world.peas(&["inspect", name, "--json"]).exits(0).stdout).expect("JSON") };
    let (seen, old) = (inspect("handed-on.peas"), inspect("kept.peas"));
    let peers: Vec<&Value> = seen["hints"].as_array().expect("hints").iter().map(|hint| &hint["peer"]).collect();
    assert!(peers.contains(&&listening["peer"]), "{seen}");
    assert_eq!(seen["id"], old["id"]);
    // What was signed is untouched: the file begins as before, and only its tail differs.
    let after = fs::read(world.path("game.peas")).expect("a pea");
    let common = before.iter().zip(&after).take_while(|(a, b)| a == b).count();
    assert!(common + 8 >= before.len(), "{common} of {} bytes are as before", before.len());

    for (name, word) in [("kept.peas", "--no-refresh"), ("locked.peas", "--json")] {
        fs::write(world.path(name), &before).expect("written");
        let mut permissions = fs::metadata(world.path(name)).expect("a pea").permissions();
        permissions.set_readonly(name == "locked.peas");
        fs::set_permissions(world.path(name), permissions).expect("set");
        world.peas(&["install", name, "--output", &format!("copy-of-{name}"), "--listen", "127.0.0.1:0", word]).exits(0);
        assert_eq!(fs::read(world.path(name)).expect("a pea"), before, "{name}");
    }
}

#[test]
fn json_is_json_and_nothing_else() {
    let (world, server, _) = served(2 * MIB);
    let ended = world.peas(&[&INSTALL[..], &["--json", "--progress-every", "20ms"]].concat()).exits(0);
    let names: Vec<String> = ended.json().iter().map(|event| event["event"].as_str().expect("a name").to_owned()).collect();
    for name in ["pea", "listening", "started", "complete", "stats"] {
        assert_eq!(names.iter().filter(|seen| *seen == name).count(), 1, "{name} in {names:?}");
    }
    assert_eq!(ended.stderr, "");
    drop(server);
    let failed = world.peas(&["install", "game.peas", "--output", "third", "--no-listen", "--json", "--give-up", "300ms"]).exits(6);
    assert_eq!(failed.event("error")["exit"], 6);
}

#[test]
fn the_demonstration_demonstrates() {
    let world = World::new();
    fs::create_dir(world.path("work")).expect("a folder");
    let words = ["demo", "--clients", "3", "--size-mib", "8", "--dir", "work"];
    let ended = world.peas(&[&words[..], &["--upload-limit", "8M"]].concat()).exits(0);
    assert!(ended.stdout.contains("all 3 copies are what the pea says"), "{}", ended.stdout);
    let ended = world.peas(&[&words[..], &["--upload-limit", "4M", "--kill-origin"]].concat()).exits(0);
    assert!(ended.stderr.contains("killed") && ended.stderr.contains("client 3, after the distributor's death"), "{}", ended.stderr);
    assert!(ended.stdout.contains("the last client joined then and got 0 B from it"), "{}", ended.stdout);
    assert!(ended.stdout.contains("all 3 copies are what the pea says"), "{}", ended.stdout);
    assert_eq!(fs::read_dir(world.path("work")).expect("a folder").count(), 0, "nothing is left behind");
}
