//! What a run measured.

use super::checks::Violation;

/// Why uplinks were silent, in shares of all uplink time of honest nodes, by looking every so often.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Uplinks {
    /// Sending.
    pub busy: f64,
    /// Silent: the node holds nothing yet.
    pub empty: f64,
    /// Silent: no neighbour lacks anything that the node holds.
    pub unneeded: f64,
    /// Silent: a grant or an assignment is not answered yet.
    pub unanswered: f64,
    /// Silent: every neighbour in need has declined within the last piece-time.
    pub declined: f64,
    /// Silent: the receivers' downlinks (or the thin link) are full.
    pub pushed_back: f64,
    /// Silent although somebody could have been granted something.
    pub unused: f64,
}

impl Uplinks {
    /// Adds shares with a weight.
    pub fn add(&mut self, other: &Self, weight: f64) {
        self.busy += other.busy * weight;
        self.empty += other.empty * weight;
        self.unneeded += other.unneeded * weight;
        self.unanswered += other.unanswered * weight;
        self.declined += other.declined * weight;
        self.pushed_back += other.pushed_back * weight;
        self.unused += other.unused * weight;
    }
}

/// One look at the whole swarm.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sample {
    /// When, seconds.
    pub at_s: f64,
    /// Clients up.
    pub clients: u32,
    /// Clients that are whole.
    pub whole: u32,
    /// Pieces that at least one client has committed.
    pub pieces_out: u32,
    /// Mean share of the content held by clients.
    pub held: f64,
    /// Links per node.
    pub links: f64,
    /// Uplinks since the last sample.
    pub uplinks: Uplinks,
    /// Fetches outstanding, per client.
    pub fetches: f64,
}

/// Control messages by kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Messages {
    /// `Held` and `Have`.
    pub have: u64,
    /// Grants.
    pub grant: u64,
    /// Assignments.
    pub assign: u64,
    /// Declines.
    pub decline: u64,
    /// Requests.
    pub request: u64,
    /// Refusals.
    pub refuse: u64,
    /// Cancels.
    pub cancel: u64,
    /// Credits.
    pub credit: u64,
    /// Lists of members.
    pub members: u64,
}

/// A node said how many of the pieces that it lacks nobody linked holds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Unavailable {
    /// When, seconds.
    pub at_s: f64,
    /// Who.
    pub node: u32,
    /// How many.
    pub pieces: u32,
}

/// How a run went.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// Second at which the last honest client became whole; `None` if one never did.
    pub last_whole_s: Option<f64>,
    /// Seconds from arrival to whole of each honest client that became whole, ascending.
    pub durations_s: Vec<f64>,
    /// Honest clients that are not whole at the end.
    pub short: u32,
    /// Fluid lower bound, seconds.
    pub bound_s: f64,
    /// Pieces of the content.
    pub pieces: u32,
    /// What clients said of pieces that nobody near them holds, in order.
    pub unavailable: Vec<Unavailable>,
    /// Copies that the origin sent.
    pub origin_copies: f64,
    /// Second at which the last piece was first committed by a client.
    pub spread_s: Option<f64>,
    /// Second of the last assignment of a piece that had never been assigned.
    pub handed_out_s: Option<f64>,
    /// Bytes of control messages for each byte of payload.
    pub control_share: f64,
    /// Payload bytes sent beyond one copy per commit, for each byte committed.
    pub waste_share: f64,
    /// Copies over the thin link, in the direction away from the origin.
    pub trunk_copies: f64,
    /// Slowest first committed piece of any honest client, seconds after its arrival.
    pub first_piece_s: f64,
    /// The same for 99 % of the clients.
    pub first_piece_p99_s: f64,
    /// Most serves queued at any node.
    pub serves_max: u32,
    /// Most links at any node.
    pub links_max: u32,
    /// Uplinks over the whole run, until the last client was whole.
    pub uplinks: Uplinks,
    /// Control messages.
    pub messages: Messages,
    /// Steps of the run.
    pub samples: Vec<Sample>,
    /// Inputs that machines took.
    pub inputs: u64,
    /// Events of the world.
    pub events: u64,
    /// Virtual seconds.
    pub virtual_s: f64,
    /// Fingerprint of all inputs and outputs.
    pub fold: u64,
    /// Promises that were broken.
    pub violations: Vec<Violation>,
}

impl Outcome {
    /// How many times the bound the last client took; infinite if one never finished.
    pub fn ratio(&self) -> f64 {
        self.last_whole_s.map_or(f64::INFINITY, |at_s| at_s / self.bound_s)
    }
}
