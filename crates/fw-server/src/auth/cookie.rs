//! The cookie of a session, and which requests with it are taken.
//!
//! Browsers add cookies to requests that other sites make. They also say so: `Sec-Fetch-Site` (W3C Fetch Metadata),
//! or at least `Origin`; so nothing has to be put into pages against it.

use axum::http::{HeaderMap, HeaderValue, header};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use fw_proto::api::{Code, Problem};
use sha2::{Digest as _, Sha256};

use super::trusted;
use crate::Config;
use crate::problem::Result;
use crate::serve::Peer;

/// The name over TLS: browsers keep such a cookie to this very host (RFC 6265bis §4.1.3.2).
const SECURE: &str = "__Host-fleetwright";

/// The name over plain HTTP, where browsers refuse the other.
const PLAIN: &str = "fleetwright";

/// Whether the browser talks TLS, as far as this server or a trusted proxy knows.
pub(crate) fn is_secure(config: &Config, peer: &Peer, headers: &HeaderMap) -> bool {
    let proxied = trusted(config, peer.address.ip().to_canonical())
        && headers.get("x-forwarded-proto").is_some_and(|proto| proto.as_bytes() == b"https");
    peer.tls || proxied
}

/// A new secret for a cookie.
pub(crate) fn generate() -> String {
    URL_SAFE_NO_PAD.encode(rand::random::<[u8; 32]>())
}

/// What the store keeps of a secret; there is nothing to guess in 256 random bits.
pub(crate) fn hash(secret: &str) -> [u8; 32] {
    Sha256::digest(secret).into()
}

/// The secret that a request brings along.
pub(crate) fn read(headers: &HeaderMap, secure: bool) -> Option<&str> {
    let wanted = if secure { SECURE } else { PLAIN };
    let values = headers.get_all(header::COOKIE);
    let mut pairs =
        values.iter().filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(';'));
    pairs.find_map(|pair| {
        let (name, value) = pair.trim().split_once('=')?;
        (name == wanted).then_some(value)
    })
}

/// Sets the cookie; without a secret it takes it away.
pub(crate) fn set(secret: Option<&str>, secure: bool) -> HeaderValue {
    let (name, also) = if secure { (SECURE, "; Secure") } else { (PLAIN, "") };
    let (value, gone) = secret.map_or(("", "; Max-Age=0"), |secret| (secret, ""));
    HeaderValue::from_str(&format!("{name}={value}; Path=/; HttpOnly; SameSite=Lax{also}{gone}"))
        .expect("base64 fits into a header")
}

/// Refuses what another site had a browser send. Clients that are no browser say nothing, and have no cookie
/// that they did not mean to send.
pub(crate) fn refuse_foreign(config: &Config, headers: &HeaderMap) -> Result<()> {
    let text = |name: &str| headers.get(name).map(|value| value.to_str().unwrap_or("?"));
    let own = match (text("sec-fetch-site"), text("origin")) {
        (Some(site), _) => matches!(site, "same-origin" | "none"),
        (None, None) => true,
        (None, Some(origin)) => {
            let host = origin.split_once("://").map_or(origin, |(_, host)| host);
            text("host") == Some(host)
                || config
                    .public_url
                    .as_deref()
                    .is_some_and(|url| url.trim_end_matches('/') == origin)
        }
    };
    if own {
        return Ok(());
    }
    let detail = "another site had your browser send this; nothing was done. If a proxy is between, it must keep the headers Host and Origin";
    Err(Problem::new(Code::Forbidden, "the request comes from another site").detail(detail).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, value.parse().unwrap());
        }
        headers
    }

    #[track_caller]
    fn check(pairs: &[(&'static str, &str)], taken: bool) {
        let mut config = Config::new("/nowhere".into(), ([127, 0, 0, 1], 0).into());
        config.public_url = Some("https://fleet.example/".to_owned());
        assert_eq!(refuse_foreign(&config, &headers(pairs)).is_ok(), taken, "{pairs:?}");
    }

    #[test]
    fn other_sites_are_refused() {
        check(&[], true);
        check(&[("sec-fetch-site", "same-origin")], true);
        check(&[("sec-fetch-site", "none")], true);
        check(&[("sec-fetch-site", "same-site")], false);
        check(&[("sec-fetch-site", "cross-site"), ("origin", "http://a"), ("host", "a")], false);
        check(&[("origin", "http://a:7400"), ("host", "a:7400")], true);
        check(&[("origin", "http://b:7400"), ("host", "a:7400")], false);
        check(&[("origin", "https://fleet.example"), ("host", "inner")], true);
        check(&[("origin", "null"), ("host", "a")], false);
        check(&[("origin", "http://a")], false);
    }

    #[test]
    fn a_cookie_comes_back_under_the_name_that_fits() {
        let both =
            headers(&[("cookie", "x=1; fleetwright=plain"), ("cookie", "__Host-fleetwright=safe")]);
        assert_eq!(read(&both, false), Some("plain"));
        assert_eq!(read(&both, true), Some("safe"));
        assert_eq!(read(&headers(&[("cookie", "fleetwright=plain")]), true), None);
        assert_eq!(
            set(Some("s"), true),
            "__Host-fleetwright=s; Path=/; HttpOnly; SameSite=Lax; Secure"
        );
        assert_eq!(set(None, false), "fleetwright=; Path=/; HttpOnly; SameSite=Lax; Max-Age=0");
    }
}
