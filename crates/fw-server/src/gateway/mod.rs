//! Where agents link: a WebSocket at [`PATH`], and a Noise session inside it.

pub(crate) mod admit;
pub(crate) mod link;
pub(crate) mod links;

use std::net::SocketAddr;

use axum::Router;
use axum::extract::{State, WebSocketUpgrade};
use axum::http::HeaderMap;
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use fw_core::link::{InvalidVersions, VERSIONS_HEADER, Versions};
use fw_proto::api::{Code, Problem};
use fw_rt::noise::MAX_MESSAGE;

use crate::auth::client;
use crate::problem::Failure;
use crate::serve::Peer;
use crate::state::App;

/// Where agents link.
pub const PATH: &str = "/agent/v1/link";

/// Read buffer of an idle link: the longest frame of one that has nothing to ship. It grows for the
/// others; the default of 128 KiB would be most of a server's memory.
const READ_BUFFER: usize = 1024;

/// The route of the agent link.
pub fn router() -> Router<App> {
    Router::new().route(PATH, get(upgrade))
}

async fn upgrade(
    State(app): State<App>,
    peer: Peer,
    headers: HeaderMap,
    ws: WebSocketUpgrade,
) -> Response {
    // Agents send no Origin (RFC 6454); a browser always does, and has no business here.
    if headers.contains_key(axum::http::header::ORIGIN) {
        return Failure::from(Problem::new(Code::Forbidden, "this is for agents, not for pages"))
            .into_response();
    }
    // Behind a proxy the limits are those of whom it speaks for.
    let from = SocketAddr::new(client(&app.config, &peer, &headers), peer.address.port());
    // Before any key arithmetic: an address that keeps knocking is made to wait.
    if !app.admission.may_greet(from.ip()) {
        return Failure::from(Problem::new(Code::RateLimited, "too many links from this address"))
            .into_response();
    }
    let versions = match versions(&headers) {
        Ok(versions) => versions,
        Err(why) => return Failure::invalid(why).into_response(),
    };
    ws.read_buffer_size(READ_BUFFER)
        .write_buffer_size(0)
        .max_message_size(MAX_MESSAGE)
        .max_frame_size(MAX_MESSAGE)
        .on_upgrade(move |socket| link::serve(app, Box::new(socket), from, versions, peer))
}

/// What the agent speaks. It is said once more inside the session; here it decides whether there can be one.
fn versions(headers: &HeaderMap) -> Result<Versions, String> {
    let Some(header) = headers.get(VERSIONS_HEADER) else { return Ok(Versions::OURS) };
    let text = header.to_str().unwrap_or_default();
    let versions: Versions =
        text.parse().map_err(|error: InvalidVersions| format!("{VERSIONS_HEADER}: {error}"))?;
    versions.common()?;
    Ok(versions)
}
