//! What users meet beyond the straight way: web servers, closed swarms, expired peas, wrong bytes, a source that changes.

use crate::harness::{World, same, unused_addr};
use crate::web_server::{Manner, WebServer};
use std::fs;
use std::os::unix::fs::FileExt;

const MIB: usize = 1 << 20;

#[test]
fn a_folder_comes_from_a_web_server_when_nobody_serves_it() {
    let world = World::new();
    world.tree("game", MIB);
    let server = WebServer::new(&world.path(""), [Manner::Honest]);
    world.peas(&["create", "game", "--web", &server.url("game")]).exits(0);
    let ended = world.peas(&["install", "game.peas", "--output", "copy", "--no-listen", "--json"]).exits(0);
    assert!(ended.event("complete")["bytes_from_web"].as_u64() > Some(MIB as u64), "{}", ended.stdout);
    assert!(same(&world.path("game"), &world.path("copy")));
    let text = world.peas(&["install", "game.peas", "--output", "again", "--no-listen"]).exits(0).stdout;
    assert!(text.contains("from the web"), "{text}");
    let never = ["install", "game.peas", "--output", "third", "--no-listen", "--from-web", "never", "--give-up", "500ms"];
    world.peas(&never).exits(6);
}

#[test]
fn a_web_server_that_lies_is_named() {
    let world = World::new();
    world.file("data", MIB, 1);
    let server = WebServer::new(&world.path(""), [Manner::Lies]);
    let url = server.url("data");
    world.peas(&["create", "data", "--web", &url]).exits(0);
    let ended = world.peas(&["install", "data.peas", "--output", "copy", "--no-listen", "--give-up", "5s"]).exits(6);
    assert!(ended.stderr.contains(&format!("{url} sent wrong data and was banned")), "{}", ended.stderr);
    assert!(!world.path("copy").exists());
}

#[test]
fn a_secret_swarm_from_key_to_copy() {
    let (world, addr) = (World::new(), unused_addr());
    world.tree("game", MIB);
    for name in ["secret", "another"] {
        world.peas(&["keygen", name]).exits(0);
    }
    world.peas(&["create", "game", "--owner", &addr, "--access", "secret"]).exits(0);
    assert!(world.peas(&["inspect", "game.peas"]).exits(0).stdout.contains("lets in"));
    let mut server = world.start(&["seed", "game.peas", "--file", "game", "--listen", &addr, "--swarm-secret", "secret"]);
    server.until_line("listens on");
    let install =
        |more: &[&str]| world.peas(&[&["install", "game.peas", "--output", "copy", "--no-listen", "--give-up", "3s"], more].concat());
    let without = install(&[]).exits(2);
    assert!(without.stderr.contains("--swarm-secret"), "{}", without.stderr);
    install(&["--swarm-secret", "another"]).exits(6);
    install(&["--swarm-secret", "secret"]).exits(0);
    assert!(same(&world.path("game"), &world.path("copy")));
}

#[test]
fn a_swarm_of_members_from_key_to_copy() {
    let (world, addr) = (World::new(), unused_addr());
    world.file("data", MIB, 1);
    let key = |name: &str| {
        let said = world.peas(&["keygen", name]).exits(0).stdout;
        said.lines().find_map(|line| line.strip_prefix("public key")).expect("a key").trim().to_owned()
    };
    let [authority, server_key, client_key] = ["authority", "server", "client"].map(key);
    world.peas(&["create", "data", "--owner", &addr, "--access", "members"]).exits(2);
    world.peas(&["create", "data", "--owner", &addr, "--access", "members", "--authority", &authority]).exits(0);
    let admit = |key: &str, output: &str, more: &[&str]| {
        world.peas(&[&["admit", key, "--authority", "authority", "--output", output], more].concat()).exits(0);
    };
    admit(&server_key, "server.cert", &["--role", "seed"]);
    admit(&client_key, "client.cert", &["--role", "fetch", "--role", "relay", "--for", "1h"]);
    admit(&client_key, "seeds.cert", &["--role", "seed"]);
    let words = ["seed", "data.peas", "--file", "data", "--listen", &addr, "--identity", "server", "--certificate", "server.cert"];
    let mut server = world.start(&words);
    server.until_line("listens on");
    let install =
        |more: &[&str]| world.peas(&[&["install", "data.peas", "--output", "copy", "--no-listen", "--give-up", "3s"], more].concat());
    let without = install(&[]).exits(2);
    assert!(without.stderr.contains("--certificate"), "{}", without.stderr);
    for (certificate, why) in
        [("server.cert", "another key"), ("seeds.cert", "does not allow to receive"), ("data.peas", "not a certificate")]
    {
        let ended = install(&["--identity", "client", "--certificate", certificate]).exits(2);
        assert!(ended.stderr.contains(why), "{certificate}: {}", ended.stderr);
    }
    install(&["--identity", "client", "--certificate", "client.cert"]).exits(0);
    assert_eq!(fs::read(world.path("data")).expect("a file"), fs::read(world.path("copy")).expect("a file"));
}

#[test]
fn peas_that_are_not_to_be_had_any_more() {
    let world = World::new();
    world.file("data", 100_000, 1);
    world.peas(&["create", "data", "--expires", "1s"]).exits(0);
    // It is good now, unless this machine takes more than a second between the two; expired it will be at last.
    let expired = loop {
        let ended = world.peas(&["verify", "data.peas"]);
        if ended.code == Some(3) {
            break ended;
        }
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    };
    assert!(expired.stderr.contains("expired"), "{}", expired.stderr);
    world.peas(&["keygen", "key"]).exits(0);
    world.peas(&["create", "data"]).exits(0);
    let key = "0".repeat(62) + "01";
    let unsigned = world.peas(&["verify", "data.peas", "--trust-key", &key]).exits(3);
    assert!(unsigned.stderr.contains("trust"), "{}", unsigned.stderr);
    // Larger than a pea may be: refused without reading it all.
    let file = fs::File::create(world.path("giant.peas")).expect("created");
    file.set_len(10 << 30).expect("sparse");
    world.peas(&["inspect", "giant.peas"]).exits(3);
}

#[test]
fn wrong_bytes_at_the_destination_are_mended_by_installing() {
    let (world, addr) = (World::new(), unused_addr());
    world.tree("game", 4 * MIB);
    world.create("game", &addr, "game.peas");
    let mut server = world.start(&["seed", "game.peas", "--file", "game", "--listen", &addr]);
    server.until_line("listens on");
    world.tree("copy", 4 * MIB);
    let path = world.path("copy/large.bin");
    let mut bytes = fs::read(&path).expect("a file");
    bytes[MIB] ^= 1;
    fs::write(&path, bytes).expect("written");
    fs::remove_file(world.path("copy/small/3.txt")).expect("removed");
    let ended = world.peas(&["install", "game.peas", "--output", "copy", "--no-listen", "--json"]).exits(0);
    assert!(same(&world.path("game"), &world.path("copy")));
    assert!(ended.event("complete")["bytes_reused"].as_u64() > Some(3 * MIB as u64), "{}", ended.stdout);
}

#[test]
fn a_source_that_changes_is_not_served_and_is_named() {
    let (world, addr) = (World::new(), unused_addr());
    world.file("data", 4 * MIB, 1);
    world.create("data", &addr, "data.peas");
    let mut server = world.start(&["seed", "data.peas", "--file", "data", "--listen", &addr, "--json"]);
    server.until_event("listening", |_| true);
    // In place: the server may open the file only now, and one of another size is refused before anything is served.
    let path = world.path("data");
    let changed = fs::read(&path).expect("a file")[2 * MIB] ^ 1;
    let file = fs::File::options().write(true).open(&path).expect("writable");
    file.write_at(&[changed], 2 * MIB as u64).expect("written");
    world.peas(&["install", "data.peas", "--output", "copy", "--no-listen", "--give-up", "10s"]).exits(6);
    server.until_event("damaged", |_| true);
    assert!(!world.path("copy").exists());
    assert!(server.is_alive());
}
