//! What all pages have: who looks, in which theme, and where in the dashboard.

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, header};

use super::assets::SET;
use super::banner::{self, Notice};
use super::may::May;
use crate::auth::Caller;
use crate::problem::Failure;
use crate::state::App;

/// The cookie of the theme. It is no secret, and scripts set it.
const THEME: &str = "fw-theme";

/// Where in the dashboard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Nav {
    Overview,
    Hosts,
    Jobs,
    Runs,
    Command,
    Rollouts,
    Runbooks,
    Maintenance,
    Audit,
    Settings,
}

/// An entry of the rail.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) nav: Nav,
    pub(super) href: &'static str,
    pub(super) label: &'static str,
    /// The name of its icon.
    pub(super) icon: &'static str,
    /// The key that goes there, after `g`.
    pub(super) key: char,
}

/// The rail, from the top.
const RAIL: &[Entry] = &[
    Entry { nav: Nav::Overview, href: "/", label: "Overview", icon: "home", key: 'o' },
    Entry { nav: Nav::Hosts, href: "/hosts", label: "Hosts", icon: "host", key: 'h' },
    Entry { nav: Nav::Jobs, href: "/jobs", label: "Jobs", icon: "job", key: 'j' },
    Entry { nav: Nav::Runs, href: "/runs", label: "Runs", icon: "run", key: 'r' },
    Entry { nav: Nav::Command, href: "/run", label: "Run a command", icon: "command", key: 'c' },
    Entry { nav: Nav::Rollouts, href: "/rollouts", label: "Rollouts", icon: "rollout", key: 'l' },
    Entry { nav: Nav::Runbooks, href: "/runbooks", label: "Runbooks", icon: "runbook", key: 'b' },
    Entry {
        nav: Nav::Maintenance,
        href: "/maintenance",
        label: "Maintenance",
        icon: "maintenance",
        key: 'm',
    },
    Entry { nav: Nav::Audit, href: "/audit", label: "Audit", icon: "audit", key: 'a' },
    Entry { nav: Nav::Settings, href: "/settings", label: "Settings", icon: "settings", key: 's' },
];

/// How a page looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Theme {
    Light,
    Dark,
    #[default]
    System,
}

impl Theme {
    /// As the cookie and the style sheet call it.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Light => "light",
            Self::Dark => "dark",
            Self::System => "system",
        }
    }

    /// As the cookie has it.
    pub(super) fn of(headers: &HeaderMap) -> Self {
        match cookie(headers, THEME) {
            Some("light") => Self::Light,
            Some("dark") => Self::Dark,
            Some(_) | None => Self::System,
        }
    }
}

/// The value of a cookie (RFC 6265 §4.2).
fn cookie<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    let values = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    let mut pairs =
        values.flat_map(|value| value.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.find(|(key, _)| *key == name).map(|(_, value)| value)
}

/// Who looks, and how.
#[derive(Debug)]
pub(super) struct Visit {
    caller: Caller,
    theme: Theme,
}

impl FromRequestParts<App> for Visit {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Failure> {
        let caller = Caller::from_request_parts(parts, app).await?;
        Ok(Self { caller, theme: Theme::of(&parts.headers) })
    }
}

/// What the layout of a page shows.
#[derive(Debug)]
pub(super) struct Page {
    /// Names the set of assets.
    pub(super) set: &'static str,
    pub(super) theme: Theme,
    /// What the window is called.
    pub(super) title: String,
    pub(super) nav: Nav,
    /// Who looks.
    pub(super) who: String,
    /// How many hosts there are; beside their entry in the rail.
    pub(super) hosts: usize,
    /// What stands above it.
    pub(super) notices: Vec<Notice>,
    /// What who looks may do.
    pub(super) may: May,
}

impl Visit {
    /// Who looks.
    pub(super) const fn caller(&self) -> &Caller {
        &self.caller
    }
}

impl Page {
    pub(super) fn new(app: &App, visit: &Visit, nav: Nav, title: impl Into<String>) -> Self {
        Self {
            set: SET,
            theme: visit.theme,
            title: title.into(),
            nav,
            who: visit.caller.name.clone(),
            hosts: app.store.hosts().len(),
            notices: banner::notices(app),
            may: May::of(app, &visit.caller),
        }
    }

    /// The entries that lead somewhere for who looks.
    pub(super) fn rail(&self) -> impl Iterator<Item = &'static Entry> {
        let hidden = |nav| {
            nav == Nav::Command && !self.may.run.is() || nav == Nav::Audit && !self.may.grant.is()
        };
        RAIL.iter().filter(move |entry| !hidden(entry.nav))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_theme_comes_from_its_cookie() {
        let theme = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::COOKIE, value.parse().expect("a header"));
            Theme::of(&headers)
        };
        assert_eq!(theme("a=b; fw-theme=dark; c=d"), Theme::Dark);
        assert_eq!(theme("fw-theme=light"), Theme::Light);
        assert_eq!(theme("fw-theme=\"><script>"), Theme::System);
        assert_eq!(theme("xfw-theme=dark"), Theme::System);
    }
}
