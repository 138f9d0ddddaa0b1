//! How fast one engine gives a file to another over loopback, and what it costs: `loopback [MiB] [receivers] [plain]`.

use peas_core::config::{CreateOptions, EngineConfig, InstallOptions, Scope, SeedOptions, SeedPolicy};
use peas_core::manifest::TrustContext;
use peas_core::{Engine, Manifest, Trust, session};
use std::sync::Arc;
use std::time::{Duration, Instant};

fn cpu_s() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let ticks = |at: usize| stat.rsplit(')').next().and_then(|rest| rest.split_whitespace().nth(at)?.parse::<f64>().ok()).unwrap_or(0.0);
    (ticks(11) + ticks(12)) / 100.0
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let mib: u64 = args.first().map_or(Ok(1024), |arg| arg.parse())?;
    let receivers: usize = args.get(1).map_or(Ok(1), |arg| arg.parse())?;
    let plain = args.iter().any(|arg| arg == "plain");
    let dir = tempfile::tempdir()?;
    let source = dir.path().join("content.bin");
    let mut file = std::fs::File::create(&source)?;
    let mut xof = blake3::Hasher::new().finalize_xof();
    std::io::copy(&mut std::io::Read::take(&mut xof, mib << 20), &mut file)?;
    drop(file);
    let created = session::create(&source, &CreateOptions::default(), &|_, _| true)?;
    let pea = Arc::new(Manifest::decode(&created.bytes)?.trust(&Trust::File, &TrustContext::default())?);

    let config = || EngineConfig { listen: "127.0.0.1:0".parse().ok(), scope: Scope::Any, plain, ..Default::default() };
    let seeder = Engine::new(config())?;
    let _seed = seeder.seed(pea.clone(), &source, SeedOptions { origin: true, ..Default::default() })?;
    let peers: Vec<_> = seeder.listen_addr().into_iter().collect();
    let (start, cpu) = (Instant::now(), cpu_s());
    let engines = (0..receivers).map(|_| Engine::new(config())).collect::<Result<Vec<_>, _>>()?;
    let mut sessions = Vec::new();
    for (at, engine) in engines.iter().enumerate() {
        let options = InstallOptions {
            peers: peers.clone(),
            seed: SeedPolicy::Forever,
            record: args.iter().any(|arg| arg == "record"),
            ..Default::default()
        };
        sessions.push(engine.install(pea.clone(), &dir.path().join(format!("out{at}")), options)?);
    }
    for session in &sessions {
        while session.wait_installed_timeout(Duration::from_secs(20)).transpose()?.is_none() {
            println!("{:?}", session.progress().pieces_done);
        }
    }
    let (took_s, cpu) = (start.elapsed().as_secs_f64(), cpu_s() - cpu);
    let moved_gb = (mib << 20) as f64 * receivers as f64 / 1e9;
    println!("{mib} MiB to {receivers}: {took_s:.2} s, {:.2} GB/s in all, {:.2} CPU s per GB", moved_gb / took_s, cpu / moved_gb);
    println!("{}", sessions[0].stats_json());
    print!("{}", sessions[0].flight_record());
    Ok(())
}
