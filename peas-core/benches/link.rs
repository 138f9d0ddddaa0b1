//! One link over loopback, memory to memory: rate and processor time of both ends together.
//!
//! `cargo bench -p peas-core --bench link [-- GIB]` prints one line per kind of link. CPU time is the process's, both ends
//! included; rounds alternate so that a busy machine is seen in their spread.

use peas_core::transport::{Identity, Incoming, LinkError, LinkReader, LinkWriter, TcpOptions, TcpTransport, Transport};
use peas_core::unit::RequestId;
use peas_core::wire::{Hello, Message};
use std::time::{Duration, Instant};

const ROUNDS: usize = 3;
const LONG: Duration = Duration::from_secs(10);

fn main() {
    let gib: u64 = std::env::args().filter_map(|arg| arg.parse().ok()).next().unwrap_or(2);
    for _ in 0..ROUNDS {
        for (name, plain, both) in [("sealed", false, false), ("clear", true, false), ("sealed, both ways", false, true)] {
            let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
            runtime.block_on(measure(name, plain, both, gib << 30));
        }
    }
}

async fn measure(name: &str, plain: bool, both: bool, bytes: u64) {
    let identity = Identity::generate();
    let listen = Some("127.0.0.1:0".parse().expect("an address"));
    let host = TcpTransport::new(&identity, &TcpOptions { listen, plain }).expect("listen");
    let guest = TcpTransport::new(&Identity::generate(), &TcpOptions { listen: None, plain }).expect("a transport");
    let accepting = async { host.accept(host.incoming().await?, LONG).await };
    let dialling = guest.dial(host.listen_addr().expect("listening"), Some(identity.peer_id()), LONG);
    let (near, far) = tokio::try_join!(dialling, accepting).expect("a link");
    let (wall, cpu) = (Instant::now(), cpu_time());
    let back = if both { bytes } else { 0 };
    let tasks = [
        tokio::spawn(send(near.writer, bytes)),
        tokio::spawn(receive(far.reader, bytes)),
        tokio::spawn(send(far.writer, back)),
        tokio::spawn(receive(near.reader, back)),
    ];
    for task in tasks {
        task.await.expect("no panic").expect("no error");
    }
    let (wall, cpu) = (wall.elapsed().as_secs_f64(), (cpu_time() - cpu).as_secs_f64());
    let gb = (bytes + back) as f64 / 1e9;
    println!("{name:18} {:.2} GB/s  {:.2} CPU s/GB", gb / wall, cpu / gb);
}

async fn send<W: LinkWriter>(mut writer: W, bytes: u64) -> Result<(), LinkError> {
    let hello = Hello { version: 1, content: [0; 32], proof: vec![], listen_port: None, region: 0, origin: false, extensions: 0 };
    writer.message(&Message::Hello(hello)).await?;
    let piece: Vec<u8> = (0..1 << 20).map(|at: u32| (at.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    for _ in 0..bytes / piece.len() as u64 {
        for part in piece.chunks(64 << 10) {
            writer.payload(RequestId(1), part).await?;
        }
    }
    writer.finish().await;
    Ok(())
}

async fn receive<R: LinkReader>(mut reader: R, bytes: u64) -> Result<(), LinkError> {
    let mut piece = vec![0; 1 << 20];
    let (mut at, mut sum) = (0, 0);
    loop {
        match reader.next().await {
            Ok(Incoming::Payload { len, .. }) => {
                let len = len as usize;
                reader.payload(&mut piece[at..at + len]).await?;
                at = (at + len) % piece.len();
                sum += len as u64;
            }
            Ok(_) => {}
            Err(LinkError::Closed) => break,
            Err(error) => return Err(error),
        }
    }
    assert_eq!(sum, bytes);
    Ok(())
}

/// User and system time of this process.
fn cpu_time() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").expect("Linux");
    let fields: Vec<&str> = stat.rsplit(')').next().expect("a name in brackets").split_whitespace().collect();
    let ticks: u64 = [11, 12].iter().map(|&at: &usize| fields[at].parse::<u64>().expect("a number")).sum();
    Duration::from_millis(ticks * 10)
}
