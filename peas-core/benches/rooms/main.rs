//! The rooms where the time goes, each alone: hashing, messages, the machine, the disk.
//!
//! `cargo bench -p peas-core --features simulation --bench rooms [-- NAME]` prints one table; `benches/baseline.md` has one to
//! compare it with. All of it takes a few seconds. Links have a bench of their own (`link`), whole swarms the simulator.

mod hash;
mod storage;
mod swarm;
mod wire;

fn main() {
    divan::main();
}

/// Bytes that no hash, codec or disk can make short work of.
fn noise(count: usize) -> Vec<u8> {
    let mut bytes = vec![0; count];
    blake3::Hasher::new().finalize_xof().fill(&mut bytes);
    bytes
}
