//! What the first start leaves for its owner: a token for programs, and a link with which the first person is made.

use fw_proto::Timestamp;
use fw_proto::api::Scope;
use fw_store::{Store, TokenRow};

use super::{cookie, generate, hash};
use crate::{Config, private_file};

/// The file with the link, beside that of the token.
const LINK_FILE: &str = "setup.link";

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
    let row = TokenRow {
        name: "admin".to_owned(),
        sha256,
        created_at: now,
        expires_at: None,
        scopes: Scope::ALL.into(),
        selector: None,
        user: None,
    };
    // Taken can only mean that it is there already: the directory has one server, and no API yet.
    store.put_token(row).await.map_err(FirstTokenError::Store)?;
    Ok(Some(token))
}

/// While there is no user, the link that makes the first one; it is also in `<data-dir>/setup.link`. The one that is
/// there already stays good.
///
/// # Errors
/// The file or the store cannot be written.
pub(crate) async fn set_up_link(
    store: &Store,
    config: &Config,
    now: Timestamp,
) -> std::result::Result<Option<String>, FirstTokenError> {
    let path = config.data_dir.join(LINK_FILE);
    let shown = path.display().to_string();
    let file = |source| FirstTokenError::File { path: shown.clone(), source };
    if !store.users().await.map_err(FirstTokenError::Store)?.is_empty() {
        forget_link(config);
        return Ok(None);
    }
    if let Ok(text) = std::fs::read_to_string(&path)
        && let Some((_, secret)) = text.trim().split_once('#')
        && store.is_setup_link(cookie::hash(secret), now).await.map_err(FirstTokenError::Store)?
    {
        return Ok(Some(link(config, secret)));
    }
    forget_link(config);
    let secret = cookie::generate();
    let stored = store.put_setup_link(cookie::hash(&secret), None, None).await;
    stored.map_err(FirstTokenError::Store)?;
    let link = link(config, &secret);
    private_file::create(&path, format!("{link}\n").as_bytes()).map_err(file)?;
    Ok(Some(link))
}

/// Where a link leads. The secret stands where browsers keep it to themselves: not in requests, logs or referrers.
pub(crate) fn link(config: &Config, secret: &str) -> String {
    format!("{}/setup#{secret}", config.url())
}

/// Removes the file, after its link was used.
pub(crate) fn forget_link(config: &Config) {
    let path = config.data_dir.join(LINK_FILE);
    if let Err(error) = std::fs::remove_file(&path)
        && error.kind() != std::io::ErrorKind::NotFound
    {
        tracing::warn!(error = %error, file = %path.display(), "used set-up link not removed");
    }
}
