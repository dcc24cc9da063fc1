//! What becomes of a command line that a person signs in with a browser. The session that it gets has proved nothing
//! yet: what is dangerous asks for the password or a one-time code there as well.

use fw_core::access::{Action, On};
use fw_proto::Span;
use fw_proto::api::{Code, Device, DeviceBegun, Problem};
use fw_store::NewAudit;

use super::device::{self, Approval, Asker, Outcome, Shown};
use super::sign_in::{From, Proof, SignedIn, begin, note_refused, slow_down};
use super::{By, Caller, cookie, network};
use crate::problem::{Failure, Result};
use crate::state::App;

/// What a command line gets when it asks.
#[derive(Debug)]
pub(crate) enum Collected {
    /// Nothing yet; it may ask again after this.
    Waiting(Span),
    /// The person said no.
    Refused,
    /// A session.
    SignedIn(Box<SignedIn>),
}

/// Begins to wait for a person.
pub(crate) fn begin_device(app: &App, from: From, host: String) -> Result<DeviceBegun> {
    let (secret, life) = (cookie::generate(), app.config.device_life);
    let network = network(from.address);
    let asker = Asker { host, address: from.address, network, agent: from.agent };
    let begun = app.auth.0.devices.begin(cookie::hash(&secret), asker, life, app.clock.now());
    let code = begun.map_err(|device::Full| {
        let detail = "answer those that wait, or wait until they are over; `fleetwright login --no-browser` asks for the password instead";
        Problem::new(Code::RateLimited, "too many command lines wait to be signed in").detail(detail)
    })?;
    let public = app.config.public_url.as_deref();
    Ok(DeviceBegun {
        secret,
        code: device::shown(&code),
        url: public.map(|url| format!("{}/device", url.trim_end_matches('/'))),
        expires_in: life,
        interval: device::INTERVAL,
    })
}

/// Gives a command line what the person said, and its session if that was yes.
pub(crate) async fn collect(app: &App, mut from: From, secret: &str) -> Result<Collected> {
    let outcome = app.auth.0.devices.ask(&cookie::hash(secret), app.clock.now());
    let (approval, asker) = match outcome {
        Outcome::Over => {
            super::begin_link(app, &from)?;
            return Err(over());
        }
        Outcome::Waiting(interval) => return Ok(Collected::Waiting(interval)),
        Outcome::No => return Ok(Collected::Refused),
        Outcome::Yes(approval, asker) => (approval, asker),
    };
    // Who said yes may have been signed out or disabled since.
    let secret = app.store.session_by_hash(&approval.session).await?;
    let held = secret.filter(|row| row.user == approval.user);
    let held = held.filter(|row| super::over_at(&app.config, row) > app.clock.now());
    let user = match held {
        Some(_) => app.store.user(&approval.user).await?.filter(|user| !user.disabled),
        None => None,
    };
    let user = user.ok_or_else(over)?;
    from.agent = format!("{} on {}", from.agent, asker.host);
    let signed_in = begin(app, from, user, Proof::Elsewhere).await?;
    Ok(Collected::SignedIn(Box::new(signed_in)))
}

/// The command line with this code.
pub(crate) async fn find_device(app: &App, caller: &Caller, typed: &str) -> Result<Device> {
    let (code, _) = person(caller, typed)?;
    let found = guess(app, caller, &code).await?;
    Ok(Device {
        code: device::shown(&code),
        host: found.asker.host,
        address: found.asker.address.to_string(),
        agent: found.asker.agent,
        begun_at: found.begun_at,
        expires_at: found.expires_at,
    })
}

/// Lets the command line with this code have a session of the caller's.
pub(crate) async fn approve_device(app: &App, caller: &Caller, typed: &str) -> Result<()> {
    let (code, session) = person(caller, typed)?;
    // Else whoever finds a browser open, or has its cookie, gets a session that goes on without either.
    caller.may(app, Action::Weaken, On::Nothing)?;
    let approval = Approval { user: caller.name.clone(), session };
    settle(app, caller, &code, "session.approve", Some(approval)).await?;
    tracing::info!(user = caller.name, "command line approved");
    Ok(())
}

/// Refuses the command line with this code.
pub(crate) async fn refuse_device(app: &App, caller: &Caller, typed: &str) -> Result<()> {
    let (code, _) = person(caller, typed)?;
    settle(app, caller, &code, "session.deny", None).await?;
    tracing::info!(user = caller.name, "command line refused");
    Ok(())
}

/// Answers one, once that is in the audit. The code is not.
async fn settle(
    app: &App,
    caller: &Caller,
    code: &str,
    action: &str,
    approval: Option<Approval>,
) -> Result<()> {
    let Asker { host, address, agent, .. } = guess(app, caller, code).await?.asker;
    let of = serde_json::json!({ "host": host, "address": address.to_string(), "browser": agent });
    let note = NewAudit { after: Some(of), ..caller.note(app, action, &caller.name) };
    app.store.note(note).await?;
    if app.auth.0.devices.answer(code, approval, app.clock.now()) { Ok(()) } else { Err(unknown()) }
}

/// The code that was typed, and the session of the person who did.
fn person(caller: &Caller, typed: &str) -> Result<(String, [u8; 32])> {
    let By::Session { sha256, .. } = caller.by else {
        return Err(Failure::invalid("a token signs nobody in; sign in as a person first"));
    };
    let code = device::read(typed);
    let code = code.ok_or_else(|| {
        Failure::invalid("code: it has eight letters, such as BCDF-GHJK, and no vowels")
    })?;
    Ok((code, sha256))
}

/// Looks for a code. Each wrong one counts, and is noted.
async fn guess(app: &App, caller: &Caller, code: &str) -> Result<Shown> {
    let now = app.clock.now();
    let begun = app.auth.0.codes.begin(&caller.name, network(caller.address), false, now);
    let attempt = begun.map_err(slow_down)?;
    let Some(found) = app.auth.0.devices.find(code, now) else {
        note_refused(app, caller.note(app, "session.code_refused", &caller.name)).await;
        return Err(unknown());
    };
    attempt.right();
    Ok(found)
}

fn unknown() -> Failure {
    let detail = "compare it with the terminal; a code is good for ten minutes and once, and gone when the server was started again";
    let title = "no command line waits with this code";
    Problem::new(Code::NotFound, title).detail(detail).into()
}

fn over() -> Failure {
    let detail = "nobody confirmed it in time, it was used, or the server was started again; begin anew with `fleetwright login`";
    Problem::new(Code::NotFound, "this sign-in is over").detail(detail).into()
}
