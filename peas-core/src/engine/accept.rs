//! The door: raw connections in, links with a known content out.
//!
//! Each newcomer has a task of its own and seconds to say who it is and what it wants; a stranger who is slow, silent or wrong is
//! dropped without an answer. How many may be at their handshake or their hello is the transport's bound, which also paces the loop
//! when the system runs out of descriptors; how many may have links is the engine's.

use super::access::Meeting;
use super::clock::unix_s;
use super::{GREETING_MAX, Net, NetLink, Newcomer, PROTOCOL_VERSION, Shared};
use crate::transport::{Incoming, LinkError, LinkReader, LinkWriter, Transport};
use crate::wire::{Hello, Message};
use std::sync::Arc;
use std::time::Duration;

/// Pause after an error of our machine (no descriptors, no memory), so that the loop does not spin.
const PAUSE: Duration = Duration::from_millis(100);

/// Accepts until the engine's token is cancelled.
pub(super) async fn accept_all(shared: Arc<Shared>) {
    let token = shared.token.clone();
    let accept = async {
        loop {
            match shared.transport.incoming().await {
                Ok(raw) => {
                    let (shared, token, place) = (shared.clone(), shared.token.clone(), raw.place());
                    shared.tracker.clone().spawn_on(
                        async move {
                            tokio::select! {
                                () = token.cancelled() => {}
                                () = place.wanted() => {}
                                () = welcome(&shared, raw) => {}
                            }
                        },
                        &tokio::runtime::Handle::current(),
                    );
                }
                Err(_) => tokio::time::sleep(PAUSE).await,
            }
        }
    };
    tokio::select! {
        () = token.cancelled() => {}
        () = accept => {}
    }
}

async fn welcome(shared: &Shared, raw: <Net as Transport>::Raw) {
    let Ok(mut link) = shared.transport.accept(raw, GREETING_MAX).await else { return };
    if link.peer == shared.me {
        return;
    }
    // Who comes to an engine that has all the links it can have is dropped: it may come again.
    let Some(place) = shared.place_for_link() else { return };
    let Ok(hello) = hear_hello(&mut link).await else { return };
    let at = Meeting { me: shared.me, peer: link.peer, binding: link.binding };
    let Some(room) = shared.room(&hello, &at).await else { return };
    #[cfg(feature = "planted")]
    leak_if_planted();
    let Some(admitted) = room.lock.admit(hello, &at, unix_s()) else { return };
    if say_hello(&mut link, room.lock.hello(&room.hello, &at)).await.is_ok() {
        // Many who come in one moment wait until the driver has seen to those before them.
        let newcomer = Newcomer { link, admitted, dialed: None, place };
        let _ = room.newcomers.send_timeout(newcomer, GREETING_MAX).await;
    }
}

/// The bug that tests of memory and descriptors have to find.
#[cfg(feature = "planted")]
fn leak_if_planted() {
    use crate::storage::planted::Planted;
    if Planted::chosen() == Planted::LeakLinks {
        std::mem::forget((std::fs::File::open("/dev/null"), vec![1u8; 1 << 20]));
    }
}

/// The first message, which must be a hello that we understand.
pub(super) async fn hear_hello(link: &mut NetLink) -> Result<Hello, LinkError> {
    let late = |_| LinkError::Handshake("no hello in time".into());
    match tokio::time::timeout(GREETING_MAX, link.reader.next()).await.map_err(late)?? {
        Incoming::Message(Message::Hello(hello)) if hello.version >= PROTOCOL_VERSION => Ok(hello),
        _ => Err(LinkError::Protocol("the first message is not a hello")),
    }
}

pub(super) async fn say_hello(link: &mut NetLink, hello: Hello) -> Result<(), LinkError> {
    let late = |_| LinkError::Handshake("the peer does not take our hello".into());
    let say = async {
        link.writer.message(&Message::Hello(hello)).await?;
        link.writer.flush().await
    };
    tokio::time::timeout(GREETING_MAX, say).await.map_err(late)?
}
