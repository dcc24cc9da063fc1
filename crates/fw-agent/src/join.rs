//! Enrolment: makes the host's key and registers it with a join string.

use fw_core::link::agent::{Link, Output};
use fw_proto::frame::{self, Decoded, DeniedReason, FromServer, Welcome};
use fw_proto::{HostName, Join, Span};
use fw_rt::Clock;
use fw_rt::noise::Keypair;

use crate::agent::{self, Error, Options};
use crate::connect::{self, Route};
use crate::identity::{Identity, StateDir};
use crate::policy;

/// When a server that is busy does not say until when.
const BUSY: Span = Span::from_secs(5);

/// Enrols this host and keeps what it learns in the state directory. Doing it again with the same
/// server gives the same host: a lost answer harms nothing.
///
/// # Errors
/// The server cannot be reached or refuses ([`Error::Busy`] when only for now), or the state
/// directory cannot be written.
pub async fn join(
    join: &Join,
    name: &HostName,
    options: &Options,
    clock: &Clock,
) -> Result<Identity, Error> {
    let state_dir = StateDir::open(&options.state_dir)?;
    let key = match state_dir.key()? {
        Some(private) => Keypair::from_private(private),
        None => {
            let key = Keypair::generate().map_err(Error::Key)?;
            state_dir.set_key(&key.private)?;
            key
        }
    };
    let route = Route { proxy: options.proxy.as_deref(), source: None };
    let connection = connect::connect(&join.url, &join.server_key, &key, &route).await?;
    let hello = agent::hello(&state_dir, policy::load(options.policy.as_deref()).policy.mode);
    let asked = Some((join.secret.clone(), name.to_string()));
    let (mut link, greeting) = Link::open(hello, asked, clock.now());
    let (mut sender, mut receiver) = connection.split();
    sender.send(&frame::encode(&greeting)).await?;
    let welcome = loop {
        let bytes = receiver.recv().await?;
        let Decoded::Frame(frame) = frame::decode::<FromServer>(&bytes)? else { continue };
        if let Some(answer) = answered(link.frame(frame, clock.now())) {
            break answer?;
        }
    };
    let identity = Identity {
        server: join.url.clone(),
        server_keys: vec![join.server_key],
        host: welcome.host,
        name: welcome.name,
    };
    state_dir.set_identity(&identity)?;
    sender.close().await;
    Ok(identity)
}

fn answered(outputs: Vec<Output>) -> Option<Result<Welcome, Error>> {
    outputs.into_iter().find_map(|output| match output {
        Output::Welcomed(welcome) => Some(Ok(welcome)),
        Output::Denied(denied) if denied.reason == DeniedReason::Busy => {
            Some(Err(Error::Busy { retry_after: denied.retry_after.unwrap_or(BUSY) }))
        }
        Output::Denied(frame::Denied { reason, message, .. }) => {
            Some(Err(Error::Denied { reason, message }))
        }
        Output::Send(_)
        | Output::Start(_)
        | Output::Cancel(_)
        | Output::Keep(_)
        | Output::Query(_)
        | Output::Settled(_)
        | Output::Durable(_)
        | Output::Pin(_)
        | Output::Rekeyed(_)
        | Output::Close => None,
    })
}

#[cfg(test)]
mod tests {
    use fw_proto::frame::Denied;

    use super::*;

    #[test]
    fn a_busy_server_is_told_apart_from_one_that_refuses() {
        let check = |reason, retry_after| {
            let denied = Denied { reason, message: "no".to_owned(), retry_after };
            let answer = answered(vec![Output::Denied(denied), Output::Close]);
            answer.expect("an answer").expect_err("a refusal").to_string()
        };
        insta::assert_snapshot!([
            check(DeniedReason::Busy, Some(Span::from_secs(7))),
            check(DeniedReason::Busy, None),
            check(DeniedReason::Revoked, None),
        ].join("\n"), @r"
        the server is busy: try again in 7s
        the server is busy: try again in 5s
        the server refuses this host: no
        ");
    }
}
