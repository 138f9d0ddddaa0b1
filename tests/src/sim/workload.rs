//! What the world is like: the content, the peers and their networks, who comes and goes when. Named workloads are in
//! [`report`](super::report).

use super::faults::Fault;
use peas_core::swarm::Limits;
use peas_core::unit::{Geometry, Rng};

/// How a node behaves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Conduct {
    /// As the machine says.
    #[default]
    Honest,
    /// Says it holds all and sends wrong bytes.
    Poisoner,
    /// Says it holds all and refuses what it is asked for.
    Liar,
    /// Says it holds all and stops in the middle of what it sends.
    Staller,
    /// Takes and never gives: no announcements, no grants.
    Hoarder,
}

/// One client.
#[derive(Clone, Debug)]
pub struct PeerPlan {
    /// Upload rate, bytes per second on the wire.
    pub up_bytes_per_s: f64,
    /// Download rate, bytes per second on the wire.
    pub down_bytes_per_s: f64,
    /// When it comes, seconds.
    pub arrives_s: f64,
    /// Region label, 0 for none.
    pub region: u32,
    /// How it behaves.
    pub conduct: Conduct,
    /// It is told to leave this many seconds after it is whole.
    pub leaves_after_s: Option<f64>,
    /// It dies at this time, seconds, for good.
    pub dies_at_s: Option<f64>,
}

/// A thin link between regions 1 and 2, shared by all.
#[derive(Clone, Copy, Debug)]
pub struct Trunk {
    /// Rate in each direction, bytes per second.
    pub bytes_per_s: f64,
    /// What it adds to the one-way latency, seconds.
    pub one_way_s: f64,
}

/// A world.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Seed of everything random: the world's and, mixed with each node's number, the machines'.
    pub seed: u64,
    /// The content.
    pub geometry: Geometry,
    /// Upload rate of the origin, bytes per second.
    pub origin_up_bytes_per_s: f64,
    /// Region of the origin.
    pub origin_region: u32,
    /// The origin dies when it has sent this many copies.
    pub origin_dies_at_copies: Option<f64>,
    /// The clients.
    pub clients: Vec<PeerPlan>,
    /// One-way latency between any two, seconds.
    pub one_way_s: f64,
    /// Thin link between regions.
    pub trunk: Option<Trunk>,
    /// Hashing and writing together, bytes per second.
    pub disk_bytes_per_s: f64,
    /// Bounds of the machines.
    pub limits: Limits,
    /// Payload leaves in quanta of this many bytes: TCP flows that share an uplink.
    pub quantum_bytes: u32,
    /// Shortest time between two reports of arriving bytes on one link, seconds. The engine uses 50 ms; reports are most of the inputs.
    pub report_every_s: f64,
    /// What goes wrong and when.
    pub faults: Vec<Fault>,
    /// Clients also know some that came before them, as if remembered from an earlier run.
    pub remembered: usize,
    /// Print every input and output of this node on standard error.
    pub trace: Option<u32>,
    /// The run ends at this time at the latest, seconds.
    pub ends_s: f64,
}

/// Payload on the wire: frames, records, headers.
pub const OVERHEAD: f64 = 1.015;

/// Bytes per second from megabits per second.
pub fn mbit(mbit_per_s: f64) -> f64 {
    mbit_per_s * 1e6 / 8.0
}

impl Plan {
    /// Equal clients that all come at once: 12.5 Mbit/s up and down, pieces of 1 MiB, 20 ms one way.
    pub fn flash_crowd(clients: usize, pieces: u32, seed: u64) -> Self {
        Self::equal(clients, pieces, 1 << 20, mbit(12.5), seed)
    }

    /// Equal clients that all come at once, at any rate and piece size.
    pub fn equal(clients: usize, pieces: u32, piece_bytes: u32, bytes_per_s: f64, seed: u64) -> Self {
        let geometry = Geometry::new(u64::from(pieces) * u64::from(piece_bytes), piece_bytes).expect("the sizes of a plan make a content");
        let client = PeerPlan {
            up_bytes_per_s: bytes_per_s,
            down_bytes_per_s: bytes_per_s,
            arrives_s: 0.0,
            region: 0,
            conduct: Conduct::Honest,
            leaves_after_s: None,
            dies_at_s: None,
        };
        Self {
            seed,
            geometry,
            origin_up_bytes_per_s: bytes_per_s,
            origin_region: 0,
            origin_dies_at_copies: None,
            clients: vec![client; clients],
            one_way_s: 0.020,
            trunk: None,
            // A laptop's SSD with BLAKE3 beside it.
            disk_bytes_per_s: 500e6,
            limits: Limits::default(),
            quantum_bytes: 16 << 10,
            report_every_s: 0.2,
            faults: Vec::new(),
            remembered: 0,
            trace: None,
            ends_s: 1e5,
        }
    }

    /// The same with each client changed.
    pub fn with_clients(mut self, mut change: impl FnMut(usize, &mut PeerPlan)) -> Self {
        self.clients.iter_mut().enumerate().for_each(|(at, client)| change(at, client));
        self
    }

    /// Clients come one by one at random times, `per_s` on average.
    pub fn poisson(self, per_s: f64) -> Self {
        let mut rng = Rng::new(self.seed ^ 0x90_15_50);
        let mut at_s = 0.0;
        self.with_clients(|_, client| {
            client.arrives_s = at_s;
            at_s += -(1.0 - rng.unit()).ln() / per_s;
        })
    }

    /// A share of the clients, spread evenly, behaves otherwise.
    pub fn with_conduct(self, share: f64, conduct: Conduct) -> Self {
        self.with_clients(|at, client| {
            if ((at + 1) as f64 * share).floor() > (at as f64 * share).floor() {
                client.conduct = conduct;
            }
        })
    }

    /// Clients of two regions in turn, the origin in the first, a thin link between.
    pub fn two_regions(mut self, trunk: Trunk) -> Self {
        self.trunk = Some(trunk);
        self.origin_region = 1;
        self.with_clients(|at, client| client.region = 1 + (at % 2) as u32)
    }

    /// Clients that are to get everything: neither hostile nor doomed.
    pub fn honest(&self) -> impl Iterator<Item = &PeerPlan> {
        self.clients.iter().filter(|client| client.conduct == Conduct::Honest && client.dies_at_s.is_none())
    }
}
