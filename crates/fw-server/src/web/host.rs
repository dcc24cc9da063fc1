//! Hosts: all of them, with the selector of the command line as filter.

use std::collections::BTreeMap;
use std::sync::Arc;

use askama::Template;
use axum::extract::State;
use axum::response::Response;
use fw_proto::api::{HostState, TaskState};
use fw_proto::{MaintenanceId, Timestamp, api};
use fw_store::HostRow;
use serde::Deserialize;

use super::error::{Result, render};
use super::link::{encode, link, quoted};
use super::page::{Nav, Page, Visit};
use super::strip::{BARS, Strip};
use super::time::When;
use super::words::Status;
use crate::extract::Query;
use crate::fleet;
use crate::state::App;

/// Rows of a page: what a browser lays out at once without a wait.
const ROWS: usize = 100;

/// Labels that a row shows; the host's page shows all.
const LABELS: usize = 3;

/// Which hosts, in which order.
#[derive(Debug, Default, Deserialize)]
pub(super) struct ListQuery {
    #[serde(default)]
    q: String,
    #[serde(default)]
    sort: String,
    #[serde(default)]
    page: usize,
}

/// What a list is sorted by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Key {
    Name,
    State,
    System,
    Address,
    Agent,
    Seen,
}

/// A sort order, as the address has it: a key, with `-` before it for the other way round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Sort {
    key: Key,
    reverse: bool,
}

const COLUMNS: &[(Key, &str, &str, &str)] = &[
    (Key::Name, "name", "Host", ""),
    (Key::State, "state", "State", ""),
    (Key::System, "system", "System", ""),
    (Key::Address, "address", "Address", ""),
    (Key::Agent, "agent", "Agent", ""),
    (Key::Seen, "seen", "Seen", "num"),
];

impl Sort {
    /// Anything else is the order by name.
    fn parse(text: &str) -> Self {
        let (reverse, word) = text.strip_prefix('-').map_or((false, text), |word| (true, word));
        let key = COLUMNS.iter().find(|(_, name, ..)| *name == word);
        key.map_or(Self { key: Key::Name, reverse: false }, |(key, ..)| Self { key: *key, reverse })
    }

    fn text(self) -> String {
        let word =
            COLUMNS.iter().find(|(key, ..)| *key == self.key).map_or("name", |(_, word, ..)| word);
        format!("{}{word}", if self.reverse { "-" } else { "" })
    }
}

#[derive(Debug)]
struct Column {
    label: &'static str,
    class: &'static str,
    href: String,
    order: Option<&'static str>,
}

#[derive(Debug)]
struct Row {
    id: String,
    name: String,
    href: String,
    status: Status,
    labels: Vec<String>,
    more: usize,
    system: String,
    address: String,
    agent: String,
    seen: Option<When>,
    seen_at: Option<Timestamp>,
    maintenance: Option<MaintenanceId>,
    strip: Option<Strip>,
}

#[derive(Template)]
#[template(path = "hosts.html")]
struct List {
    page: Page,
    q: String,
    sort: String,
    problem: Option<String>,
    total: usize,
    away: usize,
    matching: usize,
    from: usize,
    to: usize,
    before: Option<String>,
    after: Option<String>,
    columns: Vec<Column>,
    rows: Vec<Row>,
    run_href: String,
    cli: String,
}

/// Shows hosts.
pub(super) async fn list(
    State(app): State<App>,
    visit: Visit,
    Query(query): Query<ListQuery>,
) -> Result<Response> {
    let ListQuery { q, sort, page } = query;
    let (q, sort) = (q.trim().to_owned(), Sort::parse(&sort));
    let all = app.store.hosts();
    let total = all.len();
    let present = fleet::Present::of(&app, all.iter().map(|row| row.id).collect()).await?;
    let away = all.iter().filter(|row| fleet::state(row, &present) == HostState::Offline).count();
    let (chosen, problem) = match filter(&all, &q) {
        Ok(chosen) => (chosen, None),
        Err(problem) => (Vec::new(), Some(problem)),
    };
    let matching = chosen.len();
    let now = app.clock.now();
    let mut rows: Vec<_> =
        chosen.iter().map(|row| show(&fleet::view(row, &present), now)).collect();
    order(&mut rows, sort);
    let last = matching.saturating_sub(1) / ROWS;
    let page = page.clamp(1, last + 1);
    let skipped = (page - 1) * ROWS;
    let rows: Vec<_> = rows.into_iter().skip(skipped).take(ROWS).collect();
    let rows = with_strips(&app, rows).await?;
    let at = |page: usize| {
        link("/hosts", &[("q", &q), ("sort", &sort.text()), ("page", &page.to_string())])
    };
    let selector = if q.is_empty() { "*" } else { &q };
    Ok(render(&List {
        page: Page::new(&app, &visit, Nav::Hosts, "Hosts"),
        problem,
        total,
        away,
        matching,
        from: skipped + 1,
        to: skipped + rows.len(),
        before: (page > 1).then(|| at(page - 1)),
        after: (page <= last).then(|| at(page + 1)),
        columns: columns(&q, sort),
        rows,
        run_href: link("/run", &[("hosts", selector)]),
        cli: format!("fleetwright hosts list {}", quoted(selector)),
        sort: sort.text(),
        q,
    }))
}

/// Gives each row its last runs.
async fn with_strips(app: &App, mut rows: Vec<Row>) -> Result<Vec<Row>> {
    let names = rows.iter().filter_map(|row| row.name.parse().ok()).collect();
    let last = app.store.last_tasks(names, BARS).await?;
    let mut last: BTreeMap<String, Vec<TaskState>> =
        last.into_iter().map(|(name, states)| (name.to_string(), states)).collect();
    for row in &mut rows {
        row.strip = last.remove(&row.name).map(|states| Strip::of_tasks(&states));
    }
    Ok(rows)
}

/// Those that the filter picks, or what is wrong with it.
fn filter(all: &[Arc<HostRow>], q: &str) -> std::result::Result<Vec<Arc<HostRow>>, String> {
    if q.is_empty() {
        return Ok(all.to_vec());
    }
    let wrong =
        |failure: crate::problem::Failure| failure.into_problem().detail.unwrap_or_default();
    let selector = fleet::selector(q).map_err(wrong)?;
    Ok(all.iter().filter(|row| selector.matches(fleet::seen(row))).cloned().collect())
}

fn columns(q: &str, sort: Sort) -> Vec<Column> {
    let column = |&(key, _, label, class): &(Key, &str, &'static str, &'static str)| {
        let here = key == sort.key;
        let next = Sort { key, reverse: here && !sort.reverse };
        let order = here.then_some(if sort.reverse { "descending" } else { "ascending" });
        Column { label, class, order, href: link("/hosts", &[("q", q), ("sort", &next.text())]) }
    };
    COLUMNS.iter().map(column).collect()
}

/// Sorts by the key; those that are alike stay by name.
fn order(rows: &mut [Row], sort: Sort) {
    match sort.key {
        Key::Name => {}
        Key::State => rows.sort_by_key(|row| std::cmp::Reverse(row.status.tone)),
        Key::System => rows.sort_by(|a, b| a.system.cmp(&b.system)),
        Key::Address => rows.sort_by(|a, b| a.address.cmp(&b.address)),
        Key::Agent => rows.sort_by(|a, b| a.agent.cmp(&b.agent)),
        Key::Seen => rows.sort_by_key(|row| std::cmp::Reverse(row.seen_at)),
    }
    if sort.reverse {
        rows.reverse();
    }
}

fn show(host: &api::Host, now: Timestamp) -> Row {
    let labels = host.labels.iter().map(|(key, value)| label(key, value));
    let seen_at = match host.state {
        HostState::Online => Some(now),
        HostState::Offline | HostState::Revoked | HostState::Duplicate => host.last_seen,
    };
    Row {
        id: host.id.to_string(),
        name: host.name.to_string(),
        href: format!("/hosts/{}", encode(host.name.as_str())),
        status: host.state.into(),
        labels: labels.take(LABELS).collect(),
        more: host.labels.len().saturating_sub(LABELS),
        system: system(host),
        address: fact(host, "ipv4"),
        agent: host.agent_version.clone().unwrap_or_default(),
        seen: seen_at.map(|at| When::new(now, at)),
        seen_at,
        maintenance: host.maintenance,
        strip: None,
    }
}

/// A label in few characters.
pub(super) fn label(key: &str, value: &str) -> String {
    if value.is_empty() { key.to_owned() } else { format!("{key}={value}") }
}

/// Name and version of the system.
pub(super) fn system(host: &api::Host) -> String {
    format!("{} {}", fact(host, "os"), fact(host, "osrelease")).trim().to_owned()
}

/// A fact as text: of a list the first.
pub(super) fn fact(host: &api::Host, name: &str) -> String {
    let text = |value: &serde_json::Value| value.as_str().map(str::to_owned);
    let value = host.facts.get(name);
    let first = value.and_then(|value| value.as_array()).and_then(|list| list.first());
    first.or(value).map_or_else(String::new, |value| text(value).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_survives_its_address() {
        for (key, ..) in COLUMNS {
            for reverse in [false, true] {
                let sort = Sort { key: *key, reverse };
                assert_eq!(Sort::parse(&sort.text()), sort);
            }
        }
        assert_eq!(Sort::parse("<script>"), Sort { key: Key::Name, reverse: false });
    }
}
