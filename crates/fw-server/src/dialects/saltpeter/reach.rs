//! How commands reach machines: the port for wrappers, and with `dispatch: salt` the minions.

use std::net::SocketAddr;
use std::sync::Arc;

use fw_rt::Tasks;
use sha2::{Digest as _, Sha256};
use tokio::sync::watch;

use super::machines::door::{self, Door};
use super::machines::instance::Key;
use super::salt::minion::Minions;
use super::{Dispatch, Error, Options, salt, served};
use crate::state::App;

/// Opens the port for wrappers, and starts to look for minions when they are to be reached. With
/// `dispatch: agent` there is a port only when an address is given: it says to wrappers that a former
/// server has left that their runs are over.
///
/// # Errors
/// The address is taken, or a key or the store cannot be read.
pub(super) async fn start(
    options: &Options,
    app: &App,
    served: &served::Watch,
    tasks: &Tasks,
) -> Result<Option<SocketAddr>, Error> {
    let wanted = match (options.machines, options.dispatch) {
        (Some(address), _) => address,
        (None, Dispatch::Agent) => return Ok(None),
        // Minions are looked for, so that targets match them, and no wrapper is started by a job.
        (None, Dispatch::Salt) if options.shadow => {
            SocketAddr::from((std::net::Ipv4Addr::LOCALHOST, 0))
        }
        (None, Dispatch::Salt) => {
            let settings = &served.borrow().settings;
            SocketAddr::new(settings.machines_ws_bind_addr, settings.machines_ws_port)
        }
    };
    let names = Key::open(&app.config.data_dir.join("keys")).map_err(Error::Key)?;
    let (publish, minions) = watch::channel(Arc::new(Minions::default()));
    let door = Door {
        names: names.clone(),
        minions,
        key: options.key.as_ref().map(|key| Sha256::digest(key).into()),
        clock: app.clock.clone(),
    };
    let address = door::open(door, wanted, app.config.max_connections, tasks).await;
    let address =
        address.map_err(|source| Error::Listen { what: "wrappers", address: wanted, source })?;
    match options.dispatch {
        Dispatch::Agent => {}
        Dispatch::Salt => {
            let parts = salt::Parts {
                app: app.clone(),
                names,
                salt: options.salt.clone(),
                served: served.clone(),
                key: options.key.clone(),
                port: address.port(),
                minions: publish,
            };
            salt::start(parts, tasks).await?;
        }
    }
    Ok(Some(address))
}
