//! Who may come in: admission by address, enrolment, and what becomes of clones.

use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use fw_core::link::Versions;
use fw_core::link::server::{Rival, resume, rival};
use fw_proto::frame::{Denied, DeniedReason, FromServer, Hello, JoinRequest, Welcome};
use fw_proto::{HostId, HostName, PublicKey, Span, TaskKey};
use fw_store::{Enrolled, Enrolment, HostRow, NewAudit, Standing};
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};
use sha2::{Digest as _, Sha256};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tracing::{info, warn};
use uuid::Uuid;

use super::links::{LinkHandle, denial};
use crate::auth::{network, stranger};
use crate::dialects::saltpeter::Dispatch;
use crate::dialects::saltpeter::salt::{self, Room};
use crate::state::App;

/// Tries to enrol from one address: a person who mistypes is not one of thirty a minute.
const JOINS_PER_MINUTE: NonZeroU32 = NonZeroU32::new(30).expect("not zero");

/// A join string that is no good is answered after so long at the latest.
const LONGEST_HOLD: Duration = Duration::from_secs(10);

/// Hosts that are let in at once. Each asks the store a few questions; when a whole fleet comes
/// back, the others wait their turn instead of making all of them slow.
const PLACES: usize = 128;

/// A host that waited so long for its turn is told to come back.
const LONGEST_WAIT: Duration = Duration::from_secs(15);

/// An older link that another machine's greeting puts in doubt has so long to answer a ping.
const PROOF_OF_LIFE: Duration = Duration::from_secs(5);

type ByAddress = DefaultKeyedRateLimiter<IpAddr>;

/// Limits by address. Clones share them.
#[derive(Debug, Clone)]
pub(crate) struct Admission {
    greetings: Arc<ByAddress>,
    failed_joins: Arc<ByAddress>,
    places: Arc<Semaphore>,
    shaking: Arc<Semaphore>,
}

impl Admission {
    /// Takes so many handshakes a second from one address, after a burst of as many.
    #[must_use]
    pub(crate) fn new(handshake_rate: u32) -> Self {
        let greetings =
            Quota::per_second(NonZeroU32::new(handshake_rate).unwrap_or(NonZeroU32::MIN));
        let limiter = |quota| Arc::new(RateLimiter::keyed(quota));
        Self {
            greetings: limiter(greetings),
            failed_joins: limiter(Quota::per_minute(JOINS_PER_MINUTE)),
            places: Arc::new(Semaphore::new(PLACES)),
            shaking: Arc::new(Semaphore::new(processors())),
        }
    }

    /// Whether this address may begin another handshake now.
    #[must_use]
    pub(crate) fn may_greet(&self, from: IpAddr) -> bool {
        self.greetings.check_key(&network(from)).is_ok()
    }

    /// Waits until this address may be told once more that its join string is no good.
    async fn hold_back(&self, from: IpAddr) {
        let network = network(from);
        let ready = self.failed_joins.until_key_ready(&network);
        // Whoever still waits after that has been slowed down enough.
        drop(tokio::time::timeout(LONGEST_HOLD, ready).await);
    }

    /// Does a handshake's arithmetic, a third of a millisecond, off the threads that serve everyone:
    /// when a whole fleet comes back, those who ask the API would wait behind all of it. `None` when the
    /// server is stopping.
    pub(crate) async fn shake_hands<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Option<T> {
        let turn = Arc::clone(&self.shaking).acquire_owned().await.ok()?;
        let shaking = tokio::task::spawn_blocking(move || {
            let done = work();
            drop(turn);
            done
        });
        shaking.await.ok()
    }

    /// A place among those who are being let in; `None` when it takes too long.
    pub(crate) async fn place(&self) -> Option<OwnedSemaphorePermit> {
        let place = Arc::clone(&self.places).acquire_owned();
        tokio::time::timeout(LONGEST_WAIT, place).await.ok()?.ok()
    }

    /// Forgets addresses that have not come for a while.
    pub(crate) fn tidy(&self) {
        self.greetings.retain_recent();
        self.failed_joins.retain_recent();
    }
}

fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// Enrols a host by its join string.
///
/// # Errors
/// It is refused, and why.
pub(super) async fn enrol(
    app: &App,
    key: PublicKey,
    join: &JoinRequest,
    from: IpAddr,
) -> Result<Arc<HostRow>, Denied> {
    let name: HostName = join.name.parse().map_err(|error| {
        let message = format!("{error}; join with --name");
        Denied { reason: DeniedReason::NameInvalid, message, retry_after: None }
    })?;
    let enrolment = Enrolment {
        secret_sha256: Sha256::digest(join.secret.as_bytes()).into(),
        name: name.clone(),
        key,
        id: HostId(Uuid::now_v7()),
        at: app.clock.now(),
    };
    let note = NewAudit {
        hosts: vec![name.to_string()],
        ..stranger(app, from, "host.join", name.as_str())
    };
    match app.store.noting(note).enrol(enrolment).await {
        Ok(Enrolled::Done(row)) => {
            info!(host.id = %row.id, host.name = %row.name, "host enrolled");
            Ok(Arc::new(row))
        }
        Ok(Enrolled::NameTaken) if minion_makes_room(app, &name).await => {
            let message = "the host of this name is reached through Salt until nothing runs there; then the agent takes its place";
            Err(Denied {
                message: message.to_owned(),
                retry_after: Some(Span::from_secs(2)),
                ..denied(DeniedReason::Busy)
            })
        }
        Ok(Enrolled::NameTaken) => {
            let message = format!(
                "another host is called {name}: join with --name, or rename or remove the other one on the server"
            );
            Err(Denied { reason: DeniedReason::NameTaken, message, retry_after: None })
        }
        Ok(Enrolled::KeyRefused(Standing::Duplicate)) => Err(denied(DeniedReason::Duplicate)),
        Ok(Enrolled::KeyRefused(Standing::Revoked | Standing::Active)) => {
            Err(denied(DeniedReason::Revoked))
        }
        Ok(Enrolled::BadInvitation) => {
            warn!(peer.address = %from, "a join string was refused: wrong, used up or expired");
            app.admission.hold_back(from).await;
            Err(denied(DeniedReason::Invitation))
        }
        Err(error) => Err(unavailable(&error)),
    }
}

/// Whether the host of this name is a minion of Salt, which gives its name to an agent.
async fn minion_makes_room(app: &App, name: &HostName) -> bool {
    let options = app.config.saltpeter.as_ref();
    let dispatched = options.is_some_and(|options| options.dispatch == Dispatch::Salt);
    match salt::make_room(app, name, dispatched).await {
        Room::Taken => false,
        Room::Soon | Room::Made => true,
    }
}

/// Looks up who holds a key.
///
/// # Errors
/// Nobody who may come in.
pub(super) fn known(app: &App, key: PublicKey) -> Result<Arc<HostRow>, Denied> {
    let row = app.store.host_by_key(key);
    let row = row.ok_or_else(|| denied(DeniedReason::UnknownKey))?;
    match row.standing {
        Standing::Active => Ok(row),
        Standing::Revoked => Err(denied(DeniedReason::Revoked)),
        Standing::Duplicate => Err(denied(DeniedReason::Duplicate)),
    }
}

/// Refuses a key that two machines use at once. A host that was restarted is no clone: its old
/// link does not answer any more.
///
/// # Errors
/// Both are refused from now on.
pub(super) async fn no_clone(
    app: &App,
    host: HostId,
    link: u64,
    hello: &Hello,
) -> Result<(), Denied> {
    let stopping = |_| denied(DeniedReason::Busy);
    let Some(older) = app.hub.link_of(host).await.map_err(stopping)? else { return Ok(()) };
    // A greeting that was held back by the network, of a connection given up since.
    if older.id > link {
        return Err(denied(DeniedReason::Superseded));
    }
    match rival(&older.hello, hello) {
        Rival::Supersedes => return Ok(()),
        Rival::CloneIfAlive => {}
    }
    // Only the answer to this very ping proves that the older link lives: what else it brings may
    // have lain in a buffer.
    let number = rand::random::<u64>() | 1 << 63;
    let asked = older.outbox.try_send(Box::new(FromServer::Ping(number))).is_ok();
    let alive = asked && answers(&older, number).await;
    if !alive {
        return Ok(());
    }
    warn!(host.id = %host, "two machines use one host's key: both are refused");
    app.store.set_standing(host, Standing::Duplicate).await.map_err(|error| unavailable(&error))?;
    app.hub.forget_host(host, DeniedReason::Duplicate).await.map_err(stopping)?;
    Err(denied(DeniedReason::Duplicate))
}

async fn answers(link: &LinkHandle, number: u64) -> bool {
    let answered = || link.ponged.load(Ordering::Relaxed) == number;
    let heard = async {
        let mut look = tokio::time::interval(Duration::from_millis(50));
        while !answered() && !link.outbox.is_closed() {
            look.tick().await;
        }
    };
    tokio::time::timeout(PROOF_OF_LIFE, heard).await.is_ok() && answered()
}

/// What a host that is let in is told.
///
/// # Errors
/// The store cannot be read.
pub(super) async fn welcome(app: &App, row: &HostRow, hello: &Hello) -> Result<Welcome, Denied> {
    let keys: Vec<TaskKey> = hello.tasks.iter().map(|report| report.key).collect();
    let (first, last) = hello.protocol;
    let durable =
        app.store.durable(row.id, keys.clone()).await.map_err(|error| unavailable(&error))?;
    Ok(Welcome {
        host: row.id,
        name: row.name.clone(),
        protocol: Versions { first, last }.common().unwrap_or(Versions::OURS.first),
        incarnation: app.store.incarnation(),
        epoch: app.store.epoch(),
        now: app.clock.now(),
        ping_every: app.config.ping_every,
        resume: resume(&hello.tasks, &keys.into_iter().zip(durable).collect()),
    })
}

/// The server is letting in as many hosts as it can.
pub(super) fn busy() -> Denied {
    Denied { retry_after: Some(Span::from_secs(5)), ..denied(DeniedReason::Busy) }
}

pub(super) fn denied(reason: DeniedReason) -> Denied {
    Denied { reason, message: denial(reason).to_owned(), retry_after: None }
}

fn unavailable(error: &fw_store::Error) -> Denied {
    warn!(error = error as &dyn std::error::Error, "a host could not be let in");
    let message =
        "the server cannot reach its store now; the agent tries again by itself".to_owned();
    Denied { reason: DeniedReason::Busy, message, retry_after: Some(Span::from_secs(5)) }
}
