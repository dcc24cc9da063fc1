//! The whole of Saltpeter at once: a directory with its example jobs, agents, and wrappers on minions of Salt,
//! while jobs are killed and time out, maintenance comes and goes and the server is killed. At the end our API,
//! the page at `/ws`, the log files and the documents of a search server must tell the same of every run.
//!
//! Each thing happens once, which takes half a minute. `FLEETWRIGHT_STORY_SECONDS=600` goes on for ten.

#![expect(clippy::indexing_slicing, reason = "a missing key of a JSON value reads as null")]

#[expect(dead_code, reason = "other tests look at the calls as well")]
#[path = "wrappers/master.rs"]
mod master;
#[path = "story/page.rs"]
mod page;
#[path = "story/search.rs"]
mod search;
#[path = "story/told.rs"]
mod told;
#[path = "wrappers/wrapper.rs"]
mod wrapper;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::time::Duration;

use fw_rt::Tasks;
use fw_testkit::fleet::{Agent, Fleet, PATIENCE, wait_for};
use fw_testkit::proxy::Proxy;
use master::Master;
use page::Page;
use search::Search;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::time::Instant;
use told::{Story, by_api, by_documents, by_files, same};

const BINARY: &str = env!("CARGO_BIN_EXE_fleetwright");

/// Hosts that have our agent.
const AGENTS: [&str; 2] = ["web1", "web2"];

/// Hosts that have only Salt and the wrapper.
const MINIONS: [&str; 2] = ["m1", "testhost1"];

const JOBS: [&str; 8] =
    ["example", "example2", "example3", "backup_job", "cleanup_job", "tick", "slow", "held"];

/// `tick` is due every two seconds: when nothing begins for so long, nothing begins at all.
const QUIET: Duration = Duration::from_secs(6);

/// Writes a number of its own and ends with what is left of it by three, so that output and code of a run prove
/// each other wherever they are told.
const TICK: &str = "n=$(od -An -N1 -tu1 /dev/urandom); echo number $n; exit $((n % 3))";

const HELD: &str = "i=0; while [ ! -e go ]; do i=$((i+1)); echo $i; sleep 0.05; done; echo last $i";

/// What is told when a server was killed before its call of `salt`: the next one cannot know, and calls nobody twice.
const NOT_BEGUN: &str = "Wrapper failed to connect within 30s (no response from Salt or wrapper)";

/// No test of its own: the wrapper as a program, which the stand-in for `salt` starts.
#[tokio::test]
async fn the_wrapper_as_a_program() {
    let env: BTreeMap<String, String> = std::env::vars().collect();
    let Some(machine) = env.get("STAND_IN_FQDN").cloned() else { return };
    wrapper::run(env, machine).await;
}

/// It goes to the background as the original does, so that the call of `salt` returns.
fn program() -> String {
    let this = std::env::current_exe().expect("it can be had");
    let this = this.display();
    format!("{this} --exact the_wrapper_as_a_program --nocapture >/dev/null 2>&1 </dev/null &")
}

/// Everything that takes part.
struct World {
    fleet: Fleet,
    master: Master,
    _agents: Vec<Agent>,
    /// Between wrappers and server, which has another port after each start.
    proxy: Proxy,
    search: Search,
    page: Page,
    restarts: usize,
    _dir: TempDir,
}

#[tokio::test]
async fn every_place_tells_the_same_story() {
    let begun = Instant::now();
    let mut world = World::start().await;
    loop {
        world.round().await;
        if begun.elapsed() >= at_least() {
            break;
        }
    }
    let story = world.finished().await;
    same("the log files", &by_files(&world.logs()), &story);
    same("the documents", &by_documents(&world.search.documents()), &story);
    world.page_tells(&story).await;
    world.state_tells(&story).await;
    world.timeline_tells(&story).await;
    everything_happened(&story, world.restarts);
    eprintln!("{} runs in {:?} were told alike", story.len(), begun.elapsed());
}

impl World {
    async fn start() -> Self {
        let dir = TempDir::with_prefix("fleetwright-story-").expect("a temporary directory");
        let master = Master::new(dir.path(), &MINIONS, &program());
        Tasks::new().spawn("salt", master.clone().serve());
        let (proxy, search) = (Proxy::start().await.expect("a free port"), Search::default());
        let settings = json!({"saltpeter_config": {
            "api_ws": true,
            "api_ws_port": 0,
            "logdir": dir.path().join("logs"),
            "elasticsearch": search.listen().await,
        }});
        let file = master.dir.join("saltpeter/settings.yaml");
        std::fs::write(file, settings.to_string()).expect("a new file");
        let arguments = master.arguments();
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let fleet = Fleet::start_with(BINARY, &arguments).await;
        std::fs::write(fleet.dir().join("facts/roles.json"), r#"{"roles": ["webserver"]}"#)
            .expect("a new file");
        let mut agents = Vec::new();
        for name in AGENTS {
            agents.push(fleet.agent(name).await);
        }
        for name in MINIONS {
            fleet.online(name).await;
        }
        let page = Page::open(api(&fleet), &JOBS);
        let mut world =
            Self { fleet, master, _agents: agents, proxy, search, page, restarts: 0, _dir: dir };
        world.proxy.lead_to(world.machines());
        world.write_jobs("*").await;
        // A page may subscribe to jobs that there are.
        world.page.lead_to(api(&world.fleet));
        world
    }

    fn logs(&self) -> PathBuf {
        self.master.dir.join("logs")
    }

    /// Where wrappers connect since the server's last start.
    fn machines(&self) -> std::net::SocketAddr {
        logged(&self.fleet, "machines.addr=").parse().expect("an address")
    }

    /// Writes the example jobs of Saltpeter and the story's own, all of this year; waits until they are served.
    async fn write_jobs(&mut self, year: &str) {
        let scratch = self.fleet.scratch().display().to_string();
        let me = user().await;
        // What wrappers are told goes with each job, since nothing else is theirs alone.
        let own = format!(
            "year: '{year}', env: {{SP_WEBSOCKET_URL: 'ws://{}', SP_OUTPUT_INTERVAL_MS: 100}}",
            self.proxy.addr()
        );
        // The examples rest in the first hour of the day, and the story should not.
        let hour = if near_midnight() { "*" } else { "1-23" };
        let days = "dom: '*', mon: '*', dow: '*'";
        let every = format!("min: '*', hour: '{hour}', {days}, {own}");
        let two = "targets: 'G@roles:webserver or G@host:testhost1', target_type: compound, number_of_targets: 2";
        let here = format!("cwd: {scratch}, user: {me}");
        let rarely = format!(
            "min: 0, hour: 0, dom: 1, mon: 1, dow: '*', {own}, {here}, targets: '*', target_type: glob"
        );
        let files = [
            (
                "example",
                format!(
                    "example: {{sec: '0,15,30,45', {every}, {here}, {two}, command: 'echo from an example; echo aside >&2'}}\n"
                ),
            ),
            (
                "example2",
                format!(
                    "example2: {{sec: '5,20,35,50', {every}, {here}, {two}, soft_timeout: 5, hard_timeout: 7, command: 'sleep 1; pwd'}}\n"
                ),
            ),
            (
                "example3",
                format!(
                    "example3: {{sec: '10,25,40,55', {every}, cwd: /, user: {me}, targets: '*', target_type: glob, command: pwd}}\n"
                ),
            ),
            (
                "backups",
                format!(
                    "backup_job: {{min: '0', hour: '2', {days}, {own}, command: 'true', targets: '*', target_type: glob, timeout: 3600}}\ncleanup_job: {{min: '30', hour: '3', {days}, {own}, command: 'true', targets: '*', target_type: glob, timeout: 1800}}\n"
                ),
            ),
            (
                "story",
                format!(
                    "tick: {{sec: '*/2', min: '*', hour: '*', {days}, {own}, {here}, targets: '*', target_type: glob, command: '{TICK}'}}\nslow: {{{rarely}, timeout: 2, command: 'echo begun; sleep 600'}}\nheld: {{{rarely}, command: '{HELD}'}}\n"
                ),
            ),
        ];
        for (name, text) in files {
            self.write(name, &text);
        }
        wait_for("the jobs", PATIENCE, async || {
            let crons = self.ask("/config").await["crons"].clone();
            JOBS.iter().all(|job| crons[job]["year"] == year).then_some(())
        })
        .await;
    }

    fn write(&self, name: &str, text: &str) {
        // As an editor does: no half of a file is ever read.
        let file = self.master.dir.join("saltpeter").join(format!("{name}.yaml"));
        std::fs::write(file.with_extension("new"), text).expect("a new file");
        std::fs::rename(file.with_extension("new"), file).expect("the same directory");
    }

    /// Asks Saltpeter's API.
    async fn ask(&self, path: &str) -> Value {
        let client = reqwest::Client::builder().no_proxy().timeout(PATIENCE).build();
        let url = format!("http://{}{path}", api(&self.fleet));
        let answer = client.expect("a client").get(url).send().await.expect("an answer");
        answer.json().await.expect("JSON")
    }

    async fn round(&mut self) {
        self.ticks_on(&["m1", "testhost1", "web1", "web2"]).await;
        self.time_out().await;
        self.kill_in_maintenance().await;
        self.hold_machines().await;
        self.restart().await;
        self.examples_ran().await;
    }

    /// Waits for a run of `tick`, begun from now on, that is over and was on just these hosts.
    async fn ticks_on(&self, hosts: &[&str]) {
        let before = self.newest().await;
        wait_for(&format!("a tick on {hosts:?}"), PATIENCE, async || {
            let runs = self.fleet.get("/runs?job=tick&limit=20").await?;
            let new = runs["items"].as_array()?.iter().take_while(|run| run["id"] != before);
            for run in new.filter(|run| !run["finished_at"].is_null()) {
                let run = self.fleet.get(&format!("/runs/{}", run["id"].as_str()?)).await?;
                if names(&run) == hosts {
                    return Some(());
                }
            }
            None
        })
        .await;
    }

    /// The latest run.
    async fn newest(&self) -> Value {
        let runs = self.fleet.get("/runs?limit=1").await.expect("a server");
        runs["items"][0]["id"].clone()
    }

    /// Begins a job from the page and waits until it has written something on every host.
    async fn begin(&self, job: &str) -> String {
        let path = format!("/runs?job={job}&limit=1");
        let newest =
            async || self.fleet.get(&path).await.map(|runs| runs["items"][0]["id"].clone());
        let before = newest().await.expect("a server");
        self.page.say(json!({"run": job})).await;
        let id = wait_for(&format!("a run of {job}"), PATIENCE, async || {
            newest().await.filter(|id| *id != before)?.as_str().map(str::to_owned)
        })
        .await;
        self.write_on(&id, 0).await;
        id
    }

    /// Waits until a run's tasks go on and each has written more than so many bytes.
    async fn write_on(&self, id: &str, bytes: u64) -> Value {
        self.fleet
            .run_when(id, "output of all", |run| {
                tasks(run).all(|task| {
                    task["state"] == "running"
                        && task["stdout_bytes"].as_u64().is_some_and(|written| written > bytes)
                })
            })
            .await
    }

    async fn time_out(&self) {
        let id = self.begin("slow").await;
        let run = self.fleet.ended(&id).await;
        assert!(tasks(&run).all(|task| task["state"] == "timed_out"), "{run}");
    }

    /// Nothing begins in maintenance, what runs goes on, and can be killed: on one machine, then on all.
    async fn kill_in_maintenance(&self) {
        let id = self.begin("held").await;
        self.maintain(&json!({"global": true, "machines": []})).await;
        self.is_quiet().await;
        let run = self.fleet.runs_show(&id).await;
        assert!(tasks(&run).all(|task| task["state"] == "running"), "{run}");
        for (machine, left) in [("web1", 3), ("m1", 2)] {
            self.page.say(json!({"killMachine": {"cron": "held", "machine": machine}})).await;
            let run =
                self.fleet.run_when(&id, machine, |run| state(run, machine) == "cancelled").await;
            let running = tasks(&run).filter(|task| task["state"] == "running").count();
            assert_eq!(running, left, "{run}");
        }
        self.page.say(json!({"killCron": "held"})).await;
        let run = self.fleet.ended(&id).await;
        assert!(tasks(&run).all(|task| task["state"] == "cancelled"), "{run}");
        self.maintain(&json!({"global": false, "machines": []})).await;
    }

    async fn is_quiet(&self) {
        let (mut last, mut since) = (Value::Null, Instant::now());
        wait_for("a while in which nothing begins", PATIENCE, async || {
            let newest = self.newest().await;
            if newest != last {
                (last, since) = (newest, Instant::now());
            }
            (since.elapsed() > QUIET).then_some(())
        })
        .await;
    }

    async fn maintain(&self, what: &Value) {
        self.write("maintenance", &json!({"saltpeter_maintenance": what}).to_string());
        wait_for("the maintenance to be served", PATIENCE, async || {
            (self.ask("/config").await["maintenance"] == *what).then_some(())
        })
        .await;
    }

    async fn hold_machines(&self) {
        self.maintain(&json!({"global": false, "machines": ["web2", "m1"]})).await;
        self.ticks_on(&["testhost1", "web1"]).await;
        self.maintain(&json!({"global": false, "machines": []})).await;
        self.ticks_on(&["m1", "testhost1", "web1", "web2"]).await;
    }

    /// The server is killed under a run, and the search server is away meanwhile.
    async fn restart(&mut self) {
        let go = self.fleet.scratch().join("go");
        let id = self.begin("held").await;
        self.search.here.store(false, Ordering::SeqCst);
        self.fleet.server.kill9().await;
        self.restarts += 1;
        self.fleet.start_server().await;
        self.proxy.lead_to(self.machines());
        self.page.lead_to(api(&self.fleet));
        let run = self.fleet.runs_show(&id).await;
        let most = tasks(&run).filter_map(|task| task["stdout_bytes"].as_u64()).max();
        self.write_on(&id, most.expect("tasks")).await;
        std::fs::write(&go, "").expect("a new file");
        let run = self.fleet.ended(&id).await;
        std::fs::remove_file(&go).expect("it is there");
        assert!(tasks(&run).all(|task| task["state"] == "succeeded"), "{run}");
        self.search.here.store(true, Ordering::SeqCst);
    }

    async fn examples_ran(&self) {
        for job in ["example", "example2", "example3"] {
            wait_for(&format!("a run of {job}"), PATIENCE, async || {
                let runs = self.fleet.get(&format!("/runs?job={job}")).await?;
                let mut runs = runs["items"].as_array()?.iter();
                runs.any(|run| run["state"] == "succeeded").then_some(())
            })
            .await;
        }
    }

    /// Lets nothing begin any more, waits until all is over and told, and gives the story as our API tells it.
    async fn finished(&mut self) -> Story {
        self.write_jobs("2099").await;
        wait_for("an end of all fires", PATIENCE, async || {
            let jobs = self.fleet.get("/jobs").await?;
            let over =
                |job: &Value| job["next_fire"].as_str().is_none_or(|at| at.starts_with("2099"));
            jobs.as_array()?.iter().all(over).then_some(())
        })
        .await;
        let over = |story: &Story| story.values().filter(|told| told.over).count();
        wait_for("all runs to be over, and told", 2 * PATIENCE, async || {
            let runs = told::runs(&self.fleet).await?;
            let done = runs.iter().all(|run| !run["finished_at"].is_null());
            let told = [by_files(&self.logs()), by_documents(&self.search.documents())];
            (done && told.iter().all(|story| over(story) == runs.len())).then_some(())
        })
        .await;
        by_api(&self.fleet, &AGENTS).await
    }

    /// What the page was shown of a run is what there was, and it was shown the last run of each job to its end.
    async fn page_tells(&self, story: &Story) {
        wait_for("the last runs on the page", PATIENCE, async || {
            self.page.seen(|seen| {
                let whole = |instance: &&String| {
                    seen.ended.get(*instance).is_some_and(|ended| *ended == story[*instance].ended)
                };
                last_runs(story).values().all(whole).then_some(())
            })
        })
        .await;
        self.page.seen(|seen| {
            assert_eq!(seen.wrong, Vec::<String>::new());
            for (instance, ended) in &seen.ended {
                let told = &story[instance];
                for (machine, shown) in ended {
                    assert_eq!(told.ended.get(machine), Some(shown), "{instance} on {machine}");
                }
            }
            for (instance, machines) in &seen.running {
                let told = story.get(instance).expect("what is shown to run is a run");
                assert!(machines.is_subset(&told.began), "{instance} on {machines:?}");
            }
            let some: BTreeSet<_> = seen.ended.keys().map(|instance| job_of(instance)).collect();
            assert!(some.is_superset(&happening()), "{some:?}");
        });
    }

    /// `/state` has the last run of each job.
    async fn state_tells(&self, story: &Story) {
        let state = self.ask("/state").await;
        for (job, instance) in last_runs(story) {
            let results = state[job]["results"].as_object().expect("results");
            let results = results.iter().map(|(machine, result)| {
                let text = result["ret"].as_str().expect("a text").to_owned();
                (machine.clone(), (result["retcode"].as_i64().expect("a code"), text))
            });
            assert_eq!(results.collect::<BTreeMap<_, _>>(), story[instance].ended, "{instance}");
        }
    }

    /// A timeline of everything has each begin and end on a machine.
    async fn timeline_tells(&self, story: &Story) {
        let ask = json!({"start_date": "now-1h", "end_date": "now", "id": "all of it"});
        self.page.say(json!({"getTimeline": ask})).await;
        let timeline = wait_for("the timeline", PATIENCE, async || {
            let timeline = self.page.seen(|seen| seen.timeline.clone());
            (timeline["id"] == "all of it").then_some(timeline)
        })
        .await;
        let marks = timeline["content"].as_array().expect("a list").iter().map(|mark| {
            let text = |key: &str| mark[key].as_str().expect("a text").to_owned();
            (text("job_instance"), text("msg_type"), mark["ret_code"].as_i64().expect("a code"))
        });
        let mut marks: Vec<_> = marks.collect();
        let mut expected = Vec::new();
        for (instance, told) in story {
            let mark = |kind: &str, code| (instance.clone(), kind.to_owned(), code);
            expected.extend(told.began.iter().map(|_| mark("machine_start", 0)));
            expected.extend(told.ended.values().map(|(code, _)| mark("machine_result", *code)));
        }
        marks.sort();
        expected.sort();
        assert_eq!(marks, expected);
    }
}

/// Whether the story has what it is about, and what must be so whoever tells it.
fn everything_happened(story: &Story, restarts: usize) {
    let all: BTreeSet<&str> = AGENTS.into_iter().chain(MINIONS).collect();
    let (mut jobs, mut machines, mut codes) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    let mut not_begun = BTreeSet::new();
    for (instance, told) in story {
        let job = job_of(instance);
        jobs.insert(job);
        let on: BTreeSet<_> = told.ended.keys().map(String::as_str).collect();
        if ["example", "example2"].contains(&job) {
            let chosen = on.len() == 2 && on.is_subset(&["testhost1", "web1", "web2"].into());
            assert!(chosen, "{instance} on {on:?}");
        }
        machines.extend(on);
        for (machine, (code, output)) in &told.ended {
            codes.insert(*code);
            if output == NOT_BEGUN && MINIONS.contains(&machine.as_str()) {
                assert_eq!(*code, 254, "{instance} on {machine}");
                not_begun.insert(instance);
            } else {
                proves_itself(job, *code, output);
            }
        }
    }
    // Two jobs may be due in one second, and of one run at a time the call of `salt` may be under way.
    assert!(not_begun.len() <= 2 * restarts, "{not_begun:?} after {restarts} restarts");
    assert_eq!(machines, all);
    assert!(jobs.is_superset(&happening()), "{jobs:?}");
    assert!(codes.is_superset(&[0, 1, 2, 124, 143].into()), "{codes:?}");
}

/// Jobs that are sure to have run.
fn happening() -> BTreeSet<&'static str> {
    JOBS.into_iter().filter(|job| !["backup_job", "cleanup_job"].contains(job)).collect()
}

fn proves_itself(job: &str, code: i64, output: &str) {
    match job {
        "tick" => {
            let number =
                output.strip_prefix("number ").and_then(|rest| rest.trim().parse::<i64>().ok());
            assert_eq!(number.map(|number| number % 3), Some(code), "{output:?}");
        }
        "held" => {
            let numbers = output.lines().map_while(|line| line.parse::<u64>().ok());
            let (count, last) = (numbers.clone().count() as u64, numbers.last());
            assert_eq!(last, Some(count), "every line once and in order: {output:?}");
            assert_eq!(code == 0, output.ends_with(&format!("last {count}\n")), "{output:?}");
        }
        _ => {}
    }
}

/// The last run of each job.
fn last_runs(story: &Story) -> BTreeMap<&str, &String> {
    // Instances of one job end with ten digits each, so they stand in their order.
    story.keys().map(|instance| (job_of(instance), instance)).collect()
}

fn job_of(instance: &str) -> &str {
    instance.rsplit_once('_').expect("an instance").0
}

fn tasks(run: &Value) -> std::slice::Iter<'_, Value> {
    run["tasks"].as_array().expect("tasks").iter()
}

fn names(run: &Value) -> Vec<&str> {
    let mut names: Vec<_> = tasks(run).filter_map(|task| task["host"].as_str()).collect();
    names.sort_unstable();
    names
}

fn state<'a>(run: &'a Value, host: &str) -> &'a Value {
    &tasks(run).find(|task| task["host"] == host).expect("a task of this host")["state"]
}

/// Where Saltpeter's API listens since the server's last start.
fn api(fleet: &Fleet) -> String {
    logged(fleet, "saltpeter.api=")
}

fn logged(fleet: &Fleet, field: &str) -> String {
    let log = fleet.server.log();
    let (_, rest) = log.rsplit_once(field).expect("it is in the log");
    rest.split(|c: char| c.is_whitespace() || c == '\u{1b}').next().expect("a word").to_owned()
}

/// Who runs this test: nobody else's commands can be run without being root.
async fn user() -> String {
    let output = tokio::process::Command::new("id").arg("-un").output().await.expect("a name");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// How long the story goes on at least; each thing happens once in any case.
fn at_least() -> Duration {
    let wanted = std::env::vars().find(|(name, _)| name == "FLEETWRIGHT_STORY_SECONDS");
    let seconds =
        wanted.map(|(_, text)| text.parse::<u64>().expect("FLEETWRIGHT_STORY_SECONDS: a number"));
    Duration::from_secs(seconds.unwrap_or(0))
}

/// Whether the hour is the first of the day by UTC, or soon will be.
fn near_midnight() -> bool {
    let seconds = std::time::UNIX_EPOCH.elapsed().expect("a clock that is set").as_secs();
    matches!(seconds / 3600 % 24, 0 | 23)
}
