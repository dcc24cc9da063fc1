//! The encrypted link: `Noise_IK_25519_ChaChaPoly_BLAKE2s` (Noise Protocol Framework, revision 34).
//!
//! Both ends know the other's static key beforehand, or, at joining, the agent the server's. IK's
//! first message can be replayed and is not fully forward secret, so it carries no payload. A frame
//! longer than one Noise message is split: the first byte of each message says whether more follow.

use fw_proto::PublicKey;
use snow::{Builder, HandshakeState, TransportState};

const PATTERN: &str = "Noise_IK_25519_ChaChaPoly_BLAKE2s";

/// The longest Noise message, by its specification (§3).
pub const MAX_MESSAGE: usize = 65_535;

/// Bytes of the authentication tag (RFC 8439 §2.8).
const TAG: usize = 16;

/// Payload bytes of one message: what remains beside the tag and the marker.
const PART: usize = MAX_MESSAGE - TAG - 1;

const LAST: u8 = 0;
const MORE: u8 = 1;

/// A private key and its public half.
#[derive(Clone)]
pub struct Keypair {
    /// Never leaves the machine.
    pub private: [u8; 32],
    /// What others know this end by.
    pub public: PublicKey,
}

impl std::fmt::Debug for Keypair {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keypair").field("public", &self.public).finish_non_exhaustive()
    }
}

/// What went wrong on the link.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A message that does not decrypt, is out of order, or is no handshake.
    #[error("message does not authenticate")]
    Crypto(#[from] snow::Error),
    /// A frame that grows beyond its bound.
    #[error("frame is longer than {0} bytes")]
    TooLong(usize),
    /// An empty message or an unknown marker.
    #[error("message without a marker")]
    Marker,
    /// A private key that is not 32 bytes.
    #[error("a private key has 32 bytes")]
    Key,
}

impl Keypair {
    /// A new pair from the system's randomness.
    ///
    /// # Errors
    /// The system gives none.
    pub fn generate() -> Result<Self, Error> {
        let pair = Builder::new(PATTERN.parse()?).generate_keypair()?;
        let private = pair.private.try_into().map_err(|_| Error::Key)?;
        let public = pair.public.try_into().map_err(|_| Error::Key)?;
        Ok(Self { private, public: PublicKey(public) })
    }

    /// The pair of a stored private key.
    #[must_use]
    pub fn from_private(private: [u8; 32]) -> Self {
        use snow::resolvers::{CryptoResolver as _, DefaultResolver};
        let mut dh = DefaultResolver
            .resolve_dh(&snow::params::DHChoice::Curve25519)
            .expect("the default resolver has X25519");
        dh.set(&private);
        let public = dh.pubkey().try_into().expect("an X25519 key has 32 bytes");
        Self { private, public: PublicKey(public) }
    }
}

/// The agent's half of a handshake.
#[derive(Debug)]
pub struct Initiator(HandshakeState);

impl Initiator {
    /// Begins a handshake with a server; gives the first message.
    ///
    /// # Errors
    /// The keys are unusable.
    pub fn start(
        own: &Keypair,
        server: &PublicKey,
        prologue: &[u8],
    ) -> Result<(Self, Vec<u8>), Error> {
        let builder =
            Builder::new(PATTERN.parse()?).prologue(prologue)?.local_private_key(&own.private)?;
        let mut state = builder.remote_public_key(&server.0)?.build_initiator()?;
        let message = write(&mut state)?;
        Ok((Self(state), message))
    }

    /// Takes the server's answer.
    ///
    /// # Errors
    /// It is not the answer of the holder of that key to this first message.
    pub fn finish(mut self, answer: &[u8]) -> Result<Session, Error> {
        self.0.read_message(answer, &mut [0; 256])?;
        Session::new(self.0)
    }
}

/// Answers a first message with one of the server's keys: gives the answer, the session and the agent's key.
///
/// # Errors
/// The message is not for this key or is no first message.
pub fn respond(
    own: &Keypair,
    prologue: &[u8],
    first: &[u8],
) -> Result<(Vec<u8>, Session, PublicKey), Error> {
    let builder =
        Builder::new(PATTERN.parse()?).prologue(prologue)?.local_private_key(&own.private)?;
    let mut state = builder.build_responder()?;
    state.read_message(first, &mut [0; 256])?;
    let remote = state.get_remote_static().and_then(|key| key.try_into().ok()).ok_or(Error::Key)?;
    let answer = write(&mut state)?;
    Ok((answer, Session::new(state)?, PublicKey(remote)))
}

fn write(state: &mut HandshakeState) -> Result<Vec<u8>, Error> {
    let mut message = vec![0; 256];
    let len = state.write_message(&[], &mut message)?;
    message.truncate(len);
    Ok(message)
}

/// An established session: turns frames into messages and back.
#[derive(Debug)]
pub struct Session {
    state: TransportState,
    partial: Vec<u8>,
}

impl Session {
    fn new(state: HandshakeState) -> Result<Self, Error> {
        Ok(Self { state: state.into_transport_mode()?, partial: Vec::new() })
    }

    /// Encrypts a frame into one or more messages, each to be sent as one binary WebSocket message.
    ///
    /// # Errors
    /// The session has sent 2⁶⁴ messages.
    pub fn seal(&mut self, frame: &[u8]) -> Result<Vec<Vec<u8>>, Error> {
        let parts = frame.len().div_ceil(PART).max(1);
        let mut messages = Vec::with_capacity(parts);
        let mut plain = Vec::with_capacity(frame.len().min(PART) + 1);
        for n in 0..parts {
            let part = frame.get(n * PART..frame.len().min((n + 1) * PART)).unwrap_or_default();
            plain.clear();
            plain.push(if n + 1 == parts { LAST } else { MORE });
            plain.extend_from_slice(part);
            let mut message = vec![0; plain.len() + TAG];
            let len = self.state.write_message(&plain, &mut message)?;
            message.truncate(len);
            messages.push(message);
        }
        Ok(messages)
    }

    /// Decrypts a message; gives the frame when this was its last.
    ///
    /// # Errors
    /// It does not authenticate, or the frame grows beyond `most` bytes.
    pub fn open(&mut self, message: &[u8], most: usize) -> Result<Option<Vec<u8>>, Error> {
        let mut plain = vec![0; message.len()];
        let len = self.state.read_message(message, &mut plain)?;
        plain.truncate(len);
        let (&marker, part) = plain.split_first().ok_or(Error::Marker)?;
        if self.partial.len() + part.len() > most {
            return Err(Error::TooLong(most));
        }
        match marker {
            LAST if self.partial.is_empty() => {
                plain.remove(0);
                Ok(Some(plain))
            }
            LAST => {
                self.partial.extend_from_slice(part);
                Ok(Some(std::mem::take(&mut self.partial)))
            }
            MORE => {
                self.partial.extend_from_slice(part);
                Ok(None)
            }
            _ => Err(Error::Marker),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sessions() -> (Session, Session) {
        let (agent, server) = (Keypair::generate().unwrap(), Keypair::generate().unwrap());
        let (initiator, first) = Initiator::start(&agent, &server.public, b"p").unwrap();
        let (answer, theirs, key) = respond(&server, b"p", &first).unwrap();
        assert_eq!(key, agent.public);
        (initiator.finish(&answer).unwrap(), theirs)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(16))]
        #[test]
        fn frames_of_any_length_arrive_whole(lengths in prop::collection::vec(0..200_000_usize, 1..4)) {
            let (mut ours, mut theirs) = sessions();
            for len in lengths {
                let frame: Vec<u8> = (0..len).map(|n| n as u8).collect();
                let mut got = None;
                for message in ours.seal(&frame).unwrap() {
                    prop_assert!(message.len() <= MAX_MESSAGE && got.is_none());
                    got = theirs.open(&message, 1 << 20).unwrap();
                }
                prop_assert_eq!(got.unwrap(), frame);
            }
        }
    }

    #[test]
    fn another_key_another_prologue_and_damage_are_refused() {
        let (agent, server, other) = (
            Keypair::generate().unwrap(),
            Keypair::generate().unwrap(),
            Keypair::generate().unwrap(),
        );
        let (_, first) = Initiator::start(&agent, &server.public, b"p").unwrap();
        assert!(respond(&other, b"p", &first).is_err());
        assert!(respond(&server, b"q", &first).is_err());
        let (mut ours, mut theirs) = sessions();
        let mut message = ours.seal(b"hello").unwrap().remove(0);
        message[3] ^= 1;
        assert!(theirs.open(&message, 1 << 20).is_err());
        let long = ours.seal(&[0; 100]).unwrap().remove(0);
        assert!(sessions().1.open(&long, 10).is_err());
    }

    #[test]
    fn a_stored_key_gives_the_same_pair() {
        let pair = Keypair::generate().unwrap();
        assert_eq!(Keypair::from_private(pair.private).public, pair.public);
    }
}
