//! Reads ranges of a content from one address, over one connection.

use super::answer::{Answer, judge};
use super::connection::Connection;
use super::places::Part;
use super::{Address, Gate, Places, Tls, WebError};
use http_body_util::{BodyExt, Empty};
use hyper::Request;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ACCEPT_ENCODING, HOST, LOCATION, RANGE, USER_AGENT};
use std::net::IpAddr;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;

/// How many times in a row an answer may send us elsewhere.
const REDIRECTS_MAX: usize = 5;

/// Longest wait for the head of an answer.
const HEAD_MAX: Duration = Duration::from_secs(20);

/// Longest wait for the next bytes.
const BYTES_MAX: Duration = Duration::from_secs(20);

const AGENT: &str = concat!("peas/", env!("CARGO_PKG_VERSION"));

/// See the module. One range at a time.
pub(crate) struct Fetcher {
    places: Arc<Places>,
    gate: Arc<dyn Gate>,
    tls: Arc<Tls>,
    clock: fn() -> u64,
    connection: Option<Connection>,
    /// Where the last address that moved has moved to, and whose word that is.
    moved: Option<(Address, Address, IpAddr)>,
    /// Of the content: what is still to come.
    range: Range<u64>,
    body: Option<Body>,
}

struct Body {
    incoming: Incoming,
    /// Bytes of this answer that are still to come.
    left_bytes: u64,
}

impl Fetcher {
    /// Connects to nothing yet. `clock`: seconds since 1970, for dates in answers.
    pub(crate) fn new(places: Arc<Places>, gate: Arc<dyn Gate>, tls: Arc<Tls>, clock: fn() -> u64) -> Self {
        Self { places, gate, tls, clock, connection: None, moved: None, range: 0..0, body: None }
    }

    /// Begins with another range of the content. What was left of the last one is given up, and the connection with it.
    pub(crate) fn begin(&mut self, range: Range<u64>) {
        if self.body.take().is_some() {
            self.connection = None;
        }
        self.range = range;
    }

    /// The next bytes of the range, at least one; `None` when it is over. After an error or when dropped half-way, `begin` anew.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, WebError> {
        loop {
            if self.range.is_empty() && self.body.is_none() {
                return Ok(None);
            }
            let end = match self.body {
                None => self.ask().await,
                Some(_) => match self.read().await {
                    Ok(Some(bytes)) => return Ok(Some(bytes)),
                    Ok(None) => continue,
                    Err(error) => Err(error),
                },
            };
            if let Err(error) = end {
                // What a broken answer leaves in the connection is nobody's next answer.
                (self.connection, self.body) = (None, None);
                return Err(error);
            }
        }
    }

    async fn read(&mut self) -> Result<Option<Bytes>, WebError> {
        let (Some(connection), Some(body)) = (&mut self.connection, &mut self.body) else { return Ok(None) };
        let frame = timeout(BYTES_MAX, connection.drive(body.incoming.frame())).await.map_err(|_| WebError::Late)?;
        match frame {
            Some(Ok(frame)) => {
                let Ok(bytes) = frame.into_data() else { return Ok(None) };
                if bytes.len() as u64 > body.left_bytes {
                    return Err(WebError::Different("it sends more than it said"));
                }
                body.left_bytes -= bytes.len() as u64;
                self.range.start += bytes.len() as u64;
                Ok((!bytes.is_empty()).then_some(bytes))
            }
            Some(Err(error)) => Err(error.into()),
            None if body.left_bytes > 0 => Err(std::io::Error::from(std::io::ErrorKind::UnexpectedEof).into()),
            None => {
                self.body = None;
                Ok(None)
            }
        }
    }

    /// Asks for the part of the first file that is still missing.
    async fn ask(&mut self) -> Result<(), WebError> {
        let part = self.places.part(&self.range).ok_or(WebError::Address("the content ends before"))?;
        let (mut at, mut from) = match &self.moved {
            Some((moved, there, ip)) if *moved == part.address => (there.clone(), Some(*ip)),
            _ => (part.address.clone(), None),
        };
        // An address that others lead to may be good for one download only: after an error the way is asked for anew.
        self.moved = None;
        for _ in 0..=REDIRECTS_MAX {
            let response = self.answer(&at, from, &part).await?;
            match judge(response.status().as_u16(), response.headers(), &part.range, part.file_bytes, (self.clock)())? {
                Answer::Content => {
                    self.body = Some(Body { incoming: response.into_body(), left_bytes: part.range.end - part.range.start });
                    self.moved = from.map(|ip| (part.address, at, ip));
                    return Ok(());
                }
                Answer::Elsewhere(location) => {
                    debug_assert!(response.headers().contains_key(LOCATION));
                    from = self.connection.as_ref().map(Connection::ip);
                    at = at.redirected(&location)?;
                    // Its body is of no interest and may be long.
                    self.connection = None;
                }
            }
        }
        Err(WebError::Circles)
    }

    async fn answer(&mut self, at: &Address, from: Option<IpAddr>, part: &Part) -> Result<hyper::Response<Incoming>, WebError> {
        if let Some(connection) = self.connection.as_mut().filter(|connection| connection.fits(at)) {
            match timeout(HEAD_MAX, connection.ask(request(at, part))).await.map_err(|_| WebError::Late)? {
                Ok(response) => return Ok(response),
                // A server may close a connection that was idle: that says nothing about the next.
                Err(WebError::Http(error)) if error.is_canceled() || error.is_closed() || error.is_incomplete_message() => {}
                Err(error) => return Err(error),
            }
        }
        self.connection = None;
        let connection = self.connection.insert(Connection::open(at, from, &*self.gate, &self.tls).await?);
        timeout(HEAD_MAX, connection.ask(request(at, part))).await.map_err(|_| WebError::Late)?
    }
}

fn request(at: &Address, part: &Part) -> Request<Empty<Bytes>> {
    Request::get(&at.target)
        .header(HOST, at.authority())
        .header(USER_AGENT, AGENT)
        .header(ACCEPT_ENCODING, "identity")
        .header(RANGE, format!("bytes={}-{}", part.range.start, part.range.end - 1))
        .body(Empty::new())
        .expect("the address was checked and the rest is ours")
}
