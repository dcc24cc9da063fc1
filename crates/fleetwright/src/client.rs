//! The HTTP API as typed methods. The command line knows the server only through this.

mod change;
mod error;
mod follow;
mod session;
mod sse;

use std::time::Duration;

use fw_proto::api::{
    AuditCheck, AuditEntry, BackupMade, Cancel, CheckedJobs, Created, Fire, Host, Invitation, Job,
    JobsText, KeyRotation, LabelChange, Maintenance, NewInvitation, NewMaintenance, NewName,
    NewRun, NewSecret, NewToken, NewUser, Page, Problem, Retry, Run, RunState, RunSummary, Secret,
    Selected, ServerInfo, SetUpLink, SourceError, Token, TokenMade, User, UserChange, UserMade,
};
use fw_proto::record::Stream;
use fw_proto::{HostName, JobName, MaintenanceId, RunId};
use reqwest::{Method, RequestBuilder, Response, Url};
use serde::Serialize;
use serde::de::DeserializeOwned;

pub(crate) use error::{Error, With};
pub(crate) use follow::{Patience, Signal, Started, follow};
pub(crate) use sse::Event;

/// How long a connection may take to be made: a server that is there answers in one round trip.
const CONNECT: Duration = Duration::from_secs(5);

/// How long an answer may take. The slowest is a command line's list of all hosts.
const ANSWER: Duration = Duration::from_secs(60);

/// How long a backup may take to be made and verified; the store is copied whole.
const BACKUP: Duration = Duration::from_secs(60 * 60);

/// Items asked for at once when a whole list is wanted.
const PAGE: u32 = 500;

/// A server, and what lets one in there. Clones share their connections.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    http: reqwest::Client,
    server: Url,
    credential: Option<Credential>,
    named_by: String,
}

/// What lets one in; `Debug` leaves it out.
#[derive(Clone)]
pub(crate) enum Credential {
    /// A token.
    Token(String),
    /// A session, by its cookie (`name=value`).
    Session(String),
}

impl std::fmt::Debug for Credential {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("***")
    }
}

/// Which runs to list.
#[derive(Debug, Clone, Default)]
pub(crate) struct RunFilter {
    /// Those of this job.
    pub(crate) job: Option<JobName>,
    /// Those in this state.
    pub(crate) state: Option<RunState>,
    /// Those with a task on this host.
    pub(crate) host: Option<HostName>,
}

/// Which output of a run is wanted.
#[derive(Debug, Clone, Default)]
pub(crate) struct LogFilter {
    /// Of this host only.
    pub(crate) host: Option<HostName>,
    /// Of this stream only.
    pub(crate) stream: Option<Stream>,
}

/// The stored bytes of one stream on one host.
#[derive(Debug)]
pub(crate) struct Raw {
    /// The bytes, as they come.
    pub(crate) body: Response,
    /// Places where bytes were not kept, as (offset, length).
    pub(crate) gaps: Vec<(u64, u64)>,
    /// Bytes that were not kept, all gaps together.
    pub(crate) dropped: u64,
}

/// A list as a server gives it: short ones have no pages.
#[derive(Debug, serde::Deserialize)]
#[serde(untagged)]
enum Listed<T> {
    Page(Page<T>),
    All(Vec<T>),
}

type Result<T> = std::result::Result<T, Error>;

impl Client {
    /// A client of `server`, which `named_by` named (`--server`, `context prod`).
    ///
    /// # Errors
    /// The certificates cannot be used, or the system's cannot be loaded.
    pub(crate) fn new(
        server: Url,
        credential: Option<Credential>,
        named_by: String,
        ca: Vec<reqwest::Certificate>,
    ) -> Result<Self> {
        let agent = concat!("fleetwright/", env!("CARGO_PKG_VERSION"));
        let builder = reqwest::Client::builder()
            .user_agent(agent)
            .connect_timeout(CONNECT)
            // A server elsewhere must not make us send the token to a third one.
            .redirect(reqwest::redirect::Policy::none());
        let builder = if ca.is_empty() { builder } else { builder.tls_certs_merge(ca) };
        let http = builder.build().map_err(Error::Setup)?;
        Ok(Self { http, server, credential, named_by })
    }

    /// The server's address, for messages.
    pub(crate) fn server(&self) -> &Url {
        &self.server
    }

    fn request(&self, method: Method, path: &[&str]) -> RequestBuilder {
        self.request_with(method, path, &[])
    }

    fn request_with(
        &self,
        method: Method,
        path: &[&str],
        query: &[(&str, String)],
    ) -> RequestBuilder {
        let mut url = self.server.clone();
        // A URL that cannot be a base is refused where it is configured.
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(["api", "v1"]).extend(path);
        }
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        let request = self.http.request(method, url);
        match &self.credential {
            Some(Credential::Token(token)) => request.bearer_auth(token),
            Some(Credential::Session(cookie)) => request.header("Cookie", cookie),
            None => request,
        }
    }

    async fn send(&self, request: RequestBuilder) -> Result<Response> {
        let response = request.send().await.map_err(|source| self.unreachable(source))?;
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status();
        let body = response.bytes().await.map_err(|source| self.unreachable(source))?;
        match serde_json::from_slice::<Problem>(&body) {
            Ok(problem) => Err(Error::Problem { problem, with: self.with() }),
            Err(_) => Err(Error::NotOurs { url: self.server.to_string(), status: status.as_u16() }),
        }
    }

    fn with(&self) -> With {
        match &self.credential {
            Some(Credential::Token(_)) => With::Token,
            Some(Credential::Session(_)) => With::Session,
            None => With::Nothing,
        }
    }

    fn unreachable(&self, source: reqwest::Error) -> Error {
        let sent = !source.is_connect() && !source.is_builder();
        let server = self.server.to_string();
        Error::Unreachable { server, named_by: self.named_by.clone(), sent, source }
    }

    async fn json<T: DeserializeOwned>(&self, request: RequestBuilder) -> Result<T> {
        let response = self.send(request.timeout(ANSWER)).await?;
        let body = response.bytes().await.map_err(|source| self.unreachable(source))?;
        serde_json::from_slice(&body)
            .map_err(|source| Error::Malformed { url: self.server.to_string(), source })
    }

    async fn body(&self, request: RequestBuilder) -> Result<String> {
        let response = self.send(request.timeout(ANSWER)).await?;
        response.text().await.map_err(|source| self.unreachable(source))
    }

    async fn nothing(&self, request: RequestBuilder) -> Result<()> {
        self.send(request.timeout(ANSWER)).await.map(|_| ())
    }

    async fn get<T: DeserializeOwned>(&self, path: &[&str]) -> Result<T> {
        self.json(self.request(Method::GET, path)).await
    }

    async fn post<B: Serialize + Sync, T: DeserializeOwned>(
        &self,
        path: &[&str],
        body: &B,
    ) -> Result<T> {
        self.json(self.request(Method::POST, path).json(body)).await
    }

    /// Fetches pages until there is no more, or `limit` items are there.
    async fn list<T: DeserializeOwned>(
        &self,
        path: &[&str],
        query: &[(&str, String)],
        limit: Option<usize>,
    ) -> Result<Vec<T>> {
        let limit = limit.unwrap_or(usize::MAX);
        let mut items = Vec::new();
        let mut cursor: Option<String> = None;
        while items.len() < limit {
            let left = u32::try_from(limit - items.len()).unwrap_or(PAGE).min(PAGE);
            let mut query = query.to_vec();
            query.push(("limit", left.to_string()));
            query.extend(cursor.clone().map(|cursor| ("cursor", cursor)));
            let page = match self.json(self.request_with(Method::GET, path, &query)).await? {
                Listed::Page(page) => page,
                Listed::All(items) => Page { items, next: None },
            };
            items.extend(page.items);
            // A server that names the same page twice must not keep us here for ever.
            match page.next {
                Some(next) if cursor.as_ref() != Some(&next) => cursor = Some(next),
                Some(_) | None => break,
            }
        }
        items.truncate(limit);
        Ok(items)
    }

    // Hosts.

    /// All hosts, or those that a selector picks.
    pub(crate) async fn hosts(
        &self,
        selector: Option<&str>,
        limit: Option<usize>,
    ) -> Result<Vec<Host>> {
        let query: Vec<_> =
            selector.map(|text| ("selector", text.to_owned())).into_iter().collect();
        self.list(&["hosts"], &query, limit).await
    }

    /// One host, by name or id.
    pub(crate) async fn host(&self, host: &str) -> Result<Host> {
        self.get(&["hosts", host]).await
    }

    /// The names that a selector picks.
    pub(crate) async fn select(&self, expression: &str) -> Result<Selected> {
        let query = [("expr", expression.to_owned())];
        self.json(self.request_with(Method::GET, &["hosts", "select"], &query)).await
    }

    /// Makes a join string.
    pub(crate) async fn invite(&self, invitation: &NewInvitation) -> Result<Invitation> {
        self.post(&["hosts", "invite"], invitation).await
    }

    /// Gives a host another name.
    pub(crate) async fn rename_host(&self, host: &str, name: HostName) -> Result<Host> {
        self.json(self.request(Method::PATCH, &["hosts", host]).json(&NewName { name })).await
    }

    /// Changes a host's labels.
    pub(crate) async fn label_host(&self, host: &str, change: &LabelChange) -> Result<Host> {
        self.json(self.request(Method::PATCH, &["hosts", host, "labels"]).json(change)).await
    }

    /// Closes a host's link for good.
    pub(crate) async fn revoke_host(&self, host: &str) -> Result<()> {
        self.nothing(self.request(Method::POST, &["hosts", host, "revoke"])).await
    }

    /// Forgets a host.
    pub(crate) async fn remove_host(&self, host: &str) -> Result<()> {
        self.nothing(self.request(Method::DELETE, &["hosts", host])).await
    }

    // Runs.

    /// Begins a run.
    pub(crate) async fn begin(&self, run: &NewRun) -> Result<Created> {
        self.post(&["runs"], run).await
    }

    /// Runs, newest first.
    pub(crate) async fn runs(
        &self,
        filter: &RunFilter,
        limit: Option<usize>,
    ) -> Result<Vec<RunSummary>> {
        let job = filter.job.as_ref().map(|job| ("job", job.to_string()));
        let state = filter.state.map(|state| ("state", state.as_str().to_owned()));
        let host = filter.host.as_ref().map(|host| ("host", host.to_string()));
        let query: Vec<_> = [job, state, host].into_iter().flatten().collect();
        self.list(&["runs"], &query, limit).await
    }

    /// One run.
    pub(crate) async fn run(&self, id: RunId) -> Result<Run> {
        self.get(&["runs", &id.to_string()]).await
    }

    /// Cancels a run.
    pub(crate) async fn cancel(&self, id: RunId, cancel: &Cancel) -> Result<()> {
        let request = self.request(Method::POST, &["runs", &id.to_string(), "cancel"]);
        self.nothing(request.json(cancel)).await
    }

    /// Runs again what a run did.
    pub(crate) async fn retry(&self, id: RunId, retry: &Retry) -> Result<Created> {
        self.post(&["runs", &id.to_string(), "retry"], retry).await
    }

    /// Connects to the stream of a run's events, after the one with id `after`.
    pub(crate) async fn run_events(&self, id: RunId, after: &str) -> Result<Response> {
        self.stream(self.request(Method::GET, &["runs", &id.to_string(), "events"]), after).await
    }

    /// Connects to the stream of a run's output, after the event with id `after`.
    pub(crate) async fn logs(
        &self,
        id: RunId,
        filter: &LogFilter,
        follow: bool,
        after: &str,
    ) -> Result<Response> {
        let mut query = filter.query();
        query.push(("follow", follow.to_string()));
        let request = self.request_with(Method::GET, &["runs", &id.to_string(), "logs"], &query);
        self.stream(request, after).await
    }

    async fn stream(&self, request: RequestBuilder, after: &str) -> Result<Response> {
        let request = request.header("Accept", "text/event-stream");
        let request =
            if after.is_empty() { request } else { request.header("Last-Event-ID", after) };
        // The body has no deadline: a run may be quiet for hours. Each read of it has one.
        match tokio::time::timeout(ANSWER, self.send(request)).await {
            Ok(answer) => answer,
            Err(_) => Err(Error::Silent { server: self.server.to_string() }),
        }
    }

    /// The exact stored bytes of one stream on one host.
    pub(crate) async fn raw(&self, id: RunId, host: &HostName, stream: Stream) -> Result<Raw> {
        let filter = LogFilter { host: Some(host.clone()), stream: Some(stream) };
        let path = ["runs", &id.to_string(), "logs", "raw"];
        let request = self.request_with(Method::GET, &path, &filter.query());
        let body = match tokio::time::timeout(ANSWER, self.send(request)).await {
            Ok(answer) => answer?,
            Err(_) => return Err(Error::Silent { server: self.server.to_string() }),
        };
        let header =
            |name| body.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or("");
        let gaps = parse_gaps(header("Fleetwright-Gaps"));
        let dropped = header("Fleetwright-Dropped-Bytes").trim().parse().unwrap_or(0);
        Ok(Raw { gaps, dropped, body })
    }

    /// The next bytes of a body; `None` at its end.
    pub(crate) async fn more(&self, body: &mut Response) -> Result<Option<Vec<u8>>> {
        match tokio::time::timeout(ANSWER, body.chunk()).await {
            Ok(Ok(bytes)) => Ok(bytes.map(|bytes| bytes.to_vec())),
            Ok(Err(source)) => Err(self.unreachable(source)),
            Err(_) => Err(Error::Silent { server: self.server.to_string() }),
        }
    }

    // Jobs.

    /// All jobs.
    pub(crate) async fn jobs(&self, limit: Option<usize>) -> Result<Vec<Job>> {
        self.list(&["jobs"], &[], limit).await
    }

    /// One job.
    pub(crate) async fn job(&self, name: &JobName) -> Result<Job> {
        self.get(&["jobs", name.as_str()]).await
    }

    /// What is wrong with the server's job files.
    pub(crate) async fn job_errors(&self) -> Result<Vec<SourceError>> {
        self.get(&["jobs", "errors"]).await
    }

    /// Applies a job text, or says what it would do.
    pub(crate) async fn apply_jobs(&self, text: &JobsText) -> Result<CheckedJobs> {
        self.post(&["jobs", "apply"], text).await
    }

    /// Deletes a job that was applied over the API.
    pub(crate) async fn delete_job(&self, name: &JobName) -> Result<()> {
        self.nothing(self.request(Method::DELETE, &["jobs", name.as_str()])).await
    }

    /// Runs a job now.
    pub(crate) async fn run_job(&self, name: &JobName) -> Result<Created> {
        self.json(self.request(Method::POST, &["jobs", name.as_str(), "run"])).await
    }

    /// Pauses a job, or lets it go on.
    pub(crate) async fn pause_job(&self, name: &JobName, pause: bool) -> Result<()> {
        let verb = if pause { "pause" } else { "resume" };
        self.nothing(self.request(Method::POST, &["jobs", name.as_str(), verb])).await
    }

    /// A job's fires, newest first.
    pub(crate) async fn ledger(&self, name: &JobName, limit: Option<usize>) -> Result<Vec<Fire>> {
        self.list(&["jobs", name.as_str(), "ledger"], &[], limit).await
    }

    // Maintenances.

    /// The maintenances in force, or all that are known.
    pub(crate) async fn maintenances(&self, all: bool) -> Result<Vec<Maintenance>> {
        let query = [("all", all.to_string())];
        self.json(self.request_with(Method::GET, &["maintenances"], &query)).await
    }

    /// A maintenance, and what still runs on the hosts that it covers.
    pub(crate) async fn maintenance(&self, id: MaintenanceId) -> Result<Maintenance> {
        self.get(&["maintenances", &id.to_string()]).await
    }

    /// Switches a maintenance on.
    pub(crate) async fn begin_maintenance(&self, new: &NewMaintenance) -> Result<Maintenance> {
        self.post(&["maintenances"], new).await
    }

    /// Switches a maintenance off.
    pub(crate) async fn end_maintenance(&self, id: MaintenanceId) -> Result<Maintenance> {
        let id = id.to_string();
        self.json(self.request(Method::POST, &["maintenances", &id, "end"])).await
    }

    // Tokens, secrets, the server.

    /// All tokens, without their secrets.
    pub(crate) async fn tokens(&self) -> Result<Vec<Token>> {
        self.list(&["tokens"], &[], None).await
    }

    /// Makes a token.
    pub(crate) async fn create_token(&self, token: &NewToken) -> Result<TokenMade> {
        self.post(&["tokens"], token).await
    }

    /// Removes a token.
    pub(crate) async fn remove_token(&self, name: &str) -> Result<()> {
        self.nothing(self.request(Method::DELETE, &["tokens", name])).await
    }

    /// All users.
    pub(crate) async fn users(&self) -> Result<Vec<User>> {
        self.list(&["users"], &[], None).await
    }

    /// Adds a user.
    pub(crate) async fn add_user(&self, user: &NewUser) -> Result<UserMade> {
        self.post(&["users"], user).await
    }

    /// Changes a user.
    pub(crate) async fn change_user(&self, name: &str, change: &UserChange) -> Result<User> {
        self.json(self.request(Method::PATCH, &["users", name]).json(change)).await
    }

    /// Takes a user's password away.
    pub(crate) async fn reset_user(&self, name: &str) -> Result<SetUpLink> {
        self.json(self.request(Method::POST, &["users", name, "reset"])).await
    }

    /// Removes a user.
    pub(crate) async fn remove_user(&self, name: &str) -> Result<()> {
        self.nothing(self.request(Method::DELETE, &["users", name])).await
    }

    /// What was changed, newest first.
    pub(crate) async fn audit(
        &self,
        query: &[(&str, String)],
        limit: Option<usize>,
    ) -> Result<Vec<AuditEntry>> {
        self.list(&["audit"], query, limit).await
    }

    /// Whether the audit is whole.
    pub(crate) async fn verify_audit(&self) -> Result<AuditCheck> {
        self.json(self.request(Method::GET, &["audit", "verify"])).await
    }

    /// The names of all secrets.
    pub(crate) async fn secrets(&self) -> Result<Vec<Secret>> {
        self.list(&["secrets"], &[], None).await
    }

    /// Sets a secret.
    pub(crate) async fn set_secret(&self, name: &str, value: String) -> Result<()> {
        self.nothing(self.request(Method::PUT, &["secrets", name]).json(&NewSecret { value })).await
    }

    /// Removes a secret.
    pub(crate) async fn remove_secret(&self, name: &str) -> Result<()> {
        self.nothing(self.request(Method::DELETE, &["secrets", name])).await
    }

    /// What the server is.
    pub(crate) async fn server_info(&self) -> Result<ServerInfo> {
        self.get(&["server"]).await
    }

    /// Gives the server a new key.
    pub(crate) async fn rotate_keys(&self) -> Result<KeyRotation> {
        self.json(self.request(Method::POST, &["server", "keys", "rotate"])).await
    }

    /// Makes a backup on the server's machine and gives what the server says of it.
    pub(crate) async fn backup(&self) -> Result<BackupMade> {
        let request = self.request(Method::POST, &["server", "backup"]).timeout(BACKUP);
        let response = self.send(request).await?;
        let body = response.bytes().await.map_err(|source| self.unreachable(source))?;
        serde_json::from_slice(&body)
            .map_err(|source| Error::Malformed { url: self.server.to_string(), source })
    }
}

impl LogFilter {
    fn query(&self) -> Vec<(&'static str, String)> {
        let host = self.host.as_ref().map(|host| ("host", host.to_string()));
        let stream = self.stream.map(|stream| {
            (
                "stream",
                match stream {
                    Stream::Stdout => "stdout".to_owned(),
                    Stream::Stderr => "stderr".to_owned(),
                },
            )
        });
        [host, stream].into_iter().flatten().collect()
    }
}

/// Reads `offset:length,…`; what is no such pair is left out.
fn parse_gaps(header: &str) -> Vec<(u64, u64)> {
    let pair = |text: &str| {
        let (offset, length) = text.trim().split_once(':')?;
        Some((offset.parse().ok()?, length.parse().ok()?))
    };
    header.split(',').filter_map(pair).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_come_with_pages_or_without() {
        let read = |text| match serde_json::from_str(text).unwrap() {
            Listed::Page(page) => (page.items, page.next),
            Listed::All(items) => (items, None),
        };
        assert_eq!(read(r#"{"items":[1],"next":"a"}"#), (vec![1], Some("a".to_owned())));
        assert_eq!(read("[1,2]"), (vec![1, 2], None));
    }

    #[test]
    fn gaps_are_read_from_their_header() {
        assert_eq!(parse_gaps("10:5, 99:1"), [(10, 5), (99, 1)]);
        assert_eq!(parse_gaps(""), []);
        assert_eq!(parse_gaps("x:1,3"), []);
    }

    #[test]
    fn names_are_never_a_path_of_their_own() {
        let server = Url::parse("http://127.0.0.1:1/prefix/").unwrap();
        let credential = Some(Credential::Token("t0k".to_owned()));
        let client = Client::new(server, credential, "--server".into(), Vec::new()).unwrap();
        let request = client.request(Method::GET, &["secrets", "../hosts?x#y"]).build().unwrap();
        assert_eq!(
            request.url().as_str(),
            "http://127.0.0.1:1/prefix/api/v1/secrets/..%2Fhosts%3Fx%23y"
        );
        assert!(!format!("{client:?}").contains("t0k"));
    }
}
