//! Which addresses may be dialled: the swarm must not become a weapon.
//!
//! A pure function of the address, the host's word and the places where we are known to be. It is asked for the resolved address
//! before every dial. Addresses that the host or the signed pea named are always allowed; all others were learnt from strangers.

use crate::config::Scope;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Ports below this belong to the system's services; a stranger's word is not enough to knock there.
const PORT_MIN: u16 = 1024;

/// Ports of web servers.
const WEB_PORTS: [u16; 2] = [80, 443];

/// A part of the address space as far as dialling is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Zone {
    /// Reachable from anywhere.
    Public,
    /// Private or loopback: this one of [`LOCAL_V4`] and [`LOCAL_V6`].
    Local(u8),
    /// Nobody's to dial on a stranger's word.
    Never,
}

/// Private and loopback ranges: address, prefix length, number of the zone.
const LOCAL_V4: [(Ipv4Addr, u32, u8); 5] = [
    (Ipv4Addr::new(127, 0, 0, 0), 8, 1),
    (Ipv4Addr::new(10, 0, 0, 0), 8, 2),
    (Ipv4Addr::new(172, 16, 0, 0), 12, 3),
    (Ipv4Addr::new(192, 168, 0, 0), 16, 4),
    (Ipv4Addr::new(100, 64, 0, 0), 10, 5),
];

const LOCAL_V6: [(Ipv6Addr, u32, u8); 3] = [
    (Ipv6Addr::LOCALHOST, 128, 1),
    (Ipv6Addr::new(0xfc00, 0, 0, 0, 0, 0, 0, 0), 7, 6),
    (Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0), 10, 7),
];

/// The only part of IPv6 that is given out to the world; what lies elsewhere and is not local is nobody's.
const GLOBAL_V6: (Ipv6Addr, u32) = (Ipv6Addr::new(0x2000, 0, 0, 0, 0, 0, 0, 0), 3);

/// Ranges that are neither public nor anybody's home: "this network", link-local with the metadata services of clouds,
/// protocol assignments, relays of 6to4, documentation, benchmarks, multicast, reserved (RFC 6890 and its successors).
const NEVER_V4: [(Ipv4Addr, u32); 10] = [
    (Ipv4Addr::new(0, 0, 0, 0), 8),
    (Ipv4Addr::new(169, 254, 0, 0), 16),
    (Ipv4Addr::new(192, 0, 0, 0), 24),
    (Ipv4Addr::new(192, 0, 2, 0), 24),
    (Ipv4Addr::new(192, 88, 99, 0), 24),
    (Ipv4Addr::new(198, 18, 0, 0), 15),
    (Ipv4Addr::new(198, 51, 100, 0), 24),
    (Ipv4Addr::new(203, 0, 113, 0), 24),
    (Ipv4Addr::new(224, 0, 0, 0), 4),
    (Ipv4Addr::new(240, 0, 0, 0), 4),
];

/// The same inside the global part of IPv6: protocol assignments (benchmarks and overlays among them), documentation.
const NEVER_V6: [(Ipv6Addr, u32); 3] = [
    (Ipv6Addr::new(0x2001, 0, 0, 0, 0, 0, 0, 0), 23),
    (Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0), 32),
    (Ipv6Addr::new(0x3fff, 0, 0, 0, 0, 0, 0, 0), 20),
];

/// Whether to dial an address. `named`: addresses that the host or the signed pea named; `ours`: addresses of this machine and of
/// peers it is linked to.
pub(crate) fn may_dial(scope: Scope, addr: SocketAddr, named: &[SocketAddr], ours: &[IpAddr]) -> bool {
    if scope == Scope::Any || named.contains(&addr) {
        return true;
    }
    let near = |at: u8| named.iter().map(SocketAddr::ip).chain(ours.iter().copied()).any(|ip| zone(ip) == Zone::Local(at));
    let reachable = match zone(addr.ip()) {
        Zone::Public => true,
        Zone::Local(at) => scope == Scope::Auto && near(at),
        Zone::Never => false,
    };
    reachable && addr.port() >= PORT_MIN
}

/// Whether to fetch over HTTP from there: a dial that carries a path which somebody else chose, so that nobody's word opens what is
/// nobody's to dial, and only our own network's private addresses. `from`: the server whose redirection leads there, which opens no
/// more than its own network and the web's ports.
pub(super) fn may_fetch(scope: Scope, addr: SocketAddr, from: Option<IpAddr>, ours: &[IpAddr]) -> bool {
    let port_is_fine = from.is_none() || addr.port() >= PORT_MIN || WEB_PORTS.contains(&addr.port());
    let reachable = match (zone(addr.ip()), from) {
        (Zone::Public, _) => true,
        (Zone::Local(at), Some(from)) => scope == Scope::Auto && zone(from) == Zone::Local(at),
        (Zone::Local(at), None) => scope == Scope::Auto && ours.iter().any(|&ip| zone(ip) == Zone::Local(at)),
        (Zone::Never, _) => false,
    };
    scope == Scope::Any || (reachable && port_is_fine)
}

/// Where an address lies. Forms of IPv6 that carry an IPv4 address lie where that one lies.
pub(super) fn zone(ip: IpAddr) -> Zone {
    match ip {
        IpAddr::V4(v4) => zone_v4(v4),
        IpAddr::V6(v6) => match embedded(v6) {
            // The server that a Teredo packet goes to first is as much at the writer's choice as the client behind it.
            Some([v4, also]) => match [zone_v4(v4), zone_v4(also)] {
                [zone, Zone::Public] => zone,
                _ => Zone::Never,
            },
            None => match (zone_v6(v6), isatap(v6).map_or(Zone::Public, zone_v4)) {
                (zone, Zone::Public) | (Zone::Public, zone) => zone,
                _ => Zone::Never,
            },
        },
    }
}

fn zone_v4(ip: Ipv4Addr) -> Zone {
    let inside = |net: Ipv4Addr, prefix: u32| (ip.to_bits() ^ net.to_bits()) >> (32 - prefix) == 0;
    if NEVER_V4.iter().any(|&(net, prefix)| inside(net, prefix)) {
        return Zone::Never;
    }
    LOCAL_V4.iter().find(|&&(net, prefix, _)| inside(net, prefix)).map_or(Zone::Public, |&(_, _, at)| Zone::Local(at))
}

fn zone_v6(ip: Ipv6Addr) -> Zone {
    let inside = |net: Ipv6Addr, prefix: u32| (ip.to_bits() ^ net.to_bits()) >> (128 - prefix) == 0;
    if NEVER_V6.iter().any(|&(net, prefix)| inside(net, prefix)) {
        return Zone::Never;
    }
    let elsewhere = if inside(GLOBAL_V6.0, GLOBAL_V6.1) { Zone::Public } else { Zone::Never };
    LOCAL_V6.iter().find(|&&(net, prefix, _)| inside(net, prefix)).map_or(elsewhere, |&(_, _, at)| Zone::Local(at))
}

/// The IPv4 address inside an ISATAP address: where packets end that have come to its network, whichever that is.
fn isatap(ip: Ipv6Addr) -> Option<Ipv4Addr> {
    match ip.segments() {
        [_, _, _, _, 0 | 0x200, 0x5efe, high, low] => Some(v4(high, low)),
        _ => None,
    }
}

fn v4(high: u16, low: u16) -> Ipv4Addr {
    Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low))
}

/// The IPv4 addresses inside mapped, translated (64:ff9b::/96 and ::ffff:0:0:0/96), 6to4 (2002::/16) and Teredo (2001::/32: client and
/// server) addresses: where the packets would end, and through whom.
fn embedded(ip: Ipv6Addr) -> Option<[Ipv4Addr; 2]> {
    let part = ip.segments();
    let nobody = Ipv4Addr::new(9, 9, 9, 9); // any public one: nobody else is on the way
    match part {
        [0, 0, 0, 0, 0, 0xffff, high, low]
        | [0, 0, 0, 0, 0xffff, 0, high, low]
        | [0x64, 0xff9b, 0, 0, 0, 0, high, low]
        | [0x2002, high, low, ..] => Some([v4(high, low), nobody]),
        [0x2001, 0, server_high, server_low, _, _, high, low] => Some([v4(!high, !low), v4(server_high, server_low)]),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn strangers_cannot_send_us_to_forbidden_places() {
        let forbidden = [
            "0.1.2.3:7000",
            "10.1.2.3:7000",
            "100.64.0.1:7000",
            "127.0.0.1:7000",
            "169.254.169.254:7000",
            "172.31.0.1:7000",
            "192.0.0.1:7000",
            "192.0.2.1:7000",
            "192.168.1.1:7000",
            "198.19.0.1:7000",
            "198.51.100.1:7000",
            "203.0.113.9:7000",
            "224.0.0.1:7000",
            "255.255.255.255:7000",
            "[::]:7000",
            "[::1]:7000",
            "[::ffff:10.0.0.1]:7000",
            "[64:ff9b::a00:1]:7000",
            "[2002:a00:1::]:7000",
            "[2001:0:1:2:3:4:f5ff:fffe]:7000",
            "[fc00::1]:7000",
            "[fe80::1]:7000",
            "[ff02::1]:7000",
            "192.88.99.1:7000",
            "[::10.0.0.1]:7000",
            "[::9.9.9.9]:7000",
            "[::ffff:0:127.0.0.1]:7000",
            "[64:ff9b:1::9.9.9.9]:7000",
            "[100::1]:7000",
            "[2001:2::1]:7000",
            "[2001:10::1]:7000",
            "[2001:0:7f00:1:2:3:f6f6:f6f6]:7000",
            "[2620:fe::5efe:10.0.0.1]:7000",
            "[2620:fe::200:5efe:169.254.169.254]:7000",
            // Fuzzing found these to be where the IPv4 address in them is, whatever network that was said to be in.
            "[ff0e::5efe:9.9.9.9]:7000",
            "[fe80::5efe:9.9.9.9]:7000",
            "[2001:db8::5efe:9.9.9.9]:7000",
            "[fc00::5efe:127.0.0.1]:7000",
            "[2001:db8::1]:7000",
            "[3fff::1]:7000",
            "[4000::1]:7000",
            "[5f00::1]:7000",
            "[fec0::1]:7000",
            "9.9.9.9:22",
            "[2620:fe::fe]:443",
        ];
        for text in forbidden {
            for scope in [Scope::Public, Scope::Auto] {
                assert!(!may_dial(scope, at(text), &[], &[]), "{text} {scope:?}");
            }
            assert!(may_dial(Scope::Any, at(text), &[], &[]));
            assert!(may_dial(Scope::Public, at(text), &[at(text)], &[]), "named by the host: {text}");
        }
        for text in [
            "9.9.9.9:7000",
            "[2620:fe::fe]:7000",
            "172.32.0.1:7000",
            "[::ffff:9.9.9.9]:7000",
            "[2002:909:909::1]:7000",
            "[2620:fe::5efe:9.9.9.9]:7000",
            "[2001:0:909:909:2:3:f6f6:f6f6]:7000",
        ] {
            assert!(may_dial(Scope::Public, at(text), &[], &[]), "{text}");
        }
    }

    #[test]
    fn web_servers_open_no_more_than_their_own_network() {
        let (here, public) = ([at("10.0.0.5:1").ip(), at("127.0.0.1:1").ip()], Some(at("9.9.9.9:1").ip()));
        for (text, scope, from, may) in [
            ("9.9.9.9:443", Scope::Public, None, true),
            ("9.9.9.9:22", Scope::Public, None, true),
            ("10.1.2.3:80", Scope::Auto, None, true),
            ("10.1.2.3:80", Scope::Public, None, false),
            ("192.168.0.1:80", Scope::Auto, None, false),
            ("169.254.169.254:80", Scope::Auto, None, false),
            ("9.9.9.10:443", Scope::Auto, public, true),
            ("9.9.9.10:22", Scope::Auto, public, false),
            ("10.1.2.3:80", Scope::Auto, public, false),
            ("127.0.0.1:8080", Scope::Auto, public, false),
            ("[::ffff:127.0.0.1]:8080", Scope::Auto, public, false),
            ("169.254.169.254:80", Scope::Auto, public, false),
            ("169.254.169.254:80", Scope::Any, public, true),
            ("10.1.2.3:80", Scope::Auto, Some(at("10.0.0.9:1").ip()), true),
            ("10.1.2.3:25", Scope::Auto, Some(at("10.0.0.9:1").ip()), false),
        ] {
            assert_eq!(may_fetch(scope, at(text), from, &here), may, "{text} {scope:?} {from:?}");
        }
    }

    #[test]
    fn auto_opens_the_range_that_we_or_the_host_are_in_and_no_other() {
        let ours = [at("10.0.0.5:1").ip()];
        assert!(may_dial(Scope::Auto, at("10.200.0.1:7000"), &[], &ours));
        assert!(!may_dial(Scope::Auto, at("192.168.0.1:7000"), &[], &ours));
        assert!(!may_dial(Scope::Public, at("10.200.0.1:7000"), &[], &ours));
        assert!(!may_dial(Scope::Auto, at("10.200.0.1:80"), &[], &ours));
        assert!(may_dial(Scope::Auto, at("127.0.0.1:7001"), &[at("127.0.0.1:7000")], &[]));
        assert!(!may_dial(Scope::Auto, at("169.254.169.254:8000"), &[at("169.254.1.1:7000")], &ours), "link-local opens nothing");
    }

    /// Forbidden ranges once more, as text and told apart by comparing text of bits: the slow and plain way, for the test below.
    const FORBIDDEN: &str = "0.0.0.0/8 10.0.0.0/8 100.64.0.0/10 127.0.0.0/8 169.254.0.0/16 172.16.0.0/12 192.0.0.0/24 192.0.2.0/24 \
        192.88.99.0/24 192.168.0.0/16 198.18.0.0/15 198.51.100.0/24 203.0.113.0/24 224.0.0.0/4 240.0.0.0/4";
    const FORBIDDEN_V6: &str = "::/8 100::/8 200::/7 400::/6 800::/5 1000::/4 2001::/23 2001:db8::/32 3fff::/20 4000::/2 8000::/1";

    fn bits(ip: IpAddr) -> String {
        match ip {
            IpAddr::V4(v4) => format!("{:032b}", v4.to_bits()),
            IpAddr::V6(v6) => format!("{:0128b}", v6.to_bits()),
        }
    }

    fn is_in(ip: IpAddr, ranges: &[(String, usize)]) -> bool {
        let ip = bits(ip);
        ranges.iter().any(|(net, prefix)| net.len() == ip.len() && net[..*prefix] == ip[..*prefix])
    }

    fn ranges(text: &str) -> Vec<(String, usize)> {
        let range = |range: &str| {
            let (net, prefix) = range.split_once('/').unwrap();
            (bits(net.parse().unwrap()), prefix.parse().unwrap())
        };
        text.split_whitespace().map(range).collect()
    }

    /// A million addresses as a stranger would choose them: forbidden ones and their neighbours, plain and in each disguise, with ports
    /// of services. What passes is judged by the slow way, which knows the disguises by their construction.
    #[test]
    fn a_million_hostile_addresses() {
        use crate::unit::Rng;
        let (v4_ranges, v6_ranges) = (ranges(FORBIDDEN), ranges(FORBIDDEN_V6));
        let mut rng = Rng::new(7);
        let (mut passed, mut refused) = (0, 0);
        for round in 0..1_000_000u32 {
            // The first or last of a range, or one beyond, or anything.
            let (net, prefix) = &v4_ranges[rng.below(v4_ranges.len())];
            let net = u32::from_str_radix(net, 2).unwrap();
            let size = 1u64 << (32 - prefix);
            let offset = [0, size - 1, size, u64::MAX, rng.next_u64() % size, rng.next_u64()][rng.below(6)];
            let v4 = Ipv4Addr::from_bits((u64::from(net)).wrapping_add(offset) as u32);
            let [high, low] = [(v4.to_bits() >> 16) as u16, v4.to_bits() as u16];
            let any = rng.next_u64() as u16;
            let (ip, bad): (IpAddr, bool) = match rng.below(9) {
                0 => (v4.to_ipv6_mapped().into(), is_in(v4.into(), &v4_ranges)),
                1 => (Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, high, low).into(), is_in(v4.into(), &v4_ranges)),
                2 => (Ipv6Addr::new(0x2002, high, low, any, any, 1, 2, 3).into(), is_in(v4.into(), &v4_ranges)),
                3 => (Ipv6Addr::new(0x2001, 0, 0x909, 0x909, any, any, !high, !low).into(), is_in(v4.into(), &v4_ranges)),
                4 => (Ipv6Addr::new(0x2001, 0, high, low, any, any, 0xf6f6, 0xf6f6).into(), is_in(v4.into(), &v4_ranges)),
                5 => (Ipv6Addr::new(0, 0, 0, 0, 0xffff, 0, high, low).into(), is_in(v4.into(), &v4_ranges)),
                6 => (Ipv6Addr::new(0x2620, 0xfe, any, 1, 0, 0x5efe, high, low).into(), is_in(v4.into(), &v4_ranges)),
                7 => {
                    let first = [0x2001, 0x2620, 0xfc00, 0xfe80, 0xff02, 0, 0x100, 0x64, 0x3fff, any][rng.below(10)];
                    let ip = IpAddr::V6(Ipv6Addr::new(first, if rng.chance(0.5) { 0xdb8 } else { any | 0x1000 }, 0, 0, 0, 1, 2, 3));
                    (ip, is_in(ip, &v6_ranges))
                }
                _ => (v4.into(), is_in(v4.into(), &v4_ranges)),
            };
            let port = [22, 25, 53, 443, 1023, 1024, 7000, 65_535][rng.below(8)];
            let bad = bad || port < 1024;
            let may = may_dial(Scope::Public, SocketAddr::new(ip, port), &[], &[]);
            assert_eq!(may, !bad, "round {round}: {ip} port {port}");
            if may { passed += 1 } else { refused += 1 }
        }
        assert!(passed > 50_000 && refused > 500_000, "both kinds were tried: {passed} passed, {refused} refused");
    }
}
