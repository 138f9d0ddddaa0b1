//! Commands that need no other peer: making, reading, judging and comparing peas, and what is said when it cannot be.

use crate::harness::{World, unused_addr};
use serde_json::Value;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;

#[test]
fn version_and_usage() {
    let world = World::new();
    let version = world.peas(&["--version"]).exits(0);
    assert_eq!(version.stdout, format!("peas {}\n", env!("CARGO_PKG_VERSION")));
    assert!(world.peas(&["--help"]).exits(0).stdout.contains("Exit codes"));
    for wrong in [&[][..], &["fly"], &["install"], &["install", "a.peas", "--upload-limit", "fast"], &["create", "a", "--owner", "nowhere"]]
    {
        assert!(!world.peas(wrong).exits(2).stderr.is_empty(), "{wrong:?}");
    }
}

#[test]
fn a_pea_says_what_was_put_in() {
    let world = World::new();
    world.tree("game", 300_000);
    let created =
        world.peas(&["create", "game", "--owner", "example.org:7000", "--channel", "stable", "--release", "3", "--json"]).exits(0);
    let seen: Value = serde_json::from_str(&world.peas(&["inspect", "game.peas", "--json", "--files"]).exits(0).stdout).expect("JSON");
    assert_eq!(created.event("created")["id"], seen["id"]);
    assert_eq!(seen["name"], "game");
    assert_eq!(seen["owners"][0]["addr"], "example.org:7000");
    assert_eq!((&seen["channel"], &seen["release"]), (&"stable".into(), &3.into()));
    assert_eq!(seen["files"].as_array().map(Vec::len), Some(42));
    let text = world.peas(&["inspect", "game.peas"]).exits(0).stdout;
    assert!(text.contains(seen["id"].as_str().expect("an id")), "{text}");
    assert!(text.contains("42 files") && text.contains("example.org:7000"), "{text}");
}

#[test]
fn what_is_no_pea_is_refused_and_named() {
    let world = World::new();
    world.file("data", 200_000, 1);
    world.create("data", "example.org:7000", "data.peas");
    let whole = fs::read(world.path("data.peas")).expect("a pea");
    fs::write(world.path("cut.peas"), &whole[..whole.len() / 2]).expect("written");
    let mut flipped = whole.clone();
    flipped[whole.len() / 2] ^= 1;
    fs::write(world.path("flipped.peas"), flipped).expect("written");
    for damaged in ["cut.peas", "flipped.peas", "data"] {
        for command in ["inspect", "install", "verify", "seed"] {
            let ended = world.peas(&[command, damaged]).exits(3);
            assert!(ended.stderr.contains(damaged) && ended.stderr.contains("fetch"), "{command}: {}", ended.stderr);
        }
    }
    let missing = world.peas(&["install", "nowhere.peas"]).exits(4);
    assert!(missing.stderr.contains("nowhere.peas: no such file"), "{}", missing.stderr);
}

#[test]
fn a_pea_is_not_written_over_something_else() {
    let world = World::new();
    world.file("data", 1000, 1);
    let kept = world.file("thesis.txt", 50, 2);
    let before = fs::read(&kept).expect("a file");
    world.peas(&["create", "data", "--output", "thesis.txt"]).exits(2);
    world.peas(&["create", "data", "--output", "data"]).exits(2);
    assert_eq!(fs::read(&kept).expect("a file"), before);
    world.peas(&["create", "data"]).exits(0);
    world.peas(&["create", "data"]).exits(0);
    world.peas(&["create", "data", "--output", "thesis.txt", "--force"]).exits(0);
    assert_ne!(fs::read(&kept).expect("a file"), before);
    // Nor into the folder that it describes, where it would change what it describes.
    world.tree("game", 1000);
    world.peas(&["create", "game", "--output", "game/game.peas"]).exits(2);
}

#[test]
fn verify_finds_what_is_damaged_or_missing() {
    let world = World::new();
    world.tree("game", 400_000);
    world.create("game", "example.org:7000", "game.peas");
    let good = world.peas(&["verify", "game.peas", "--json"]).exits(0).event("verified");
    assert_eq!((&good["good"], &good["pieces_bad"]), (&true.into(), &0.into()));
    let path = world.path("game/large.bin");
    let mut bytes = fs::read(&path).expect("a file");
    bytes[200_000] ^= 1;
    fs::write(&path, bytes).expect("written");
    fs::remove_file(world.path("game/small/7.txt")).expect("removed");
    let bad = world.peas(&["verify", "game.peas", "game", "--json"]).exits(7);
    assert_eq!(bad.event("verified")["bad_files"], serde_json::json!(["large.bin", "small/7.txt"]));
    assert_eq!(bad.event("error")["exit"], 7);
    let text = world.peas(&["verify", "game.peas"]).exits(7);
    assert!(text.stdout.contains("small/7.txt") && text.stderr.contains("--repair"), "{}{}", text.stdout, text.stderr);
    world.peas(&["verify", "game.peas", "nothing-here"]).exits(7);
}

#[test]
fn a_signature_is_checked_and_a_pin_as_well() {
    let world = World::new();
    world.file("data", 100_000, 1);
    let [ours, theirs] = ["ours", "theirs"].map(|name| {
        let said = world.peas(&["keygen", name]).exits(0).stdout;
        let key = said.lines().find_map(|line| line.strip_prefix("public key")).expect("a key");
        key.trim().to_owned()
    });
    world.peas(&["keygen", "ours"]).exits(2);
    world.peas(&["create", "data", "--sign", "ours"]).exits(0);
    world.peas(&["verify", "data.peas", "--trust-key", &ours]).exits(0);
    world.peas(&["verify", "data.peas", "--trust-key", &ours, "--trust-key", &theirs]).exits(0);
    let refused = world.peas(&["verify", "data.peas", "--trust-key", &theirs]).exits(3);
    assert!(refused.stderr.contains("--trust-key"), "{}", refused.stderr);
    world.peas(&["verify", "data.peas", "--trust-key", &ours, "--trust-key", &theirs, "--threshold", "2"]).exits(3);
    world.peas(&["create", "data", "--sign", "ours", "--sign", "theirs", "--output", "both.peas"]).exits(0);
    world.peas(&["verify", "both.peas", "--trust-key", &ours, "--trust-key", &theirs, "--threshold", "2"]).exits(0);
    let id = world.peas(&["inspect", "data.peas", "--json"]).exits(0).json()[0]["id"].as_str().expect("an id").to_owned();
    world.peas(&["verify", "data.peas", "--pin", &id]).exits(0);
    world.peas(&["verify", "data.peas", "--pin", &"0".repeat(64)]).exits(3);
    world.peas(&["verify", "data.peas", "--trust-key", &ours, "--pin", &"0".repeat(64)]).exits(3);
    // A secret key is nobody else's business, and is never printed.
    let secret = fs::read_to_string(world.path("ours")).expect("a key file");
    let secret = secret.lines().last().expect("a line");
    assert!(!world.peas(&["create", "data", "--sign", "ours", "--json"]).exits(0).stdout.contains(secret));
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let mode = fs::metadata(world.path("ours")).expect("a key file").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}

#[test]
fn a_pea_comes_by_http_and_by_standard_input() {
    let world = World::new();
    world.file("data", 100_000, 1);
    world.create("data", "example.org:7000", "data.peas");
    let pea = fs::read(world.path("data.peas")).expect("a pea");
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let addr = listener.local_addr().expect("its address");
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.expect("a link");
            let mut request = [0; 1024];
            let length = stream.read(&mut request).expect("a request");
            let found = request[..length].starts_with(b"GET /data.peas ");
            let (status, body) = if found { ("200 OK", &pea[..]) } else { ("404 Not Found", &b"no"[..]) };
            let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
            let _ = stream.write_all(&[head.as_bytes(), body].concat());
        }
    });
    world.peas(&["verify", &format!("http://{addr}/data.peas"), "data"]).exits(0);
    let missing = world.peas(&["verify", &format!("http://{addr}/other.peas"), "data"]).exits(6);
    assert!(missing.stderr.contains("there is no such file"), "{}", missing.stderr);
    world.peas(&["verify", &format!("http://{}/data.peas", unused_addr()), "data"]).exits(6);
    world.peas_with_stdin(&["verify", "-", "data"], &world.path("data.peas")).exits(0);
    world.peas_with_stdin(&["verify", "-", "data"], &world.path("data")).exits(3);
}

#[test]
fn status_of_what_is_not_there() {
    let world = World::new();
    world.file("data", 1000, 1);
    assert!(world.peas(&["status", "data"]).exits(0).stdout.contains("no install is under way"));
    world.peas(&["status", "nothing"]).exits(6);
}
