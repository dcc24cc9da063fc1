//! The join string: all that a new host needs to find, know and enter a fleet.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use minicbor::{Decode, Encode};

use crate::PublicKey;

/// What `hosts invite` prints and `agent join` reads: `fw1.` and CBOR in URL-safe base64.
#[derive(Clone, PartialEq, Eq, Encode, Decode)]
pub struct Join {
    /// Where the server listens: `http://…` or `https://…`.
    #[n(0)]
    pub url: String,
    /// The server's key, pinned from the first byte on.
    #[n(1)]
    pub server_key: PublicKey,
    /// The secret of the invitation. Shown once, stored hashed.
    #[n(2)]
    pub secret: String,
}

/// A text that is no join string.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a join string: {0}; make one with `fleetwright hosts invite`")]
pub struct InvalidJoin(&'static str);

const PREFIX: &str = "fw1.";

impl fmt::Debug for Join {
    /// Leaves the secret out.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Join")
            .field("url", &self.url)
            .field("server_key", &self.server_key)
            .finish_non_exhaustive()
    }
}

impl fmt::Display for Join {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = Vec::new();
        minicbor::encode(self, &mut bytes).map_err(|_| fmt::Error)?;
        write!(f, "{PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes))
    }
}

impl FromStr for Join {
    type Err = InvalidJoin;
    fn from_str(text: &str) -> Result<Self, InvalidJoin> {
        let body = text
            .trim()
            .strip_prefix(PREFIX)
            .ok_or(InvalidJoin("it does not begin with \"fw1.\""))?;
        let bytes =
            URL_SAFE_NO_PAD.decode(body).map_err(|_| InvalidJoin("it is damaged or cut short"))?;
        minicbor::decode(&bytes).map_err(|_| InvalidJoin("it is damaged or cut short"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_join_string_survives_its_text_and_damage_is_named() {
        let join = Join {
            url: "https://fleet.example".into(),
            server_key: PublicKey([7; 32]),
            secret: "s3cret".into(),
        };
        let text = join.to_string();
        assert_eq!(text.parse::<Join>().unwrap(), join);
        assert!(!format!("{join:?}").contains("s3cret"));
        for bad in ["", "hello", "fw1.", &text[..text.len() - 9]] {
            assert!(bad.parse::<Join>().is_err(), "{bad}");
        }
    }
}
