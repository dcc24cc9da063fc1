//! What each route needs at least. A route that is not listed is refused to everyone, so none can be forgotten.
//!
//! What depends on the hosts, or is dangerous, its handler asks for as well.

use axum::http::Method;
use fw_core::access::{Action, On};

use crate::problem::{Failure, Result};

/// What a route needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// Nothing: whoever asks cannot be let in yet, or not any more. Such routes are outside of the guard.
    Nothing,
    /// To be let in.
    Own,
    /// To see.
    See,
    /// To see all hosts.
    SeeAll,
    /// To run.
    Run,
    /// To run, on all hosts.
    RunAll,
    /// To change hosts.
    Change,
    /// To change the fleet.
    ChangeAll,
    /// To change who may do what.
    Grant,
}

impl Need {
    /// As what is decided about.
    #[must_use]
    pub const fn of(self) -> (Action, On<'static>) {
        match self {
            Self::Nothing | Self::Own => (Action::Own, On::Nothing),
            Self::See => (Action::See, On::Nothing),
            Self::SeeAll => (Action::See, On::Fleet),
            Self::Run => (Action::Run, On::Nothing),
            Self::RunAll => (Action::Run, On::Fleet),
            Self::Change => (Action::Change, On::Nothing),
            Self::ChangeAll => (Action::Change, On::Fleet),
            Self::Grant => (Action::Grant, On::Fleet),
        }
    }
}

/// All routes that ask who is there, below the root of the API.
const NEEDS: &[(Need, &str, &str)] = &[
    (Need::See, "GET", "/hosts"),
    (Need::See, "GET", "/hosts/select"),
    (Need::SeeAll, "GET", "/hosts/events"),
    (Need::See, "GET", "/hosts/{host}"),
    (Need::Change, "PATCH", "/hosts/{host}"),
    (Need::Change, "DELETE", "/hosts/{host}"),
    (Need::Change, "PATCH", "/hosts/{host}/labels"),
    (Need::Change, "POST", "/hosts/{host}/revoke"),
    (Need::ChangeAll, "POST", "/hosts/invite"),
    (Need::Run, "POST", "/runs"),
    (Need::SeeAll, "GET", "/runs"),
    (Need::See, "GET", "/runs/{id}"),
    (Need::Run, "POST", "/runs/{id}/cancel"),
    (Need::Run, "POST", "/runs/{id}/retry"),
    (Need::See, "GET", "/runs/{id}/events"),
    (Need::See, "GET", "/runs/{id}/logs"),
    (Need::See, "GET", "/runs/{id}/logs/raw"),
    (Need::See, "GET", "/runs/{id}/logs/lines"),
    (Need::See, "GET", "/runs/{id}/logs/search"),
    (Need::See, "GET", "/runs/{id}/logs/text"),
    (Need::SeeAll, "GET", "/events"),
    (Need::See, "GET", "/jobs"),
    (Need::See, "GET", "/jobs/errors"),
    (Need::See, "POST", "/jobs/check"),
    (Need::ChangeAll, "POST", "/jobs/apply"),
    (Need::See, "GET", "/jobs/{name}"),
    (Need::ChangeAll, "DELETE", "/jobs/{name}"),
    (Need::Run, "POST", "/jobs/{name}/run"),
    (Need::RunAll, "POST", "/jobs/{name}/pause"),
    (Need::RunAll, "POST", "/jobs/{name}/resume"),
    (Need::See, "GET", "/jobs/{name}/ledger"),
    (Need::See, "POST", "/rollouts/plan"),
    (Need::Run, "POST", "/rollouts"),
    (Need::SeeAll, "GET", "/rollouts"),
    (Need::See, "GET", "/rollouts/{id}"),
    (Need::Run, "POST", "/rollouts/{id}/{verb}"),
    (Need::Run, "POST", "/runbooks"),
    (Need::SeeAll, "GET", "/runbooks"),
    (Need::See, "POST", "/runbooks/rehearsal"),
    (Need::See, "GET", "/runbooks/{id}"),
    (Need::See, "GET", "/runbooks/{id}/report"),
    (Need::Run, "POST", "/runbooks/{id}/{verb}"),
    (Need::Run, "POST", "/runbooks/{id}/steps/{step}/{verb}"),
    (Need::See, "GET", "/maintenances"),
    (Need::RunAll, "POST", "/maintenances"),
    (Need::See, "GET", "/maintenances/{id}"),
    (Need::RunAll, "POST", "/maintenances/{id}/end"),
    (Need::Nothing, "POST", "/session"),
    (Need::Nothing, "DELETE", "/session"),
    (Need::Nothing, "POST", "/session/device"),
    (Need::Nothing, "POST", "/session/device/answer"),
    (Need::Nothing, "GET", "/setup"),
    (Need::Nothing, "POST", "/setup"),
    (Need::Own, "GET", "/session"),
    (Need::Own, "POST", "/session/step-up"),
    (Need::Own, "POST", "/session/device/show"),
    (Need::Own, "POST", "/session/device/approve"),
    (Need::Own, "POST", "/session/device/refuse"),
    (Need::Own, "POST", "/session/password"),
    (Need::Own, "POST", "/session/totp"),
    (Need::Own, "POST", "/session/totp/confirm"),
    (Need::Own, "DELETE", "/session/totp"),
    (Need::Grant, "GET", "/audit"),
    (Need::Grant, "GET", "/audit/verify"),
    (Need::Grant, "GET", "/users"),
    (Need::Grant, "POST", "/users"),
    (Need::Grant, "PATCH", "/users/{name}"),
    (Need::Grant, "DELETE", "/users/{name}"),
    (Need::Grant, "POST", "/users/{name}/reset"),
    (Need::Own, "GET", "/sessions"),
    (Need::Own, "DELETE", "/sessions"),
    (Need::Own, "DELETE", "/sessions/{id}"),
    (Need::Own, "GET", "/tokens"),
    (Need::Own, "POST", "/tokens"),
    (Need::Own, "DELETE", "/tokens/{name}"),
    (Need::ChangeAll, "GET", "/secrets"),
    (Need::ChangeAll, "PUT", "/secrets/{name}"),
    (Need::ChangeAll, "DELETE", "/secrets/{name}"),
    (Need::See, "GET", "/server"),
    (Need::ChangeAll, "POST", "/server/keys/rotate"),
    (Need::ChangeAll, "POST", "/server/backup"),
];

/// What a route needs, by its whole path as the router knows it.
///
/// # Errors
/// It is not listed.
pub(crate) fn need(method: &Method, path: &str) -> Result<Need> {
    let path = path.strip_prefix(crate::api::ROOT).unwrap_or(path);
    // A route that answers GET answers HEAD as well.
    let method = if *method == Method::HEAD { &Method::GET } else { method };
    let listed = NEEDS.iter().find(|(_, of, route)| *of == method.as_str() && *route == path);
    listed.map(|(need, ..)| *need).ok_or_else(|| {
        tracing::error!(http.method = %method, http.route = path, "a route that says not who may use it is refused");
        Failure::from(fw_proto::api::Problem::new(
            fw_proto::api::Code::Forbidden,
            "nobody may use this route",
        ))
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// The document is made of the same list as the router.
    #[test]
    fn every_route_says_who_may_use_it() {
        let document = serde_json::to_value(crate::api::document()).unwrap();
        let mut routes = BTreeSet::new();
        for (path, item) in document["paths"].as_object().unwrap() {
            for method in item.as_object().unwrap().keys() {
                let method = method.to_uppercase();
                if ["GET", "PUT", "POST", "DELETE", "PATCH"].contains(&method.as_str()) {
                    let path = path.strip_prefix(crate::api::ROOT).unwrap();
                    routes.insert((method, path.to_owned()));
                }
            }
        }
        let listed: BTreeSet<_> = NEEDS
            .iter()
            .map(|(_, method, path)| ((*method).to_owned(), (*path).to_owned()))
            .collect();
        assert_eq!(listed.len(), NEEDS.len(), "a route is listed twice");
        let unlisted: Vec<_> = routes.symmetric_difference(&listed).collect();
        assert!(unlisted.is_empty(), "{unlisted:?}");
    }

    /// Whatever changes something takes more than seeing; what does not is named here.
    #[test]
    fn only_these_changes_are_for_everyone() {
        let harmless: Vec<_> = NEEDS
            .iter()
            .filter(|(need, method, _)| {
                *method != "GET"
                    && matches!(need, Need::Nothing | Need::Own | Need::See | Need::SeeAll)
            })
            .map(|(_, method, path)| format!("{method} {path}"))
            .collect();
        insta::assert_snapshot!(harmless.join("\n"));
    }
}
