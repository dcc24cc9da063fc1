//! A directory of Saltpeter that a real server serves, with real agents: its jobs fire, its API answers, its
//! socket shows output, and a restart forgets nothing.

#![expect(clippy::indexing_slicing, reason = "a missing key of a JSON value reads as null")]

use std::path::PathBuf;

use futures_util::{SinkExt as _, StreamExt as _};
use fw_testkit::fleet::{Fleet, PATIENCE, wait_for};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

const BINARY: &str = env!("CARGO_BIN_EXE_fleetwright");

/// Due on the first of January, which is not while a test runs.
const RARELY: &str = "min: 0, hour: 0, dom: 1, mon: 1, dow: '*', targets: '*', target_type: glob";

/// A directory of Saltpeter, and who serves it.
struct Served {
    dir: TempDir,
    fleet: Fleet,
}

impl Served {
    async fn start(files: &[(&str, &str)], args: &[&str]) -> Self {
        let dir = TempDir::with_prefix("saltpeter-test-").expect("a temporary directory");
        let config = "saltpeter_config: {api_ws: true, api_ws_port: 0}\n";
        for (name, text) in [("config.yaml", config)].iter().chain(files) {
            std::fs::write(dir.path().join(name), text).expect("a new file");
        }
        let path = dir.path().display().to_string();
        let mut all = vec!["--saltpeter", path.as_str(), "--saltpeter-machines", "127.0.0.1:0"];
        all.extend(args);
        let fleet = Fleet::start_with(BINARY, &all).await;
        Self { dir, fleet }
    }

    fn path(&self, file: &str) -> PathBuf {
        self.dir.path().join(file)
    }

    fn write(&self, file: &str, text: &str) {
        std::fs::write(self.path(file), text).expect("a file");
    }

    /// Where its API listens now.
    fn api(&self) -> String {
        let log = self.fleet.server.log();
        let (_, rest) = log.rsplit_once("saltpeter.api=").expect("the API listens");
        rest.split_whitespace().next().expect("an address").to_owned()
    }

    async fn ask(&self, method: reqwest::Method, path: &str, body: &str) -> reqwest::Response {
        let client =
            reqwest::Client::builder().no_proxy().timeout(PATIENCE).build().expect("a client");
        let request = client.request(method, format!("http://{}{path}", self.api()));
        request.body(body.to_owned()).send().await.expect("an answer")
    }

    async fn get(&self, path: &str) -> Value {
        let text = self.ask(reqwest::Method::GET, path, "").await.text().await.expect("a body");
        serde_json::from_str(&text).expect(&text)
    }

    async fn post(&self, path: &str, body: &str) -> Value {
        let text = self.ask(reqwest::Method::POST, path, body).await.text().await.expect("a body");
        serde_json::from_str(&text).expect(&text)
    }

    /// Waits until the state of a job is as wanted, and gives it.
    async fn state(&self, job: &str, mut wanted: impl FnMut(&Value) -> bool) -> Value {
        let what = format!("the wanted state of {job}");
        wait_for(&what, PATIENCE, async || {
            Some(self.get("/state").await[job].clone()).filter(&mut wanted)
        })
        .await
    }

    async fn job_names(&self) -> Vec<String> {
        let jobs = self.fleet.cli(&["jobs", "list", "-o", "json"]).await.ok().json();
        let items = jobs.as_array().or_else(|| jobs["items"].as_array()).expect("a list").clone();
        items.iter().map(|job| job["name"].as_str().expect("a name").to_owned()).collect()
    }

    async fn jobs_are(&self, names: &[&str]) {
        wait_for(&format!("the jobs {names:?}"), PATIENCE, async || {
            (self.job_names().await == names).then_some(())
        })
        .await;
    }
}

/// A page of Saltpeter.
struct Page(WebSocketStream<MaybeTlsStream<TcpStream>>);

impl Page {
    async fn open(served: &Served, query: &str) -> Self {
        let url = format!("ws://{}/ws{query}", served.api());
        Self(tokio_tungstenite::connect_async(url).await.expect("a socket").0)
    }

    async fn say(&mut self, message: &Value) {
        self.0.send(Message::text(message.to_string())).await.expect("it listens");
    }

    async fn next(&mut self) -> Value {
        let next = tokio::time::timeout(PATIENCE, self.0.next()).await.expect("a message in time");
        let text = next.expect("it is open").expect("a message").into_text().expect("a text");
        serde_json::from_str(&text).expect("JSON")
    }

    async fn when(&mut self, mut wanted: impl FnMut(&Value) -> bool) -> Value {
        loop {
            let message = self.next().await;
            if wanted(&message) {
                return message;
            }
        }
    }
}

impl Page {
    /// Waits until what runs is as wanted, and gives it.
    async fn when_running(&mut self, wanted: impl Fn(&Value) -> bool) -> Value {
        let status = |message: &Value| message["type"] == "status" && wanted(&message["running"]);
        self.when(status).await["running"].clone()
    }

    /// Waits until a job runs on just these machines, and gives the instance.
    async fn running(&mut self, job: &str, machines: &[&str]) -> String {
        let is = |run: &Value| run["name"] == job && run["machines"] == json!(machines);
        let found = |running: &Value| {
            let mut runs = running.as_object()?.iter();
            runs.find(|(_, run)| is(run)).map(|(instance, _)| instance.clone())
        };
        let running = self.when_running(|running| found(running).is_some()).await;
        found(&running).expect("it was there")
    }

    /// Waits until a job runs under a name that is not known, and gives it.
    async fn newly_running(&mut self, job: &str, known: &[String]) -> String {
        let new = |running: &Value| {
            let mut runs = running.as_object()?.iter();
            let found =
                runs.find(|(instance, run)| run["name"] == job && !known.contains(instance));
            found.map(|(instance, _)| instance.clone())
        };
        let running = self.when_running(|running| new(running).is_some()).await;
        new(&running).expect("it was there")
    }
}

/// Whether the job's run on this host has this code.
fn has_code(state: &Value, host: &str, code: i64) -> bool {
    state["results"][host]["retcode"] == code
}

#[tokio::test]
async fn its_jobs_fire_and_its_files_are_followed() {
    let tick = |scratch: &str, word: &str| {
        format!(
            "tick: {{sec: '*', min: '*', hour: '*', dom: '*', mon: '*', dow: '*', targets: 'web*', target_type: glob, env: {{WORD: {word}, FLAG: yes}}, command: 'echo $WORD $FLAG $SP_JOB_NAME $SP_JOB_INSTANCE >> {scratch}/ticks'}}\n"
        )
    };
    let served = Served::start(
        &[("later.yaml", &format!("later: {{{RARELY}, command: 'true', comand: x}}\n"))],
        &[],
    )
    .await;
    let _web1 = served.fleet.agent("web1").await;
    served.jobs_are(&["later"]).await;
    let scratch = served.fleet.scratch().display().to_string();
    served.write("ticks.yaml", &tick(&scratch, "one"));
    let lines = served.fleet.written("ticks").await;
    let (words, instance) = lines[0].rsplit_once(' ').expect("words");
    assert_eq!(words, "one True tick");
    let (job, second) = instance.rsplit_once('_').expect("an instance");
    assert!(job == "tick" && second.parse::<u64>().is_ok(), "{instance}");

    // They are ordinary jobs, of a file.
    let shown = served.fleet.cli(&["jobs", "show", "tick", "-o", "json"]).await.ok().json();
    assert_eq!(shown["source"], json!({"dialect": {"name": "saltpeter", "file": "ticks.yaml"}}));
    let refused = served.fleet.cli(&["jobs", "delete", "tick", "--yes"]).await;
    assert_ne!(refused.code, 0);
    assert!(refused.stderr.contains("ticks.yaml"), "{}", refused.stderr);
    let log = served.fleet.server.log();
    assert_eq!(
        log.matches("later.yaml:1:").count(),
        1,
        "what is ignored is told once, at its place: {log}"
    );

    // What is edited counts; what is broken stays as it was, and is told.
    let config = served.get("/config").await;
    served.write("ticks.yaml", &tick(&scratch, "two"));
    wait_for("the new command", PATIENCE, async || {
        served.fleet.lines("ticks").iter().any(|line| line.starts_with("two ")).then_some(())
    })
    .await;
    let changed = served.get("/config").await;
    assert!(changed["serial"].as_f64() > config["serial"].as_f64());
    assert_eq!(changed["crons"]["tick"]["env"], json!({"WORD": "two", "FLAG": true}));
    served.write("ticks.yaml", "tick: [\n");
    wait_for("the error", PATIENCE, async || {
        served.fleet.server.log().contains("ticks.yaml:").then_some(())
    })
    .await;
    served.jobs_are(&["later", "tick"]).await;
    let before = served.fleet.lines("ticks").len();
    wait_for("a further run", PATIENCE, async || {
        (served.fleet.lines("ticks").len() > before).then_some(())
    })
    .await;
    served.write("ticks.yaml", &tick(&scratch, "three"));
    wait_for("the mended command", PATIENCE, async || {
        served.fleet.lines("ticks").iter().any(|line| line.starts_with("three ")).then_some(())
    })
    .await;
    std::fs::remove_file(served.path("ticks.yaml")).expect("it is there");
    served.jobs_are(&["later"]).await;

    // No second had two runs, whatever was read again meanwhile.
    let mut instances: Vec<_> = served
        .fleet
        .lines("ticks")
        .iter()
        .filter_map(|line| line.rsplit(' ').next().map(str::to_owned))
        .collect();
    let all = instances.len();
    instances.sort();
    instances.dedup();
    assert_eq!(instances.len(), all);
}

#[tokio::test]
async fn scripts_get_what_they_got_and_what_they_were_promised() {
    let jobs = format!(
        "greet: {{{RARELY}, command: 'echo hello; echo and bye >&2; exit 3'}}\nslow: {{{RARELY}, command: 'echo begun; sleep 300', timeout: 0}}\n"
    );
    let mut served = Served::start(&[("jobs.yaml", &jobs)], &[]).await;
    let _web1 = served.fleet.agent("web1").await;
    served.jobs_are(&["greet", "slow"]).await;

    let answer = served.ask(reqwest::Method::GET, "/version", "").await;
    assert_eq!(answer.headers()["access-control-allow-origin"], "*");
    assert_eq!(answer.headers()["content-type"], "application/json; charset=utf-8");
    assert!(
        answer.text().await.unwrap().starts_with("{\"version\": \"3.5.1\", \"last_build\": \"")
    );
    let all = reqwest::Method::OPTIONS;
    assert_eq!(served.ask(all, "/anything/x", "").await.status(), 204);
    let other = served.ask(reqwest::Method::GET, "/", "").await;
    assert_eq!(
        (other.status().as_u16(), &other.headers()["allow"]),
        (405, &"OPTIONS".parse().unwrap())
    );
    assert!(!other.headers().contains_key("access-control-allow-origin"));
    assert_eq!(other.text().await.unwrap(), "405: Method Not Allowed");
    let head = served.ask(reqwest::Method::HEAD, "/config", "").await;
    assert_eq!(head.status(), 200);
    let no_socket = served.ask(reqwest::Method::GET, "/ws", "").await;
    assert_eq!(no_socket.status(), 400);
    assert_eq!(served.get("/running").await, json!({}));
    assert_eq!(served.get("/timeline").await, json!({}));
    let config = served.get("/config").await;
    assert_eq!(config["crons"]["greet"]["group"], "jobs");
    assert_eq!(config["crons"]["slow"]["timeout"], 0);
    assert_eq!(config["crons"]["greet"]["timeout"], 3600);
    assert_eq!(config["saltpeter_config"]["machines_ws_port"], 8889);

    let said = served.post("/runnow/greet", "").await;
    assert_eq!(said, json!({"status": "ok", "message": "Run signal sent to job: greet"}));
    let state = served.state("greet", |state| has_code(state, "web1", 3)).await;
    let output = state["results"]["web1"]["ret"].as_str().unwrap();
    assert!(output.contains("hello\n") && output.contains("and bye\n"), "{output}");
    assert_eq!((&state["last_success"], &state["last_failed_count"]), (&json!(false), &json!(1)));
    assert_eq!(state["targets"], json!(["web1"]));
    assert_eq!(served.post("/runnow/nobody", "").await["status"], "error");

    served.post("/runnow/slow", "").await;
    let running = wait_for("the run", PATIENCE, async || {
        let running = served.get("/running").await;
        (running != json!({})).then_some(running)
    })
    .await;
    let (instance, run) = running.as_object().unwrap().iter().next().unwrap();
    assert!(instance.starts_with("slow_"), "{instance}");
    assert_eq!((&run["name"], &run["machines"]), (&json!("slow"), &json!(["web1"])));
    let status = served.get("/status").await;
    assert_eq!(
        (&status["running"][instance]["name"], &status["state"]["slow"]["group"]),
        (&json!("slow"), &json!("jobs"))
    );
    let said = served.post("/kill", "{\"job\": \"slow\"}").await;
    assert_eq!(said, json!({"status": "ok", "message": "Kill signal sent to job: slow"}));
    let killed = served.state("slow", |state| has_code(state, "web1", 143)).await;
    assert!(
        killed["results"]["web1"]["ret"].as_str().unwrap().contains("terminated by user request")
    );

    served.fleet.server.kill9().await;
    served.fleet.start_server().await;
    assert!(has_code(&served.get("/state").await["greet"], "web1", 3), "a restart forgets nothing");
    assert_eq!(served.get("/state").await["slow"], killed);
}

#[tokio::test]
async fn a_page_sees_what_happens() {
    let jobs = format!(
        "turtle: {{{RARELY}, command: 'printf \"a \\360\\237\\220\\242 \"; echo z'}}\nsilent: {{{RARELY}, command: 'sleep 300'}}\n"
    );
    let served = Served::start(&[("jobs.yaml", &jobs)], &[]).await;
    let _web1 = served.fleet.agent("web1").await;
    let mut page = Page::open(&served, "").await;
    let first = [page.next().await, page.next().await, page.next().await];
    assert_eq!((&first[0]["type"], &first[0]["sp_version"]), (&json!("config"), &json!("0.9.31")));
    assert_eq!((&first[1]["type"], &first[1]["running"]), (&json!("status"), &json!({})));
    assert_eq!(first[2], json!({"type": "timeline", "timeline": {}}));

    page.say(&json!({"subscribe": ["turtle"]})).await;
    let details = page.when(|message| message["type"] == "details").await;
    assert!(details["data"]["next_run"].as_str().unwrap().ends_with("-01-01T00:00:00+00:00"));
    assert_eq!(
        details["data"].as_object().unwrap().len(),
        1,
        "before the first run there is no more"
    );
    page.say(&json!({"run": "turtle"})).await;
    let mut text = String::new();
    let mut complete = false;
    while !complete {
        let chunk = page.when(|message| message["type"] == "output_chunk").await;
        assert_eq!(chunk["position"].as_u64().unwrap(), text.encode_utf16().count() as u64);
        text.push_str(chunk["chunk"].as_str().unwrap());
        assert_eq!(chunk["total_length"].as_u64().unwrap(), text.encode_utf16().count() as u64);
        complete = chunk["is_complete"] == true;
        page.say(&json!({"ack": {"cron": "turtle", "machine": "web1", "position": 1}})).await;
    }
    assert!(text.starts_with("a \u{1f422} ") && text.ends_with("z\n"), "{text:?}");
    let done = page
        .when(|message| message["type"] == "details" && has_code(&message["data"], "web1", 0))
        .await;
    let result = &done["data"]["results"]["web1"];
    assert_eq!(result["output_length"].as_u64().unwrap(), text.encode_utf16().count() as u64);
    assert!(result["endtime"].as_str().unwrap().contains(' '), "{result}");

    // What makes no sense is ignored.
    for nonsense in [
        json!({"subscribe": 5}),
        json!([1]),
        json!({"run": "nobody"}),
        json!({"getTimeline": {"start_date": "x"}}),
    ] {
        page.say(&nonsense).await;
    }
    page.say(&json!({"getTimeline": {"start_date": "now-5m", "end_date": "now", "id": "mine"}}))
        .await;
    let timeline = page.when(|message| message["type"] == "timeline").await;
    let content = timeline["timeline"]["content"].as_array().unwrap();
    let kinds: Vec<_> = content.iter().map(|mark| mark["msg_type"].as_str().unwrap()).collect();
    assert_eq!(
        (kinds, &timeline["timeline"]["id"]),
        (vec!["machine_start", "machine_result"], &json!("mine"))
    );
    assert_eq!(served.get("/timeline").await, timeline["timeline"]);

    page.say(&json!({"unsubscribe": "turtle"})).await;
    page.say(&json!({"run": "silent"})).await;
    let status = page
        .when(|message| message["running"].as_object().is_some_and(|runs| !runs.is_empty()))
        .await;
    assert_eq!(status["last_state"]["silent"]["result_ok"], true);
    page.say(&json!({"killCron": "silent"})).await;
    let status = page.when(|message| message["last_state"]["silent"]["result_ok"] == false).await;
    assert_eq!(status["running"], json!({}));

    // A change of the files shows by itself.
    served.write("more.yaml", &format!("more: {{{RARELY}, command: 'true'}}\n"));
    let config = page.when(|message| message["type"] == "config").await;
    assert_eq!(config["config"]["crons"]["more"]["group"], "more");
}

/// `killMachine` ends what a job runs on that machine, of that instance; everything else goes on.
#[tokio::test]
async fn a_page_kills_on_one_machine() {
    let wait = "echo begun; while [ ! -e go ]; do sleep 0.02; done; echo over";
    let magic = "i know what i am doing!";
    let mut served = Served::start(&[], &[]).await;
    let (_web1, _web2) = (served.fleet.agent("web1").await, served.fleet.agent("web2").await);
    let scratch = served.fleet.scratch().display().to_string();
    let job = format!("{RARELY}, cwd: '{scratch}', command: '{wait}'");
    served.write(
        "jobs.yaml",
        &format!("one: {{{job}}}\nmany: {{{job}, allow_overlap: '{magic}'}}\n"),
    );
    served.jobs_are(&["many", "one"]).await;
    let mut page = Page::open(&served, "").await;

    page.say(&json!({"run": "one"})).await;
    let one = page.running("one", &["web1", "web2"]).await;
    for nothing in [
        json!({"cron": "one", "machine": "web3"}),
        json!({"cron": "many", "machine": "web1"}),
        json!({"cron": "one", "machine": "web1", "job_instance": "one_1"}),
        json!({"cron": "one"}),
        json!("web1"),
    ] {
        page.say(&json!({"killMachine": nothing})).await;
    }
    // They are answered in turn: after this everything above was looked at, and nothing was ended.
    page.say(&json!({"killMachine": {"cron": "one", "machine": "web2", "job_instance": one}}))
        .await;
    assert_eq!(page.running("one", &["web1"]).await, one);
    let state = served.state("one", |state| has_code(state, "web2", 143)).await;
    assert_eq!(state["results"]["web1"]["retcode"], "", "{state}");
    let ret = state["results"]["web2"]["ret"].as_str().expect("a text");
    assert!(
        ret.starts_with("begun\n") && ret.ends_with("[Job terminated by user request]\n"),
        "{ret}"
    );
    assert!(!ret.contains("over"), "{ret}");

    // Two runs of one job: an instance names one of them, and none means both.
    let mut many = Vec::new();
    for _ in 0..2 {
        page.say(&json!({"run": "many"})).await;
        many.push(page.newly_running("many", &many).await);
    }
    let kill = json!({"cron": "many", "machine": "web1", "job_instance": many[0]});
    page.say(&json!({"killMachine": kill})).await;
    let on = page.when_running(|running| running[&many[0]]["machines"] == json!(["web2"])).await;
    assert_eq!(on[&many[1]]["machines"], json!(["web1", "web2"]), "{on}");
    page.say(&json!({"killMachine": {"cron": "many", "machine": "web2"}})).await;
    let on = page.when_running(|running| running[&many[1]]["machines"] == json!(["web1"])).await;
    assert_eq!(on[&many[0]], Value::Null, "it has ended everywhere: {on}");

    // What was killed stays killed when the server comes back, and what goes on goes on.
    served.fleet.server.kill9().await;
    served.fleet.start_server().await;
    served.fleet.touch("go");
    let state = served.state("one", |state| has_code(state, "web1", 0)).await;
    assert!(has_code(&state, "web2", 143), "{state}");
    assert_eq!((&state["last_failed_count"], &state["last_total_count"]), (&json!(1), &json!(2)));
    let state = served.state("many", |state| has_code(state, "web1", 0)).await;
    assert!(has_code(&state, "web2", 143), "{state}");
}

/// `jobs check --ask-server` knows from the server how long runs took, of a directory and of job files alike.
#[tokio::test]
async fn overlap_is_foreseen_by_how_long_the_servers_runs_took() {
    let every =
        "min: '*', hour: '*', dom: '*', mon: '*', dow: '*', targets: '*', target_type: glob";
    let jobs = format!(
        "quick: {{{RARELY}, command: 'true'}}\nlong: {{sec: '*', {every}, command: 'sleep 1.5'}}\n"
    );
    let served = Served::start(&[("jobs.yaml", &jobs)], &[]).await;
    let _web1 = served.fleet.agent("web1").await;
    served.jobs_are(&["long", "quick"]).await;
    served.post("/runnow/quick", "").await;
    for job in ["quick", "long"] {
        // A run that found no host before the agent was there took no time; later ones do.
        served.state(job, |state| has_code(state, "web1", 0)).await;
    }
    let dir = served.dir.path().display().to_string();
    let check = ["jobs", "check", "--dialect", "saltpeter", &dir, "-o", "json"];
    let warnings = async |ask: &[&str]| {
        let answer = served.fleet.cli(&[&check[..], ask].concat()).await.ok().json();
        let warnings = answer["warnings"].as_array().expect("a list").clone();
        let overlap =
            |note: &Value| note["message"].as_str().unwrap_or_default().contains("overlap");
        warnings.into_iter().filter(overlap).collect::<Vec<_>>()
    };
    let warned = wait_for("a warning", PATIENCE, async || {
        let warned = warnings(&["--ask-server"]).await;
        (!warned.is_empty()).then_some(warned)
    })
    .await;
    assert_eq!(warned.len(), 1, "{warned:?}");
    assert_eq!((&warned[0]["file"], &warned[0]["line"]), (&json!("jobs.yaml"), &json!(2)));
    let told = warned[0]["message"].as_str().expect("a text");
    assert!(told.starts_with("job long fires every 1s and took "), "{told}");
    assert!(told.ends_with(" of its next 100 fires would overlap"), "{told}");
    assert_eq!(warnings(&[]).await, Vec::<Value>::new(), "nobody is asked unless that is wanted");

    // The same of a file in our own form, on the standard error.
    let text = "jobs:\n  long: {schedule: '@every 1s', hosts: '*', run: sleep 1.5}\n  quick: {schedule: '@every 1h', hosts: '*', run: 'true'}\n";
    let check = ["jobs", "check", "--ask-server", "-", "-o", "name"];
    let checked = served.fleet.cli_with_input(&check, text.as_bytes()).await.ok();
    let (first, rest) = checked.stderr.trim_end().split_once('\n').unzip();
    let first = first.unwrap_or(&checked.stderr);
    assert!(first.contains(":2:3: job long fires every 1s and took "), "{first}");
    assert_eq!(rest, None, "{}", checked.stderr);
}

/// The newest row of a job's ledger, when it has this verdict and reason and is younger than `after`.
async fn fired(served: &Served, job: &str, verdict: &str, reason: &Value, after: &Value) -> Value {
    wait_for(&format!("{job} is {verdict} ({reason})"), PATIENCE, async || {
        let ledger = served.fleet.cli(&["jobs", "ledger", job, "-o", "json"]).await.ok().json();
        let newest = ledger.as_array()?.first()?.clone();
        let is_it = newest["verdict"] == verdict && newest["reason"] == *reason;
        (is_it && newest["to"].as_str() > after["to"].as_str()).then_some(newest)
    })
    .await
}

/// It is maintenance as any other, of these jobs alone: the ledger says it, hosts are left out, and it is
/// what the files say, also after a restart.
#[tokio::test]
async fn maintenance_holds_jobs_and_machines() {
    let jobs = format!(
        "greet: {{{RARELY}, command: 'echo hello'}}\ntick: {{sec: '*', min: '*', hour: '*', dom: '*', mon: '*', dow: '*', targets: '*', target_type: glob, command: 'true'}}\n"
    );
    let mut served = Served::start(&[("jobs.yaml", &jobs)], &[]).await;
    let (_web1, _web2) = (served.fleet.agent("web1").await, served.fleet.agent("web2").await);
    let own = "jobs:\n  own: {schedule: '@every 1s', hosts: 'web1', run: 'true'}\n";
    drop(served.fleet.cli_with_input(&["jobs", "apply", "-"], own.as_bytes()).await.ok());
    let none = &Value::Null;
    fired(&served, "tick", "ran", none, none).await;

    say_maintenance(&served, "{global: true, machines: []}", &json!([null])).await;
    let refused = served.ask(reqwest::Method::POST, "/runnow/greet", "").await;
    assert_eq!(refused.status(), 409);
    assert!(refused.text().await.unwrap().contains("maintenance mode is active"));
    let state = &served.get("/state").await["greet"];
    assert_eq!(state, &json!({}), "nothing is due, and nothing ran");
    let skipped = fired(&served, "tick", "skipped", &json!("maintenance"), none).await;
    let other = fired(&served, "own", "ran", none, none).await;
    fired(&served, "own", "ran", none, &other).await;
    let refused = served.fleet.cli(&["maintenance", "off", "1"]).await.exits(6);
    assert!(refused.stderr.contains("asked for by files of saltpeter"), "{}", refused.stderr);

    served.fleet.server.kill9().await;
    served.fleet.start_server().await;
    served.fleet.online("web1").await;
    served.fleet.online("web2").await;
    let skipped = fired(&served, "tick", "skipped", &json!("maintenance"), &skipped).await;
    let ledger = served.fleet.cli(&["jobs", "ledger", "tick", "-o", "json"]).await.ok().json();
    let missed = ledger.as_array().unwrap().iter().filter(|row| row["verdict"] == "missed").count();
    assert_eq!(missed, 0, "what was due meanwhile was in maintenance, too: {ledger}");
    let all = served.fleet.cli(&["maintenance", "list", "--all", "-o", "json"]).await.ok().json();
    assert_eq!(all.as_array().unwrap().len(), 1, "it is the same one: {all}");

    say_maintenance(&served, "{global: false, machines: [web1]}", &json!(["web1"])).await;
    let ran = fired(&served, "tick", "ran", none, &skipped).await;
    let run = served.fleet.ended(ran["run_id"].as_str().expect("an id")).await;
    let hosts: Vec<_> = run["tasks"].as_array().unwrap().iter().map(|t| &t["host"]).collect();
    assert_eq!(hosts, ["web2"]);
    served.post("/runnow/greet", "").await;
    let state = served.state("greet", |state| has_code(state, "web2", 0)).await;
    assert_eq!(state["targets"], json!(["web2"]));

    say_maintenance(&served, "{global: false, machines: []}", &json!([])).await;
    served.post("/runnow/greet", "").await;
    served.state("greet", |state| has_code(state, "web1", 0) && has_code(state, "web2", 0)).await;
}

/// Writes the file, and waits until maintenances of these hosts are on.
async fn say_maintenance(served: &Served, text: &str, hosts: &Value) {
    served.write("maintenance.yaml", &format!("saltpeter_maintenance: {text}\n"));
    wait_for(text, PATIENCE, async || {
        let on = served.fleet.cli(&["maintenance", "list", "-o", "json"]).await.ok().json();
        let on: Vec<_> = on.as_array()?.iter().map(|one| one["hosts"].clone()).collect();
        (json!(on) == *hosts).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_token_keeps_others_out() {
    let dir = TempDir::with_prefix("saltpeter-token-").expect("a temporary directory");
    let token = dir.path().join("token");
    std::fs::write(&token, "salt and pepper\n").expect("a new file");
    let token = token.display().to_string();
    let served = Served::start(&[], &["--saltpeter-token-file", &token]).await;
    assert_eq!(served.ask(reqwest::Method::GET, "/config", "").await.status(), 401);
    assert_eq!(served.ask(reqwest::Method::POST, "/runnow/x", "").await.status(), 401);
    assert_eq!(served.ask(reqwest::Method::GET, "/config?token=wrong", "").await.status(), 401);
    assert_eq!(
        served.ask(reqwest::Method::GET, "/config?token=salt%20and%20pepper", "").await.status(),
        200
    );
    let client = reqwest::Client::builder().no_proxy().build().expect("a client");
    let request =
        client.get(format!("http://{}/config", served.api())).bearer_auth("salt and pepper");
    assert_eq!(request.send().await.expect("an answer").status(), 200);
    let url = format!("ws://{}/ws", served.api());
    assert!(tokio_tungstenite::connect_async(url).await.is_err());
    let mut page = Page::open(&served, "?token=salt%20and%20pepper").await;
    assert_eq!(page.next().await["type"], "config");
}
