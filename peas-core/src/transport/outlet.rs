//! What waits in this machine's own system, before its network, of all that our links sent.
//!
//! A connection hands over what its peer's window allows, and the system queues it before the interface. Where the interface is the narrow
//! place (a rented machine with a rate, a shaped port, a slow radio), hundreds of milliseconds of payload gather there, and each grant and each
//! request waits behind them. Linux tells how much of a socket's it still holds; elsewhere nothing is known, and 0 is said.

#[cfg(target_os = "linux")]
use super::streams::option_words;
#[cfg(target_os = "linux")]
use std::os::fd::{AsRawFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// All sockets of a transport.
#[derive(Debug, Default)]
pub struct Outlet {
    sockets: Mutex<Vec<Arc<Socket>>>,
}

#[derive(Debug)]
struct Socket {
    #[cfg(target_os = "linux")]
    fd: RawFd,
    /// Something was written since nothing of it waited.
    written: AtomicBool,
}

/// A socket's place in an outlet: while it lives, so must the socket.
#[derive(Debug)]
pub(super) struct Enrolled {
    socket: Arc<Socket>,
    outlet: Arc<Outlet>,
}

impl Outlet {
    /// Bytes that sockets handed to the system and that it has not put on the network yet. What waits for a peer to take it is not among them.
    pub fn queued_bytes(&self) -> u64 {
        let sockets = self.sockets.lock().unwrap_or_else(PoisonError::into_inner);
        let waiting = |socket: &Socket| {
            let bytes = socket.queued_bytes();
            if bytes == 0 {
                socket.written.store(false, Ordering::Relaxed);
            }
            bytes
        };
        sockets.iter().filter(|socket| socket.written.load(Ordering::Relaxed)).map(|socket| waiting(socket)).sum()
    }

    #[cfg(target_os = "linux")]
    pub(super) fn enroll(self: &Arc<Self>, socket: &impl AsRawFd) -> Enrolled {
        self.keep(Socket { fd: socket.as_raw_fd(), written: AtomicBool::new(false) })
    }

    #[cfg(not(target_os = "linux"))]
    pub(super) fn enroll<S>(self: &Arc<Self>, _socket: &S) -> Enrolled {
        self.keep(Socket { written: AtomicBool::new(false) })
    }

    fn keep(self: &Arc<Self>, socket: Socket) -> Enrolled {
        let socket = Arc::new(socket);
        self.sockets.lock().unwrap_or_else(PoisonError::into_inner).push(socket.clone());
        Enrolled { socket, outlet: self.clone() }
    }
}

impl Enrolled {
    /// Something goes out through the socket.
    pub(super) fn wrote(&self) {
        self.socket.written.store(true, Ordering::Relaxed);
    }
}

impl Drop for Enrolled {
    fn drop(&mut self) {
        let mut sockets = self.outlet.sockets.lock().unwrap_or_else(PoisonError::into_inner);
        sockets.retain(|socket| !Arc::ptr_eq(socket, &self.socket));
    }
}

impl Socket {
    #[cfg(target_os = "linux")]
    fn queued_bytes(&self) -> u64 {
        const WAITS: usize = libc::SK_MEMINFO_WMEM_ALLOC as usize;
        let words: Option<[u32; WAITS + 1]> = option_words(self.fd, libc::SOL_SOCKET, libc::SO_MEMINFO);
        words.map_or(0, |words| words[WAITS].into())
    }

    #[cfg(not(target_os = "linux"))]
    fn queued_bytes(&self) -> u64 {
        0
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::os::unix::net::UnixStream;

    /// A pipe of the system's own counts what was not read yet, as an interface does what it has not sent.
    #[test]
    fn what_waits_is_counted_as_long_as_its_socket_is_there() {
        let outlet = Arc::new(Outlet::default());
        let (mut near, mut far) = UnixStream::pair().unwrap();
        let enrolled = outlet.enroll(&near);
        near.write_all(&[1; 10_000]).unwrap();
        assert_eq!(outlet.queued_bytes(), 0, "nobody said that something was written");
        enrolled.wrote();
        let queued = outlet.queued_bytes();
        assert!((10_000..30_000).contains(&queued), "{queued}");
        far.read_exact(&mut [0; 10_000]).unwrap();
        assert_eq!(outlet.queued_bytes(), 0);
        near.write_all(&[1; 10_000]).unwrap();
        enrolled.wrote();
        assert!(outlet.queued_bytes() >= 10_000);
        drop(enrolled);
        assert_eq!(outlet.queued_bytes(), 0, "it is gone");
    }

    #[test]
    fn what_waits_for_the_peer_is_not_counted() {
        let outlet = Arc::new(Outlet::default());
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (_far, _) = listener.accept().unwrap();
        near.set_nonblocking(true).unwrap();
        let enrolled = outlet.enroll(&near);
        let mut written = 0;
        while let Ok(count) = near.write(&[1; 65_536]) {
            written += count;
        }
        enrolled.wrote();
        assert!(written > 200_000, "the peer reads nothing, and still {written}");
        assert_eq!(outlet.queued_bytes(), 0);
    }
}
