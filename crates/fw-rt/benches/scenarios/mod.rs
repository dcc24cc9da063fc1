//! The encrypted link: what each frame, and each new link, pays.

use std::hint::black_box;

use fw_rt::noise::{Initiator, Keypair, Session, respond};

use crate::scenario::{Scenario, Size};

/// All scenarios of this crate.
pub(crate) fn all() -> Vec<Scenario> {
    vec![
        seal("noise-seal-1k", 1024),
        seal("noise-seal-64k", 64 * 1024),
        open("noise-open-1k", 1024),
        open("noise-open-64k", 64 * 1024),
        Scenario::again("noise-handshake", Size::Items(1), || {
            let keys = keys();
            move || handshake(black_box(&keys))
        }),
    ]
}

/// Messages that one turn opens: each can be opened only once.
const MESSAGES: usize = 100;

fn seal(name: &'static str, bytes: usize) -> Scenario {
    Scenario::again(name, Size::Bytes(bytes as u64), move || {
        let (mut ours, _) = handshake(&keys());
        let frame = vec![7; bytes];
        move || ours.seal(black_box(&frame)).expect("a session seals 2^64 messages")
    })
}

fn open(name: &'static str, bytes: usize) -> Scenario {
    Scenario::once(name, Size::Bytes((MESSAGES * bytes) as u64), move || {
        let (mut ours, mut theirs) = handshake(&keys());
        let frame = vec![7; bytes];
        let sealed = (0..MESSAGES).map(|_| ours.seal(&frame).expect("a session seals messages"));
        let messages: Vec<Vec<u8>> = sealed.flatten().collect();
        move || {
            for message in &messages {
                let frame = theirs.open(black_box(message), 1 << 20);
                black_box(frame.expect("it comes in order"));
            }
            theirs
        }
    })
}

/// Agent and server.
fn keys() -> (Keypair, Keypair) {
    (Keypair::from_private([1; 32]), Keypair::from_private([2; 32]))
}

/// Both ends of a link.
fn handshake((agent, server): &(Keypair, Keypair)) -> (Session, Session) {
    let prologue = b"fleetwright agent link 1-1";
    let (initiator, first) =
        Initiator::start(agent, &server.public, prologue).expect("the keys are good");
    let (answer, theirs, _) = respond(server, prologue, &first).expect("it is for this key");
    (initiator.finish(&answer).expect("it is the server's"), theirs)
}
