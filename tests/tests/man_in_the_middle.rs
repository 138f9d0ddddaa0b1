//! Somebody on the path between two peers: alters, swaps, drops, repeats, reflects and truncates records, replays an old
//! connection, or answers with a key of its own. Zero times may anything be accepted that the peer did not say.
//!
//! The controls: the same road untouched brings everything; and on a clear link the same attacker succeeds, so that a
//! refusal elsewhere is the cipher's doing and not a fault of the road.

use peas_core::transport::{Identity, Incoming, LinkError, LinkReader, LinkWriter, TcpOptions, TcpTransport, Transport};
use peas_core::unit::RequestId;
use peas_core::wire::{Hello, Message};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};

const HERE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
/// Long enough for a loaded machine. Only attacks that make a peer wait for bytes that never come use it up: none does here, since
/// the attacker closes what it cut.
const LONG: Duration = Duration::from_secs(120);
/// Small payloads, one record each: attacks on single records hit single frames.
const FRAMES: u64 = 12;

/// What becomes of a record: these records go on. `None`: the connection is cut here.
type Tamper = Box<dyn FnMut(usize, Vec<u8>) -> Option<Vec<Vec<u8>>> + Send>;

fn honest() -> Tamper {
    Box::new(|_, record| Some(vec![record]))
}

/// How it went for the one who listened.
#[derive(Debug, PartialEq)]
enum Outcome {
    /// All came and was right, the farewell too.
    Whole,
    /// An error before that. This many frames came first, all right.
    Refused(u64),
    /// The link said something that the peer had not said.
    Deceived,
}

/// The attacker's place: takes one connection, makes another, and passes records on.
async fn sit_between(listener: TcpListener, to: SocketAddr, up: Tamper, down: Tamper, heard: Arc<Mutex<Vec<u8>>>) {
    let Ok((caller, _)) = listener.accept().await else { return };
    let Ok(called) = TcpStream::connect(to).await else { return };
    let ((caller_in, caller_out), (called_in, called_out)) = (caller.into_split(), called.into_split());
    tokio::select! {
        () = pass(caller_in, called_out, up, Some(heard)) => {}
        () = pass(called_in, caller_out, down, None) => {}
    }
}

async fn pass(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut tamper: Tamper, heard: Option<Arc<Mutex<Vec<u8>>>>) {
    for at in 0.. {
        let mut record = vec![0; 5];
        if from.read_exact(&mut record).await.is_err() {
            break;
        }
        let body_bytes = match record[..] {
            [20..=23, 3, _, high, low] => usize::from(u16::from_be_bytes([high, low])),
            // A link gone clear: its frames are as good to attack.
            _ => usize::from(u16::from_le_bytes([record[0], record[1]])),
        };
        record.resize(5 + body_bytes, 0);
        if from.read_exact(&mut record[5..]).await.is_err() {
            break;
        }
        if let Some(heard) = &heard {
            heard.lock().unwrap().extend(&record);
        }
        let Some(records) = tamper(at, record) else { return };
        for record in records {
            if to.write_all(&record).await.is_err() {
                return;
            }
        }
    }
    let _ = to.shutdown().await;
    std::future::pending().await // the other direction may go on; whoever ends last ends both
}

fn hello() -> Message {
    Message::Hello(Hello { version: 1, content: [9; 32], proof: vec![], listen_port: None, region: 0, origin: false, extensions: 0 })
}

fn content(frame: u64) -> Vec<u8> {
    (0..200 + frame).map(|at| (at * 7 + frame * 31) as u8).collect()
}

async fn say_all<W: LinkWriter>(mut writer: W) -> Result<W, LinkError> {
    writer.message(&hello()).await?;
    for frame in 0..FRAMES {
        writer.payload(RequestId(frame), &content(frame)).await?;
    }
    writer.finish().await;
    Ok(writer)
}

async fn hear_all<R: LinkReader>(mut reader: R) -> Outcome {
    match reader.next().await {
        Ok(Incoming::Message(message)) if message == hello() => {}
        Ok(_) => return Outcome::Deceived,
        Err(_) => return Outcome::Refused(0),
    }
    for frame in 0..FRAMES {
        let right = content(frame);
        match reader.next().await {
            Ok(Incoming::Payload { req, len }) if (req.0, len as usize) == (frame, right.len()) => {}
            Ok(_) => return Outcome::Deceived,
            Err(LinkError::Closed) => return Outcome::Deceived, // a clean end where there was none
            Err(_) => return Outcome::Refused(frame),
        }
        let mut bytes = vec![0; right.len()];
        match reader.payload(&mut bytes).await {
            Ok(()) if bytes == right => {}
            Ok(()) => return Outcome::Deceived,
            Err(_) => return Outcome::Refused(frame),
        }
    }
    match reader.next().await {
        Err(LinkError::Closed) => Outcome::Whole,
        Ok(_) => Outcome::Deceived,
        Err(_) => Outcome::Refused(FRAMES),
    }
}

/// What the ends of a conversation heard, and what the attacker did.
struct Told {
    host: Outcome,
    guest: Outcome,
    /// All that the guest sent, as it lay on the path.
    heard: Vec<u8>,
}

/// Which ends would go on in clear.
#[derive(Clone, Copy)]
struct Plain {
    guest: bool,
    host: bool,
}
const SEALED: Plain = Plain { guest: false, host: false };
const CLEAR: Plain = Plain { guest: true, host: true };

/// A guest calls a host through the attacker, and each says all to the other.
async fn conversation(plain: Plain, within: Duration, up: Tamper, down: Tamper) -> Told {
    let (identity, me) = (Identity::generate(), Identity::generate());
    let host = TcpTransport::new(&identity, &TcpOptions { listen: Some(HERE), plain: plain.host }).unwrap();
    let guest = TcpTransport::new(&me, &TcpOptions { listen: None, plain: plain.guest }).unwrap();
    let between = TcpListener::bind(HERE).await.unwrap();
    let road = between.local_addr().unwrap();
    let heard = Arc::new(Mutex::new(Vec::new()));
    let attacker = tokio::spawn(sit_between(between, host.listen_addr().unwrap(), up, down, heard.clone()));
    let hosting = async {
        let raw = host.incoming().await.unwrap();
        let Ok(link) = host.accept(raw, within).await else { return Outcome::Refused(0) };
        if link.peer != me.peer_id() {
            return Outcome::Deceived;
        }
        tokio::join!(hear_all(link.reader), say_all(link.writer)).0
    };
    let calling = async {
        let Ok(link) = guest.dial(road, Some(identity.peer_id()), within).await else { return Outcome::Refused(0) };
        tokio::join!(hear_all(link.reader), say_all(link.writer)).0
    };
    let both = async { tokio::join!(hosting, calling) };
    let (host, guest) = tokio::time::timeout(LONG, both).await.expect("every attack ends the link");
    attacker.abort();
    let heard = heard.lock().unwrap().clone();
    Told { host, guest, heard }
}

/// Records to attack, counted in each direction: the handshake and the first frames behind it.
const RECORDS: usize = 12;
/// From here on all records are frames, and more come behind the last that is attacked.
const AFTER_HANDSHAKE: usize = 8;

fn at(place: usize, mut attack: impl FnMut(Vec<u8>) -> Option<Vec<Vec<u8>>> + Send + 'static) -> Tamper {
    Box::new(move |at, record| if at == place { attack(record) } else { Some(vec![record]) })
}

/// Runs an attack on each record of each direction. Nobody may be deceived, whatever is attacked; behind the handshake the side
/// that gets the attacked record must notice.
async fn nobody_is_deceived(attack: impl Fn(usize) -> Tamper) {
    let mut running = tokio::task::JoinSet::new();
    for place in 0..RECORDS {
        for upwards in [true, false] {
            let (up, down) = if upwards { (attack(place), honest()) } else { (honest(), attack(place)) };
            running.spawn(async move {
                let told = conversation(SEALED, PATIENCE, up, down).await;
                let case = format!("record {place}, upwards: {upwards}: host {:?}, guest {:?}", told.host, told.guest);
                assert!(told.host != Outcome::Deceived && told.guest != Outcome::Deceived, "{case}");
                let victim = if upwards { told.host } else { told.guest };
                assert!(place < AFTER_HANDSHAKE || matches!(victim, Outcome::Refused(_)), "unnoticed: {case}");
            });
        }
    }
    while let Some(result) = running.join_next().await {
        result.unwrap();
    }
}

/// For handshakes that an attack leaves hanging.
const PATIENCE: Duration = Duration::from_secs(3);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn control_the_road_itself_changes_nothing() {
    for plain in [SEALED, CLEAR, Plain { guest: true, host: false }, Plain { guest: false, host: true }] {
        let told = conversation(plain, LONG, honest(), honest()).await;
        assert_eq!((told.host, told.guest), (Outcome::Whole, Outcome::Whole));
        let seen = told.heard.windows(200).any(|window| *window == content(3)[..200]);
        assert_eq!(seen, plain.guest && plain.host, "content lies open on the path only where both ends say so");
    }
}

/// The same flip that every sealed link refuses: in clear it is taken for the peer's word.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn control_the_attacker_succeeds_where_nothing_is_sealed() {
    let up = Box::new(|_, mut frame: Vec<u8>| {
        if frame[..5] == [(content(3).len() + 8) as u8, 0, 0, 0, 1] {
            *frame.last_mut().unwrap() ^= 1;
        }
        Some(vec![frame])
    });
    let told = conversation(CLEAR, LONG, up, honest()).await;
    assert_eq!((told.host, told.guest), (Outcome::Deceived, Outcome::Whole));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn flipped_bits() {
    for (part, bit) in [(0, 0), (1, 1), (2, 0), (3, 7), (4, 0), (4, 3), (5, 0), (5, 7)] {
        nobody_is_deceived(|place| at(place, move |record| flip(record, part, bit))).await;
    }
    for (back, bit) in [(1, 0), (16, 4), (17, 0), (40, 2)] {
        let attack = move |record: Vec<u8>| {
            let part = record.len().saturating_sub(back);
            flip(record, part, bit)
        };
        nobody_is_deceived(|place| at(place, attack)).await;
    }
}

fn flip(mut record: Vec<u8>, part: usize, bit: u8) -> Option<Vec<Vec<u8>>> {
    record[part] ^= 1 << bit;
    Some(vec![record])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dropped_repeated_and_cut() {
    nobody_is_deceived(|place| at(place, |_| Some(vec![]))).await;
    nobody_is_deceived(|place| at(place, |record| Some(vec![record.clone(), record]))).await;
    nobody_is_deceived(|place| at(place, |_| None)).await;
    nobody_is_deceived(|place| at(place, |record| Some(vec![record[..record.len() / 2].to_vec()]))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn swapped() {
    nobody_is_deceived(|place| {
        let mut kept = None;
        Box::new(move |at, record| {
            if at == place {
                kept = Some(record);
                return Some(vec![]);
            }
            Some(std::iter::once(record).chain(kept.take()).collect())
        })
    })
    .await;
}

/// An early one comes again later, in place of the right one and beside it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replayed_records() {
    for beside in [true, false] {
        nobody_is_deceived(|place| {
            let mut old = None;
            Box::new(move |at, record| {
                if at + 2 == place {
                    old = Some(record.clone());
                }
                match old.clone() {
                    Some(old) if at == place && beside => Some(vec![old, record]),
                    Some(old) if at == place => Some(vec![old]),
                    _ => Some(vec![record]),
                }
            })
        })
        .await;
    }
}

/// Records that need no key to make: a farewell in clear, a change of ciphers, a handshake message, data.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn forged_records() {
    let forged: [&[u8]; 5] = [
        &[21, 3, 3, 0, 2, 1, 0],
        &[20, 3, 3, 0, 1, 1],
        &[22, 3, 3, 0, 5, 24, 0, 0, 1, 0],
        &[23, 3, 3, 0, 17, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        &[23, 3, 3, 0, 0],
    ];
    for forged in forged {
        nobody_is_deceived(|place| at(place, move |record| Some(vec![forged.to_vec(), record]))).await;
    }
}

/// What one said comes back to it as if the other had.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reflected() {
    for place in 0..RECORDS {
        let said = Arc::new(Mutex::new(Vec::new()));
        let listens = said.clone();
        let up = Box::new(move |_, record: Vec<u8>| {
            listens.lock().unwrap().push(record.clone());
            Some(vec![record])
        });
        let down = at(place, move |record| Some(vec![said.lock().unwrap().get(place).cloned().unwrap_or(record[..6].to_vec())]));
        let told = conversation(SEALED, PATIENCE, up, down).await;
        assert!(told.host != Outcome::Deceived && told.guest != Outcome::Deceived, "{place}: {:?} {:?}", told.host, told.guest);
        // The second record is the change of ciphers, which is the same from both sides and says nothing.
        assert!(place == 1 || matches!(told.guest, Outcome::Refused(_)), "{place} unnoticed: {:?} {:?}", told.host, told.guest);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_whole_connection_replayed() {
    let identity = Identity::generate();
    let host = TcpTransport::new(&identity, &TcpOptions { listen: Some(HERE), plain: false }).unwrap();
    let addr = host.listen_addr().unwrap();
    let between = TcpListener::bind(HERE).await.unwrap();
    let road = between.local_addr().unwrap();
    let heard = Arc::new(Mutex::new(Vec::new()));
    let attacker = tokio::spawn(sit_between(between, addr, honest(), honest(), heard.clone()));
    let guest = TcpTransport::new(&Identity::generate(), &TcpOptions::default()).unwrap();
    let hosting = async {
        let link = host.accept(host.incoming().await.unwrap(), LONG).await.unwrap();
        hear_all(link.reader).await
    };
    let calling = async {
        let link = guest.dial(road, Some(identity.peer_id()), LONG).await.unwrap();
        (say_all(link.writer).await.unwrap(), link.reader)
    };
    let (outcome, _open) = tokio::join!(hosting, calling);
    assert_eq!(outcome, Outcome::Whole, "the first time it is the guest itself");
    attacker.abort();

    let mut replay = TcpStream::connect(addr).await.unwrap();
    let recorded = heard.lock().unwrap().clone();
    replay.write_all(&recorded).await.unwrap();
    let error = host.accept(host.incoming().await.unwrap(), LONG).await.err().expect("an old handshake does not hold");
    assert!(matches!(error, LinkError::Handshake(_)), "{error:?}");
}

/// The attacker at the right address with a key of its own: refused by whom expects another, and known by its own name to those
/// who do not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_key() {
    let (victim, mallory) = (Identity::generate(), Identity::generate());
    let wolf = TcpTransport::new(&mallory, &TcpOptions { listen: Some(HERE), plain: false }).unwrap();
    let guest = TcpTransport::new(&Identity::generate(), &TcpOptions::default()).unwrap();
    for (expect, fooled) in [(Some(victim.peer_id()), false), (None, true)] {
        let accepting = async { drop(wolf.accept(wolf.incoming().await.unwrap(), LONG).await) };
        let (link, ()) = tokio::join!(guest.dial(wolf.listen_addr().unwrap(), expect, LONG), accepting);
        match link {
            Ok(link) => assert!(fooled && link.peer == mallory.peer_id()),
            Err(error) => assert!(!fooled && matches!(error, LinkError::Stranger(_)), "{error:?}"),
        }
    }
}

/// Offers altered on their way: TLS 1.2 instead of 1.3, another cipher, clear instead of sealed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn downgrades() {
    let offers: [(&[u8], &[u8]); 3] = [
        (&[0, 0x2b, 0, 3, 2, 3, 4], &[0, 0x2b, 0, 3, 2, 3, 3]),
        (&[0x13, 0x01, 0x13, 0x03], &[0x13, 0x03, 0x13, 0x03]),
        (b"\x0cpeas/1-plain\x06peas/1", b"\x0cpeas/1-PLAIN\x06peas/1"),
    ];
    for (offer, altered) in offers {
        let changed = Arc::new(Mutex::new(false));
        let tell = changed.clone();
        let up = at(0, move |mut record| {
            if let Some(place) = record.windows(offer.len()).position(|window| window == offer) {
                record[place..place + altered.len()].copy_from_slice(altered);
                *tell.lock().unwrap() = true;
            }
            Some(vec![record])
        });
        let told = conversation(CLEAR, PATIENCE, up, honest()).await;
        assert!(*changed.lock().unwrap(), "the attack must find its mark: {offer:?}");
        assert!(matches!((told.host, told.guest), (Outcome::Refused(0), Outcome::Refused(0))), "{offer:?}");
    }
}
