//! Who may use the API: bearer tokens, and from which addresses.
//!
//! A token is 32 random bytes; the store keeps its SHA-256 (FIPS 180-4). It is found by that hash, so no
//! comparison of secrets takes a time that depends on them, and no slow hash is needed: there
//! is nothing to guess in 256 random bits. Wrong tokens are limited by address to spare the
//! store, while a right one always works, also from behind the same address translation.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::extract::{FromRequestParts, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, header};
use axum::middleware::Next;
use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use fw_core::run::Actor;
use fw_proto::api::{Code, Problem};
use fw_proto::{Span, Timestamp};
use fw_store::{Store, TokenRow};
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};
use sha2::{Digest as _, Sha256};
use tokio::sync::watch;

use crate::problem::{Failure, Result};
use crate::serve::Peer;
use crate::state::App;
use crate::{Config, private_file};

/// What every token begins with, so that people and scanners of leaked secrets know it.
const PREFIX: &str = "fwt_";

/// Wrong tokens from one address in one minute, after which it is told to slow down.
const WRONG_A_MINUTE: NonZeroU32 = NonZeroU32::new(20).expect("20 is not 0");

/// Addresses remembered for their wrong tokens before the quiet ones are forgotten.
const ADDRESSES: usize = 10_000;

/// Tokens held in memory. Servers have tens; when there are more, those used first are read again.
const CACHED: usize = 1024;

/// `last_used` is to the minute, so that using a token does not mean a write each time.
const TOUCH_EVERY: Span = Span::from_secs(60);

/// How late a stream may end after its token has expired.
const EXPIRY_EVERY: Duration = Duration::from_secs(1);

/// Who makes a request.
#[derive(Debug, Clone)]
pub struct Caller {
    /// The name of the token.
    pub name: String,
    /// Tells it from a later token of the same name.
    sha256: [u8; 32],
    expires_at: Option<Timestamp>,
}

impl Caller {
    /// As the actor of an event.
    #[must_use]
    pub fn actor(&self) -> Actor {
        Actor::Token(self.name.clone())
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Caller {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self> {
        // Only `require` puts it there, so a route outside of it lets nobody in.
        parts.extensions.get::<Self>().cloned().ok_or_else(unauthenticated)
    }
}

/// What is known of tokens and of those who try wrong ones. Clones share it.
#[derive(Debug, Clone)]
pub struct Guard(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    known: Mutex<Known>,
    wrong: DefaultKeyedRateLimiter<IpAddr>,
    /// Tells streams that some token was removed.
    removed: watch::Sender<()>,
}

/// A cache of the store's tokens.
#[derive(Debug, Default)]
struct Known {
    tokens: BTreeMap<[u8; 32], Token>,
    /// Counts deletions: what was read before one is not put in after it.
    deletions: u64,
}

#[derive(Debug, Clone)]
struct Token {
    name: String,
    expires_at: Option<Timestamp>,
    touched_at: Option<Timestamp>,
}

impl Default for Guard {
    fn default() -> Self {
        let wrong = RateLimiter::keyed(Quota::per_minute(WRONG_A_MINUTE));
        let removed = watch::Sender::new(());
        Self(Arc::new(Inner { known: Mutex::default(), wrong, removed }))
    }
}

impl Guard {
    /// Forgets the token of this name; call it after the store has.
    pub fn forget(&self, name: &str) {
        let mut known = self.lock();
        known.deletions += 1;
        known.tokens.retain(|_, token| token.name != name);
        drop(known);
        self.0.removed.send_replace(());
    }

    /// Waits until a caller's token is removed or expires: what was let in with it must end then.
    pub(crate) async fn ended(&self, app: &App, caller: &Caller) {
        let mut removed = self.0.removed.subscribe();
        // It may have been removed since the request was let in.
        removed.mark_changed();
        loop {
            tokio::select! {
                Ok(()) = removed.changed() => match app.store.token_by_hash(&caller.sha256).await {
                    Ok(Some(_)) => {}
                    Ok(None) => return,
                    Err(error) => {
                        tracing::warn!(error = %crate::problem::Chain(&error), token = caller.name, "token cannot be read; its stream ends");
                        return;
                    }
                },
                // Not one long sleep: the time of day may be set while this waits.
                () = tokio::time::sleep(EXPIRY_EVERY), if caller.expires_at.is_some() => {
                    if caller.expires_at.is_some_and(|end| end <= app.clock.now()) {
                        return;
                    }
                }
                else => return,
            }
        }
    }

    /// Finds who holds this token.
    async fn caller(&self, app: &App, token: &str) -> Result<Option<Caller>> {
        let Some(hash) = hash(token) else { return Ok(None) };
        let now = app.clock.now();
        let (cached, deletions) = {
            let known = self.lock();
            (known.tokens.get(&hash).cloned(), known.deletions)
        };
        let token = match cached {
            Some(token) => token,
            None => match app.store.token_by_hash(&hash).await? {
                Some(row) => Token { name: row.name, expires_at: row.expires_at, touched_at: None },
                None => return Ok(None),
            },
        };
        if token.expires_at.is_some_and(|end| end <= now) {
            return Ok(None);
        }
        let (name, expires_at) = (token.name.clone(), token.expires_at);
        if token.touched_at.is_none_or(|at| now.since(at) >= TOUCH_EVERY || at > now) {
            self.remember(hash, Token { touched_at: Some(now), ..token }, deletions);
            self.touch(app, name.clone(), now);
        }
        Ok(Some(Caller { name, sha256: hash, expires_at }))
    }

    fn remember(&self, hash: [u8; 32], token: Token, deletions: u64) {
        let mut known = self.lock();
        if known.deletions != deletions {
            return;
        }
        if known.tokens.len() >= CACHED {
            known.tokens.clear();
        }
        known.tokens.insert(hash, token);
    }

    /// Notes the use of a token, without making the request wait for it.
    #[expect(clippy::unused_self, reason = "reads as what it belongs to")]
    fn touch(&self, app: &App, name: String, at: Timestamp) {
        let store = app.store.clone();
        app.tasks.spawn("auth.touch", async move {
            if let Err(error) = store.touch_token(&name, at).await {
                tracing::warn!(error = %crate::problem::Chain(&error), token = name, "use of token not recorded");
            }
        });
    }

    /// Counts a wrong token; whether its address has tried too many.
    fn wrong_too_often(&self, address: IpAddr) -> bool {
        if self.0.wrong.len() > ADDRESSES {
            self.0.wrong.retain_recent();
        }
        self.0.wrong.check_key(&network(address)).is_err()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Known> {
        // Each change is whole by itself, so a panic elsewhere leaves nothing half done.
        self.0.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Lets a request through when it comes over a safe way and with a good token.
pub(crate) async fn require(
    State(app): State<App>,
    peer: Peer,
    mut request: Request,
    next: Next,
) -> Result<Response> {
    refuse_plain(&app.config, &peer)?;
    let caller = match bearer(request.headers()) {
        Some(token) => app.auth.caller(&app, token).await?,
        None => return Err(unauthenticated()),
    };
    let Some(caller) = caller else {
        let address = client(&app.config, &peer, request.headers());
        metrics::counter!(crate::metrics::AUTH_FAILURES).increment(1);
        tracing::debug!(client.address = %address, "wrong token");
        if app.auth.wrong_too_often(address) {
            let detail = "this address sent many wrong tokens; wait a minute, then check the token";
            return Err(Problem::new(Code::RateLimited, "too many wrong tokens")
                .detail(detail)
                .into());
        }
        return Err(unauthenticated());
    };
    request.extensions_mut().insert(caller);
    Ok(next.run(request).await)
}

fn unauthenticated() -> Failure {
    let detail = "send the header `Authorization: Bearer fwt_…` with a token that is known and not expired; \
                  the first one is in admin.token in the server's data directory";
    Problem::new(Code::Unauthenticated, "no valid token").detail(detail).into()
}

/// Tokens in the clear are for loopback and trusted proxies only, unless the owner says otherwise.
fn refuse_plain(config: &Config, peer: &Peer) -> Result<()> {
    let ip = peer.address.ip().to_canonical();
    if peer.tls || config.insecure_http || ip.is_loopback() || trusted(config, ip) {
        return Ok(());
    }
    let detail = "this token has now travelled in the clear: replace it. Use https (--tls-cert, --tls-key), come \
                  through a trusted proxy (--trusted-proxy), or start the server with --insecure-http";
    Err(Problem::new(Code::Forbidden, "plain http is refused from here").detail(detail).into())
}

fn trusted(config: &Config, ip: IpAddr) -> bool {
    config.trusted_proxy.iter().any(|network| network.contains(&ip))
}

/// Where a request comes from: the peer, or what trusted proxies say of it. Each proxy appends the address
/// it saw, so the list is read from its end, as far as proxies are trusted.
pub(crate) fn client(config: &Config, peer: &Peer, headers: &HeaderMap) -> IpAddr {
    let mut client = peer.address.ip().to_canonical();
    let values = headers.get_all("x-forwarded-for");
    let mut hops: Vec<&str> = values
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .collect();
    while trusted(config, client) {
        let Some(hop) = hops.pop().and_then(|hop| hop.trim().parse::<IpAddr>().ok()) else { break };
        client = hop.to_canonical();
    }
    client
}

/// An IPv6 customer has a whole /64 (RFC 6177), so that is what is limited.
pub(crate) fn network(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX))),
    }
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(token.trim())
}

/// A new token.
#[must_use]
pub fn generate() -> String {
    format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(rand::random::<[u8; 32]>()))
}

/// What the store keeps of a token; `None` when the text cannot be one.
#[must_use]
pub fn hash(token: &str) -> Option<[u8; 32]> {
    let bytes = URL_SAFE_NO_PAD.decode(token.strip_prefix(PREFIX)?).ok()?;
    (bytes.len() == 32).then(|| Sha256::digest(token).into())
}

/// Why there is no first token.
#[derive(Debug, thiserror::Error)]
pub enum FirstTokenError {
    /// The file.
    #[error("first token {path}")]
    File {
        /// Which.
        path: String,
        /// What happened.
        source: std::io::Error,
    },
    /// The token that was given cannot be one.
    #[error(
        "the first token that was given is none: write `fwt_` and 43 characters, which are 32 random bytes in \
         base64url without padding (RFC 4648 §5), or give none, and one is made"
    )]
    WrongForm,
    /// The file is there and holds something else.
    #[error(
        "{0} holds no token, and the store knows none: move the file away, and a new one is made"
    )]
    NoToken(String),
    /// The store.
    #[error("record first token")]
    Store(#[source] fw_store::Error),
}

/// Makes the token `admin` when there is none at all, and writes it to `<data-dir>/admin.token`. Gives it when it is new.
///
/// The file is written first: a crash in between leaves a file that the next start takes up.
///
/// # Errors
/// The file or the store cannot be written, or the file holds something else.
pub(crate) async fn first_token(
    store: &Store,
    config: &Config,
    now: Timestamp,
) -> std::result::Result<Option<String>, FirstTokenError> {
    if !store.tokens().await.map_err(FirstTokenError::Store)?.is_empty() {
        return Ok(None);
    }
    let path = config.data_dir.join("admin.token");
    let shown = path.display().to_string();
    let file = |source| FirstTokenError::File { path: shown.clone(), source };
    let token = match std::fs::read_to_string(&path) {
        Ok(text) => text.trim().to_owned(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let token = config.admin_token.clone().unwrap_or_else(generate);
            // Before it is written: the file would stop the next start, too.
            hash(&token).ok_or(FirstTokenError::WrongForm)?;
            private_file::create(&path, format!("{token}\n").as_bytes()).map_err(file)?;
            token
        }
        Err(error) => return Err(file(error)),
    };
    let sha256 = hash(&token).ok_or_else(|| FirstTokenError::NoToken(shown.clone()))?;
    let row = TokenRow { name: "admin".to_owned(), sha256, created_at: now, expires_at: None };
    // Taken can only mean that it is there already: the directory has one server, and no API yet.
    store.put_token(row).await.map_err(FirstTokenError::Store)?;
    Ok(Some(token))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> Config {
        let mut config = Config::new("/nowhere".into(), ([127, 0, 0, 1], 0).into());
        config.trusted_proxy = vec!["10.0.0.0/8".parse().unwrap()];
        config
    }

    #[track_caller]
    fn check_client(peer: &str, forwarded: &[&str], expected: &str) {
        let mut headers = HeaderMap::new();
        for value in forwarded {
            headers.append("x-forwarded-for", value.parse().unwrap());
        }
        let peer = Peer::new(format!("{peer}:1").parse().unwrap(), false);
        assert_eq!(client(&config(), &peer, &headers).to_string(), expected);
    }

    #[test]
    fn only_trusted_proxies_say_who_the_client_is() {
        check_client("1.2.3.4", &["9.9.9.9"], "1.2.3.4");
        check_client("10.0.0.1", &[], "10.0.0.1");
        check_client("10.0.0.1", &["9.9.9.9"], "9.9.9.9");
        // The client wrote the first one itself.
        check_client("10.0.0.1", &["6.6.6.6, 9.9.9.9"], "9.9.9.9");
        check_client("10.0.0.1", &["6.6.6.6", "9.9.9.9, 10.0.0.2"], "9.9.9.9");
        check_client("10.0.0.1", &["rubbish"], "10.0.0.1");
        check_client("[::ffff:10.0.0.1]", &["9.9.9.9"], "9.9.9.9");
    }

    #[test]
    fn tokens_in_the_clear_are_refused_from_afar() {
        let plain = |address: &str| {
            refuse_plain(&config(), &Peer::new(address.parse().unwrap(), false)).is_ok()
        };
        assert!(plain("127.0.0.1:1") && plain("[::1]:1") && plain("10.1.1.1:1"));
        assert!(!plain("192.168.1.1:1"));
        assert!(
            refuse_plain(&config(), &Peer::new("192.168.1.1:1".parse().unwrap(), true)).is_ok()
        );
        let open = Config { insecure_http: true, ..config() };
        assert!(refuse_plain(&open, &Peer::new("192.168.1.1:1".parse().unwrap(), false)).is_ok());
    }

    #[test]
    fn only_what_looks_like_a_token_is_looked_up() {
        let token = generate();
        assert_eq!(token.len(), 47);
        assert!(hash(&token).is_some());
        for bad in ["", "fwt_", "hello", &token[1..], &token[..46], &format!("{token}A")] {
            assert_eq!(hash(bad), None, "{bad}");
        }
    }

    #[test]
    fn neighbours_in_an_ipv6_network_are_one() {
        let [a, b, c] = ["2001:db8::1", "2001:db8::ffff:2", "2001:db8:0:1::1"]
            .map(|a| network(a.parse().unwrap()));
        assert_eq!(a, b);
        assert_ne!(a, c);
    }
}
