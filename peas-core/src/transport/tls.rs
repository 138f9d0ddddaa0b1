//! The handshake: TLS 1.3 between raw Ed25519 public keys (RFC 7250), both sides proven.
//!
//! rustls decides everything about it; this file gives it our keys and carries its records. Any Ed25519 key is accepted here, for
//! a peer's key *is* its name: who is welcome is decided by the expected peer of a dial, and later by the swarm. What is never
//! accepted is a key without the signature over this very handshake.
//!
//! Off by construction: TLS 1.2, server names, certificates, tickets, resumption, early data.
//!
//! Clear links: a host that allows them offers `peas/1-plain` before `peas/1`. Where both sides do, the handshake proves both keys
//! as always, and then both go on in clear on the same connection. The agreement is part of the signed handshake, so nobody on the path can
//! bring it about. On a clear link an attacker on the path can alter frames, end them early, or answer in the peer's place after
//! the handshake; the content is verified all the same.

use super::buffers::BUFFER_BYTES;
use super::keys::{AnyKey, certified, peer_of_spki};
use super::primitives::provider;
use super::record::{Kernel, Key, SEALED_MAX};
use super::{Identity, LinkError};
use crate::unit::PeerId;
use rustls::client::{AlwaysResolvesClientRawPublicKeys, ClientConnectionData, Resumption, UnbufferedClientConnection};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::ServerName;
use rustls::server::{AlwaysResolvesServerRawPublicKeys, NoServerSessionStorage, ServerConnectionData, UnbufferedServerConnection};
use rustls::sign::CertifiedKey;
use rustls::unbuffered::{ConnectionState, EncodeError, UnbufferedConnectionCommon, UnbufferedStatus};
use rustls::version::TLS13;
use rustls::{ClientConfig, ConnectionTrafficSecrets, Error, ServerConfig};
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const ALPN_SEALED: &[u8] = b"peas/1";
const ALPN_CLEAR: &[u8] = b"peas/1-plain";
/// 32 KiB: all that a peer may send before its key is proven. A whole handshake of ours has less than 1 KiB each way.
const HANDSHAKE_BYTES_MAX: usize = 32 << 10;
/// 4 KiB are read at once, so that what comes behind a handshake is never more than this and the limit together.
const READ_BYTES: usize = 4 << 10;
/// It has to fit the buffer of the half that goes on with it.
const _: () = assert!(HANDSHAKE_BYTES_MAX + READ_BYTES <= BUFFER_BYTES);

/// What comes out of a handshake.
pub(super) struct Proven {
    pub(super) peer: PeerId,
    pub(super) binding: [u8; 32],
    pub(super) stream: TcpStream,
    /// Bytes that came behind the handshake.
    pub(super) early: Vec<u8>,
    pub(super) cover: Cover,
}

/// How frames travel from here on.
pub(super) enum Cover {
    Clear,
    Sealed(Box<Secrets>),
}

/// What sealing and opening start from.
pub(super) struct Secrets {
    pub(super) sending: Key,
    pub(super) receiving: Key,
    pub(super) kernel: Kernel,
}

/// Both roles' configurations of one identity.
#[derive(Debug)]
pub(super) struct Tls {
    client: Arc<ClientConfig>,
    server: Arc<ServerConfig>,
}

impl Tls {
    pub(super) fn new(identity: &Identity, plain: bool) -> Self {
        Self::with_key(certified(identity), plain)
    }

    fn with_key(key: CertifiedKey, plain: bool) -> Self {
        let (crypto, any_key, key) = (Arc::new(provider()), Arc::new(AnyKey), Arc::new(key));
        let alpn: Vec<Vec<u8>> = match plain {
            true => vec![ALPN_CLEAR.to_vec(), ALPN_SEALED.to_vec()],
            false => vec![ALPN_SEALED.to_vec()],
        };
        Self { client: Arc::new(client(&crypto, &any_key, &key, &alpn)), server: Arc::new(server(&crypto, &any_key, &key, &alpn)) }
    }

    /// Proves both keys on a connection that we made. Dropping this half-way leaves nothing but a closed connection.
    pub(super) async fn connect(&self, stream: TcpStream, addr: SocketAddr, expect: Option<PeerId>) -> Result<Proven, LinkError> {
        let name = ServerName::IpAddress(addr.ip().into()); // never sent: server names are off
        let mut tls = UnbufferedClientConnection::new(self.client.clone(), name).map_err(refused)?;
        let carried = carry(&mut *tls, stream).await?;
        let (peer, clear) = agreed(&tls)?;
        if expect.is_some_and(|expected| expected != peer) {
            return Err(LinkError::Stranger(peer));
        }
        let (secrets, kernel) = tls.dangerous_into_kernel_connection().map_err(refused)?;
        let binding = binding([&secrets.tx.1, &secrets.rx.1])?;
        if clear {
            return Ok(Proven { peer, binding, stream: carried.stream, early: carried.early, cover: Cover::Clear });
        }
        let cover = Cover::Sealed(Box::new(Secrets {
            sending: Key::new(secrets.tx)?,
            receiving: Key::new(secrets.rx)?,
            kernel: Kernel::Client(kernel),
        }));
        Ok(Proven { peer, binding, stream: carried.stream, early: carried.early, cover })
    }

    /// Proves both keys on a connection that was made to us. Dropping this half-way leaves nothing but a closed connection.
    pub(super) async fn accept(&self, stream: TcpStream) -> Result<Proven, LinkError> {
        let mut tls = UnbufferedServerConnection::new(self.server.clone()).map_err(refused)?;
        let carried = carry(&mut *tls, stream).await?;
        let (peer, clear) = agreed(&tls)?;
        let (secrets, kernel) = tls.dangerous_into_kernel_connection().map_err(refused)?;
        let binding = binding([&secrets.rx.1, &secrets.tx.1])?;
        if clear {
            return Ok(Proven { peer, binding, stream: carried.stream, early: carried.early, cover: Cover::Clear });
        }
        let cover = Cover::Sealed(Box::new(Secrets {
            sending: Key::new(secrets.tx)?,
            receiving: Key::new(secrets.rx)?,
            kernel: Kernel::Server(kernel),
        }));
        Ok(Proven { peer, binding, stream: carried.stream, early: carried.early, cover })
    }
}

fn client(crypto: &Arc<CryptoProvider>, any_key: &Arc<AnyKey>, key: &Arc<CertifiedKey>, alpn: &[Vec<u8>]) -> ClientConfig {
    let mut config = ClientConfig::builder_with_provider(crypto.clone())
        .with_protocol_versions(&[&TLS13])
        .expect("the provider has suites of TLS 1.3")
        .dangerous()
        .with_custom_certificate_verifier(any_key.clone())
        .with_client_cert_resolver(Arc::new(AlwaysResolvesClientRawPublicKeys::new(key.clone())));
    config.alpn_protocols = alpn.to_vec();
    config.enable_sni = false;
    config.enable_early_data = false;
    config.enable_secret_extraction = true;
    config.resumption = Resumption::disabled();
    config
}

fn server(crypto: &Arc<CryptoProvider>, any_key: &Arc<AnyKey>, key: &Arc<CertifiedKey>, alpn: &[Vec<u8>]) -> ServerConfig {
    let mut config = ServerConfig::builder_with_provider(crypto.clone())
        .with_protocol_versions(&[&TLS13])
        .expect("the provider has suites of TLS 1.3")
        .with_client_cert_verifier(any_key.clone())
        .with_cert_resolver(Arc::new(AlwaysResolvesServerRawPublicKeys::new(key.clone())));
    config.alpn_protocols = alpn.to_vec();
    config.enable_secret_extraction = true;
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config
}

/// Who is at the other end, and whether the link goes on in clear.
fn agreed<Data>(tls: &UnbufferedConnectionCommon<Data>) -> Result<(PeerId, bool), LinkError> {
    let peer = match tls.peer_certificates() {
        Some([key]) => peer_of_spki(key).ok_or_else(|| LinkError::Handshake("the peer's key is not Ed25519".into()))?,
        _ => return Err(LinkError::Handshake("the peer showed no key".into())),
    };
    match tls.alpn_protocol() {
        Some(ALPN_SEALED) => Ok((peer, false)),
        Some(ALPN_CLEAR) => Ok((peer, true)),
        _ => Err(LinkError::Handshake("the peer does not speak peas/1".into())),
    }
}

/// A hash of the first keys of both directions, the dialler's first: they come from the whole handshake, so whoever sits between two
/// peers has others with each of them. In place of an exporter (RFC 8446, 7.5), which rustls does not offer for connections like ours.
fn binding(secrets: [&ConnectionTrafficSecrets; 2]) -> Result<[u8; 32], LinkError> {
    let mut hasher = blake3::Hasher::new_derive_key("peas 2026 channel binding");
    for secret in secrets {
        let (key, iv) = match secret {
            ConnectionTrafficSecrets::Aes128Gcm { key, iv }
            | ConnectionTrafficSecrets::Aes256Gcm { key, iv }
            | ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv } => (key, iv),
            _ => return Err(LinkError::Handshake("a cipher that peas does not know was agreed on".into())),
        };
        hasher.update(key.as_ref()).update(iv.as_ref());
    }
    Ok(*hasher.finalize().as_bytes())
}

fn refused(error: Error) -> LinkError {
    LinkError::Handshake(error.to_string())
}

struct Carried {
    stream: TcpStream,
    early: Vec<u8>,
}

/// What rustls wants next.
enum Step {
    Again,
    Transmit,
    More,
    MayWrite,
}

/// The two roles have the same steps with different types.
trait Handshaking {
    /// One step over the records in `incoming`: how many bytes of it are done with, and what next. May append to `outgoing`.
    fn step(&mut self, incoming: &mut [u8], outgoing: &mut Vec<u8>) -> (usize, Result<Step, Error>);
    /// Whether both sides are proven.
    fn is_over(&self) -> bool;
}

macro_rules! handshaking {
    ($data:ty) => {
        impl Handshaking for UnbufferedConnectionCommon<$data> {
            fn step(&mut self, incoming: &mut [u8], outgoing: &mut Vec<u8>) -> (usize, Result<Step, Error>) {
                let UnbufferedStatus { discard, state } = self.process_tls_records(incoming);
                let step = state.and_then(|state| match state {
                    ConnectionState::EncodeTlsData(mut records) => append(outgoing, |room| records.encode(room)).map(|()| Step::Again),
                    ConnectionState::TransmitTlsData(sent) => {
                        sent.done();
                        Ok(Step::Transmit)
                    }
                    ConnectionState::BlockedHandshake => Ok(Step::More),
                    ConnectionState::WriteTraffic(_) => Ok(Step::MayWrite),
                    _ => Err(Error::General("the peer ended the handshake".into())),
                });
                (discard, step)
            }

            fn is_over(&self) -> bool {
                !self.is_handshaking()
            }
        }
    };
}
handshaking!(ClientConnectionData);
handshaking!(ServerConnectionData);

fn append(outgoing: &mut Vec<u8>, mut encode: impl FnMut(&mut [u8]) -> Result<usize, EncodeError>) -> Result<(), Error> {
    let start = outgoing.len();
    loop {
        match encode(&mut outgoing[start..]) {
            Ok(count) => {
                outgoing.truncate(start + count);
                return Ok(());
            }
            Err(EncodeError::InsufficientSize(size)) => outgoing.resize(start + size.required_size, 0),
            Err(other) => return Err(Error::General(other.to_string())),
        }
    }
}

/// Carries records both ways until rustls says that the handshake is over. rustls is shown one record after the other and never
/// one behind the last of the handshake, so that `early` is exactly what does not belong to it.
async fn carry<T: Handshaking>(tls: &mut T, mut stream: TcpStream) -> Result<Carried, LinkError> {
    let (mut incoming, mut outgoing) = (Vec::new(), Vec::new());
    let (mut shown, mut received) = (0, 0);
    loop {
        let (discard, step) = tls.step(&mut incoming[..shown], &mut outgoing);
        incoming.drain(..discard);
        shown -= discard;
        match step {
            Ok(Step::Again) => continue,
            Ok(Step::Transmit) => {
                stream.write_all(&outgoing).await?;
                outgoing.clear();
                continue;
            }
            // Allowed to write does not mean that the peer is proven.
            Ok(Step::MayWrite) if tls.is_over() => return Ok(Carried { stream, early: incoming.split_off(shown) }),
            Err(error) => {
                // rustls has an alert for the peer: one try, as the link is lost anyway.
                if let (_, Ok(Step::Again)) = tls.step(&mut [], &mut outgoing) {
                    let _ = stream.try_write(&outgoing);
                }
                return Err(refused(error));
            }
            Ok(Step::More | Step::MayWrite) => {}
        }
        let record_bytes = loop {
            if let Some(record_bytes) = whole_record(&incoming[shown..])? {
                break record_bytes;
            }
            if received >= HANDSHAKE_BYTES_MAX {
                return Err(LinkError::Handshake("the peer's handshake is too long".into()));
            }
            let before = incoming.len();
            incoming.reserve(READ_BYTES);
            if (&mut stream).take(READ_BYTES as u64).read_buf(&mut incoming).await? == 0 {
                return Err(LinkError::Handshake("the peer hung up".into()));
            }
            received += incoming.len() - before;
        };
        shown += record_bytes;
    }
}

/// Length of the first record with its head, if it is all here.
fn whole_record(bytes: &[u8]) -> Result<Option<usize>, LinkError> {
    let [_, _, _, high, low, ..] = *bytes else { return Ok(None) };
    let body_bytes = usize::from(u16::from_be_bytes([high, low]));
    if body_bytes > SEALED_MAX {
        return Err(LinkError::Handshake("the peer does not speak TLS".into()));
    }
    Ok((bytes.len() >= 5 + body_bytes).then_some(5 + body_bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;
    use tokio::net::TcpListener;

    /// The name of one and the secret of another.
    fn impostor(of: &Identity) -> Tls {
        let stolen = certified(of).cert;
        let key = CertifiedKey::new(stolen, certified(&Identity::generate()).key);
        Tls::with_key(key, false)
    }

    async fn meet(host: &Tls, guest: &Tls) -> [Result<PeerId, LinkError>; 2] {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let addr = listener.local_addr().unwrap();
        let dialling = async { guest.connect(TcpStream::connect(addr).await.unwrap(), addr, None).await };
        let accepting = async { host.accept(listener.accept().await.unwrap().0).await };
        let (guest, host) = tokio::join!(dialling, accepting);
        [host.map(|proven| proven.peer), guest.map(|proven| proven.peer)]
    }

    #[tokio::test]
    async fn a_name_without_its_secret_is_refused() {
        let victim = Identity::generate();
        let honest = Tls::new(&Identity::generate(), false);
        let [_, guest] = meet(&impostor(&victim), &honest).await;
        assert!(matches!(guest, Err(LinkError::Handshake(_))), "a host that cannot sign: {guest:?}");
        let [host, _] = meet(&honest, &impostor(&victim)).await;
        assert!(matches!(host, Err(LinkError::Handshake(_))), "a guest that cannot sign: {host:?}");
        // The control: the same with the secret.
        let [host, _] = meet(&honest, &Tls::new(&victim, false)).await;
        assert_eq!(host.unwrap(), victim.peer_id());
    }
}
