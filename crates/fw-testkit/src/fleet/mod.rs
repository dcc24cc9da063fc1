//! A fleet of real processes: one server, agents, and command lines, in a directory of their own.
//!
//! Everything runs on loopback and on ports that the system chose. Agents reach the server
//! through a [`Proxy`], so that a test can cut the link, and so that a server that is started
//! again may have another port. When the fleet is dropped, also by a test that panics, every
//! process of it is ended, and after a panic all logs are printed.

#![expect(clippy::indexing_slicing, reason = "a missing key of a JSON value reads as null")]

pub(crate) mod leftovers;
mod output;
mod plain;
mod process;

use std::ffi::OsString;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;
use tokio::io::AsyncWriteExt as _;
use tokio::process::Child;

pub use output::Output;
pub use process::Process;

use crate::door::Door;
use crate::proxy::Proxy;

/// Everything a test waits for comes within this, unless it says otherwise. Not how long things
/// take, but when to give up on a machine that does ten other things.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Between two looks at what a test waits for.
pub(crate) const LOOK_EVERY: Duration = Duration::from_millis(25);

/// Looks until there is something, and gives it.
///
/// # Panics
/// There is nothing within `deadline`.
pub async fn wait_for<T>(
    what: &str,
    deadline: Duration,
    mut look: impl AsyncFnMut() -> Option<T>,
) -> T {
    let looking = async {
        loop {
            if let Some(found) = look().await {
                return found;
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    };
    let found = tokio::time::timeout(deadline, looking).await.ok();
    assert!(found.is_some(), "waited {deadline:?} for {what}");
    found.expect("checked above")
}

/// A server, and what agents and command lines need to reach it.
#[derive(Debug)]
pub struct Fleet {
    binary: PathBuf,
    dir: TempDir,
    /// The server's process.
    pub server: Process,
    /// Between agents and server.
    pub proxy: Proxy,
    addr: Option<SocketAddr>,
    /// The first admin's token, kept apart: the data directory may be replaced by a backup.
    token: PathBuf,
    http: reqwest::Client,
}

impl Fleet {
    /// Starts a server of this binary (`env!("CARGO_BIN_EXE_fleetwright")`) and waits until it is
    /// ready.
    ///
    /// # Panics
    /// It does not start.
    pub async fn start(binary: &str) -> Self {
        Self::start_with(binary, &[]).await
    }

    /// Likewise, with more arguments for `serve`.
    ///
    /// # Panics
    /// It does not start.
    pub async fn start_with(binary: &str, args: &[&str]) -> Self {
        Self::launch(binary, "serve", args, None).await
    }

    /// Starts a server whose data directory is a disk of its own, of this size (`32m`). It is
    /// there for the server's process alone, in a mount namespace (`mount_namespaces(7)`) that
    /// ends with it; [`Fleet::in_server`] sees it from outside.
    ///
    /// # Panics
    /// It does not start.
    pub async fn start_on_a_small_disk(binary: &str, size: &str) -> Self {
        Self::launch(binary, "serve", &[], Some(size)).await
    }

    /// Starts server and agent in one process (`up`), with more arguments for it.
    ///
    /// # Panics
    /// It does not start.
    pub async fn up(binary: &str, args: &[&str]) -> Self {
        Self::launch(binary, "up", args, None).await
    }

    async fn launch(binary: &str, verb: &str, args: &[&str], disk: Option<&str>) -> Self {
        let dir = TempDir::with_prefix("fleetwright-test-").expect("a temporary directory");
        for inner in ["home", "facts", "scratch"] {
            fs::create_dir(dir.path().join(inner)).expect("a new directory");
        }
        let proxy = Proxy::start().await.expect("a free port");
        let mut command =
            disk.map_or_else(Vec::new, |size| on_a_disk(&dir.path().join("data"), size));
        command.extend([binary, verb, "--listen", "127.0.0.1:0", "--data-dir"].map(OsString::from));
        command.push(dir.path().join("data").into());
        if verb == "serve" {
            command.extend(["--public-url".into(), format!("http://{}", proxy.addr()).into()]);
        }
        command.extend(args.iter().map(OsString::from));
        let server = Process::new(command, dir.path().join("server.log"), dir.path().join("home"));
        let http = reqwest::Client::builder().no_proxy().timeout(PATIENCE).build();
        let http = http.expect("a client of plain HTTP");
        let token = dir.path().join("admin.token");
        let mut fleet = Self { binary: binary.into(), dir, server, proxy, addr: None, token, http };
        fleet.start_server().await;
        let written = fleet.data_dir().join("admin.token");
        let written = if disk.is_some() { fleet.in_server(&written) } else { written };
        fs::copy(written, &fleet.token).expect("the first start writes a token");
        fleet
    }

    /// Starts the server, again after a kill, and waits until it is ready.
    ///
    /// # Panics
    /// It does not start.
    pub async fn start_server(&mut self) {
        let before = self.server.spawn();
        let server = &mut self.server;
        let addr = wait_for("the server's address in its log", PATIENCE, async || {
            assert!(server.ended().is_none(), "the server has ended:\n{}", server.log());
            let log = server.log();
            let log = log.get(before..)?;
            let mut marks = ["server.addr=", "Fleetwright listens on http://"].into_iter();
            let (_, rest) = marks.find_map(|mark| log.split_once(mark))?;
            // The line may still be on its way.
            let (addr, _) = rest.split_once(char::is_whitespace)?;
            addr.parse::<SocketAddr>().ok()
        })
        .await;
        self.addr = Some(addr);
        self.proxy.lead_to(addr);
        wait_for("a server that is ready", PATIENCE, async || {
            let answer = self.http.get(format!("{}/readyz", self.url())).send().await.ok()?;
            answer.status().is_success().then_some(())
        })
        .await;
    }

    /// Where the server listens now.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.addr.expect("known since the first start"))
    }

    /// A door to the server for a browser, which is the first admin behind it.
    ///
    /// # Panics
    /// There is no free port.
    pub async fn door(&self) -> Door {
        let token = fs::read_to_string(&self.token).expect("the first start writes a token");
        Door::open(self.addr.expect("known since the first start"), token.trim()).await
    }

    /// Where the server listens now.
    ///
    /// # Panics
    /// It was never started.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr.expect("known since the first start")
    }

    /// The server's data directory.
    #[must_use]
    pub fn data_dir(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// A path as the server's process sees it (`proc_pid_root(5)`).
    ///
    /// # Panics
    /// The server does not run, or the path is not absolute.
    #[must_use]
    pub fn in_server(&self, path: &Path) -> PathBuf {
        let pid = self.server.pid().expect("the server runs");
        let path = path.strip_prefix("/").expect("an absolute path");
        Path::new("/proc").join(pid.to_string()).join("root").join(path)
    }

    /// The directory of all the fleet's files.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// A directory for what commands write. Commands that leave processes behind run in it
    /// (`--cwd`), so that those are found and ended with the fleet.
    #[must_use]
    pub fn scratch(&self) -> PathBuf {
        self.dir.path().join("scratch")
    }

    /// Lines of a file in [`Fleet::scratch`]; none when there is no file.
    #[must_use]
    pub fn lines(&self, file: &str) -> Vec<String> {
        let text = fs::read_to_string(self.scratch().join(file)).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    /// Begins a command line as the first admin.
    ///
    /// # Panics
    /// The binary does not start.
    #[must_use]
    pub fn cli_spawn(&self, args: &[&str]) -> Child {
        let mut command: Vec<OsString> = vec![self.binary.clone().into()];
        command.extend(args.iter().map(OsString::from));
        let mut command = Process::prepare(&command, &self.dir.path().join("home"));
        command.env("FLEETWRIGHT_SERVER", self.url());
        command.env("FLEETWRIGHT_TOKEN_FILE", &self.token);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().expect("the binary starts")
    }

    /// Runs a command line as the first admin.
    ///
    /// # Panics
    /// It does not end.
    pub async fn cli(&self, args: &[&str]) -> Output {
        self.cli_with_input(args, b"").await
    }

    /// Likewise, with something on standard input.
    ///
    /// # Panics
    /// It does not end.
    pub async fn cli_with_input(&self, args: &[&str], input: &[u8]) -> Output {
        self.finish(self.cli_spawn(args), args, input).await
    }

    /// Waits for a command line that [`Fleet::cli_spawn`] began.
    ///
    /// # Panics
    /// It does not end.
    pub async fn finish(&self, mut child: Child, args: &[&str], input: &[u8]) -> Output {
        let line = format!("fleetwright {}", args.join(" "));
        if let Some(mut stdin) = child.stdin.take() {
            // A command that takes no input has closed it, or ended.
            stdin.write_all(input).await.ok();
        }
        let ended = tokio::time::timeout(2 * PATIENCE, child.wait_with_output()).await;
        assert!(ended.is_ok(), "`{line}` does not end");
        let output = ended.expect("checked above").expect("a child can be waited for");
        Output {
            line,
            stdout: output.stdout,
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
            code: output.status.code().unwrap_or(-1),
        }
    }

    /// Begins a run with these arguments of `run`, and gives its id.
    ///
    /// # Panics
    /// It is refused.
    pub async fn begin(&self, args: &[&str]) -> String {
        let mut line = vec!["run", "--detach", "-o", "json"];
        line.extend(args);
        let begun = self.cli(&line).await.ok().json();
        begun["id"].as_str().expect("an id").to_owned()
    }

    /// Asks the API; `path` is below `/api/v1`. `None` when the server is away or has no such thing.
    pub async fn get(&self, path: &str) -> Option<Value> {
        let body = self.open(path).await?.bytes().await.ok()?;
        serde_json::from_slice(&body).ok()
    }

    /// The server's own figures (`/metrics`), as text. `None` when the server is away.
    pub async fn metrics(&self) -> Option<String> {
        let token = fs::read_to_string(&self.token).ok()?;
        let request = self.http.get(format!("{}/metrics", self.url()));
        request.bearer_auth(token.trim()).send().await.ok()?.text().await.ok()
    }

    /// Begins to read an answer of the API; `path` is below `/api/v1`. `None` when the server is away or
    /// has no such thing.
    pub async fn open(&self, path: &str) -> Option<reqwest::Response> {
        let token = fs::read_to_string(&self.token).ok()?;
        let request = self.http.get(format!("{}/api/v1{path}", self.url()));
        request.bearer_auth(token.trim()).send().await.ok()?.error_for_status().ok()
    }

    /// A run, as `runs show -o json` prints it.
    ///
    /// # Panics
    /// There is no such run, or no server.
    pub async fn runs_show(&self, id: &str) -> Value {
        self.get(&format!("/runs/{id}")).await.expect("a run of this id")
    }

    /// Waits until `looks` likes the run, and gives it.
    ///
    /// # Panics
    /// It never does.
    pub async fn run_when(
        &self,
        id: &str,
        what: &str,
        mut looks: impl FnMut(&Value) -> bool,
    ) -> Value {
        wait_for(what, 2 * PATIENCE, async || {
            self.get(&format!("/runs/{id}")).await.filter(|run| looks(run))
        })
        .await
    }

    /// Waits until the run has ended, and gives it.
    ///
    /// # Panics
    /// It does not end.
    pub async fn ended(&self, id: &str) -> Value {
        self.run_when(id, "the end of the run", |run| {
            matches!(run["state"].as_str(), Some("succeeded" | "failed" | "cancelled"))
        })
        .await
    }

    /// Waits until the run's task on the first host is in this state, and gives the run.
    ///
    /// # Panics
    /// It never is.
    pub async fn task_is(&self, id: &str, state: &str) -> Value {
        let what = format!("a task that is {state}");
        self.run_when(id, &what, |run| run["tasks"][0]["state"] == state).await
    }

    /// The exact stored bytes of one stream, as `runs logs --raw` prints them.
    ///
    /// # Panics
    /// The command line does not end.
    pub async fn raw(&self, id: &str, host: &str, stream: &str) -> Output {
        self.cli(&["runs", "logs", id, "--host", host, "--stream", stream, "--raw"]).await
    }

    /// Begins `text` in a shell on one host, in [`Fleet::scratch`], and gives the run's id.
    ///
    /// # Panics
    /// It is refused.
    pub async fn begin_shell(&self, host: &str, args: &[&str], text: &str) -> String {
        let scratch = self.scratch().display().to_string();
        let mut line = vec![host, "--cwd", &scratch];
        line.extend(args);
        line.extend(["--shell", text]);
        self.begin(&line).await
    }

    /// Likewise, and waits for the end.
    ///
    /// # Panics
    /// It is refused, or does not end.
    pub async fn run_shell(&self, host: &str, args: &[&str], text: &str) -> (String, Value) {
        let id = self.begin_shell(host, args, text).await;
        let run = self.ended(&id).await;
        (id, run)
    }

    /// Makes an empty file in [`Fleet::scratch`]: what a command waits for.
    ///
    /// # Panics
    /// It cannot be made.
    pub fn touch(&self, file: &str) {
        fs::write(self.scratch().join(file), "").expect("a new file");
    }

    /// Waits until a command has written at least one line to this file.
    ///
    /// # Panics
    /// It never does.
    pub async fn written(&self, file: &str) -> Vec<String> {
        wait_for(&format!("a line in {file}"), PATIENCE, async || {
            Some(self.lines(file)).filter(|lines| !lines.is_empty())
        })
        .await
    }

    /// Makes a join string.
    ///
    /// # Panics
    /// It is refused.
    pub async fn invite(&self, args: &[&str]) -> String {
        let mut line = vec!["hosts", "invite", "-o", "json"];
        line.extend(args);
        let invitation = self.cli(&line).await.ok().json();
        invitation["join"].as_str().expect("a join string").to_owned()
    }

    /// A host that has joined and is online.
    ///
    /// # Panics
    /// It is not.
    pub async fn agent(&self, name: &str) -> Agent {
        self.agent_with(name, &[]).await
    }

    /// Likewise, with more arguments for `agent run`.
    ///
    /// # Panics
    /// It is not.
    pub async fn agent_with(&self, name: &str, args: &[&str]) -> Agent {
        let mut agent = self.join(name, args).await;
        agent.start();
        self.online(name).await;
        agent
    }

    /// A host that has joined; its agent is not started.
    ///
    /// # Panics
    /// It is refused.
    pub async fn join(&self, name: &str, args: &[&str]) -> Agent {
        let join = self.invite(&[]).await;
        drop(self.try_join(&join, name).await.ok());
        // Joining links once. Until the server has seen that end, the host seems to be online.
        self.host_is_not(name, "online").await;
        self.agent_of(name, &[], args)
    }

    /// Tries to join as `name` with this string.
    pub async fn try_join(&self, join: &str, name: &str) -> Output {
        let state = self.state_dir(name).display().to_string();
        let args = ["agent", "join", "-", "--state-dir", &state, "--name", name];
        self.cli_with_input(&args, join.as_bytes()).await
    }

    /// The state directory of the host that joined with this name.
    #[must_use]
    pub fn state_dir(&self, name: &str) -> PathBuf {
        self.dir.path().join("agents").join(name)
    }

    /// The agent of a host that has joined, started by `wrap` if that is not empty.
    #[must_use]
    pub fn agent_of(&self, name: &str, wrap: &[&str], args: &[&str]) -> Agent {
        let state = self.state_dir(name);
        let mut command: Vec<OsString> = wrap.iter().map(OsString::from).collect();
        command.extend([self.binary.clone().into(), "agent".into(), "run".into()]);
        command.extend(["--state-dir".into(), state.clone().into_os_string()]);
        command.extend(["--facts-dir".into(), self.dir.path().join("facts").into()]);
        command.extend(args.iter().map(OsString::from));
        let log = self.dir.path().join(format!("agent-{name}.log"));
        let process = Process::new(command, log, self.dir.path().join("home"));
        Agent { state, process }
    }

    /// Waits until a host is online.
    ///
    /// # Panics
    /// It never is.
    pub async fn online(&self, host: &str) {
        self.host_is(host, "online").await;
    }

    /// Waits until a host is in this state.
    ///
    /// # Panics
    /// It never is.
    pub async fn host_is(&self, host: &str, state: &str) {
        self.host_state(host, &format!("to be {state}"), |now| now == state).await;
    }

    async fn host_is_not(&self, host: &str, state: &str) {
        self.host_state(host, &format!("not to be {state}"), |now| now != state).await;
    }

    async fn host_state(&self, host: &str, what: &str, wanted: impl Fn(&str) -> bool) {
        wait_for(&format!("host {host} {what}"), PATIENCE, async || {
            let host = self.get(&format!("/hosts/{host}")).await?;
            wanted(host["state"].as_str()?).then_some(())
        })
        .await;
    }

    /// The processes of the fleet that live now: servers, agents, supervisors and commands.
    #[must_use]
    pub fn processes(&self) -> usize {
        processes_of(self.dir.path())
    }
}

/// What starts a command that alone sees a disk of this size at `place`.
fn on_a_disk(place: &Path, size: &str) -> Vec<OsString> {
    let mount = format!(
        "mkdir -p \"$1\" && mount -t tmpfs -o mode=700,size={size} tmpfs \"$1\" && shift && exec \"$@\""
    );
    // Who is not root may mount in a user namespace of its own (user_namespaces(7)).
    let root = rustix::process::getuid().is_root();
    let user: &[&str] = if root { &[] } else { &["--user", "--map-root-user"] };
    let words = ["unshare"].iter().chain(user).chain(&["--mount", "--propagation", "private"]);
    let mut words: Vec<OsString> = words.map(OsString::from).collect();
    words.extend(["sh", "-c", &mount, "sh"].map(OsString::from));
    words.push(place.into());
    words
}

/// The living processes of the fleet that has, or had, its files in `dir`.
#[must_use]
pub fn processes_of(dir: &Path) -> usize {
    leftovers::belonging_to(dir).len()
}

impl Drop for Fleet {
    fn drop(&mut self) {
        leftovers::end(self.dir.path());
        if std::thread::panicking() {
            print_logs(self.dir.path());
        }
    }
}

/// Prints the end of each log, for whoever reads why a test does not pass.
fn print_logs(dir: &Path) {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let logs = entries
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "log"));
    for path in logs {
        let text = String::from_utf8_lossy(&fs::read(&path).unwrap_or_default()).into_owned();
        let lines: Vec<_> = text.lines().collect();
        let last = lines.get(lines.len().saturating_sub(60)..).unwrap_or_default();
        eprintln!("--- {}\n{}", path.display(), last.join("\n"));
    }
}

/// A host of the fleet: its agent's process and its state.
#[derive(Debug)]
pub struct Agent {
    /// Its state directory.
    pub state: PathBuf,
    /// Its process.
    pub process: Process,
}

impl Agent {
    /// Starts its agent.
    ///
    /// # Panics
    /// It runs already.
    pub fn start(&mut self) {
        self.process.spawn();
    }

    /// Ends it as `kill -9` does.
    pub async fn kill9(&mut self) {
        self.process.kill9().await;
    }

    /// Asks it to end, and waits until it has.
    pub async fn term(&mut self) {
        self.process.term().await;
    }
}
