//! Who makes a request, and the one way to ask what they may do.

use std::net::IpAddr;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use fw_core::access::{self, Action, On, Refusal, Who};
use fw_core::plan::Chosen;
use fw_core::run::Actor;
use fw_proto::Timestamp;
use fw_proto::api::{Code, Problem, Role};
use fw_store::{HostRow, NewAudit, Store};

use super::unauthenticated;
use crate::fleet;
use crate::problem::{Failure, Result};
use crate::state::App;

/// Who makes a request.
#[derive(Debug, Clone)]
pub struct Caller {
    /// The name of the user or token.
    pub name: String,
    /// From where.
    pub address: IpAddr,
    /// What the decision about them looks at.
    pub who: Who,
    /// What lets them in.
    pub by: By,
    pub(super) expires_at: Option<Timestamp>,
}

/// What lets a caller in.
#[derive(Debug, Clone)]
pub enum By {
    /// A token.
    Token {
        /// By its hash: a later one of the same name is another.
        sha256: [u8; 32],
        /// The person it belongs to.
        owner: Option<String>,
    },
    /// A session.
    Session {
        /// Its number.
        id: i64,
        /// By its hash.
        sha256: [u8; 32],
        /// Whether its user has set up one-time codes.
        totp: bool,
    },
}

impl Caller {
    /// As the actor of an event.
    #[must_use]
    pub fn actor(&self) -> Actor {
        match self.by {
            By::Token { .. } => Actor::Token(self.name.clone()),
            By::Session { .. } => Actor::User(self.name.clone()),
        }
    }

    /// How the audit calls them: a token is told from a person of the same name.
    #[must_use]
    pub fn shown(&self) -> String {
        self.actor().shown()
    }

    /// The person who asks, or whose token it is.
    #[must_use]
    pub fn person(&self) -> Option<&str> {
        match &self.by {
            By::Token { owner, .. } => owner.as_deref(),
            By::Session { .. } => Some(&self.name),
        }
    }

    /// The role of the person who asks; `None` when it is a token.
    #[must_use]
    pub const fn role(&self) -> Option<Role> {
        match &self.who {
            Who::Person { role, .. } => Some(*role),
            Who::Token { .. } => None,
        }
    }

    /// When their session or token ends.
    #[must_use]
    pub const fn expires_at(&self) -> Option<Timestamp> {
        self.expires_at
    }

    /// Goes on only if they may do this.
    ///
    /// # Errors
    /// They may not, or have to prove first who they are.
    pub fn may(&self, app: &App, action: Action, on: On<'_>) -> Result<()> {
        self.asked(app, action, on).map_err(|refusal| refused(&refusal))
    }

    /// Whether they may do this now.
    ///
    /// # Errors
    /// Why not.
    pub(crate) fn asked(
        &self,
        app: &App,
        action: Action,
        on: On<'_>,
    ) -> std::result::Result<(), Refusal> {
        access::allowed(&self.who, action, on, app.config.access, app.clock.now())
    }

    /// What they are about to do, for the audit.
    pub(crate) fn note(
        &self,
        app: &App,
        action: &str,
        subject: impl std::fmt::Display,
    ) -> NewAudit {
        NewAudit {
            at: app.clock.now(),
            by: self.shown(),
            address: Some(self.address.to_string()),
            action: action.to_owned(),
            subject: subject.to_string(),
            hosts: Vec::new(),
            before: None,
            after: None,
        }
    }

    /// Likewise, with a host.
    pub(crate) fn note_host(&self, app: &App, action: &str, host: &HostRow) -> NewAudit {
        NewAudit { hosts: vec![host.name.to_string()], ..self.note(app, action, &host.name) }
    }

    /// The store, that notes its next change as this.
    pub(crate) fn noting(&self, app: &App, action: &str, subject: impl std::fmt::Display) -> Store {
        app.store.noting(self.note(app, action, subject))
    }

    /// Likewise, with one host.
    ///
    /// # Errors
    /// As [`Caller::may`].
    pub(crate) fn may_with(&self, app: &App, action: Action, host: &HostRow) -> Result<()> {
        self.may(app, action, On::Hosts(&[fleet::seen(host)]))
    }

    /// Likewise, with the hosts of a plan.
    ///
    /// # Errors
    /// As [`Caller::may`]; a token that is limited may nothing with hosts that are no more.
    pub(crate) fn may_with_all(&self, app: &App, action: Action, hosts: &[Chosen]) -> Result<()> {
        let rows: Vec<_> = hosts.iter().filter_map(|host| app.store.host(host.id)).collect();
        if rows.len() < hosts.len() && self.is_limited() {
            return Err(refused(&Refusal::Host("a host that was removed".to_owned())));
        }
        let seen: Vec<_> = rows.iter().map(|row| fleet::seen(row)).collect();
        self.may(app, action, On::Hosts(&seen))
    }

    /// Whether they see this host in a list.
    pub(crate) fn sees(&self, host: &HostRow) -> bool {
        match &self.who {
            Who::Token { selector: Some(selector), .. } => selector.matches(fleet::seen(host)),
            Who::Token { selector: None, .. } | Who::Person { .. } => true,
        }
    }

    /// Whether they are limited to some hosts.
    pub(crate) const fn is_limited(&self) -> bool {
        matches!(self.who, Who::Token { selector: Some(_), .. })
    }
}

/// What it is to run this: more than a run, if it is as root.
pub(crate) const fn to_run(user: Option<&str>) -> Action {
    match user {
        // The agent's own user is root, mostly, and nobody here can tell.
        None => Action::RunAsRoot,
        Some(user) => {
            if matches!(user.as_bytes(), b"root" | b"0") {
                Action::RunAsRoot
            } else {
                Action::Run
            }
        }
    }
}

/// A refusal as a problem, with what to do.
fn refused(refusal: &Refusal) -> Failure {
    let (code, detail) = match refusal {
        Refusal::Role { .. } => (Code::Forbidden, "ask an admin (`fleetwright users role`)"),
        Refusal::Scope(_) | Refusal::Host(_) | Refusal::Fleet => {
            (Code::Forbidden, "make another token (`fleetwright tokens create`)")
        }
        Refusal::Prove => (
            Code::StepUpRequired,
            "send it to POST /api/v1/session/step-up, then ask again within the next minutes",
        ),
        Refusal::Dangerous => (
            Code::StepUpRequired,
            "make one with `fleetwright tokens create --scope dangerous`, or do it in the browser",
        ),
    };
    Problem::new(code, refusal.to_string()).detail(detail).into()
}

impl<S: Send + Sync> FromRequestParts<S> for Caller {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self> {
        // Only `require` puts it there, so a route outside of it lets nobody in.
        parts.extensions.get::<Self>().cloned().ok_or_else(unauthenticated)
    }
}
