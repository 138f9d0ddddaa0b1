//! Swarms that not everybody may join, over real sockets: who belongs gets in, who does not learns nothing.

mod common;

use common::{Made, config, single_file_in_pieces, until, wait};
use peas_core::config::{Access, CreateOptions, Credentials, EngineConfig, InstallOptions, SeedOptions, SeedPolicy};
use peas_core::manifest::{Certificate, Roles};
use peas_core::transport::memory::{MemoryTransport, Net};
use peas_core::transport::{Identity, Incoming, LinkOf, LinkReader, LinkWriter, TcpOptions, TcpTransport, Transport};
use peas_core::unit::PeerId;
use peas_core::wire::{Hello, Message};
use peas_core::{Engine, Error, Session, TrustedManifest, session};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

const SECRET: [u8; 32] = [42; 32];
const AUTHORITY: [u8; 32] = [43; 32];
const SECONDS: Duration = Duration::from_secs(60);

fn public(secret: [u8; 32]) -> PeerId {
    Identity::from_secret(secret).peer_id()
}

fn with_access(made: &Made, access: Access) -> Arc<TrustedManifest> {
    let options = CreateOptions { piece_bytes: Some(made.pea.geometry().piece_bytes()), access, ..Default::default() };
    let created = session::create(&made.source, &options, &|_, _| true).unwrap();
    assert_eq!((created.manifest.access(), created.manifest.id()), (access, made.pea.id()));
    common::trusted(&created.bytes)
}

fn engine_as(identity: u8) -> Engine {
    Engine::new(EngineConfig { identity: Some([identity; 32]), ..config() }).unwrap()
}

fn secret(secret: [u8; 32]) -> Credentials {
    Credentials { secret: Some(secret), ..Default::default() }
}

fn certificate(identity: u8, roles: Roles, not_after_unix_s: u64, by: [u8; 32]) -> Vec<u8> {
    let peer = public([identity; 32]);
    Certificate { peer, content: None, roles, not_before_unix_s: 0, not_after_unix_s }.issue(&by).unwrap()
}

fn member(identity: u8, roles: Roles) -> Credentials {
    Credentials { certificate: Some(certificate(identity, roles, u64::MAX, AUTHORITY)), ..Default::default() }
}

fn seed(engine: &Engine, pea: &Arc<TrustedManifest>, made: &Made, credentials: Credentials) -> Session {
    engine.seed(pea.clone(), &made.source, SeedOptions { origin: true, credentials, ..Default::default() }).unwrap()
}

fn install(engine: &Engine, pea: &Arc<TrustedManifest>, dest: &Path, from: &Engine, credentials: Credentials) -> Result<Session, Error> {
    let peers = vec![from.listen_addr().unwrap()];
    engine.install(pea.clone(), dest, InstallOptions { peers, credentials, seed: SeedPolicy::Forever, ..Default::default() })
}

/// A link to a server by somebody who does as he likes.
async fn dial(identity: [u8; 32], to: SocketAddr) -> LinkOf<TcpTransport> {
    let transport = TcpTransport::new(&Identity::from_secret(identity), &TcpOptions::default()).unwrap();
    transport.dial(to, None, SECONDS).await.unwrap()
}

/// Says a hello; whether it is answered with one. Anything else than a hello or the end of the link is a failure of the test.
async fn is_answered(link: &mut LinkOf<TcpTransport>, hello: Hello) -> bool {
    link.writer.message(&Message::Hello(hello)).await.unwrap();
    link.writer.flush().await.unwrap();
    match tokio::time::timeout(SECONDS, link.reader.next()).await.expect("an answer or the end") {
        Ok(Incoming::Message(Message::Hello(_))) => true,
        Ok(other) => panic!("{other:?}"),
        Err(_) => false,
    }
}

fn hello(content: [u8; 32], proof: Vec<u8>) -> Hello {
    Hello { version: 1, content, proof, listen_port: None, region: 0, origin: false, extensions: 0 }
}

fn block_on<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
}

#[test]
fn a_secret_lets_in_who_has_it_and_nobody_else() {
    let made = single_file_in_pieces(2 << 20, 256 << 10);
    let pea = with_access(&made, Access::Secret);
    let (server, dest) = (engine_as(1), tempfile::tempdir().unwrap());
    let _seeding = seed(&server, &pea, &made, secret(SECRET));

    let (stranger, guesser, friend) = (engine_as(2), engine_as(3), engine_as(4));
    let without = install(&stranger, &pea, &dest.path().join("a"), &server, Credentials::default());
    assert!(matches!(without, Err(Error::Misuse(_))), "{without:?}");
    let wrong = install(&guesser, &pea, &dest.path().join("b"), &server, secret([1; 32])).unwrap();
    let right = install(&friend, &pea, &dest.path().join("c"), &server, secret(SECRET)).unwrap();
    wait(&right);
    made.assert_same(&dest.path().join("c"));
    assert_eq!((wrong.progress().pieces_done, wrong.progress().peers, wrong.progress().members), (0, 0, 0));

    // The same content in an open swarm is another swarm, and knowing the content opens nothing.
    let open = install(&stranger, &made.pea, &dest.path().join("d"), &server, Credentials::default()).unwrap();
    block_on(async {
        let addr = server.listen_addr().unwrap();
        assert!(!is_answered(&mut dial([9; 32], addr).await, hello(pea.id().0, Vec::new())).await);
        assert!(!is_answered(&mut dial([9; 32], addr).await, hello(pea.id().0, SECRET.to_vec())).await);
    });
    assert_eq!((open.progress().pieces_done, open.progress().peers), (0, 0));
}

#[test]
fn an_open_swarm_answers_only_those_who_know_what_they_want() {
    let made = single_file_in_pieces(1 << 20, 256 << 10);
    let (server, _seeding) = common::origin(&made);
    block_on(async {
        let addr = server.listen_addr().unwrap();
        assert!(!is_answered(&mut dial([9; 32], addr).await, hello([0; 32], Vec::new())).await, "a port scanner");
        assert!(is_answered(&mut dial([9; 32], addr).await, hello(made.pea.id().0, Vec::new())).await, "the control");
    });
}

/// Mallory stands where a friend believes the server to be. What the friend shows her is passed on to the server, at once and later.
#[test]
fn one_between_can_neither_pass_a_proof_on_nor_play_it_again() {
    let made = single_file_in_pieces(1 << 20, 256 << 10);
    for (access, credentials) in
        [(Access::Secret, secret(SECRET)), (Access::Members { authority: public(AUTHORITY).0 }, member(4, Roles::ALL))]
    {
        let pea = with_access(&made, access);
        let (server, friend, dest) = (engine_as(1), engine_as(4), tempfile::tempdir().unwrap());
        let of_server = if access == Access::Secret { credentials.clone() } else { member(1, Roles::ALL) };
        let _seeding = seed(&server, &pea, &made, of_server);
        let addr = server.listen_addr().unwrap();
        let overheard = block_on(async {
            let listen = Some("127.0.0.1:0".parse().unwrap());
            let mallory = TcpTransport::new(&Identity::from_secret([66; 32]), &TcpOptions { listen, plain: false }).unwrap();
            let options =
                InstallOptions { peers: vec![mallory.listen_addr().unwrap()], credentials: credentials.clone(), ..Default::default() };
            let victim = friend.install(pea.clone(), &dest.path().join("copy"), options).unwrap();
            let raw = mallory.incoming().await.unwrap();
            let mut link = mallory.accept(raw, SECONDS).await.unwrap();
            let Incoming::Message(Message::Hello(overheard)) = link.reader.next().await.unwrap() else { panic!("no hello") };
            assert!(!is_answered(&mut dial([66; 32], addr).await, overheard.clone()).await, "{access:?}: passed on");
            assert!(!is_answered(&mut dial([67; 32], addr).await, overheard.clone()).await, "{access:?}: by an accomplice");
            // Sent back to the one who made it.
            link.writer.message(&Message::Hello(overheard.clone())).await.unwrap();
            link.writer.flush().await.unwrap();
            assert!(matches!(tokio::time::timeout(SECONDS, link.reader.next()).await, Ok(Err(_))), "{access:?}: sent back");
            assert_eq!(victim.progress().peers, 0);
            victim.cancel();
            assert!(victim.wait_ended_timeout(common::PATIENCE));
            overheard
        });
        assert!(overheard.content != pea.id().0, "{access:?}: the content was named to a stranger");
        // The control: the friend with the same credentials, without anybody between.
        wait(&install(&friend, &pea, &dest.path().join("copy"), &server, credentials).unwrap());
    }
}

#[test]
fn members_are_let_in_for_what_their_certificates_say() {
    let made = single_file_in_pieces(1 << 20, 256 << 10);
    let pea = with_access(&made, Access::Members { authority: public(AUTHORITY).0 });
    let (server, dest) = (engine_as(1), tempfile::tempdir().unwrap());
    let _seeding = seed(&server, &pea, &made, member(1, Roles::SEED));

    let client = engine_as(2);
    let refused = |credentials| match install(&client, &pea, &dest.path().join("x"), &server, credentials) {
        Err(Error::Misuse(why)) => why,
        other => panic!("{other:?}"),
    };
    let given = |certificate: Vec<u8>| Credentials { certificate: Some(certificate), ..Default::default() };
    for (credentials, why) in [
        (Credentials::default(), "no certificate"),
        (given(b"nonsense".to_vec()), "not a certificate"),
        (given(certificate(2, Roles::ALL, u64::MAX, [1; 32])), "not signed by the authority"),
        (given(certificate(3, Roles::ALL, u64::MAX, AUTHORITY)), "for another key"),
        (given(certificate(2, Roles::ALL, 1000, AUTHORITY)), "expired"),
        (given(certificate(2, Roles::SEED, u64::MAX, AUTHORITY)), "does not allow to receive"),
    ] {
        let said = refused(credentials);
        assert!(said.contains(why), "{said}");
    }
    wait(&install(&client, &pea, &dest.path().join("copy"), &server, member(2, Roles::FETCH)).unwrap());
    made.assert_same(&dest.path().join("copy"));
}

#[test]
fn who_may_only_receive_is_not_received_from() {
    let made = single_file_in_pieces(1 << 20, 256 << 10);
    let pea = with_access(&made, Access::Members { authority: public(AUTHORITY).0 });
    let dest = tempfile::tempdir().unwrap();
    for (roles, at) in [(Roles::FETCH, 0), (Roles::FETCH.and(Roles::RELAY), 1)] {
        let (server, first, second) = (engine_as(1), engine_as(2), engine_as(3));
        let seeding = seed(&server, &pea, &made, member(1, Roles::ALL));
        let place = |name: &str| dest.path().join(format!("{name}{at}"));
        let of_first = install(&first, &pea, &place("first"), &server, member(2, roles)).unwrap();
        wait(&of_first);
        drop(seeding);
        assert!(server.close(SECONDS));
        let of_second = install(&second, &pea, &place("second"), &first, member(3, Roles::ALL)).unwrap();
        if roles.may_send() {
            wait(&of_second);
            continue;
        }
        until(|| of_second.progress().peers == 1);
        // Grants are declined for as long as one cares to watch: each is answered within a fraction of a second.
        std::thread::sleep(Duration::from_secs(2));
        assert_eq!((of_second.progress().pieces_done, of_first.progress().bytes_sent), (0, 0));
    }
}

/// A certificate that ends while its link stands takes the link with it, and what its peer had not got by then it does not get. The
/// control is the client beside it, whose certificate goes on.
#[test]
fn a_link_ends_when_its_certificate_does() {
    let made = single_file_in_pieces(8 << 20, 256 << 10);
    let pea = with_access(&made, Access::Members { authority: public(AUTHORITY).0 });
    let (server, dest) = (engine_as(1), tempfile::tempdir().unwrap());
    let seeding = seed(&server, &pea, &made, member(1, Roles::ALL));
    // Enough for a few pieces until the end of the one, and for the rest afterwards.
    server.set_limits(500_000, 0);
    // Certificates count for five minutes beyond their end, for the sake of clocks that differ.
    let ends_unix_s = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs() - 300 + 5;
    let credentials = Credentials { certificate: Some(certificate(2, Roles::FETCH, ends_unix_s, AUTHORITY)), ..Default::default() };
    let (first, second) = (engine_as(2), engine_as(3));
    let of_first = install(&first, &pea, &dest.path().join("first"), &server, credentials).unwrap();
    let of_second = install(&second, &pea, &dest.path().join("second"), &server, member(3, Roles::FETCH)).unwrap();
    until(|| seeding.progress().peers == 2 && of_first.progress().pieces_done > 0);
    until(|| seeding.progress().peers == 1);
    server.set_limits(0, 0);
    wait(&of_second);
    made.assert_same(&dest.path().join("second"));
    let done = of_first.progress();
    assert!(done.pieces_done < done.pieces_total, "it got everything: {}", of_first.stats_json());
    // Each end sees for itself that the time is over; the two clients may have had a link of their own.
    until(|| seeding.progress().peers == 1 && of_first.progress().peers == 0);
}

/// Both ends of a link of this transport, and their bindings.
async fn bindings<T: Transport>(host: &T, guest: &T) -> [[u8; 32]; 2] {
    let dialling = guest.dial(host.listen_addr().unwrap(), None, SECONDS);
    let accepting = async { host.accept(host.incoming().await.unwrap(), SECONDS).await };
    let (dialled, accepted) = tokio::join!(dialling, accepting);
    [dialled.unwrap().binding, accepted.unwrap().binding]
}

#[test]
fn a_link_is_bound_alike_at_both_ends_and_unlike_any_other() {
    block_on(async {
        let identities = [1, 2, 3].map(|of| Identity::from_secret([of; 32]));
        let listen: SocketAddr = "127.0.0.1:0".parse().unwrap();
        for plain in [false, true] {
            let tcp = |at: usize, listen| TcpTransport::new(&identities[at], &TcpOptions { listen, plain }).unwrap();
            let (host, guest) = (tcp(0, Some(listen)), tcp(1, None));
            let [first, again] = [bindings(&host, &guest).await, bindings(&host, &guest).await];
            assert_eq!(first[0], first[1], "plain {plain}");
            assert!(first[0] != again[0], "the same two peers on another connection");
        }
        let net = Net::new();
        let memory = |at: usize, listen| MemoryTransport::new(&net, &identities[at], listen).unwrap();
        let (host, guest, other) = (memory(0, Some(listen)), memory(1, None), memory(2, None));
        let [first, another] = [bindings(&host, &guest).await, bindings(&host, &other).await];
        assert_eq!(first[0], first[1]);
        assert!(first[0] != another[0], "another peer");
    });
}
