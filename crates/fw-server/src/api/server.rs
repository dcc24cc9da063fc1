//! The server itself: what it is, its keys, its backups.

use axum::Json;
use axum::extract::State;
use fw_proto::api::{BackupMade, KeyRotation, ServerInfo};

use crate::auth::Caller;
use crate::problem::{Result, fault};
use crate::state::App;

/// Shows what this server is.
#[utoipa::path(get, path = "/server", tag = "server", operation_id = "server_show",
    responses((status = 200, body = ServerInfo)))]
pub(super) async fn show(State(app): State<App>) -> Result<Json<ServerInfo>> {
    let counts = app.hub.counts().await?;
    Ok(Json(ServerInfo {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        started_at: app.started_at,
        incarnation: app.store.incarnation(),
        epoch: app.store.epoch(),
        keys: app.keys.public(),
        hosts_online: counts.hosts_online as u64,
        runs_active: counts.runs_active as u64,
        maintenance: app.jobs.in_force(),
    }))
}

/// Adds a key that hosts know this server by, and tells those that are linked. The old ones stay good.
#[utoipa::path(post, path = "/server/keys/rotate", tag = "server", operation_id = "server_keys_rotate",
    responses((status = 200, body = KeyRotation)))]
pub(super) async fn rotate(State(app): State<App>, caller: Caller) -> Result<Json<KeyRotation>> {
    app.store.note(caller.note(&app, "server.key_rotate", "server")).await?;
    let keys = app.keys.clone();
    let rotated = tokio::task::spawn_blocking(move || keys.rotate()).await;
    let keys = rotated.map_err(|error| fault(&error))?.map_err(|error| fault(&error))?;
    let told = app.hub.pin_keys(keys.clone()).await?;
    tracing::info!(by = caller.name, told, "server key rotated");
    Ok(Json(KeyRotation { keys, told }))
}

/// Makes a backup now, beside those of every night.
#[utoipa::path(post, path = "/server/backup", tag = "server", operation_id = "server_backup",
    responses((status = 200, body = BackupMade)))]
pub(super) async fn backup(State(app): State<App>, caller: Caller) -> Result<Json<BackupMade>> {
    let name = format!("fleetwright-{}.backup", app.clock.now().to_string().replace(':', ""));
    let path = app.config.backup.dir.join(name);
    app.store.note(caller.note(&app, "server.backup", path.display())).await?;
    let made = app.store.backup(&path).await?;
    let file = path.display().to_string();
    tracing::info!(by = caller.name, backup.file = file, "backup made");
    Ok(Json(BackupMade { file, bytes: made.bytes }))
}
