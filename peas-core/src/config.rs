//! What a host may say. Three tiers: what it must say are arguments, what it may say is here, all else is a constant.

use crate::swarm::Limits;
use crate::unit::PeerId;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// An engine: threads, one listener, one identity, one bandwidth budget.
#[derive(Clone, Debug, Default)]
pub struct EngineConfig {
    /// Where to accept links. `None`: an unused port on all addresses.
    pub listen: Option<SocketAddr>,
    /// Whether to accept links at all (default: yes).
    pub no_listen: bool,
    /// Secret key of this peer; `None`: a new one.
    pub identity: Option<[u8; 32]>,
    /// Most bytes per second sent by all sessions; 0: no limit.
    pub upload_bytes_per_s: u64,
    /// Most bytes per second received by all sessions; 0: no limit.
    pub download_bytes_per_s: u64,
    /// Worker threads for sockets, each good for some gigabits per second; 0: one for each four cores, at most 4.
    pub threads: usize,
    /// Threads for disks; 0: 2.
    pub disk_threads: usize,
    /// Carry payload in clear between peers that both say so; the content is verified either way.
    pub plain: bool,
    /// Which addresses may be dialled.
    pub scope: Scope,
    /// Certificate authorities (DER) that web sources may be certified by, besides those that browsers trust.
    pub web_authorities: Vec<Vec<u8>>,
    /// Where rollback protection and remembered peers live; `None`: nowhere.
    pub state_dir: Option<PathBuf>,
}

/// When web sources (HTTP(S) addresses that the pea names) are fetched from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WebPolicy {
    /// While peers bring next to nothing: none reachable, or less than 64 KiB/s for 4 s.
    #[default]
    WhenStarved,
    /// From the start, beside the peers.
    Always,
    /// Never.
    Never,
}

/// Which addresses may be dialled, beyond those signed into the pea or given by the host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Scope {
    /// An address learnt from a peer is dialled if it is public, or if it lies in the same private or loopback range as an
    /// address of ours or one that the host or the signed pea named.
    #[default]
    Auto,
    /// Public addresses only.
    Public,
    /// Anything, loopback included: tests.
    Any,
}

/// Who may join a swarm. Signed into its pea.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Access {
    /// Whoever has the pea, or knows its id.
    #[default]
    Open,
    /// Whoever also has a secret that does not travel with the pea: [`Credentials::secret`].
    Secret,
    /// Whose key has a certificate of this authority: [`Credentials::certificate`].
    Members {
        /// The authority's Ed25519 public key.
        authority: [u8; 32],
    },
}

/// What lets us into a swarm that is not open. Ignored in one that is.
#[derive(Clone, Default)]
pub struct Credentials {
    /// The swarm's secret.
    pub secret: Option<[u8; 32]>,
    /// Our certificate ([`Certificate`](crate::manifest::Certificate)), for the engine's identity.
    pub certificate: Option<Vec<u8>>,
}

impl std::fmt::Debug for Credentials {
    /// Without the secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credentials").field("secret", &self.secret.is_some()).field("certificate", &self.certificate.is_some()).finish()
    }
}

/// One installation.
#[derive(Clone, Debug, Default)]
pub struct InstallOptions {
    /// More addresses to try.
    pub peers: Vec<SocketAddr>,
    /// Stay and serve afterwards.
    pub seed: SeedPolicy,
    /// Bounds of the swarm machine.
    pub limits: Limits,
    /// When to fetch from the web sources that the pea names.
    pub web: WebPolicy,
    /// What lets us in, if the swarm is not open.
    pub credentials: Credentials,
    /// Region label, 0: unknown.
    pub region: u32,
    /// Start paused.
    pub paused: bool,
    /// Seed of random choices; `None`: random.
    pub chance: Option<u64>,
    /// Keep the last inputs of the machine in memory for [`Session::flight_record`](crate::Session).
    pub record: bool,
}

/// How long to serve after the content is whole.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum SeedPolicy {
    /// Leave when whole, staying only until a piece that nobody else has is passed on (at most 10 s).
    #[default]
    Leave,
    /// For this long.
    For(Duration),
    /// Until sent / size reaches this.
    Ratio(f64),
    /// Until told otherwise.
    Forever,
}

/// One share of a content that is already on disk.
#[derive(Clone, Debug, Default)]
pub struct SeedOptions {
    /// More addresses to try.
    pub peers: Vec<SocketAddr>,
    /// Bounds of the swarm machine.
    pub limits: Limits,
    /// Hand out each piece once before serving like anybody else (default for the publisher).
    pub origin: bool,
    /// What lets us in, if the swarm is not open.
    pub credentials: Credentials,
    /// Hash everything before the first byte is served. Otherwise each piece is hashed when it is first read.
    pub check_first: bool,
    /// Region label, 0: unknown.
    pub region: u32,
    /// Seed of random choices; `None`: random.
    pub chance: Option<u64>,
}

/// Making a pea.
#[derive(Clone, Debug, Default)]
pub struct CreateOptions {
    /// Name shown to people; `None`: the file's or folder's.
    pub name: Option<String>,
    /// Piece size; `None`: chosen by [`Geometry::piece_bytes_for`](crate::unit::Geometry::piece_bytes_for).
    pub piece_bytes: Option<u32>,
    /// Addresses where the content will be served, with the server's key if known.
    pub owners: Vec<Owner>,
    /// HTTP(S) addresses of the content, on servers that serve byte ranges: of the file, or of the folder with the same tree below.
    pub web: Vec<String>,
    /// Who may join its swarm.
    pub access: Access,
    /// Channel, e.g. "stable": rollback is judged inside one.
    pub channel: String,
    /// Rises with each release of a channel.
    pub release: u64,
    /// Seconds since 1970 after which the pea is refused; 0: never.
    pub expires_unix_s: u64,
    /// Keys to sign with (Ed25519 secrets).
    pub sign_with: Vec<[u8; 32]>,
    /// Hashing threads; 0: one per core.
    pub threads: usize,
}

/// Where the content is served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// Host name or address, with port: "example.org:7000". Names are resolved by the engine when it dials.
    pub addr: String,
    /// The server's key, if known.
    pub peer: Option<PeerId>,
}
