//! Records one by one, with the keys of a real handshake and streams of our own making.

use super::*;
use crate::transport::Identity;
use crate::transport::tls::{Cover, Secrets, Tls};
use std::net::Ipv4Addr;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::net::{TcpListener, TcpStream};

/// What two ends got out of one handshake: what one seals, the other opens.
async fn secrets() -> (Secrets, Secrets) {
    let (host, guest) = (Tls::new(&Identity::generate(), false), Tls::new(&Identity::generate(), false));
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let addr = listener.local_addr().unwrap();
    let dialling = async { guest.connect(TcpStream::connect(addr).await.unwrap(), addr, None).await.unwrap() };
    let accepting = async { host.accept(listener.accept().await.unwrap().0).await.unwrap() };
    let (near, far) = tokio::join!(dialling, accepting);
    let of = |cover| match cover {
        Cover::Sealed(secrets) => *secrets,
        Cover::Clear => panic!("sealed"),
    };
    (of(near.cover), of(far.cover))
}

fn sealer<W: AsyncWrite + Unpin>(secrets: Secrets, below: W, key_records: u64) -> Sealer<W> {
    Sealer::new(below, secrets.sending, Arc::new(Mutex::new(secrets.kernel)), key_records, Buffers::default())
}

fn opener<R: AsyncRead + Unpin>(secrets: Secrets, below: R, key_records: u64) -> Opener<R> {
    Opener::new(below, secrets.receiving, Arc::new(Mutex::new(secrets.kernel)), key_records, Buffers::default(), &[])
}

/// Each of these as a record of its own.
async fn sealed(secrets: Secrets, plain: &[&[u8]]) -> Vec<Vec<u8>> {
    let mut sealer = sealer(secrets, Vec::new(), KEY_RECORDS);
    let mut records = Vec::new();
    for part in plain {
        sealer.seal(DATA, &[part]).unwrap();
        sealer.flush().await.unwrap();
        records.push(std::mem::take(&mut sealer.below));
    }
    records
}

async fn said(from: &mut Opener<&[u8]>, bytes: usize) -> io::Result<Vec<u8>> {
    let mut plain = vec![0; bytes];
    from.read_exact(&mut plain).await?;
    Ok(plain)
}

#[tokio::test]
async fn what_stands_behind_a_bad_record_is_never_read() {
    for bad in [None, Some(1)] {
        let (near, far) = secrets().await;
        let mut records = sealed(near, &[b"one", b"two", b"six"]).await;
        if let Some(bad) = bad {
            *records[bad].last_mut().unwrap() ^= 1;
        }
        let stream = records.concat();
        let mut opener = opener(far, &stream[..], KEY_RECORDS);
        assert_eq!(said(&mut opener, 3).await.unwrap(), b"one");
        match bad {
            None => assert_eq!(said(&mut opener, 6).await.unwrap(), b"twosix", "the control"),
            Some(_) => {
                for _ in 0..3 {
                    assert_eq!(said(&mut opener, 3).await.unwrap_err().kind(), ErrorKind::InvalidData);
                }
            }
        }
    }
}

/// A tag that is wrong by one bit: the caller's buffer shows nothing of the plaintext, in either way of opening.
#[tokio::test]
async fn nothing_unproven_reaches_the_caller() {
    for (flip, room) in [(true, 100), (true, 8), (false, 100), (false, 8)] {
        let (near, far) = secrets().await;
        let mut record = sealed(near, &[b"a secret of sixty-four bytes, which nobody is to see before its tag"]).await.concat();
        *record.last_mut().unwrap() ^= u8::from(flip);
        let mut opener = opener(far, &record[..], KEY_RECORDS);
        let mut bytes = vec![0; room];
        let mut into = ReadBuf::new(&mut bytes);
        let result = std::future::poll_fn(|cx| Pin::new(&mut opener).poll_read(cx, &mut into)).await;
        assert_eq!((result.is_err(), into.filled().is_empty()), (flip, flip));
        assert!(!flip || bytes.iter().all(|&byte| byte == 0), "{bytes:?}");
        assert!(!flip || opener.buffer.is_empty());
    }
}

#[tokio::test]
async fn no_number_is_used_twice() {
    let (near, _) = secrets().await;
    let records = sealed(near, &[b"same", b"same", b"same"]).await;
    let bodies: std::collections::BTreeSet<_> = records.iter().map(|record| &record[HEAD_BYTES..]).collect();
    assert_eq!(bodies.len(), 3, "equal words under equal nonces would look equal");

    let (near, _) = secrets().await;
    let mut sealer = sealer(near, Vec::new(), u64::MAX);
    sealer.key.record = u64::MAX - 1;
    sealer.write_all(b"the last").await.unwrap();
    let written = sealer.below.len();
    for _ in 0..2 {
        assert!(sealer.write_all(b"one too many").await.is_err());
    }
    assert!(sealer.shutdown().await.is_err(), "nor is the farewell");
    assert_eq!(sealer.below.len(), written, "nothing went out unsealed");
}

#[tokio::test]
async fn a_key_is_not_accepted_for_ever() {
    let (near, far) = secrets().await;
    let stream = sealed(near, &[&b"x"[..]; 9]).await.concat();
    let mut opener = opener(far, &stream[..], 2);
    assert_eq!(said(&mut opener, 8).await.unwrap(), b"xxxxxxxx", "the control: as many as are allowed");
    assert_eq!(said(&mut opener, 1).await.unwrap_err().kind(), ErrorKind::InvalidData);
}

#[tokio::test]
async fn records_of_nothing_end_the_link() {
    let (near, far) = secrets().await;
    let stream = sealed(near, &[b"word", b""]).await.concat();
    let mut opener = opener(far, &stream[..], KEY_RECORDS);
    assert_eq!(said(&mut opener, 4).await.unwrap(), b"word");
    assert_eq!(said(&mut opener, 1).await.unwrap_err().kind(), ErrorKind::InvalidData);
}

/// A record of which a byte comes now and then is given ten seconds in all, not ten for each byte. An idle link has all the time
/// there is, and no buffer.
#[tokio::test]
async fn a_record_that_does_not_end() {
    let (near, far) = secrets().await;
    let records = sealed(near, &[b"in time", b"drip by drip, which takes too long"]).await;
    tokio::time::pause();
    let (mut road, end): (DuplexStream, DuplexStream) = duplex(1 << 16);
    let mut opener = opener(far, end, KEY_RECORDS);
    let speaking = async {
        tokio::time::sleep(Duration::from_secs(3600)).await;
        let (first, rest) = records[0].split_at(9);
        road.write_all(first).await.unwrap();
        tokio::time::sleep(Duration::from_secs(9)).await;
        road.write_all(rest).await.unwrap();
        tokio::time::sleep(Duration::from_secs(3600)).await;
        for byte in &records[1] {
            road.write_all(&[*byte]).await.unwrap();
            tokio::time::sleep(Duration::from_secs(4)).await;
        }
        std::future::pending::<()>().await
    };
    let hearing = async {
        let mut word = [0; 7];
        opener.read_exact(&mut word).await.unwrap();
        assert_eq!(&word, b"in time");
        let idle = tokio::time::timeout(Duration::from_secs(60), opener.read(&mut word)).await;
        assert!(idle.is_err() && opener.buffer.is_empty(), "an idle link waits, and has no buffer");
        let began = Instant::now();
        let error = opener.read(&mut word).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TimedOut);
        let took = began.elapsed() - Duration::from_secs(3600 - 60);
        assert!((RECORD_MAX..RECORD_MAX * 2).contains(&took), "{took:?}");
    };
    tokio::select! {
        () = speaking => {}
        () = hearing => {}
    }
}
