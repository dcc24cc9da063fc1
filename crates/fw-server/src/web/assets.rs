//! Style sheet, scripts and fonts: in the binary, packed, and kept by browsers for ever, for their address
//! changes with them.

use axum::Router;
use axum::extract::Path;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use crate::state::App;

include!(concat!(env!("OUT_DIR"), "/assets.rs"));

/// One file.
#[derive(Debug)]
pub(super) struct Asset {
    name: &'static str,
    plain: &'static [u8],
    gzip: &'static [u8],
}

/// A year, and they never change (RFC 8246).
const FOR_EVER: &str = "public, max-age=31536000, immutable";

/// An address of another build: the next load of the page has the right one.
const NOT_LONG: &str = "no-store";

/// The routes of this file.
pub(super) fn routes() -> Router<App> {
    Router::new().route("/assets/{set}/{*name}", get(serve)).route("/favicon.ico", get(icon))
}

async fn serve(Path((set, name)): Path<(String, String)>, headers: HeaderMap) -> Response {
    match ASSETS.iter().find(|asset| asset.name == name) {
        Some(asset) => asset.respond(&headers, if set == SET { FOR_EVER } else { NOT_LONG }),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

async fn icon(headers: HeaderMap) -> Response {
    serve(Path((String::new(), "img/icon.svg".to_owned())), headers).await
}

impl Asset {
    fn respond(&self, headers: &HeaderMap, keep: &'static str) -> Response {
        let common = [
            (header::CONTENT_TYPE, self.media_type()),
            (header::CACHE_CONTROL, keep),
            (header::VARY, "accept-encoding"),
        ];
        // A font is packed already.
        if self.gzip.len() < self.plain.len() && takes_gzip(headers) {
            return (common, [(header::CONTENT_ENCODING, "gzip")], self.gzip).into_response();
        }
        (common, self.plain).into_response()
    }

    fn media_type(&self) -> &'static str {
        match self.name.rsplit_once('.').map(|(_, extension)| extension) {
            Some("css") => "text/css; charset=utf-8",
            Some("js") => "text/javascript; charset=utf-8",
            Some("svg") => "image/svg+xml",
            Some("woff2") => "font/woff2",
            Some(_) | None => "application/octet-stream",
        }
    }
}

/// Whether a client takes gzip (RFC 9110 §12.5.3); one that gives it no weight does not.
fn takes_gzip(headers: &HeaderMap) -> bool {
    let values =
        headers.get_all(header::ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|coding| {
        let (name, weight) = coding.split_once(';').unwrap_or((coding, ""));
        let none = weight.trim().strip_prefix("q=").is_some_and(|q| q.parse::<f32>() == Ok(0.0));
        name.trim().eq_ignore_ascii_case("gzip") && !none
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a first page needs; fonts come after it and are kept.
    const FIRST_PAGE: usize = 70 * 1024;

    #[test]
    fn a_first_page_is_light() {
        let needed = ASSETS.iter().filter(|asset| !asset.name.starts_with("fonts/"));
        let bytes: usize = needed.map(|asset| asset.gzip.len().min(asset.plain.len())).sum();
        assert!(bytes > 10_000, "there is a style sheet and a script: {bytes}");
        assert!(bytes <= FIRST_PAGE, "{bytes} bytes");
    }

    #[test]
    fn styles_know_the_theme_of_the_system() {
        let css = ASSETS.iter().find(|asset| asset.name == "app.css").expect("it is packed");
        let css = std::str::from_utf8(css.plain).expect("it is text");
        let (_, system) = css.split_once("[data-theme=\"system\"] {").expect("it is derived");
        assert!(system.trim_start().starts_with("--canvas: #0D1015"));
    }

    #[test]
    fn nothing_is_packed_for_those_that_do_not_take_it() {
        let takes = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT_ENCODING, value.parse().expect("a header"));
            takes_gzip(&headers)
        };
        assert!(takes("gzip, deflate, br") && takes("br;q=1.0, GZIP;q=0.5"));
        assert!(
            !takes("br")
                && !takes("gzip;q=0")
                && !takes("gzip;q=0.000")
                && !takes_gzip(&HeaderMap::new())
        );
    }
}
