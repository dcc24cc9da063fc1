//! Signing in: by password and one-time code, and from then on by session.

use std::net::IpAddr;
use std::time::Duration;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderValue, header};
use fw_core::access::Who;
use fw_proto::api::{Code, Problem, SignIn, StepUp};
use fw_proto::{Span, Timestamp};
use fw_store::{NewAudit, NewSession, SessionRow, UserRow};

use super::password::Verdict;
use super::{By, Caller, client, cookie, network, refuse_plain, totp};
use crate::Config;
use crate::problem::{Failure, Result, fault};
use crate::serve::Peer;
use crate::state::App;

/// From where someone signed in counts as known for so long.
pub(crate) const KNOWN: Span = Span::from_secs(90 * 24 * 60 * 60);

/// A failure is told no sooner: neither an unknown name nor another kind of hash can be told by the time it takes.
const FAILED_AFTER: Duration = Duration::from_millis(500);

/// The longest name of a browser that is kept.
const LONGEST_AGENT: usize = 256;

/// What is over costs nothing but space.
const PRUNE_EVERY: Duration = Duration::from_secs(60 * 60);

/// As with tokens: a write a minute.
const TOUCH_EVERY: Span = Span::from_secs(60);

/// Where a request comes from that has no caller yet.
#[derive(Debug)]
pub(crate) struct From {
    pub(crate) address: IpAddr,
    pub(super) agent: String,
    secure: bool,
}

impl FromRequestParts<App> for From {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self> {
        let peer = Peer::from_request_parts(parts, app).await?;
        let headers = &parts.headers;
        refuse_plain(&app.config, &peer)?;
        cookie::refuse_foreign(&app.config, headers)?;
        let agent = headers.get(header::USER_AGENT).and_then(|agent| agent.to_str().ok());
        let agent = agent.unwrap_or_default().chars().take(LONGEST_AGENT).collect();
        let secure = cookie::is_secure(&app.config, &peer, headers);
        Ok(Self { address: client(&app.config, &peer, headers), agent, secure })
    }
}

impl From {
    /// What someone does who has proved nothing, for the audit.
    pub(crate) fn note(&self, app: &App, action: &str, subject: &str) -> NewAudit {
        stranger(app, self.address, action, subject)
    }
}

/// What is done from an address by nobody in particular, for the audit.
pub(crate) fn stranger(app: &App, address: IpAddr, action: &str, subject: &str) -> NewAudit {
    NewAudit {
        at: app.clock.now(),
        by: "server".to_owned(),
        address: Some(address.to_string()),
        action: action.to_owned(),
        subject: subject.to_owned(),
        hosts: Vec::new(),
        before: None,
        after: None,
    }
}

/// Someone who has just signed in.
#[derive(Debug)]
pub(crate) struct SignedIn {
    pub(crate) caller: Caller,
    /// For the answer.
    pub(crate) cookie: HeaderValue,
}

/// Takes the cookie of a session away.
pub(crate) fn no_cookie(from: &From) -> HeaderValue {
    cookie::set(None, from.secure)
}

/// Signs someone in.
pub(crate) async fn sign_in(app: &App, from: From, sign_in: SignIn) -> Result<SignedIn> {
    let begun = tokio::time::Instant::now();
    let proved = prove(app, from.address, sign_in).await;
    let user = match proved {
        Ok(user) => user,
        Err(failure) => {
            tokio::time::sleep_until(begun + FAILED_AFTER).await;
            return Err(failure);
        }
    };
    begin(app, from, user, Proof::Now).await
}

/// When whoever begins a session proved who they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Proof {
    /// Just now.
    Now,
    /// Where they let this one begin. It does not count for this one.
    Elsewhere,
}

/// Begins a session of someone who has proved who they are.
pub(crate) async fn begin(app: &App, from: From, user: UserRow, proof: Proof) -> Result<SignedIn> {
    let (secret, now) = (cookie::generate(), app.clock.now());
    let proved_at = match proof {
        Proof::Now => now,
        Proof::Elsewhere => Timestamp::EPOCH,
    };
    let sha256 = cookie::hash(&secret);
    let expires_at = now + app.config.session_life;
    let new = NewSession {
        sha256,
        user: user.name.clone(),
        address: from.address.to_string(),
        network: network(from.address).to_string(),
        agent: from.agent.chars().take(LONGEST_AGENT).collect(),
        at: now,
        proved_at,
        expires_at,
    };
    let agent = serde_json::json!({ "browser": new.agent });
    let note = NewAudit {
        by: user.name.clone(),
        after: Some(agent),
        ..stranger(app, from.address, "session.begin", &user.name)
    };
    let id = app.store.noting(note).begin_session(new).await?;
    tracing::info!(user = user.name, client.address = %from.address, "signed in");
    let caller = Caller {
        name: user.name,
        address: from.address,
        who: Who::Person { role: user.role, proved_at },
        by: By::Session { id, sha256, totp: user.totp.is_some() },
        expires_at: Some(expires_at),
    };
    Ok(SignedIn { caller, cookie: cookie::set(Some(&secret), from.secure) })
}

/// Forgets sessions, links and addresses that are over, every now and then; none of them lets anyone in before.
pub(crate) async fn prune(app: App) {
    let mut hours = tokio::time::interval(PRUNE_EVERY);
    loop {
        hours.tick().await;
        let now = app.clock.now();
        let pruned = app.store.prune_sessions(now, app.config.session_idle, now - KNOWN).await;
        if let Err(error) = pruned {
            tracing::warn!(error = %crate::problem::Chain(&error), "old sessions not deleted");
        }
    }
}

/// Whose session this is; `None` when it is over.
pub(super) async fn session(app: &App, secret: &str, address: IpAddr) -> Result<Option<Caller>> {
    let (sha256, now) = (cookie::hash(secret), app.clock.now());
    let Some(row) = app.store.session_by_hash(&sha256).await? else { return Ok(None) };
    if over_at(&app.config, &row) <= now {
        return Ok(None);
    }
    if now.since(row.used_at) >= TOUCH_EVERY {
        let (store, id) = (app.store.clone(), row.id);
        app.tasks.spawn("auth.touch", async move {
            if let Err(error) = store.touch_session(id, now).await {
                tracing::warn!(error = %crate::problem::Chain(&error), "use of session not recorded");
            }
        });
    }
    Ok(Some(Caller {
        name: row.user,
        address,
        who: Who::Person { role: row.role, proved_at: row.stepped_up_at },
        by: By::Session { id: row.id, sha256, totp: row.totp },
        expires_at: Some(row.expires_at),
    }))
}

/// When a session is over, if it is not used before.
pub(super) fn over_at(config: &Config, row: &SessionRow) -> Timestamp {
    row.expires_at.min(row.used_at + config.session_idle)
}

/// Proves that this is who they say, with all that they have set up.
async fn prove(app: &App, address: IpAddr, sign_in: SignIn) -> Result<UserRow> {
    let SignIn { name, password, totp: code } = sign_in;
    let now = app.clock.now();
    let known = app.store.knows_address(&name, &network(address).to_string(), now - KNOWN).await?;
    let attempt =
        app.auth.0.limits.begin(&name, network(address), known, now).map_err(slow_down)?;
    let user = app.store.user(&name).await?.filter(|user| !user.disabled);
    let hash = user.as_ref().and_then(|user| user.hash.clone());
    let verdict = app.auth.0.hasher.verify(password, hash.clone()).await?;
    let is_known = user.is_some();
    let (Some(user), Some(hash)) = (user, hash) else {
        return Err(refuse(app, is_known.then_some(&name), address).await);
    };
    match (&verdict, &user.totp, &code) {
        (Verdict::Wrong, _, _) => return Err(refuse(app, Some(&name), address).await),
        (Verdict::Right | Verdict::Better(_), Some(_), None) => {
            // It is no failure: wrong codes will be counted as such.
            attempt.right();
            return Err(code_required());
        }
        (Verdict::Right | Verdict::Better(_), Some(secret), Some(code)) => {
            if !take_code(app, &name, secret, code, now).await? {
                return Err(refuse(app, Some(&name), address).await);
            }
        }
        (Verdict::Right | Verdict::Better(_), None, _) => {}
    }
    if let Verdict::Better(better) = verdict {
        app.store.rehash(&name, &hash, better).await?;
    }
    attempt.right();
    Ok(user)
}

/// Proves it again, by either.
pub(crate) async fn step_up(app: &App, caller: &Caller, proof: StepUp) -> Result<Timestamp> {
    let By::Session { id, .. } = caller.by else {
        let detail = "a token has nobody to ask; make one with the scope dangerous";
        return Err(Problem::new(Code::Forbidden, "only a session can be stepped up")
            .detail(detail)
            .into());
    };
    let begun = tokio::time::Instant::now();
    let now = app.clock.now();
    let attempt = app.auth.0.limits.begin(&caller.name, network(caller.address), true, now);
    let attempt = attempt.map_err(slow_down)?;
    let user = app.store.user(&caller.name).await?;
    let user = user.ok_or_else(|| wrong(&caller.name, caller.address))?;
    let proved = match (proof, &user.totp) {
        (StepUp { totp: Some(code), .. }, Some(secret)) => {
            take_code(app, &user.name, secret, &code, now).await?
        }
        (StepUp { password: Some(password), .. }, _) => {
            app.auth.0.hasher.verify(password, user.hash.clone()).await? != Verdict::Wrong
        }
        (StepUp { .. }, _) => {
            return Err(Failure::invalid("give password, or totp if you have set it up"));
        }
    };
    if !proved {
        note_refused(app, caller.note(app, "session.step_up_refused", &caller.name)).await;
        tokio::time::sleep_until(begun + FAILED_AFTER).await;
        return Err(wrong(&caller.name, caller.address));
    }
    attempt.right();
    caller.noting(app, "session.step_up", &caller.name).step_up(id, now).await?;
    Ok(now)
}

/// Uses up a one-time or recovery code; `false` when it is wrong or was used before.
async fn take_code(
    app: &App,
    name: &str,
    secret: &[u8],
    code: &str,
    now: Timestamp,
) -> Result<bool> {
    let secret = app.secrets.decrypt(secret).map_err(|error| fault(&error))?;
    if let Some(step) = totp::step(&secret, code, now) {
        return Ok(app.store.use_totp(name, step).await?);
    }
    match totp::recovery_hash(code) {
        Some(hash) => {
            let used = app.store.use_recovery_code(name, hash).await?;
            if used {
                tracing::warn!(user = name, "signed in with a recovery code");
            }
            Ok(used)
        }
        None => Ok(false),
    }
}

/// Notes a sign-in that failed. Of a name that nobody has nothing is kept: it may be a password in the wrong field.
async fn refuse(app: &App, known: Option<&String>, address: IpAddr) -> Failure {
    let name = known.map_or("an unknown name", String::as_str);
    note_refused(app, stranger(app, address, "session.refused", name)).await;
    wrong(name, address)
}

/// Nobody gets in because the audit cannot be written; who is refused stays so.
pub(super) async fn note_refused(app: &App, note: NewAudit) {
    if let Err(error) = app.store.note(note).await {
        tracing::error!(error = %crate::problem::Chain(&error), "a refused sign-in is not in the audit");
    }
}

fn wrong(name: &str, address: IpAddr) -> Failure {
    metrics::counter!(crate::metrics::AUTH_FAILURES).increment(1);
    tracing::info!(user = name, client.address = %address, "sign-in refused");
    let detail = "check them and try again; a one-time code counts once, so wait for the next one";
    Problem::new(Code::Unauthenticated, "wrong name, password or code").detail(detail).into()
}

fn code_required() -> Failure {
    let detail = "send it as totp, together with name and password; a recovery code does as well";
    Problem::new(Code::TotpRequired, "a one-time code is needed too").detail(detail).into()
}

pub(super) fn slow_down(wait: Span) -> Failure {
    let detail = format!("too many failed; try again in {wait}");
    Problem::new(Code::RateLimited, "too many tries").detail(detail).into()
}
