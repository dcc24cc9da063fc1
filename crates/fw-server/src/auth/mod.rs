//! Who may use the API: people with a session, holders of tokens, and from which addresses.
//!
//! What they may do is `fw_core::access`'s to say; [`Caller::may`] asks it. A token is 32 random bytes; the store
//! keeps its SHA-256 (FIPS 180-4). It is found by that hash, so no comparison of secrets takes a time that depends
//! on them, and no slow hash is needed: there is nothing to guess in 256 random bits. Wrong tokens are limited by address to spare the
//! store, while a right one always works, also from behind the same address translation.

mod by_code;
mod caller;
mod cookie;
mod device;
mod first;
mod limit;
mod needs;
mod password;
mod picture;
mod sign_in;
mod totp;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv6Addr};
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderMap, header};
use axum::middleware::Next;
use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use fw_core::access::{self, Action, On, Who};
use fw_core::select::Selector;
use fw_proto::api::{Code, Problem, Role, Scope};
use fw_proto::{Span, Timestamp};
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};
use sha2::{Digest as _, Sha256};
use tokio::sync::watch;

use crate::Config;
use crate::problem::{Failure, Result};
use crate::serve::Peer;
use crate::state::App;

pub(crate) use by_code::{
    Collected, approve_device, begin_device, collect, find_device, refuse_device,
};
pub(crate) use caller::to_run;
pub use caller::{By, Caller};
pub(crate) use cookie::{generate as link_secret, hash as hash_link};
pub use first::FirstTokenError;
pub(crate) use first::{first_token, forget_link, link, set_up_link};
pub use needs::Need;
pub(crate) use needs::need;
pub(crate) use password::is_known as is_known_hash;
use sign_in::over_at;
pub(crate) use sign_in::{
    From, Proof, SignedIn, begin, no_cookie, prune, sign_in, step_up, stranger,
};
pub(crate) use totp::step as totp_step;

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

/// What a role comes to, said in scopes.
pub(crate) fn scopes(role: Role) -> BTreeSet<Scope> {
    Role::ALL.into_iter().filter(|has| *has <= role).map(access::scope).collect()
}

/// A new secret of one-time codes, the address that an app reads it from, and a picture of that.
pub(crate) fn new_totp(name: &str) -> (String, String, String) {
    let secret = totp::generate();
    let address = totp::address(&secret, name).expect("names of users have no colon");
    let picture = picture::svg(&address).expect("names of users are short");
    (secret, address, picture)
}

/// New recovery codes, and what the store keeps of them.
pub(crate) fn recovery_codes() -> (Vec<String>, Vec<[u8; 32]>) {
    let codes = totp::recovery_codes();
    let hashes = codes.iter().filter_map(|code| totp::recovery_hash(code)).collect();
    (codes, hashes)
}

/// Hashes a password that someone chose.
pub(crate) async fn hash_password(app: &App, new: String, name: Option<&str>) -> Result<String> {
    password::check(&new, name)?;
    app.auth.0.hasher.hash(new).await
}

/// Limits how often an address may try links.
pub(crate) fn begin_link(app: &App, from: &From) -> Result<()> {
    if app.auth.wrong_too_often(from.address) {
        let detail = "wait a minute, then try again";
        return Err(Problem::new(Code::RateLimited, "too many tries").detail(detail).into());
    }
    Ok(())
}

/// What is known of tokens and of those who try wrong ones. Clones share it.
#[derive(Debug, Clone)]
pub struct Guard(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    known: Mutex<Known>,
    wrong: DefaultKeyedRateLimiter<IpAddr>,
    limits: limit::Limits,
    /// Command lines that wait for a person, and how fast somebody may guess their codes.
    devices: device::Devices,
    codes: limit::Limits,
    hasher: password::Hasher,
    /// Tells streams that some token or session was removed, or that a limit may pick other hosts.
    removed: watch::Sender<()>,
}

/// A cache of the store's tokens.
#[derive(Debug, Default)]
struct Known {
    tokens: BTreeMap<[u8; 32], Token>,
    /// Counts deletions: what was read before one is not put in after it.
    deletions: u64,
}

/// It holds until then, if it ends by itself at all.
struct Holds(Option<Timestamp>);

#[derive(Debug, Clone)]
struct Token {
    name: String,
    owner: Option<String>,
    who: Who,
    expires_at: Option<Timestamp>,
    touched_at: Option<Timestamp>,
}

impl Default for Guard {
    fn default() -> Self {
        let wrong = RateLimiter::keyed(Quota::per_minute(WRONG_A_MINUTE));
        let removed = watch::Sender::new(());
        let (limits, devices, codes, hasher) = Default::default();
        let known = Mutex::default();
        Self(Arc::new(Inner { known, wrong, limits, devices, codes, hasher, removed }))
    }
}

impl Guard {
    /// Reads all tokens and sessions again; call it after the store has changed any, or what their owners may do.
    pub fn forget(&self) {
        let mut known = self.lock();
        known.deletions += 1;
        known.tokens.clear();
        drop(known);
        self.0.removed.send_replace(());
    }

    /// Waits until what let a caller in would not let them in any more, or would let them do something else: it is
    /// removed or over, or its user has another role. What was let in with it must end then; whoever asks again is looked at anew.
    pub(crate) async fn ended(&self, app: &App, caller: &Caller) {
        let mut changed = self.0.removed.subscribe();
        // It may have been removed since the request was let in.
        changed.mark_changed();
        let (mut first, mut until) = (true, caller.expires_at);
        loop {
            tokio::select! {
                Ok(()) = changed.changed() => {}
                // Not one long sleep: the time of day may be set while this waits.
                () = tokio::time::sleep(EXPIRY_EVERY), if until.is_some() => {
                    if until.is_some_and(|end| end > app.clock.now()) {
                        continue;
                    }
                }
            }
            match self.holds(app, caller).await {
                // Which hosts a limit picks may have changed with this.
                Ok(Some(_)) if caller.is_limited() && !first => return,
                Ok(Some(Holds(end))) => until = end,
                Ok(None) => return,
                Err(error) => {
                    tracing::warn!(error = %crate::problem::Chain(&error), caller = caller.name, "token or session cannot be read; its stream ends");
                    return;
                }
            }
            first = false;
        }
    }

    /// Whether what let a caller in still does, and as the same.
    async fn holds(
        &self,
        app: &App,
        caller: &Caller,
    ) -> std::result::Result<Option<Holds>, fw_store::Error> {
        let now = app.clock.now();
        match (&caller.by, &caller.who) {
            (By::Token { sha256, .. }, Who::Token { owner, .. }) => {
                let held = app.store.token_by_hash(sha256).await?;
                let held = held.filter(|held| held.owner == *owner);
                let end = held.map(|held| held.row.expires_at);
                Ok(end.filter(|end| end.is_none_or(|end| end > now)).map(Holds))
            }
            (By::Session { sha256, .. }, Who::Person { role, .. }) => {
                let row = app.store.session_by_hash(sha256).await?;
                let end = row.filter(|row| row.role == *role).map(|row| over_at(&app.config, &row));
                Ok(end.filter(|end| *end > now).map(|end| Holds(Some(end))))
            }
            (By::Token { .. }, Who::Person { .. }) | (By::Session { .. }, Who::Token { .. }) => {
                Ok(None)
            }
        }
    }

    /// Finds who holds this token.
    async fn holder(&self, app: &App, token: &str, address: IpAddr) -> Result<Option<Caller>> {
        let Some(hash) = hash(token) else { return Ok(None) };
        let now = app.clock.now();
        let (cached, deletions) = {
            let known = self.lock();
            (known.tokens.get(&hash).cloned(), known.deletions)
        };
        let token = match cached {
            Some(token) => token,
            None => match app.store.token_by_hash(&hash).await? {
                Some(held) => Token::read(held)?,
                None => return Ok(None),
            },
        };
        if token.expires_at.is_some_and(|end| end <= now) {
            return Ok(None);
        }
        let (name, who, expires_at) = (token.name.clone(), token.who.clone(), token.expires_at);
        let owner = token.owner.clone();
        if token.touched_at.is_none_or(|at| now.since(at) >= TOUCH_EVERY || at > now) {
            self.remember(hash, Token { touched_at: Some(now), ..token }, deletions);
            self.touch(app, name.clone(), now);
        }
        Ok(Some(Caller { name, address, who, by: By::Token { sha256: hash, owner }, expires_at }))
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

impl Token {
    fn read(held: fw_store::HeldToken) -> Result<Self> {
        let fw_store::HeldToken { row, owner } = held;
        let selector = row.selector.as_deref().map(Selector::parse).transpose();
        // It was one when the token was made; a token with a limit that cannot be read must not go without.
        let selector = selector.map_err(|error| crate::problem::fault(&error))?;
        let who = Who::Token { scopes: row.scopes, owner, selector };
        Ok(Self {
            name: row.name,
            owner: row.user,
            who,
            expires_at: row.expires_at,
            touched_at: None,
        })
    }
}

/// Lets a request through when it comes over a safe way, and with a good token or from a good session that may
/// use this route at all.
pub(crate) async fn require(
    State(app): State<App>,
    peer: Peer,
    mut request: Request,
    next: Next,
) -> Result<Response> {
    let Some(caller) = identify(&app, &peer, request.headers()).await? else {
        return Err(unauthenticated());
    };
    if let By::Session { .. } = caller.by {
        cookie::refuse_foreign(&app.config, request.headers())?;
    }
    let path = request.extensions().get::<MatchedPath>().map_or("", MatchedPath::as_str);
    let (action, on) = need(request.method(), path)?.of();
    caller.may(&app, action, on)?;
    request.extensions_mut().insert(caller);
    Ok(next.run(request).await)
}

/// Lets through who may see the whole fleet, which is what pages show. They change nothing, so links of other sites may
/// lead to them.
pub(crate) async fn require_page(
    State(app): State<App>,
    peer: Peer,
    mut request: Request,
    next: Next,
) -> Result<Response> {
    let caller = identify(&app, &peer, request.headers()).await?.ok_or_else(unauthenticated)?;
    caller.may(&app, Action::See, On::Fleet)?;
    request.extensions_mut().insert(caller);
    Ok(next.run(request).await)
}

/// Who makes a request; `None` when it says nothing of it, or has a session that is over.
///
/// # Errors
/// It comes over an unsafe way, or with a wrong token.
pub async fn identify(app: &App, peer: &Peer, headers: &HeaderMap) -> Result<Option<Caller>> {
    refuse_plain(&app.config, peer)?;
    let address = client(&app.config, peer, headers);
    let Some(token) = bearer(headers) else {
        let secure = cookie::is_secure(&app.config, peer, headers);
        let Some(secret) = cookie::read(headers, secure) else { return Ok(None) };
        return sign_in::session(app, secret, address).await;
    };
    if let Some(caller) = app.auth.holder(app, token, address).await? {
        return Ok(Some(caller));
    }
    metrics::counter!(crate::metrics::AUTH_FAILURES).increment(1);
    tracing::debug!(client.address = %address, "wrong token");
    if app.auth.wrong_too_often(address) {
        let detail = "this address sent many wrong tokens; wait a minute, then check the token";
        return Err(Problem::new(Code::RateLimited, "too many wrong tokens").detail(detail).into());
    }
    Err(unauthenticated())
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
