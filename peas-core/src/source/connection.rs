//! One connection to a web server: TCP, TLS where asked for, HTTP/1.1.
//!
//! The connection has no task of its own: its machinery is driven by whoever waits for an answer, and is gone when dropped.

use super::{Address, Gate, Tls, WebError};
use http_body_util::Empty;
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1::{Builder, SendRequest};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Looking a name up, connecting and the TLS handshake, each.
const CONNECT_MAX: Duration = Duration::from_secs(8);

/// Addresses of one name that are tried.
const TRIED_MAX: usize = 4;

/// Longest head of an answer: twice what common servers send at most.
const HEAD_BYTES_MAX: usize = 64 << 10;

/// Fields in a head.
const FIELDS_MAX: usize = 100;

type Driver = Pin<Box<dyn Future<Output = hyper::Result<()>> + Send>>;

/// See the module.
pub(super) struct Connection {
    to: Address,
    ip: IpAddr,
    sender: SendRequest<Empty<Bytes>>,
    /// `None` when it has ended: the server has closed the connection, or said that it will, as those that speak HTTP/1.0 do.
    driver: Option<Driver>,
}

impl Connection {
    /// Connects to the first address of the host that the gate allows and that answers.
    pub(super) async fn open(to: &Address, from: Option<IpAddr>, gate: &dyn Gate, tls: &Tls) -> Result<Self, WebError> {
        let addrs = match to.host.parse::<IpAddr>() {
            Ok(ip) => vec![SocketAddr::new(ip, to.port)],
            Err(_) => {
                timeout(CONNECT_MAX, gate.resolve(&to.host, to.port)).await.map_err(|_| WebError::Late)?.map_err(|_| WebError::NoHost)?
            }
        };
        let allowed: Vec<SocketAddr> = addrs.iter().copied().filter(|&addr| gate.allows(addr, from)).collect();
        if let (Some(&forbidden), []) = (addrs.first(), &allowed[..]) {
            return Err(WebError::Forbidden(forbidden));
        }
        let mut last = WebError::NoHost;
        for addr in allowed.into_iter().take(TRIED_MAX) {
            match Self::to(to, addr, gate, tls).await {
                Ok(connection) => return Ok(connection),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    async fn to(to: &Address, addr: SocketAddr, gate: &dyn Gate, tls: &Tls) -> Result<Self, WebError> {
        if let Some(stream) = gate.stands_in(addr) {
            return Self::over(to, addr, stream).await;
        }
        let stream = timeout(CONNECT_MAX, TcpStream::connect(addr)).await.map_err(|_| WebError::Late)??;
        stream.set_nodelay(true)?;
        let stream: Box<dyn Stream> = match to.https {
            false => Box::new(Single(stream)),
            true => timeout(CONNECT_MAX, tls.cover(&to.host, Single(stream))).await.map_err(|_| WebError::Late)??,
        };
        Self::over(to, addr, stream).await
    }

    async fn over(to: &Address, addr: SocketAddr, stream: Box<dyn Stream>) -> Result<Self, WebError> {
        let builder = {
            let mut builder = Builder::new();
            builder.max_buf_size(HEAD_BYTES_MAX).max_headers(FIELDS_MAX);
            builder
        };
        let (sender, driver) = builder.handshake(TokioIo::new(stream)).await?;
        Ok(Self { to: to.clone(), ip: addr.ip(), sender, driver: Some(Box::pin(driver)) })
    }

    /// The server's address.
    pub(super) fn ip(&self) -> IpAddr {
        self.ip
    }

    /// Whether the next request for this address may go here.
    pub(super) fn fits(&self, to: &Address) -> bool {
        self.to.same_server(to) && !self.sender.is_closed()
    }

    /// Waits for something while driving the connection.
    pub(super) async fn drive<T>(&mut self, wait: impl Future<Output = T>) -> T {
        drive(&mut self.driver, wait).await
    }

    /// Sends a request and waits for the head of its answer.
    pub(super) async fn ask(&mut self, request: Request<Empty<Bytes>>) -> Result<Response<Incoming>, WebError> {
        let Self { sender, driver, .. } = self;
        let work = async {
            sender.ready().await?;
            sender.send_request(request).await
        };
        Ok(drive(driver, work).await?)
    }
}

/// A driver that ended is dropped at once: it owns the requests that it has not sent, and who waits for their answers hears of
/// its end only by its drop.
async fn drive<T>(driver: &mut Option<Driver>, wait: impl Future<Output = T>) -> T {
    let mut wait = std::pin::pin!(wait);
    std::future::poll_fn(|context| {
        if let Poll::Ready(value) = wait.as_mut().poll(context) {
            return Poll::Ready(value);
        }
        if driver.as_mut().is_some_and(|driver| driver.as_mut().poll(context).is_ready()) {
            *driver = None;
            return wait.as_mut().poll(context);
        }
        Poll::Pending
    })
    .await
}

/// What a conversation runs over.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// A socket that is written to one slice at a time: writing several at once raises SIGPIPE when the server has hung up, and would
/// end a host that leaves the signal at its default.
pub(super) struct Single(TcpStream);

impl AsyncRead for Single {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, into)
    }
}

impl AsyncWrite for Single {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}
