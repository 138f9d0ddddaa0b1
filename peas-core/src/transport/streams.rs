//! The two halves of a TCP connection, sealed or in clear, below the frames.
//!
//! What always holds: no write can raise SIGPIPE; nothing is copied on a clear link but heads and short messages.

use super::RoundTrip;
use super::frames::Backlog;
use super::outlet::{Enrolled, Outlet};
use super::record::{Opener, Sealer};
use rustix::net::{SendAncillaryBuffer, SendFlags, sendmsg};
use std::io::{self, IoSlice};
#[cfg(target_os = "linux")]
use std::os::fd::{AsRawFd, RawFd};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

/// 16 KiB: heads and control messages on clear links; payload goes past it.
const CLEAR_BUFFER_BYTES: usize = 16 << 10;

/// Receiving half of a TCP link, below its frames.
pub struct TcpInbound(pub(super) Inbound);

pub(super) enum Inbound {
    Clear(ClearReader),
    Sealed(Box<Opener<OwnedReadHalf>>),
}

impl AsyncRead for TcpInbound {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match &mut self.0 {
            Inbound::Clear(clear) => Pin::new(clear).poll_read(cx, into),
            Inbound::Sealed(opener) => Pin::new(opener).poll_read(cx, into),
        }
    }
}

/// Sending half of a TCP link, below its frames.
pub struct TcpOutbound(pub(super) Outbound);

pub(super) enum Outbound {
    Clear(NoSignal),
    Sealed(Box<Sealer<NoSignal>>),
}

impl AsyncWrite for TcpOutbound {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.0 {
            Outbound::Clear(clear) => Pin::new(clear).poll_write(cx, buf),
            Outbound::Sealed(sealer) => Pin::new(sealer).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bufs: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        match &mut self.0 {
            Outbound::Clear(clear) => Pin::new(clear).poll_write_vectored(cx, bufs),
            Outbound::Sealed(sealer) => Pin::new(sealer).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.0 {
            Outbound::Clear(clear) => Pin::new(clear).poll_flush(cx),
            Outbound::Sealed(sealer) => Pin::new(sealer).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.0 {
            Outbound::Clear(clear) => Pin::new(clear).poll_shutdown(cx),
            Outbound::Sealed(sealer) => Pin::new(sealer).poll_shutdown(cx),
        }
    }
}

impl TcpOutbound {
    fn stream(&self) -> &TcpStream {
        let below = match &self.0 {
            Outbound::Clear(clear) => clear,
            Outbound::Sealed(sealer) => sealer.below(),
        };
        below.socket.as_ref()
    }
}

impl Backlog for TcpOutbound {
    fn limit_backlog(&self, bytes: u32) {
        let stream = self.stream();
        // A socket that does not know the option keeps more: slower control, nothing worse.
        #[cfg(target_os = "linux")]
        let _ = socket2::SockRef::from(stream).set_tcp_notsent_lowat(bytes);
        #[cfg(not(target_os = "linux"))]
        let _ = (stream, bytes);
    }

    /// As the systems at both ends saw it: a program that is slow to answer, as all are where many begin at once, makes nobody look far.
    #[cfg(target_os = "linux")]
    fn round_trip(&self) -> Option<RoundTrip> {
        /// `tcpi_rtt` and `tcpi_min_rtt` of `struct tcp_info` (linux/tcp.h, the second since Linux 4.6) in microseconds, by words.
        const RTT: usize = 17;
        const MIN_RTT: usize = 37;
        let words: [u32; MIN_RTT + 1] = option_words(self.stream().as_raw_fd(), libc::IPPROTO_TCP, libc::TCP_INFO)?;
        let [lately, least] = [RTT, MIN_RTT].map(|at| Duration::from_micros(words[at].into()));
        let known = ![0, u32::MAX].contains(&words[MIN_RTT]);
        known.then_some(RoundTrip { least, lately })
    }

    #[cfg(not(target_os = "linux"))]
    fn round_trip(&self) -> Option<RoundTrip> {
        None
    }
}

/// What the system tells of a socket, by words; `None` if it does not know so many.
#[cfg(target_os = "linux")]
pub(super) fn option_words<const N: usize>(socket: RawFd, level: libc::c_int, option: libc::c_int) -> Option<[u32; N]> {
    let mut words = [0u32; N];
    let mut len = size_of_val(&words) as libc::socklen_t;
    // SAFETY: the system writes at most `len` bytes to `words`. A number that is no socket any more is an error, and nothing is written.
    let taken = unsafe { libc::getsockopt(socket, level, option, words.as_mut_ptr().cast(), &mut len) };
    (taken == 0 && len as usize == size_of_val(&words)).then_some(words)
}

/// A socket's sending half that cannot raise SIGPIPE: the standard library's vectored write would (it is `writev`). All that goes out on a link
/// goes through here.
pub(super) struct NoSignal {
    /// Before the socket, so that it goes first.
    enrolled: Enrolled,
    socket: OwnedWriteHalf,
}

impl NoSignal {
    pub(super) fn new(socket: OwnedWriteHalf, outlet: &Arc<Outlet>) -> Self {
        let stream: &TcpStream = socket.as_ref();
        Self { enrolled: outlet.enroll(stream), socket }
    }
}

impl AsyncWrite for NoSignal {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let sent = Pin::new(&mut self.socket).poll_write(cx, buf); // `send` with MSG_NOSIGNAL
        self.enrolled.wrote();
        sent
    }

    fn poll_write_vectored(self: Pin<&mut Self>, cx: &mut Context<'_>, bufs: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let stream: &TcpStream = self.socket.as_ref();
        loop {
            ready!(stream.poll_write_ready(cx))?;
            let sent = stream.try_io(Interest::WRITABLE, || {
                Ok(sendmsg(stream, bufs, &mut SendAncillaryBuffer::default(), SendFlags::NOSIGNAL | SendFlags::DONTWAIT)?)
            });
            match sent {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {} // readiness is cleared: wait again
                sent => {
                    self.enrolled.wrote();
                    return Poll::Ready(sent);
                }
            }
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}

/// A socket's receiving half behind a small buffer, which large reads go past.
pub(super) struct ClearReader {
    below: OwnedReadHalf,
    buffer: Vec<u8>,
    filled: std::ops::Range<usize>,
}

impl ClearReader {
    pub(super) fn new(below: OwnedReadHalf, early: &[u8]) -> Self {
        let mut buffer = vec![0; CLEAR_BUFFER_BYTES.max(early.len())];
        buffer[..early.len()].copy_from_slice(early);
        Self { below, buffer, filled: 0..early.len() }
    }
}

impl AsyncRead for ClearReader {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.filled.is_empty() {
            if into.remaining() >= this.buffer.len() {
                return Pin::new(&mut this.below).poll_read(cx, into);
            }
            let mut room = ReadBuf::new(&mut this.buffer);
            ready!(Pin::new(&mut this.below).poll_read(cx, &mut room))?;
            this.filled = 0..room.filled().len();
        }
        let count = this.filled.len().min(into.remaining());
        into.put_slice(&this.buffer[this.filled.start..this.filled.start + count]);
        this.filled.start += count;
        Poll::Ready(Ok(()))
    }
}
