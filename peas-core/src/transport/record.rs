//! TLS 1.3 records after the handshake (RFC 8446, section 5): sealing and opening, each half on its own.
//!
//! rustls makes the handshake and derives every key; this file only applies the AEAD to records, as a kernel does under kTLS,
//! with the interface that rustls has for that ([`rustls::kernel`]). Why not let rustls do the records too: one connection
//! object serves both directions there, so the two halves of a link would wait for each other at a lock while one of them
//! enciphers, and payload would be copied twice more. Here a record is opened from the receive buffer right into the caller's slice
//! and sealed from the caller's slice right into the send buffer. Measured on loopback, both ends on 2 cores, three rounds
//! (benches/link.rs, 2026-11): sealed 1.9 to 3.6 GB/s at 0.3 to 0.5 CPU seconds per GB, in clear 4.7 to 5.2 at 0.2 to 0.3.
//!
//! What a second reader checked, point by point:
//! - *Nonces.* A record's nonce is the static vector with the record's number in its last eight bytes (RFC 8446, section 5.3).
//!   [`Key::nonce`] is the only place that makes one and counts up as it does; a [`Key`] is owned by one half, is neither cloned
//!   nor lent, and is replaced whole, number and key together, so no number is used twice under a key.
//! - *Where a number starts.* rustls hands over the number of the next record with the secrets (`dangerous_into_kernel_connection`):
//!   traffic secrets proper, not exporter output, of the connection whose handshake it has finished; it consumes the connection, so
//!   rustls seals nothing under these keys afterwards.
//! - *Directions.* `tx` and `rx` come from two secrets (client and server application traffic), so what one side sealed does not
//!   open when it is sent back to it (`man_in_the_middle::reflected`).
//! - *Limits of a key.* The sender takes a new key after [`KEY_RECORDS`]; a receiver refuses a peer that uses one for
//!   [`RECEIVED_RECORDS`] times as many (the margin of AES-GCM ends at 2^24.5 full records), and one that changes keys much more often than is
//!   of use. The first forgery ends the link, so the number of forgeries that a key sees is one.
//! - *Nothing unproven comes out.* Plaintext counts as there only after its tag was right; on failure aws-lc leaves zeros, the
//!   caller's cursor has not moved, and the half is *failed*: it says so for ever after, whatever else has come. The head that is
//!   authenticated is the one that came.
//! - *Nothing unsealed goes out.* Plaintext is sealed in the send buffer; what a failing cipher would leave there is cut off before
//!   anything is written, and the half is failed.
//! - *Ends.* Only `close_notify` is an end; a connection that just stops is `UnexpectedEof`, also in the middle of a record. What
//!   comes after the farewell is not looked at.
//! - *Time.* Tags are compared by aws-lc in constant time; padding is looked for only in what was authenticated, and we send none.
//! - *Work for nothing.* Empty records, which our side never makes, end the link: they would cost us a cipher call each for 22
//!   bytes of a peer's. A record that has begun to come is given [`RECORD_MAX`].
//! - *Memory.* Each half has a buffer only while it has bytes in hand (`buffers`). Buffers pass from link to link with old
//!   contents; each half counts what it wrote itself and reads nothing else. Keys are wiped by aws-lc and rustls when dropped.
//!
//! What must not come in: frames.

use super::buffers::{BUFFER_BYTES, Buffers};
use aws_lc_rs::aead::{self, Aad, LessSafeKey, Nonce, UnboundKey};
use rustls::ConnectionTrafficSecrets;
use rustls::client::ClientConnectionData;
use rustls::kernel::KernelConnection;
use rustls::server::ServerConnectionData;
use std::io::{self, ErrorKind, IoSlice};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep};

const HEAD_BYTES: usize = 5;
const TAG_BYTES: usize = 16;
/// Plaintext of a record, RFC 8446 section 5.1.
const PLAIN_MAX: usize = 1 << 14;
/// What may stand behind a record's head, RFC 8446 section 5.2.
pub(super) const SEALED_MAX: usize = PLAIN_MAX + 256;
/// A payload frame of 64 KiB and its head, in five records, are sealed and handed to the kernel in one go.
const SEAL_BATCH_BYTES: usize = 4 * PLAIN_MAX + 64;
/// A batch with a change of keys before each of its records and a farewell behind it fits a buffer.
const _: () = assert!(SEAL_BATCH_BYTES + 5 * (2 * (HEAD_BYTES + 1 + TAG_BYTES) + KEY_UPDATE.len()) + 32 <= BUFFER_BYTES);
/// 4 slices are taken in one write; frames have two.
const SLICES_MAX: usize = 4;
/// 2^22 records (64 GiB): then the sender takes a new key. AES-GCM keeps its margin up to 2^24.5 full records (RFC 8446, section
/// 5.5).
pub(super) const KEY_RECORDS: u64 = 1 << 22;
/// 4 times what a peer of ours seals with a key, 2^24 records, and the receiver hangs up: still below the margin.
const RECEIVED_RECORDS: u64 = 4;
/// 10 s from the first byte of a record to its last. A record is at most 16 KiB; who needs longer for one is of no use to anybody,
/// and a peer that sends a byte now and then must not keep a link.
const RECORD_MAX: Duration = Duration::from_secs(10);

const ALERT: u8 = 21;
const HANDSHAKE: u8 = 22;
const DATA: u8 = 23;
const CLOSE_NOTIFY: [u8; 2] = [1, 0];
/// KeyUpdate, update_not_requested.
const KEY_UPDATE: [u8; 5] = [24, 0, 0, 1, 0];

/// What rustls keeps of a connection: the source of the next keys. Touched once in 2^22 records.
pub(super) enum Kernel {
    Client(KernelConnection<ClientConnectionData>),
    Server(KernelConnection<ServerConnectionData>),
}
pub(super) type SharedKernel = Arc<Mutex<Kernel>>;

enum Direction {
    Sending,
    Receiving,
}

fn next_key(kernel: &SharedKernel, direction: Direction) -> io::Result<Key> {
    let mut kernel = kernel.lock().unwrap_or_else(PoisonError::into_inner);
    let next = match (&mut *kernel, direction) {
        (Kernel::Client(client), Direction::Sending) => client.update_tx_secret(),
        (Kernel::Client(client), Direction::Receiving) => client.update_rx_secret(),
        (Kernel::Server(server), Direction::Sending) => server.update_tx_secret(),
        (Kernel::Server(server), Direction::Receiving) => server.update_rx_secret(),
    };
    Key::new(next.map_err(io::Error::other)?)
}

/// The key of one direction and the number of the next record under it.
pub(super) struct Key {
    aead: LessSafeKey,
    iv: [u8; 12],
    record: u64,
    /// Records made or met under this key.
    used: u64,
}

impl Key {
    /// From the number of the next record and the secrets.
    pub(super) fn new((record, secrets): (u64, ConnectionTrafficSecrets)) -> io::Result<Self> {
        let (algorithm, key, iv) = match secrets {
            ConnectionTrafficSecrets::Aes128Gcm { key, iv } => (&aead::AES_128_GCM, key, iv),
            ConnectionTrafficSecrets::Aes256Gcm { key, iv } => (&aead::AES_256_GCM, key, iv),
            ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv } => (&aead::CHACHA20_POLY1305, key, iv),
            _ => return Err(io::Error::other("a cipher of TLS 1.3 that peas does not know was agreed on")),
        };
        let aead = UnboundKey::new(algorithm, key.as_ref()).map_err(|_| io::Error::other("the agreed key has the wrong length"))?;
        let iv = iv.as_ref().try_into().map_err(|_| io::Error::other("the agreed vector has the wrong length"))?;
        Ok(Self { aead: LessSafeKey::new(aead), iv, record, used: 0 })
    }

    /// The nonce of this record; the next call gives the next one.
    fn nonce(&mut self) -> io::Result<Nonce> {
        let mut nonce = self.iv;
        nonce[4..].iter_mut().zip(self.record.to_be_bytes()).for_each(|(byte, number)| *byte ^= number);
        self.record = self.record.checked_add(1).ok_or_else(|| io::Error::other("record numbers are used up"))?;
        self.used += 1;
        Ok(Nonce::assume_unique_for_key(nonce))
    }
}

fn head(sealed_bytes: usize) -> [u8; HEAD_BYTES] {
    let [high, low] = (sealed_bytes as u16).to_be_bytes();
    [DATA, 3, 3, high, low]
}

fn broken(what: &'static str) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, what)
}

/// Sealing half: takes plaintext, writes records.
pub(super) struct Sealer<W> {
    below: W,
    key: Key,
    kernel: SharedKernel,
    key_records: u64,
    buffers: Buffers,
    /// Empty while nothing waits to be written.
    out: Vec<u8>,
    /// Sealed and not yet written: `out[sealed]`.
    sealed: std::ops::Range<usize>,
    closing: bool,
    failed: bool,
}

impl<W: AsyncWrite + Unpin> Sealer<W> {
    pub(super) fn new(below: W, key: Key, kernel: SharedKernel, key_records: u64, buffers: Buffers) -> Self {
        Self { below, key, kernel, key_records, buffers, out: Vec::new(), sealed: 0..0, closing: false, failed: false }
    }

    pub(super) fn below(&self) -> &W {
        &self.below
    }

    /// Appends one record; `parts` together are at most `PLAIN_MAX`. After a failure nothing of it is there, and the half is failed.
    fn seal(&mut self, kind: u8, parts: &[&[u8]]) -> io::Result<()> {
        let plain_bytes: usize = parts.iter().map(|part| part.len()).sum();
        assert!(plain_bytes <= PLAIN_MAX, "the caller cuts records to size");
        if self.failed {
            return Err(io::Error::other("a record could not be sealed before"));
        }
        self.failed = true; // until it is done
        let head = head(plain_bytes + 1 + TAG_BYTES);
        let nonce = self.key.nonce()?;
        if self.out.is_empty() {
            self.out = self.buffers.take();
        }
        let start = self.sealed.end;
        let record = &mut self.out[start..start + HEAD_BYTES + plain_bytes + 1 + TAG_BYTES];
        record[..HEAD_BYTES].copy_from_slice(&head);
        let (text, end) = record[HEAD_BYTES..].split_at_mut(plain_bytes);
        let sealed = match parts {
            [only] => self.key.aead.seal_out_of_place_scatter(nonce, Aad::from(head), only, text, &[kind], end),
            _ => {
                let mut at = 0;
                for part in parts {
                    text[at..at + part.len()].copy_from_slice(part);
                    at += part.len();
                }
                self.key.aead.seal_in_place_scatter(nonce, Aad::from(head), text, &[kind], end)
            }
        };
        sealed.map_err(|_| io::Error::other("the cipher refused to seal a record"))?;
        // Only now it counts: plaintext that was not sealed is never written.
        self.sealed.end = start + HEAD_BYTES + plain_bytes + 1 + TAG_BYTES;
        self.failed = false;
        Ok(())
    }

    fn seal_data(&mut self, parts: &[&[u8]]) -> io::Result<()> {
        if self.key.used >= self.key_records {
            self.seal(HANDSHAKE, &[&KEY_UPDATE])?;
            self.failed = true; // the old key is not to be used again, come what may
            self.key = next_key(&self.kernel, Direction::Sending)?;
            self.failed = false;
        }
        self.seal(DATA, parts)
    }

    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.sealed.is_empty() {
            let count = ready!(Pin::new(&mut self.below).poll_write(cx, &self.out[self.sealed.clone()]))?;
            if count == 0 {
                return Poll::Ready(Err(ErrorKind::WriteZero.into()));
            }
            self.sealed.start += count;
        }
        self.sealed = 0..0;
        if !self.out.is_empty() {
            self.buffers.give_back(std::mem::take(&mut self.out));
        }
        Poll::Ready(Ok(()))
    }
}

impl<W: AsyncWrite + Unpin> AsyncWrite for Sealer<W> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(buf)])
    }

    /// Takes at most one batch, once the batch before is with the kernel.
    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bufs: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        ready!(self.poll_drain(cx))?;
        let bufs = &bufs[..bufs.len().min(SLICES_MAX)];
        let total = bufs.iter().map(|buf| buf.len()).sum::<usize>().min(SEAL_BATCH_BYTES);
        if total == 0 {
            return Poll::Ready(Ok(0));
        }
        // Records of equal size: a last one of a few bytes would cost as much as any.
        let record_bytes = total.div_ceil(total.div_ceil(PLAIN_MAX));
        let (mut buf, mut at, mut left) = (0, 0, total);
        while left > 0 {
            let mut parts: [&[u8]; SLICES_MAX] = [&[]; SLICES_MAX];
            let mut part_count = 0;
            let mut room = record_bytes.min(left);
            left -= room;
            while room > 0 {
                let part = &bufs[buf][at..];
                let part = &part[..part.len().min(room)];
                room -= part.len();
                at += part.len();
                if at == bufs[buf].len() {
                    (buf, at) = (buf + 1, 0);
                }
                if !part.is_empty() {
                    parts[part_count] = part;
                    part_count += 1;
                }
            }
            self.seal_data(&parts[..part_count])?;
        }
        // What the kernel does not take now stays in `out`; the bytes count as taken all the same.
        if let Poll::Ready(Err(error)) = self.poll_drain(cx) {
            return Poll::Ready(Err(error));
        }
        Poll::Ready(Ok(total))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_drain(cx))?;
        Pin::new(&mut self.below).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.closing {
            self.closing = true;
            self.seal(ALERT, &[&CLOSE_NOTIFY])?;
        }
        ready!(self.poll_drain(cx))?;
        Pin::new(&mut self.below).poll_shutdown(cx)
    }
}

/// Opening half: reads records, gives plaintext.
pub(super) struct Opener<R> {
    below: R,
    key: Key,
    kernel: SharedKernel,
    key_records: u64,
    buffers: Buffers,
    /// Empty while there is neither plaintext nor sealed bytes.
    buffer: Vec<u8>,
    /// Plaintext that waits for the caller: `buffer[plain]`; always before `sealed`.
    plain: std::ops::Range<usize>,
    /// Received and not opened.
    sealed: std::ops::Range<usize>,
    /// When the record that has begun to come must be whole; made once and set anew for each that keeps us waiting.
    late: Option<Pin<Box<Sleep>>>,
    /// Whether `late` counts for the record at hand.
    waiting: bool,
    ended: bool,
    failed: Option<ErrorKind>,
}

impl<R: AsyncRead + Unpin> Opener<R> {
    /// `early`: what came behind the handshake, shorter than a buffer.
    pub(super) fn new(below: R, key: Key, kernel: SharedKernel, key_records: u64, buffers: Buffers, early: &[u8]) -> Self {
        let mut buffer = Vec::new();
        if !early.is_empty() {
            buffer = buffers.take();
            buffer[..early.len()].copy_from_slice(early);
        }
        Self {
            below,
            key,
            kernel,
            key_records,
            buffers,
            buffer,
            plain: 0..0,
            sealed: 0..early.len(),
            late: None,
            waiting: false,
            ended: false,
            failed: None,
        }
    }

    /// Length of the first sealed record behind its head, if its head is here.
    fn first(&self) -> io::Result<Option<usize>> {
        let [kind, _, _, high, low, ..] = self.buffer[self.sealed.clone()] else { return Ok(None) };
        let sealed_bytes = usize::from(u16::from_be_bytes([high, low]));
        match kind {
            DATA if (TAG_BYTES + 1..=SEALED_MAX).contains(&sealed_bytes) => Ok(Some(sealed_bytes)),
            DATA => Err(broken("length of a record")),
            _ => Err(broken("a record in clear")),
        }
    }

    /// Opens the first record, wholly here, into `into` if it has the room, else in place.
    fn open(&mut self, sealed_bytes: usize, into: &mut ReadBuf<'_>) -> io::Result<()> {
        if self.key.used >= self.key_records.saturating_mul(RECEIVED_RECORDS) {
            return Err(broken("too many records under one key"));
        }
        let nonce = self.key.nonce()?;
        let start = self.sealed.start + HEAD_BYTES;
        // As it came, not as it should be: a head altered on the way is an altered record.
        let head: [u8; HEAD_BYTES] = self.buffer[self.sealed.start..start].try_into().expect("a head has this length");
        let aad = Aad::from(head);
        let inner_bytes = sealed_bytes - TAG_BYTES;
        self.sealed.start = start + sealed_bytes;
        let record = &mut self.buffer[start..start + sealed_bytes];
        let wrong = |_| broken("a record does not open");
        let (kind, control) = if into.remaining() >= inner_bytes {
            let (text, tag) = record.split_at(inner_bytes);
            let inner = into.initialize_unfilled_to(inner_bytes);
            self.key.aead.open_separate_gather(nonce, aad, text, tag, inner).map_err(wrong)?;
            match unpad(inner)? {
                (DATA, plain_bytes) => {
                    into.advance(plain_bytes);
                    return Ok(());
                }
                (kind, plain_bytes) => (kind, inner[..plain_bytes].to_vec()),
            }
        } else {
            let inner = self.key.aead.open_in_place(nonce, aad, record).map_err(wrong)?;
            match unpad(inner)? {
                (DATA, plain_bytes) => {
                    self.plain = start..start + plain_bytes;
                    return Ok(());
                }
                (kind, plain_bytes) => (kind, inner[..plain_bytes].to_vec()),
            }
        };
        self.control(kind, &control)
    }

    fn control(&mut self, kind: u8, body: &[u8]) -> io::Result<()> {
        match kind {
            ALERT if body == CLOSE_NOTIFY => self.ended = true,
            ALERT => return Err(io::Error::new(ErrorKind::ConnectionAborted, "the peer gave up the link with an alert")),
            // Half the sender's own measure at the least, or new keys would be a way to make us work for little.
            HANDSHAKE if body == KEY_UPDATE && self.key.used > self.key_records / 2 => {
                self.key = next_key(&self.kernel, Direction::Receiving)?;
            }
            _ => return Err(broken("a record that has no place after the handshake")),
        }
        Ok(())
    }

    fn give(&mut self, into: &mut ReadBuf<'_>) {
        let count = self.plain.len().min(into.remaining());
        into.put_slice(&self.buffer[self.plain.start..self.plain.start + count]);
        self.plain.start += count;
    }

    /// Makes room behind what is sealed and fills it. Zero bytes: the connection ended.
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if self.buffer.is_empty() {
            self.buffer = self.buffers.take();
        }
        if self.sealed.start > 0 {
            // At most one record that is not whole yet, or what came behind the handshake.
            self.buffer.copy_within(self.sealed.clone(), 0);
            self.sealed = 0..self.sealed.len();
        }
        let mut room = ReadBuf::new(&mut self.buffer[self.sealed.end..]);
        let poll = Pin::new(&mut self.below).poll_read(cx, &mut room);
        let count = room.filled().len();
        self.sealed.end += count;
        match poll {
            Poll::Ready(result) => Poll::Ready(result.map(|()| count)),
            Poll::Pending if self.sealed.is_empty() => {
                self.rest();
                Poll::Pending
            }
            Poll::Pending => self.poll_late(cx),
        }
    }

    /// Gives up on a record that takes too long to come.
    fn poll_late(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let late = self.late.get_or_insert_with(|| Box::pin(sleep(RECORD_MAX)));
        if !std::mem::replace(&mut self.waiting, true) {
            late.as_mut().reset(Instant::now() + RECORD_MAX);
        }
        ready!(late.as_mut().poll(cx));
        Poll::Ready(Err(io::Error::new(ErrorKind::TimedOut, "a record that does not come to its end")))
    }

    /// An idle link has no buffer.
    fn rest(&mut self) {
        (self.plain, self.sealed) = (0..0, 0..0);
        if !self.buffer.is_empty() {
            self.buffers.give_back(std::mem::take(&mut self.buffer));
        }
    }

    fn poll_open(&mut self, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let had = into.filled().len();
        loop {
            self.give(into);
            if into.remaining() == 0 || self.ended {
                return Poll::Ready(Ok(()));
            }
            // From here on no plaintext waits.
            match self.first()? {
                Some(sealed_bytes) if self.sealed.len() >= HEAD_BYTES + sealed_bytes => {
                    self.waiting = false;
                    self.open(sealed_bytes, into)?;
                }
                _ if into.filled().len() > had => return Poll::Ready(Ok(())),
                _ => {
                    if ready!(self.poll_fill(cx))? == 0 {
                        return Poll::Ready(Err(io::Error::new(ErrorKind::UnexpectedEof, "cut off without a farewell")));
                    }
                }
            }
        }
    }
}

/// Kind and length of what a record holds; it ends with its kind and any number of zeros. One that holds nothing is not for us.
fn unpad(inner: &[u8]) -> io::Result<(u8, usize)> {
    match inner.iter().rposition(|&byte| byte != 0) {
        Some(kind_at) if kind_at > 0 => Ok((inner[kind_at], kind_at)),
        _ => Err(broken("a record of nothing")),
    }
}

impl<R: AsyncRead + Unpin> AsyncRead for Opener<R> {
    /// After an error there are only errors: what stands behind a record that did not open is never looked at. What was opened before it
    /// in the same call is given first.
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if let Some(kind) = self.failed {
            return Poll::Ready(Err(io::Error::new(kind, "the link has failed")));
        }
        let had = into.filled().len();
        let poll = self.poll_open(cx, into);
        if let Poll::Ready(Err(error)) = &poll {
            self.failed = Some(error.kind());
            self.rest();
            if into.filled().len() > had {
                return Poll::Ready(Ok(()));
            }
        }
        poll
    }
}

impl<R> Drop for Opener<R> {
    fn drop(&mut self) {
        self.buffers.give_back(std::mem::take(&mut self.buffer));
    }
}

impl<W> Drop for Sealer<W> {
    fn drop(&mut self) {
        self.buffers.give_back(std::mem::take(&mut self.out));
    }
}

#[cfg(test)]
#[path = "record_tests.rs"]
mod tests;
