//! The words of the command line, and their help.
//!
//! Only shapes and texts: what a word does is in the command's module. Quantities with units are parsed in [`crate::units`].

use crate::keys::{self, PublicKey};
use crate::units;
use clap::{Args as ClapArgs, Parser, Subcommand, ValueEnum, ValueHint};
use peas_core::config::{Owner, Scope, WebPolicy};
use peas_core::manifest::Roles;
use peas_core::unit::PeaId;
use std::net::{Ipv4Addr, SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::time::Duration;

const EXIT_CODES: &str = "\
Exit codes:
    0  done (a server that was told to stop is done)
    2  the command line is wrong
    3  the pea is refused: damaged, expired, or not signed as asked
    4  a disk or file problem
    5  busy: another peas is at work there, or the port is taken
    6  nobody reachable, or given up before it was whole
    7  verification failed
   70  a bug in peas
  130  interrupted before it was done (the same command resumes)";

/// Peer-assisted downloads: clients that download also help each other.
#[derive(Parser)]
#[command(name = "peas", version, after_help = EXIT_CODES, max_term_width = 80)]
pub struct Args {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Subcommand)]
pub enum Command {
    /// Describe a file or folder in a pea: a small file to hand out
    Create(CreateArgs),
    /// Print what a pea says
    Inspect(InspectArgs),
    /// Serve a file or folder that is on this disk
    Seed(SeedArgs),
    /// Download, resume or repair what a pea describes, helping others meanwhile
    Install(InstallArgs),
    /// Compare what lies on the disk with a pea
    Verify(VerifyArgs),
    /// Tell how far an unfinished install is
    Status(StatusArgs),
    /// Watch a distributor and several clients on this machine
    Demo(DemoArgs),
    /// Make a key to sign peas with, or to be known by
    Keygen(KeygenArgs),
    /// Certify a member of a swarm that only members may join
    Admit(AdmitArgs),
}

impl Args {
    /// Whether the output is for machines.
    pub fn json(&self) -> bool {
        match &self.command {
            Command::Create(args) => args.json,
            Command::Inspect(args) => args.json,
            Command::Seed(args) => args.net.json,
            Command::Install(args) => args.net.json,
            Command::Verify(args) => args.net.json,
            Command::Status(args) => args.json,
            Command::Demo(_) | Command::Keygen(_) | Command::Admit(_) => false,
        }
    }
}

#[derive(ClapArgs)]
pub struct CreateArgs {
    /// File or folder to describe
    #[arg(value_name = "FILE", value_hint = ValueHint::AnyPath)]
    pub source: PathBuf,
    /// Where to write the pea ("-": standard output) [default: ./NAME.peas]
    #[arg(long, short, value_name = "PEA")]
    pub output: Option<PathBuf>,
    /// Where the content will be served (repeatable); KEY@ in front if the server's key is known
    #[arg(long = "owner", value_name = "[KEY@]HOST:PORT", value_parser = keys::owner)]
    pub owners: Vec<Owner>,
    /// Sign with the secret key in this file, made by "peas keygen" (repeatable)
    #[arg(long = "sign", value_name = "KEYFILE")]
    pub sign_with: Vec<PathBuf>,
    /// Name shown to people [default: the file's or folder's]
    #[arg(long)]
    pub name: Option<String>,
    /// Piece size, a power of two from 16K to 16M [default: by content size]
    #[arg(long, value_name = "SIZE", value_parser = units::size)]
    pub piece_size: Option<u64>,
    /// HTTP(S) address of the content, on a server with byte ranges (repeatable); of a folder: where its tree begins
    #[arg(long = "web", value_name = "URL")]
    pub web: Vec<String>,
    /// Who may join the swarm
    #[arg(long, value_enum, default_value_t = AccessArg::Open)]
    pub access: AccessArg,
    /// Public key whose certificates ("peas admit") let members in, with --access members
    #[arg(long, value_name = "HEX", required_if_eq("access", "members"))]
    pub authority: Option<PublicKey>,
    /// Channel, e.g. stable: inside one, older releases are refused
    #[arg(long, default_value = "")]
    pub channel: String,
    /// Number that rises with each release of the channel
    #[arg(long, default_value_t = 0)]
    pub release: u64,
    /// The pea is refused after this time from now, e.g. 30d [default: never]
    #[arg(long, value_name = "TIME", value_parser = units::duration)]
    pub expires: Option<Duration>,
    /// Hashing threads [default: one per core]
    #[arg(long, default_value_t = 0, hide_default_value = true)]
    pub threads: usize,
    /// Replace the output even if it is not a pea
    #[arg(long)]
    pub force: bool,
    /// One JSON object per line, for programs
    #[arg(long)]
    pub json: bool,
}

#[derive(ClapArgs)]
pub struct InspectArgs {
    #[command(flatten)]
    pub pea: PeaArgs,
    /// List all files
    #[arg(long)]
    pub files: bool,
    /// One JSON object, for programs
    #[arg(long)]
    pub json: bool,
}

/// Which pea, and why it is the one that is wanted.
#[derive(ClapArgs)]
pub struct PeaArgs {
    /// The pea: a path, an http(s) address, or "-" for standard input
    #[arg(value_name = "PEA", value_hint = ValueHint::FilePath)]
    pub pea: String,
    /// Accept only a pea signed by this public key (repeatable)
    #[arg(long = "trust-key", value_name = "HEX")]
    pub trust_keys: Vec<PublicKey>,
    /// How many of the --trust-key keys must have signed
    #[arg(long, default_value_t = 1, value_name = "N", requires = "trust_keys", value_parser = clap::value_parser!(u8).range(1..))]
    pub threshold: u8,
    /// Accept only the content with this id
    #[arg(long, value_name = "ID")]
    pub pin: Option<PeaId>,
    /// Accept only a pea of this channel
    #[arg(long = "of-channel", value_name = "NAME")]
    pub channel: Option<String>,
}

/// How to talk to others.
#[derive(ClapArgs)]
#[command(next_help_heading = "Network")]
pub struct NetArgs {
    /// Where to accept peers, ADDR:PORT or PORT [default: an unused port on all addresses]
    #[arg(long, value_name = "ADDR", value_parser = listen)]
    pub listen: Option<SocketAddr>,
    /// Accept no peers, only dial
    #[arg(long, conflicts_with = "listen")]
    pub no_listen: bool,
    /// One more peer to try, HOST:PORT (repeatable)
    #[arg(long = "peer", value_name = "HOST:PORT", value_parser = resolve)]
    pub peers: Vec<Resolved>,
    /// Bytes per second to send at most, e.g. 20M or 500K (K, M, G: powers of 1024)
    #[arg(long, value_name = "RATE", value_parser = units::size)]
    pub upload_limit: Option<u64>,
    /// Bytes per second to receive at most
    #[arg(long, value_name = "RATE", value_parser = units::size)]
    pub download_limit: Option<u64>,
    /// Region label: peers of the same number are preferred; 0 is unknown
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    pub region: u32,
    /// Carry the payload unencrypted between peers that both say so (it is verified either way)
    #[arg(long)]
    pub plain: bool,
    /// Which addresses learnt from peers may be dialled
    #[arg(long, value_enum, default_value_t = ScopeArg::Auto)]
    pub scope: ScopeArg,
    /// Folder that remembers peers, and releases so that an older one is refused [default: none]
    #[arg(long, value_name = "DIR")]
    pub state_dir: Option<PathBuf>,
    /// File with the secret key of this peer, made by "peas keygen" [default: a new key]
    #[arg(long, value_name = "FILE")]
    pub identity: Option<PathBuf>,
    /// File with the swarm's secret, for peas of --access secret; any file made by "peas keygen", the same for all
    #[arg(long, value_name = "FILE")]
    pub swarm_secret: Option<PathBuf>,
    /// File with this peer's certificate, for peas of --access members
    #[arg(long, value_name = "FILE", requires = "identity")]
    pub certificate: Option<PathBuf>,
    /// When to fetch from the web servers that the pea names
    #[arg(long, value_enum, default_value_t = WebArg::Starved)]
    pub from_web: WebArg,
    /// Certificate authority (PEM or DER) that those servers may be certified by, too (repeatable)
    #[arg(long = "web-ca", value_name = "FILE")]
    pub web_authorities: Vec<PathBuf>,
    /// Leave the pea file as it is (by default it learns who serves now)
    #[arg(long)]
    pub no_refresh: bool,
    /// Leave when standard input is closed, for programs that start peas
    #[arg(long)]
    pub while_stdin: bool,
    /// One JSON event per line on standard output, for programs
    #[arg(long)]
    pub json: bool,
    /// Time between two lines of progress, e.g. 10s or 200ms
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = units::duration)]
    pub progress_every: Duration,
}

/// Addresses of one name.
#[derive(Clone)]
pub struct Resolved(Vec<SocketAddr>);

impl NetArgs {
    /// Addresses to try beyond those of the pea.
    pub fn peer_addrs(&self) -> Vec<SocketAddr> {
        self.peers.iter().flat_map(|peer| peer.0.iter().copied()).collect()
    }
}

/// `127.0.0.1:7000`, `[::]:7000`, or a port alone, which means all IPv4 addresses.
fn listen(text: &str) -> Result<SocketAddr, String> {
    if let Ok(port) = text.strip_prefix(':').unwrap_or(text).parse::<u16>() {
        return Ok((Ipv4Addr::UNSPECIFIED, port).into());
    }
    text.parse().map_err(|_| "expected ADDR:PORT, as in 0.0.0.0:7000, or a port alone".into())
}

/// A name is looked up here: the library's options take addresses.
fn resolve(text: &str) -> Result<Resolved, String> {
    match text.to_socket_addrs() {
        Ok(addrs) => Ok(Resolved(addrs.collect())),
        Err(error) => Err(format!("expected HOST:PORT of a host that exists: {error}")),
    }
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum AccessArg {
    /// Whoever has the pea
    Open,
    /// Whoever also has the secret that is given to --swarm-secret
    Secret,
    /// Whose key has a certificate of the --authority
    Members,
}

#[derive(Clone, Copy, ValueEnum)]
pub enum WebArg {
    /// While peers bring next to nothing
    Starved,
    /// From the start
    Always,
    /// Never
    Never,
}

impl From<WebArg> for WebPolicy {
    fn from(web: WebArg) -> WebPolicy {
        match web {
            WebArg::Starved => WebPolicy::WhenStarved,
            WebArg::Always => WebPolicy::Always,
            WebArg::Never => WebPolicy::Never,
        }
    }
}

#[derive(Clone, Copy, ValueEnum)]
pub enum RoleArg {
    /// Serve as an origin
    Seed,
    /// Receive
    Fetch,
    /// Pass on what it received
    Relay,
}

impl From<RoleArg> for Roles {
    fn from(role: RoleArg) -> Roles {
        match role {
            RoleArg::Seed => Roles::SEED,
            RoleArg::Fetch => Roles::FETCH,
            RoleArg::Relay => Roles::RELAY,
        }
    }
}

#[derive(Clone, Copy, ValueEnum)]
pub enum ScopeArg {
    /// Public ones, and those of networks this machine is in
    Auto,
    /// Public ones only
    Public,
    /// All
    Any,
}

impl From<ScopeArg> for Scope {
    fn from(scope: ScopeArg) -> Scope {
        match scope {
            ScopeArg::Auto => Scope::Auto,
            ScopeArg::Public => Scope::Public,
            ScopeArg::Any => Scope::Any,
        }
    }
}

#[derive(ClapArgs)]
pub struct SeedArgs {
    #[command(flatten)]
    pub pea: PeaArgs,
    /// The file or folder to serve [default: ./NAME]
    #[arg(long, visible_alias = "source", value_name = "PATH")]
    pub file: Option<PathBuf>,
    /// Be one server among many: do not hand out each piece once first
    #[arg(long)]
    pub no_origin: bool,
    /// Hash everything before the first byte is served
    #[arg(long)]
    pub check_first: bool,
    #[command(flatten)]
    pub net: NetArgs,
}

#[derive(ClapArgs)]
pub struct InstallArgs {
    #[command(flatten)]
    pub pea: PeaArgs,
    /// Where it shall be [default: ./NAME]
    #[arg(long, short, value_name = "PATH")]
    pub output: Option<PathBuf>,
    #[command(flatten)]
    pub stay: StayArgs,
    /// Give up, with exit code 6, when nothing arrived for this long [default: never]
    #[arg(long, value_name = "TIME", value_parser = units::duration)]
    pub give_up: Option<Duration>,
    #[command(flatten)]
    pub net: NetArgs,
}

/// How long to serve after the content is whole.
#[derive(ClapArgs, Default)]
#[group(multiple = false)]
pub struct StayArgs {
    /// Keep serving until stopped [default: leave once nobody waits for what only we have, 10 s at most]
    #[arg(long)]
    pub keep_seeding: bool,
    /// Keep serving for this long, e.g. 30m
    #[arg(long, value_name = "TIME", value_parser = units::duration)]
    pub seed_time: Option<Duration>,
    /// Keep serving until this many times the content was sent, e.g. 1.5
    #[arg(long, value_name = "RATIO", value_parser = units::ratio)]
    pub seed_ratio: Option<f64>,
}

#[derive(ClapArgs)]
pub struct VerifyArgs {
    #[command(flatten)]
    pub pea: PeaArgs,
    /// The file or folder to check [default: ./NAME]
    #[arg(value_name = "PATH")]
    pub path: Option<PathBuf>,
    /// Fetch what is missing or damaged
    #[arg(long)]
    pub repair: bool,
    #[command(flatten)]
    pub net: NetArgs,
}

#[derive(ClapArgs)]
pub struct StatusArgs {
    /// Where it shall be: the --output of the install
    #[arg(value_name = "PATH")]
    pub path: PathBuf,
    /// One JSON object, for programs
    #[arg(long)]
    pub json: bool,
}

#[derive(ClapArgs)]
pub struct DemoArgs {
    /// How many clients
    #[arg(long, default_value_t = 8, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=64))]
    pub clients: u16,
    /// How much content, in MiB
    #[arg(long, default_value_t = 256, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=65_536))]
    pub size_mib: u64,
    /// What the distributor may send per second; clients may send as fast as they can
    #[arg(long, default_value = "32M", value_name = "RATE", value_parser = units::size)]
    pub upload_limit: u64,
    /// What each client may receive per second [default: no limit; with --kill-origin half of what the distributor sends]
    #[arg(long, value_name = "RATE", value_parser = units::size)]
    pub download_limit: Option<u64>,
    /// Kill the distributor as soon as every piece is with some client; the last client starts only then
    #[arg(long)]
    pub kill_origin: bool,
    /// Folder to work in [default: the system's temporary folder]
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// Leave the files there at the end
    #[arg(long)]
    pub keep: bool,
    /// Seed of the generated content
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub seed: u64,
}

#[derive(ClapArgs)]
pub struct KeygenArgs {
    /// File for the secret key; must not exist
    #[arg(value_name = "FILE")]
    pub output: PathBuf,
}

#[derive(ClapArgs)]
pub struct AdmitArgs {
    /// The member's public key, as "peas keygen" printed it
    #[arg(value_name = "HEX")]
    pub peer: PublicKey,
    /// File with the authority's secret key
    #[arg(long, value_name = "KEYFILE")]
    pub authority: PathBuf,
    /// File for the certificate
    #[arg(long, short, value_name = "FILE")]
    pub output: PathBuf,
    /// What the member may do (repeatable) [default: all]
    #[arg(long = "role", value_enum)]
    pub roles: Vec<RoleArg>,
    /// How long it is good, from now
    #[arg(long = "for", value_name = "TIME", default_value = "30d", value_parser = units::duration)]
    pub duration: Duration,
    /// Only for the content with this id [default: for all peas that name the authority]
    #[arg(long, value_name = "ID")]
    pub content: Option<PeaId>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_words_are_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn addresses_are_read() {
        assert_eq!(listen("7000"), Ok(([0, 0, 0, 0], 7000).into()));
        assert_eq!(listen(":7000"), listen("0.0.0.0:7000"));
        assert!(listen("[::1]:7000").is_ok_and(|addr| addr.is_ipv6()));
        assert!(listen("70000").is_err() && listen("here").is_err());
        assert_eq!(resolve("127.0.0.1:7000").map(|peer| peer.0), Ok(vec![([127, 0, 0, 1], 7000).into()]));
        assert!(resolve("127.0.0.1").is_err());
    }

    #[test]
    fn only_one_way_to_stay() {
        let both = ["peas", "install", "a.peas", "--keep-seeding", "--seed-time", "1m"];
        assert!(Args::try_parse_from(both).is_err());
        assert!(Args::try_parse_from(&both[..4]).is_ok());
    }
}
