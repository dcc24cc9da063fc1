//! Invitations: how hosts enter the fleet.

use std::net::{IpAddr, SocketAddr};

use axum::Json;
use axum::extract::State;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use fw_proto::api::{Invitation, NewInvitation};
use fw_proto::{Join, Span};
use fw_store::{Invite, NewAudit};
use sha2::{Digest as _, Sha256};

use super::host::check_labels;
use crate::auth::Caller;
use crate::extract::Body;
use crate::problem::{Failure, Result};
use crate::state::App;

/// How long an invitation is good when nobody says.
const USUAL_TTL: Span = Span::from_secs(60 * 60);

/// The longest life of an invitation: whoever holds it can add hosts.
const LONGEST_TTL: Span = Span::from_secs(30 * 24 * 60 * 60);

/// The most uses: five times the largest fleet that one server is made for.
const MOST_USES: u32 = 100_000;

/// Makes a join string, which is shown this once.
#[utoipa::path(post, path = "/hosts/invite", tag = "hosts", operation_id = "hosts_invite",
    request_body = NewInvitation, responses((status = 200, body = Invitation)))]
pub(super) async fn invite(
    State(app): State<App>,
    caller: Caller,
    Body(new): Body<NewInvitation>,
) -> Result<Json<Invitation>> {
    let uses = new.uses.unwrap_or(1);
    if !(1..=MOST_USES).contains(&uses) {
        return Err(Failure::invalid(format!("uses: give 1 to {MOST_USES}")));
    }
    let ttl = new.ttl.unwrap_or(USUAL_TTL);
    if ttl == Span::ZERO || ttl > LONGEST_TTL {
        return Err(Failure::invalid("ttl: give more than 0s and at most 30d"));
    }
    check_labels(new.labels.iter())?;
    let note = NewAudit {
        after: Some(serde_json::json!({ "uses": uses, "ttl": ttl, "labels": new.labels })),
        ..caller.note(&app, "host.invite", uses)
    };
    app.store.note(note).await?;
    let made = make(&app, app.config.url(), uses, ttl, new.labels, &caller.shown()).await?;
    tracing::info!(by = caller.name, uses, expires_at = %made.expires_at, "invitation made");
    Ok(Json(made))
}

/// Makes an invitation; the store learns only the hash of its secret.
pub(crate) async fn make(
    app: &App,
    url: String,
    uses: u32,
    ttl: Span,
    labels: std::collections::BTreeMap<String, String>,
    by: &str,
) -> Result<Invitation> {
    let secret = URL_SAFE_NO_PAD.encode(rand::random::<[u8; 32]>());
    let expires_at = app.clock.now() + ttl;
    let secret_sha256 = Sha256::digest(&secret).into();
    let by = by.to_owned();
    app.store.invite(Invite { secret_sha256, uses, expires_at, labels, by }).await?;
    let warning = warning(&url);
    let join = Join { url, server_key: app.keys.newest(), secret }.to_string();
    Ok(Invitation { join, expires_at, uses, warning })
}

/// What to know of an address before hosts are sent there.
fn warning(url: &str) -> Option<String> {
    let host = url.split_once("://").map_or(url, |(_, rest)| rest);
    let host = host.split('/').next().unwrap_or(host);
    let name = match host.parse::<SocketAddr>() {
        Ok(address) => address.ip().to_string(),
        // `host:port`, `[v6]`, or a host alone.
        Err(_) if host.starts_with('[') => host.trim_matches(['[', ']']).to_owned(),
        Err(_) => host.split(':').next().unwrap_or(host).to_owned(),
    };
    let loopback = match name.parse::<IpAddr>() {
        Ok(ip) => ip.is_loopback() || ip.is_unspecified(),
        Err(_) => name.eq_ignore_ascii_case("localhost"),
    };
    loopback.then(|| {
        format!(
            "{url} can be reached from this machine only; for other hosts start the server with --listen \
             0.0.0.0:7400 and --public-url https://NAME, then invite again"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_that_only_this_machine_reaches_are_warned_of() {
        for bad in [
            "http://127.0.0.1:7400",
            "http://[::1]:7400",
            "http://localhost",
            "https://LOCALHOST:1/x",
            "http://0.0.0.0:7400",
            "http://[::1]/",
        ] {
            assert!(warning(bad).is_some(), "{bad}");
        }
        for good in [
            "https://fleet.example",
            "http://10.0.0.1:7400",
            "http://[2001:db8::1]:7400",
            "http://localhost.example",
        ] {
            assert_eq!(warning(good), None, "{good}");
        }
    }
}
