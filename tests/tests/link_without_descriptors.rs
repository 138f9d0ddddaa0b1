//! A listener on a machine that has no descriptors left (EMFILE at `accept`).

use peas_core::transport::{Identity, Incoming, LinkReader, LinkWriter, TcpOptions, TcpTransport, Transport};
use peas_core::wire::{Hello, Message};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

const LONG: Duration = Duration::from_secs(10);
const SHORT: Duration = Duration::from_millis(150);
const HERE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// A listener in a process whose descriptors run out: existing links go on, the accept loop neither spins nor dies, those who call
/// meanwhile are hung up on, and when there are descriptors again new links are made. Runs itself in a process of its own under
/// `ulimit`, because a limit of descriptors is for a whole process.
#[test]
fn descriptors_run_out() {
    const CHILD: &str = "PEAS_TEST_FEW_DESCRIPTORS";
    if std::env::var_os(CHILD).is_some() {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        return runtime.block_on(without_descriptors());
    }
    let me = std::env::current_exe().unwrap();
    let status = std::process::Command::new("sh")
        .args(["-c", "ulimit -n 64 && exec \"$0\" --exact descriptors_run_out --nocapture"])
        .arg(me)
        .env(CHILD, "1")
        .status()
        .unwrap();
    assert!(status.success(), "{status}");
}

async fn without_descriptors() {
    let listener = TcpTransport::new(&Identity::generate(), &TcpOptions { listen: Some(HERE), plain: false }).unwrap();
    let dialler = TcpTransport::new(&Identity::generate(), &TcpOptions::default()).unwrap();
    let addr = listener.listen_addr().unwrap();
    let accepting = tokio::spawn(async move {
        loop {
            let raw = listener.incoming().await.expect("the listener outlives the lack");
            if let Ok(link) = listener.accept(raw, LONG).await {
                tokio::spawn(echo(link.reader, link.writer));
            }
        }
    });
    let mut link = dialler.dial(addr, None, LONG).await.unwrap();
    link.writer.message(&hello()).await.unwrap();
    link.reader.next().await.unwrap();
    // One descriptor stays for the caller, none for the listener.
    let cpu = cpu_ticks();
    let mut hoard = Vec::new();
    while let Ok(file) = std::fs::File::open("/dev/null") {
        hoard.push(file);
    }
    assert!(hoard.len() > 10, "the limit is in force, and it is the hoard that reached it");
    hoard.pop();
    let started = Instant::now();
    let refused = dialler.dial(addr, None, LONG).await;
    assert!(refused.is_err(), "nobody can take this call");
    assert!(started.elapsed() < LONG / 2, "and the caller is told at once");
    let mut calls = 0;
    while started.elapsed() < Duration::from_secs(1) {
        // What was there before works on, in the middle of it.
        link.writer.message(&Message::Cancel { req: calls }).await.unwrap();
        assert!(matches!(link.reader.next().await, Ok(Incoming::Message(message)) if message == Message::Cancel { req: calls }));
        let _ = dialler.dial(addr, None, SHORT).await;
        calls += 1;
    }
    assert!(calls >= 2, "{calls}");
    drop(hoard);
    // A loop that spins takes a whole core, 100 ticks of this second.
    let ticks = cpu_ticks() - cpu;
    assert!(ticks < 50, "{ticks} ticks of processor time while nothing could be done");
    let link = dialler.dial(addr, None, LONG).await;
    assert!(link.is_ok(), "descriptors are back: {:?}", link.err());
    accepting.abort();
}

/// User and system time of this process, in hundredths of a second.
fn cpu_ticks() -> u64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    stat.rsplit(')').next().unwrap().split_whitespace().skip(11).take(2).map(|ticks| ticks.parse::<u64>().unwrap()).sum()
}

/// Says back each message until the link ends.
async fn echo<R: LinkReader, W: LinkWriter>(mut reader: R, mut writer: W) {
    while let Ok(Incoming::Message(message)) = reader.next().await {
        if writer.message(&message).await.is_err() {
            return;
        }
    }
}

fn hello() -> Message {
    Message::Hello(Hello { version: 1, content: [9; 32], proof: vec![], listen_port: None, region: 0, origin: false, extensions: 0 })
}
