//! The `OpenAPI` document (version 3.1.0), from the handlers.

use std::sync::Arc;

use axum::Router;
use axum::http::header;
use axum::routing::get;
use fw_proto::api::{Code, Problem};
use utoipa::PartialSchema as _;
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityScheme};
use utoipa::openapi::{
    Components, ContentBuilder, InfoBuilder, LicenseBuilder, OpenApi, OpenApiBuilder, PathItem,
    Ref, RefOr, Response, ResponseBuilder, SecurityRequirement,
};

use crate::state::App;

const DESCRIPTION: &str = "Everything that the command line does. Times are RFC 3339 UTC with milliseconds, durations are \
written as people write them (`90s`, `1h30m`), absent values are `null`. Lists come in pages: pass `next` as `cursor` for the \
one after. Errors are problem details (RFC 9457) with a stable `code`. Readers should skip fields that they do not know: new ones \
are added within a version. The header `Fleetwright-Maintenance` of an answer names the maintenances in force.";

/// The document without its paths.
pub(super) fn head() -> OpenApi {
    let license =
        LicenseBuilder::new().name("MIT OR Apache-2.0").identifier(Some("MIT OR Apache-2.0"));
    let info = InfoBuilder::new()
        .title("Fleetwright")
        .version("1")
        .description(Some(DESCRIPTION))
        .license(Some(license.build()));
    OpenApiBuilder::new().info(info).build()
}

/// Adds what holds for all paths: the token and what a problem looks like.
pub(super) fn complete(root: &str, mut document: OpenApi) -> OpenApi {
    let components = document.components.get_or_insert_with(Components::new);
    components.schemas.insert("Problem".to_owned(), Problem::schema());
    components.schemas.insert("Code".to_owned(), Code::schema());
    let mut bearer = Http::new(HttpAuthScheme::Bearer);
    bearer.description =
        Some("`fwt_…`, from `fleetwright tokens create` or admin.token".to_owned());
    components.add_security_scheme("token", SecurityScheme::Http(bearer));
    document.security = Some(vec![SecurityRequirement::new::<_, [&str; 0], &str>("token", [])]);
    for item in document.paths.paths.values_mut() {
        for operation in operations(item) {
            let responses = &mut operation.responses.responses;
            responses.insert("default".to_owned(), RefOr::T(problem()));
        }
    }
    let own = document.paths.paths.keys().all(|path| path.starts_with(root));
    debug_assert!(own, "all routes of the document are below {root}");
    document
}

fn operations(item: &mut PathItem) -> impl Iterator<Item = &mut utoipa::openapi::path::Operation> {
    [&mut item.get, &mut item.put, &mut item.post, &mut item.delete, &mut item.patch]
        .into_iter()
        .filter_map(Option::as_mut)
}

fn problem() -> Response {
    let content = ContentBuilder::new().schema(Some(Ref::from_schema_name("Problem"))).build();
    ResponseBuilder::new()
        .description("What went wrong, where, and what to do.")
        .content("application/problem+json", content)
        .build()
}

/// The route that serves the document; it needs no token.
pub(super) fn route(root: &str, document: OpenApi) -> Router<App> {
    let text: Arc<str> = complete(root, document)
        .to_pretty_json()
        .expect("a document of strings and maps is JSON")
        .into();
    let serve = move || {
        let text = Arc::clone(&text);
        async move { ([(header::CONTENT_TYPE, "application/json")], text.to_string()) }
    };
    Router::new().route(&format!("{root}/openapi.json"), get(serve))
}
