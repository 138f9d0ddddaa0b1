//! The swarm as a weapon (test C4): a hostile neighbour names addresses of its choice, and a sink that sees every TCP packet of the
//! machine counts who knocks where.
//!
//! The test makes itself a network namespace of its own in which addresses of the whole world are this machine's; nothing leaves it.
//! Needs root (`unshare`). What a million addresses do to the filter alone is `engine::scope::tests::a_million_hostile_addresses`.

mod common;

use common::attackers::{first_flight, hello, runtime};
use common::{config, single_file};
use peas_core::Engine;
use peas_core::config::{EngineConfig, InstallOptions, Scope};
use peas_core::swarm::{Input, Limits, Output, Role, Setup, Swarm};
use peas_core::transport::{Identity, LinkReader, LinkWriter, TcpOptions, TcpTransport, Transport};
use peas_core::unit::{Geometry, PeerId, PieceSet, Rng, Span, Time};
use peas_core::wire::{Hello, MemberRecord, Message};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

const INSIDE: &str = "PEAS_TEST_INSIDE";

/// Addresses that are this machine's in the namespace: the attacker's, victims', and some that nobody may ever dial.
const ATTACKER: Ipv4Addr = Ipv4Addr::new(9, 9, 9, 1);
const NODE: Ipv4Addr = Ipv4Addr::new(9, 9, 10, 1);
const FORBIDDEN: [Ipv4Addr; 7] = [
    Ipv4Addr::new(169, 254, 169, 254),
    Ipv4Addr::new(10, 1, 2, 3),
    Ipv4Addr::new(192, 168, 1, 1),
    Ipv4Addr::new(172, 16, 9, 9),
    Ipv4Addr::new(100, 64, 0, 1),
    Ipv4Addr::new(192, 0, 2, 1),
    Ipv4Addr::new(127, 0, 0, 9),
];

fn victim(at: u8) -> Ipv4Addr {
    Ipv4Addr::new(8, 8, at, 1)
}

/// Runs a test of this file once more, in a namespace with those addresses.
fn inside(test: &str) {
    let mut script = String::from("ip link set lo up\n");
    for addr in [ATTACKER, NODE].into_iter().chain(FORBIDDEN).chain((0..16).map(victim)) {
        script += &format!("ip addr add {addr}/32 dev lo 2>/dev/null || true\n");
    }
    script += "exec \"$0\" --exact \"$1\" --nocapture";
    let me = std::env::current_exe().unwrap();
    let mut command = std::process::Command::new("unshare");
    command.args(["--net", "sh", "-c", &script]).arg(me).arg(test).env(INSIDE, "1");
    let status = command.status().expect("unshare is part of every Linux system");
    assert!(status.success(), "{status}");
}

/// Counts the connections that are begun, by where they go, from all TCP packets that this namespace delivers.
struct Sink {
    socket: rustix::fd::OwnedFd,
    /// Address and port: when each attempt was first seen.
    attempts: BTreeMap<SocketAddr, Vec<Instant>>,
    seen: BTreeMap<(SocketAddr, u16, u32), Instant>,
}

impl Sink {
    fn open() -> Self {
        use rustix::net::{AddressFamily, SocketFlags, SocketType, ipproto, socket_with};
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(AddressFamily::INET, SocketType::RAW, flags, Some(ipproto::TCP)).expect("root in its own namespace");
        Self { socket, attempts: BTreeMap::new(), seen: BTreeMap::new() }
    }

    fn drain(&mut self) {
        let mut packet = [0; 2048];
        while let Ok((count, _)) = rustix::net::recv(&self.socket, &mut packet[..], rustix::net::RecvFlags::empty()) {
            let ip = &packet[..count];
            let head = usize::from(ip[0] & 15) * 4;
            let Some(tcp) = ip.get(head..head + 20) else { continue };
            let begins = tcp[13] & 0x12 == 0x02; // SYN without ACK
            if begins {
                let to = SocketAddr::from(([ip[16], ip[17], ip[18], ip[19]], u16::from_be_bytes([tcp[2], tcp[3]])));
                let sequence = u32::from_be_bytes([tcp[4], tcp[5], tcp[6], tcp[7]]);
                // The kernel may send the same SYN again: one attempt.
                let new = self.seen.insert((to, u16::from_be_bytes([tcp[0], tcp[1]]), sequence), Instant::now()).is_none();
                if new {
                    self.attempts.entry(to).or_default().push(Instant::now());
                }
            }
        }
    }
}

fn record(rng: &mut Rng, addr: SocketAddr) -> MemberRecord {
    let mut peer = [0; 32];
    peer.iter_mut().for_each(|byte| *byte = rng.next_u64() as u8);
    MemberRecord { peer, addr, epoch: 1, age_s: 0, ttl_s: 3600, held_permille: 1000, region: 0 }
}

/// What the neighbour names: forbidden addresses plainly and in disguise, services of victims, and victims at many ports.
fn named(rng: &mut Rng) -> SocketAddr {
    let forbidden = FORBIDDEN[rng.below(FORBIDDEN.len())];
    let [high, low] = [(forbidden.to_bits() >> 16) as u16, forbidden.to_bits() as u16];
    let port = 1024 + rng.below(60_000) as u16;
    match rng.below(8) {
        0 => (forbidden, port).into(),
        1 => (forbidden.to_ipv6_mapped(), port).into(),
        2 => (Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, high, low), port).into(),
        3 => (Ipv6Addr::new(0x2002, high, low, 0, 0, 0, 0, 1), port).into(),
        4 => (victim(rng.below(16) as u8), [22, 25, 53, 80, 443][rng.below(5)]).into(),
        _ => (victim(rng.below(16) as u8), port).into(),
    }
}

#[test]
fn nobody_is_dialled_who_must_not_be() {
    if std::env::var_os(INSIDE).is_none() {
        return inside("nobody_is_dialled_who_must_not_be");
    }
    let made = single_file(1 << 20);
    let mut sink = Sink::open();
    let node = Engine::new(EngineConfig { listen: Some((NODE, 7000).into()), scope: Scope::Public, ..config() }).unwrap();
    let attackers = runtime();
    let attacker = {
        let _inside = attackers.enter();
        TcpTransport::new(&Identity::generate(), &TcpOptions { listen: Some((ATTACKER, 7000).into()), plain: false }).unwrap()
    };
    let hello = hello(&made, Some(7000));
    attackers.spawn(async move {
        let mut rng = Rng::new(4);
        loop {
            let Ok(raw) = attacker.incoming().await else { continue };
            let Ok(mut link) = attacker.accept(raw, Duration::from_secs(5)).await else { continue };
            let gossip = async {
                link.reader.next().await?;
                link.writer.message(&hello).await?;
                link.writer.message(&Message::Held { runs: vec![], need: 16, queue_ms: 0 }).await?;
                loop {
                    let records = (0..50)
                        .map(|_| {
                            let addr = named(&mut rng);
                            record(&mut rng, addr)
                        })
                        .collect();
                    link.writer.message(&Message::Members(records)).await?;
                    link.writer.flush().await?;
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                #[allow(unreachable_code, reason = "gives the block its type")]
                Ok::<(), peas_core::transport::LinkError>(())
            };
            let _ = gossip.await;
        }
    });
    let place = tempfile::tempdir().unwrap();
    let options = InstallOptions { peers: vec![(ATTACKER, 7000).into()], ..Default::default() };
    let _session = node.install(made.pea.clone(), &place.path().join("out"), options).unwrap();
    let began = Instant::now();
    // Twelve seconds, and until hearsay was tried at all: the neighbour, and three of whom it told.
    while began.elapsed() < Duration::from_secs(12) || sink.attempts.len() < 4 {
        assert!(began.elapsed() < common::PATIENCE, "the control: hearsay is tried at all: {:?}", sink.attempts);
        sink.drain();
        std::thread::sleep(Duration::from_millis(2));
    }
    let mut hosts: BTreeMap<IpAddr, usize> = BTreeMap::new();
    for (addr, attempts) in &sink.attempts {
        let IpAddr::V4(v4) = addr.ip() else { unreachable!("the socket is one of IPv4") };
        assert!(!FORBIDDEN.contains(&v4), "{addr} was dialled");
        assert!(addr.port() >= 1024, "{addr} was dialled: a service of the system");
        *hosts.entry(addr.ip()).or_default() += attempts.len();
    }
    assert!(hosts.remove(&ATTACKER.into()).is_some(), "the control: the sink sees who dials");
    println!("in {:?}: {hosts:?}", began.elapsed());
    assert!(hosts.values().all(|&attempts| attempts == 1), "a victim was tried more than once in a minute: {hosts:?}");
}

/// The control: with `Scope::Any` the same words do send the node to forbidden places, and the sink sees it.
#[test]
fn control_without_the_filter_the_sink_sees_them() {
    if std::env::var_os(INSIDE).is_none() {
        return inside("control_without_the_filter_the_sink_sees_them");
    }
    let mut sink = Sink::open();
    let node = Engine::new(EngineConfig { listen: Some((NODE, 7000).into()), scope: Scope::Any, ..config() }).unwrap();
    let made = single_file(1 << 20);
    let place = tempfile::tempdir().unwrap();
    let options = InstallOptions { peers: FORBIDDEN.iter().map(|&addr| (addr, 7000).into()).collect(), ..Default::default() };
    let _session = node.install(made.pea.clone(), &place.path().join("out"), options).unwrap();
    let began = Instant::now();
    while sink.attempts.len() < 3 {
        assert!(began.elapsed() < common::PATIENCE, "nobody was seen: {:?}", sink.attempts);
        sink.drain();
        std::thread::sleep(Duration::from_millis(2));
    }
    assert!(sink.attempts.keys().all(|addr| FORBIDDEN.iter().any(|&forbidden| addr.ip() == forbidden)));
}

/// Records told to a machine by eight neighbours, a thousand every 7.2 s, of which each sends as many as it can: when it dialled
/// whom. `forgets`: it is a new one each time, with no memory of where it knocked.
fn told(count: u32, forgets: bool) -> BTreeMap<SocketAddr, Vec<Time>> {
    let geometry = Geometry::new(1 << 20, 65_536).unwrap();
    let machine = || {
        let held = PieceSet::empty(&geometry);
        let me = PeerId([0xEE; 32]);
        Swarm::new(Setup { geometry, me, held, role: Role::Peer, limits: Limits::default(), region: 0, seed: 1 })
    };
    let mut swarm = machine();
    let mut rng = Rng::new(9);
    let hello = Hello { version: 1, content: [0; 32], proof: vec![], listen_port: None, region: 0, origin: false, extensions: 0 };
    let mut dials: BTreeMap<SocketAddr, Vec<Time>> = BTreeMap::new();
    let (mut records, mut now) = (0u32, Time::ZERO);
    let neighbours: Vec<PeerId> = (0..8).map(|at| PeerId([at; 32])).collect();
    while records < count {
        if forgets {
            swarm = machine();
        }
        for (at, &peer) in neighbours.iter().enumerate() {
            // They come back when they are thrown out.
            swarm.handle(
                now,
                Input::LinkUp { peer, addr: ([9, 9, 9, at as u8], 1).into(), dialed: false, round_trip: None, hello: hello.clone() },
            );
            swarm.handle(now, Input::Message { peer, message: Message::Held { runs: vec![], need: 1, queue_ms: 0 } });
        }
        for _ in 0..1000 / 50 {
            let told: Vec<MemberRecord> = (0..50)
                .map(|_| {
                    let host = ([8, 8, rng.below(64) as u8, rng.below(4) as u8], 1024 + rng.below(60_000) as u16).into();
                    record(&mut rng, host)
                })
                .collect();
            records += 50;
            swarm.handle(now, Input::Message { peer: neighbours[rng.below(8)], message: Message::Members(told) });
            while let Some(output) = swarm.poll() {
                if let Output::Dial { addr, .. } = output {
                    dials.entry(addr).or_default().push(now);
                    // Half of them refuse, half say nothing for a while.
                    swarm.handle(now + Span::ms(300), Input::DialFailed { addr, stranger: false });
                }
            }
        }
        now = now + Span::ms(7200);
    }
    dials
}

/// Hosts that were dialled twice within a minute, whatever the ports.
fn pestered(dials: &BTreeMap<SocketAddr, Vec<Time>>) -> Vec<IpAddr> {
    let mut hosts: BTreeMap<IpAddr, Vec<Time>> = BTreeMap::new();
    dials.iter().for_each(|(addr, times)| hosts.entry(addr.ip()).or_default().extend(times));
    hosts.values_mut().for_each(|times| times.sort());
    hosts.retain(|_, times| times.windows(2).any(|pair| pair[1].since(pair[0]) < Span::s(60)));
    hosts.into_keys().collect()
}

/// A million records through the machine in two virtual hours: per host and minute one dial at most, and none to an address that did not
/// answer within the quarter of an hour.
#[test]
fn a_million_records_in_two_virtual_hours() {
    let dials = told(1_000_000, false);
    assert_eq!(pestered(&dials), [] as [IpAddr; 0]);
    for (addr, times) in &dials {
        let apart = |pair: &[Time]| pair[1].since(pair[0]) >= Span::s(900);
        assert!(times.windows(2).all(apart), "{addr} did not answer and was tried again within a quarter of an hour");
    }
    let total: usize = dials.values().map(Vec::len).sum();
    println!("{total} dials to {} addresses", dials.len());
    assert!(total > 20, "the control: some are tried");
    // Two failures close a network (/24) for ten minutes; those under way when the second is known may be as many as it has hosts here.
    assert!(total <= 64 * 4 * 13, "{total} dials");
}

/// The control: a machine that does not remember where it knocked is found out.
#[test]
fn control_a_machine_that_forgets_pesters() {
    assert_ne!(pestered(&told(50_000, true)), [] as [IpAddr; 0]);
}

/// Members that a machine of `with_places` knows at most.
const PLACES: u32 = 256;

fn with_places(members_max: u32) -> Swarm {
    let geometry = Geometry::new(1 << 20, 65_536).unwrap();
    let (held, limits) = (PieceSet::empty(&geometry), Limits { members_max, ..Limits::default() });
    Swarm::new(Setup { geometry, me: PeerId([0xEE; 32]), held, role: Role::Peer, limits, region: 0, seed: 1 })
}

fn bare_hello(listen_port: Option<u16>) -> Hello {
    Hello { version: 1, content: [0; 32], proof: vec![], listen_port, region: 0, origin: false, extensions: 0 }
}

/// Words in any number move nobody whom we reached ourselves, neither out of the table nor to another address; and whoever speaks for one
/// network alone gets its eight places.
#[test]
fn a_flood_of_names_displaces_only_names() {
    let (mut swarm, places) = (with_places(PLACES), PLACES);
    let mut now = Time::ZERO;
    let reached: Vec<(PeerId, SocketAddr)> = (1..=9).map(|at| (PeerId([at; 32]), ([9, 9, at, 1], 7000).into())).collect();
    for &(peer, addr) in &reached {
        swarm.handle(now, Input::LinkUp { peer, addr, dialed: true, round_trip: None, hello: bare_hello(Some(7000)) });
        swarm.handle(now, Input::LinkDown { peer });
    }
    let liar = PeerId([0xDD; 32]);
    let mut rng = Rng::new(3);
    // Fifty at a time, as a message may carry; it comes back when it is thrown out.
    let mut tell = |swarm: &mut Swarm, count: usize, name: fn(&mut Rng) -> MemberRecord| {
        for _ in 0..count / 50 {
            now = now + Span::ms(20);
            let told = (0..50).map(|_| name(&mut rng)).collect();
            swarm.handle(
                now,
                Input::LinkUp { peer: liar, addr: ([7, 7, 7, 7], 1).into(), dialed: false, round_trip: None, hello: bare_hello(None) },
            );
            swarm.handle(now, Input::Message { peer: liar, message: Message::Held { runs: vec![], need: 1, queue_ms: 0 } });
            swarm.handle(now, Input::Message { peer: liar, message: Message::Members(told) });
            while swarm.poll().is_some() {}
        }
        now
    };
    let after = tell(&mut swarm, 2_000, |rng| {
        let addr = ([8, 8, 8, rng.below(256) as u8], 7000).into();
        record(rng, addr)
    });
    assert_eq!(swarm.snapshot(after).members, reached.len() as u32 + 8);
    let after = tell(&mut swarm, 10_000, |rng| {
        let addr = ([rng.below(100) as u8 + 20, rng.below(256) as u8, rng.below(256) as u8, 1], 7000).into();
        let mut record = record(rng, addr);
        // Some speak of those whom we know, and say that they have moved.
        if rng.chance(0.1) {
            record.peer = [1 + rng.below(9) as u8; 32];
        }
        record
    });
    assert_eq!(swarm.snapshot(after).members, places, "the control: the table is full");
    let mut told: Vec<(PeerId, SocketAddr)> = swarm.members(after, 50).iter().map(|record| (record.peer_id(), record.addr)).collect();
    told.sort();
    assert_eq!(told, reached, "what we pass on is what we reached");
}

/// One host that comes under key after key and can be reached under each fills the table up, and drives out nobody who is elsewhere. It
/// once did: 4,096 of its keys were all that was left, and all that newcomers were told of.
#[test]
fn one_host_with_many_keys_drives_nobody_out() {
    let (mut swarm, places) = (with_places(PLACES), PLACES);
    let mut now = Time::ZERO;
    let mut reached: Vec<PeerId> = (1..=9).map(|at| PeerId([at; 32])).collect();
    for (at, &peer) in reached.iter().enumerate() {
        swarm.handle(
            now,
            Input::LinkUp { peer, addr: ([9, 9, at as u8, 1], 7000).into(), dialed: true, round_trip: None, hello: bare_hello(Some(7000)) },
        );
        swarm.handle(now, Input::LinkDown { peer });
    }
    let mut proven = 0;
    for key in 0..1000u16 {
        now = now + Span::ms(50);
        let mut peer = PeerId([0xCC; 32]);
        peer.0[..2].copy_from_slice(&key.to_le_bytes());
        swarm.handle(
            now,
            Input::LinkUp { peer, addr: ([7, 7, 7, 7], 1).into(), dialed: false, round_trip: None, hello: bare_hello(Some(7000 + key)) },
        );
        while let Some(output) = swarm.poll() {
            if let Output::Probe { addr, peer } = output {
                swarm.handle(now, Input::Probed { addr, peer });
                proven += 1;
            }
        }
        swarm.handle(now, Input::LinkDown { peer });
    }
    assert!(proven > 2 * places && swarm.snapshot(now).members == places, "the control: it was reached under {proven} keys");
    let told: Vec<PeerId> = swarm.members(now, places as usize).iter().map(MemberRecord::peer_id).collect();
    reached.retain(|peer| !told.contains(peer));
    assert_eq!(reached, [], "driven out");
}

/// The first thing that a dialled stranger hears: nothing in it was chosen by whoever named it, and it is short. And what a listener
/// says to an unproven caller is at most three times what it heard (test R7; over TCP its address is proven by then).
#[test]
fn the_first_flight_carries_nobodys_words_and_amplifies_little() {
    let made = single_file(1 << 20);
    runtime().block_on(async {
        let (one, two) = (first_flight().await, first_flight().await);
        assert!(one.len() < 512, "{} bytes", one.len());
        // The same whoever is called: randomness and the order of extensions apart, nothing depends on anybody's word.
        assert_eq!(one.len(), two.len());
        let content = made.pea.id().0;
        assert!(!one.windows(8).any(|window| content.windows(8).any(|part| part == window)), "what is looked for is not told");

        // Answered by a host that waits for more.
        let identity = Identity::generate();
        let host =
            TcpTransport::new(&identity, &TcpOptions { listen: Some(common::attackers::HERE.parse().unwrap()), plain: false }).unwrap();
        let addr = host.listen_addr().unwrap();
        let accepting = async { host.accept(host.incoming().await.unwrap(), Duration::from_millis(500)).await.is_err() };
        let calling = async {
            use tokio::io::{AsyncReadExt, AsyncWriteExt};
            let mut stream = tokio::net::TcpStream::connect(addr).await.unwrap();
            stream.write_all(&one).await.unwrap();
            let mut answer = Vec::new();
            let _ = stream.read_to_end(&mut answer).await;
            answer.len()
        };
        let (_, answer_bytes) = tokio::join!(accepting, calling);
        println!("first flight {} bytes, answer {answer_bytes} bytes: {:.2}", one.len(), answer_bytes as f64 / one.len() as f64);
        assert!(answer_bytes > 100, "the control: the host did answer");
        assert!(answer_bytes <= 3 * one.len(), "{answer_bytes} bytes for {}", one.len());
    });
}
