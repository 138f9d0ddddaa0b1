//! Wrong clocks (THREATS A4): a day that is years off, stands still or leaps at each look changes nothing but what has expired.
//!
//! `libfaketime` lies to the programs about the date (Debian: faketime). The clock that only counts is left alone, as it is on a
//! machine whose date is set.

use crate::harness::{World, same, unused_addr};
use std::path::PathBuf;

const MIB: usize = 1 << 20;

/// The environment in which the date is this.
fn date(fake: &str) -> [(&'static str, String); 3] {
    let library = || {
        let arches = std::fs::read_dir("/usr/lib").ok()?;
        let paths = arches.flatten().map(|arch| arch.path().join("faketime/libfaketimeMT.so.1"));
        paths.into_iter().find(|path| path.exists())
    };
    let library: PathBuf = library().expect("this test needs libfaketime: apt-get install faketime");
    [
        ("LD_PRELOAD", library.to_str().expect("plain letters").to_owned()),
        ("FAKETIME", fake.to_owned()),
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
    ]
}

#[test]
fn wrong_dates_change_nothing() {
    let (world, addr) = (World::new(), unused_addr());
    world.tree("game", 4 * MIB);
    world.create("game", &addr, "game.peas");
    let mut server = world.start_in(&["seed", "game.peas", "--file", "game", "--listen", &addr], &date("-10y"));
    server.until_line("listens on");
    // Years ahead, years behind, standing still, an hour further at each look, and running backwards. Each knows the first two.
    for (at, fake) in ["+10y", "-20y", "2001-01-01 00:00:00", "+0 i3600", "+0 x-1000"].into_iter().enumerate() {
        let copy = format!("copy{at}");
        let mut client = world.start_in(&["install", "game.peas", "--output", &copy, "--keep-seeding"], &date(fake));
        client.until_line("complete");
        assert!(same(&world.path("game"), &world.path(&copy)), "with the date {fake}");
        client.signal("TERM");
        client.end().exits(0);
    }
    // Not killed: what the library keeps in shared memory for a process would stay there.
    server.signal("TERM");
    server.end().exits(0);
}

/// The control: the programs do believe these dates, and refuse what has expired by them.
#[test]
fn control_a_wrong_date_does_expire_a_pea() {
    let world = World::new();
    world.tree("game", MIB);
    let addr = unused_addr();
    world.peas(&["create", "game", "--owner", &addr, "--output", "game.peas", "--expires", "1d"]).exits(0);
    let mut server = world.start(&["seed", "game.peas", "--file", "game", "--listen", &addr]);
    server.until_line("listens on");
    let install = |copy: &str, fake: &str| world.start_in(&["install", "game.peas", "--output", copy], &date(fake)).end();
    let refused = install("copy1", "+10y");
    assert!(refused.code != Some(0) && refused.stderr.contains("expired"), "{:?}: {}", refused.code, refused.stderr);
    install("copy2", "-10y").exits(0);
    assert!(same(&world.path("game"), &world.path("copy2")));
}
