//! A small web server that serves byte ranges, or misbehaves as told.
#![allow(dead_code, reason = "each test file uses a part of it")]

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// How it answers.
#[derive(Clone, Debug)]
pub enum Manner {
    Honest,
    /// Right sizes, wrong bytes.
    Lies,
    /// Half of what was asked for, and then nothing.
    Stalls,
    /// Whole files, whatever was asked for.
    IgnoresRanges,
    /// Another place: this in front of the path.
    Redirects(String),
    /// A status, and fields.
    Refuses(u16, &'static str),
    /// Another range than was asked for.
    Shifts,
}

/// Whether a connection outlives an answer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Closes {
    No,
    /// As HTTP/1.0 does, with the end of the connection as the end of the body.
    Http10,
    /// With the field that says so.
    Http11,
}

/// One request, as it came.
#[derive(Clone, Debug)]
pub struct Asked {
    pub at: Instant,
    pub path: String,
    pub bytes: u64,
}

struct Inner {
    root: PathBuf,
    /// For the next answers; the last one stays.
    manners: Mutex<VecDeque<Manner>>,
    asked: Mutex<Vec<Asked>>,
    open: AtomicUsize,
    open_max: AtomicUsize,
    stop: AtomicBool,
    closes: Closes,
    tls: Option<Arc<rustls::ServerConfig>>,
}

/// Serves until dropped.
pub struct WebServer {
    pub addr: SocketAddr,
    inner: Arc<Inner>,
}

impl WebServer {
    /// Serves the folder.
    pub fn new(root: &Path, manners: impl IntoIterator<Item = Manner>) -> Self {
        Self::start(root, manners, Closes::No, None)
    }

    /// The same, on a new connection for each request.
    pub fn closing(root: &Path, manners: impl IntoIterator<Item = Manner>, closes: Closes) -> Self {
        Self::start(root, manners, closes, None)
    }

    /// The same over TLS, as "localhost", certified by [`authority`].
    pub fn secure(root: &Path) -> Self {
        let cert = include_bytes!("../certificates/localhost.der").to_vec().into();
        let key = rustls::pki_types::PrivatePkcs8KeyDer::from(include_bytes!("../certificates/localhost.key.der").to_vec());
        let builder = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()));
        let builder = builder.with_safe_default_protocol_versions().unwrap().with_no_client_auth();
        let config = builder.with_single_cert(vec![cert], key.into()).unwrap();
        Self::start(root, [Manner::Honest], Closes::No, Some(Arc::new(config)))
    }

    fn start(root: &Path, manners: impl IntoIterator<Item = Manner>, closes: Closes, tls: Option<Arc<rustls::ServerConfig>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let inner = Arc::new(Inner {
            root: root.to_path_buf(),
            manners: Mutex::new(manners.into_iter().collect()),
            asked: Mutex::default(),
            open: AtomicUsize::new(0),
            open_max: AtomicUsize::new(0),
            stop: AtomicBool::new(false),
            closes,
            tls,
        });
        let addr = listener.local_addr().unwrap();
        let of_loop = inner.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if of_loop.stop.load(Ordering::SeqCst) {
                    return;
                }
                let (inner, stream) = (of_loop.clone(), stream.unwrap());
                std::thread::spawn(move || inner.converse(stream));
            }
        });
        Self { addr, inner }
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}/{path}", self.addr)
    }

    /// From now on.
    pub fn behave(&self, manner: Manner) {
        *self.inner.manners.lock().unwrap() = [manner].into();
    }

    pub fn asked(&self) -> Vec<Asked> {
        self.inner.asked.lock().unwrap().clone()
    }

    /// Most connections that were open at one time.
    pub fn connections_max(&self) -> usize {
        self.inner.open_max.load(Ordering::SeqCst)
    }

    pub fn connections(&self) -> usize {
        self.inner.open.load(Ordering::SeqCst)
    }
}

impl Drop for WebServer {
    fn drop(&mut self) {
        self.inner.stop.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.addr);
    }
}

/// The authority that certifies secure servers.
pub fn authority() -> Vec<u8> {
    include_bytes!("../certificates/authority.der").to_vec()
}

impl Inner {
    fn converse(&self, stream: TcpStream) {
        let open = self.open.fetch_add(1, Ordering::SeqCst) + 1;
        self.open_max.fetch_max(open, Ordering::SeqCst);
        // Ends with the client, or with its server's end.
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        let _ = match &self.tls {
            None => self.answer_all(BufReader::new(stream)),
            Some(config) => {
                let tls = rustls::ServerConnection::new(config.clone()).unwrap();
                self.answer_all(BufReader::new(rustls::StreamOwned::new(tls, stream)))
            }
        };
        self.open.fetch_sub(1, Ordering::SeqCst);
    }

    fn answer_all<S: Read + Write>(&self, mut stream: BufReader<S>) -> std::io::Result<()> {
        loop {
            let (mut path, mut range) = (None, None);
            loop {
                let mut line = String::new();
                if stream.read_line(&mut line)? == 0 {
                    return Ok(());
                }
                let line = line.trim_end();
                if line.is_empty() {
                    break;
                }
                if let Some(rest) = line.strip_prefix("GET ") {
                    path = rest.split(' ').next().map(str::to_owned);
                } else if let Some(bytes) = line.to_ascii_lowercase().strip_prefix("range: bytes=") {
                    let (first, last) = bytes.split_once('-').unwrap();
                    range = Some(first.parse::<u64>().unwrap()..last.parse::<u64>().unwrap() + 1);
                }
            }
            self.answer(stream.get_mut(), &path.expect("a GET"), range)?;
            if self.closes != Closes::No {
                return Ok(());
            }
        }
    }

    fn answer(&self, stream: &mut impl Write, path: &str, range: Option<std::ops::Range<u64>>) -> std::io::Result<()> {
        let bytes = range.as_ref().map_or(u64::MAX, |range| range.end - range.start);
        self.asked.lock().unwrap().push(Asked { at: Instant::now(), path: path.to_owned(), bytes });
        let manner = {
            let mut manners = self.manners.lock().unwrap();
            if manners.len() > 1 { manners.pop_front().unwrap() } else { manners[0].clone() }
        };
        match &manner {
            Manner::Redirects(to) => {
                return write!(stream, "HTTP/1.1 302 Found\r\nLocation: {to}{path}\r\nContent-Length: 4\r\n\r\nover");
            }
            Manner::Refuses(status, fields) => {
                return write!(stream, "HTTP/1.1 {status} No\r\n{fields}Content-Length: 2\r\n\r\nno");
            }
            _ => {}
        }
        let Ok(content) = std::fs::read(self.root.join(unescaped(path.trim_start_matches('/')))) else {
            return write!(stream, "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n");
        };
        let total = content.len() as u64;
        let range = range.filter(|_| !matches!(manner, Manner::IgnoresRanges));
        let (status, field, mut body) = match range {
            None => (200, String::new(), content),
            Some(range) => {
                let range = if matches!(manner, Manner::Shifts) && range.end < total { range.start + 1..range.end + 1 } else { range };
                let field = format!("Content-Range: bytes {}-{}/{total}\r\n", range.start, range.end - 1);
                (206, field, content[range.start as usize..range.end as usize].to_vec())
            }
        };
        if matches!(manner, Manner::Lies) {
            body.iter_mut().for_each(|byte| *byte ^= 1);
        }
        match self.closes {
            Closes::No => write!(stream, "HTTP/1.1 {status} OK\r\n{field}Content-Length: {}\r\n\r\n", body.len())?,
            Closes::Http10 => write!(stream, "HTTP/1.0 {status} OK\r\n{field}\r\n")?,
            Closes::Http11 => write!(stream, "HTTP/1.1 {status} OK\r\n{field}Content-Length: {}\r\nConnection: close\r\n\r\n", body.len())?,
        }
        if matches!(manner, Manner::Stalls) && body.len() > 1 {
            stream.write_all(&body[..body.len() / 2])?;
            stream.flush()?;
            while !self.stop.load(Ordering::SeqCst) {
                std::thread::park_timeout(Duration::from_millis(50));
            }
            return Err(ErrorKind::TimedOut.into());
        }
        stream.write_all(&body)?;
        stream.flush()
    }
}

fn unescaped(path: &str) -> String {
    let (mut bytes, mut rest) = (Vec::new(), path.split('?').next().unwrap().as_bytes());
    while let [first, after @ ..] = rest {
        match (first, after) {
            (b'%', [high, low, after @ ..]) => {
                let digit = |byte: &u8| (*byte as char).to_digit(16).expect("hexadecimal") as u8;
                bytes.push(digit(high) << 4 | digit(low));
                rest = after;
            }
            _ => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    String::from_utf8(bytes).expect("UTF-8")
}
