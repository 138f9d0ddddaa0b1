//! One engine in a process of its own, so that a test can measure what it costs and limit what it may have.
//!
//! `peas-node seed PEA SOURCE [option value]...` or `peas-node install PEA PLACE [option value]...`; options: `listen`, `peer` (more
//! than once), `links`, `upload` (bytes per second), `scope` (`any`, `auto`, `public`). Writes `listening ADDRESS`, and for each line
//! on its standard input one line with its progress; ends when that is closed.

use peas_core::config::{EngineConfig, InstallOptions, Scope, SeedOptions, SeedPolicy};
use peas_core::manifest::TrustContext;
use peas_core::swarm::Limits;
use peas_core::{Engine, Manifest, Session, Trust};
use std::io::BufRead;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

type Failure = Box<dyn std::error::Error>;

struct Asked {
    seeds: bool,
    pea: PathBuf,
    place: PathBuf,
    config: EngineConfig,
    peers: Vec<SocketAddr>,
    limits: Limits,
}

fn asked() -> Result<Asked, Failure> {
    let mut words = std::env::args().skip(1);
    let mut next = || words.next().ok_or("a word is missing");
    let seeds = next()? == "seed";
    let (pea, place) = (next()?.into(), next()?.into());
    let config =
        EngineConfig { listen: Some("127.0.0.1:0".parse()?), scope: Scope::Any, threads: 2, disk_threads: 1, ..Default::default() };
    let mut asked = Asked { seeds, pea, place, config, peers: Vec::new(), limits: Limits::default() };
    while let Ok(option) = next() {
        let value = next()?;
        match option.as_str() {
            "listen" => asked.config.listen = Some(value.parse()?),
            "peer" => asked.peers.push(value.parse()?),
            "links" => asked.limits.links_max = value.parse()?,
            "upload" => asked.config.upload_bytes_per_s = value.parse()?,
            "scope" if value == "public" => asked.config.scope = Scope::Public,
            "scope" if value == "auto" => asked.config.scope = Scope::Auto,
            "scope" if value == "any" => {}
            other => return Err(format!("{other} {value}: not known").into()),
        }
    }
    Ok(asked)
}

fn begin(engine: &Engine, asked: &Asked) -> Result<Session, Failure> {
    let pea = Arc::new(Manifest::decode(&std::fs::read(&asked.pea)?)?.trust(&Trust::File, &TrustContext::default())?);
    let (peers, limits) = (asked.peers.clone(), asked.limits.clone());
    let place: &Path = &asked.place;
    Ok(match asked.seeds {
        true => engine.seed(pea, place, SeedOptions { peers, limits, origin: true, ..Default::default() })?,
        false => engine.install(pea, place, InstallOptions { peers, limits, seed: SeedPolicy::Forever, ..Default::default() })?,
    })
}

fn main() -> Result<(), Failure> {
    let asked = asked()?;
    let engine = Engine::new(asked.config.clone())?;
    let session = begin(&engine, &asked)?;
    println!("listening {}", engine.listen_addr().ok_or("it does not listen")?);
    for line in std::io::stdin().lock().lines() {
        line?;
        println!("{}", session.stats_json());
    }
    engine.close(Duration::from_secs(5));
    Ok(())
}
