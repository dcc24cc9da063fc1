//! `saltpeter_config`, typed. What a setting cannot be is left at its default, and told.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;

/// What `saltpeter_config` says, defaults filled in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Settings {
    /// Directory of the log files of jobs.
    pub logdir: PathBuf,
    /// Say more.
    pub debug: bool,
    /// Whether the API is served.
    pub api_ws: bool,
    /// Its port.
    pub api_ws_port: u16,
    /// Its address; `None` when nobody says.
    pub api_ws_bind_addr: Option<IpAddr>,
    /// The port for wrappers.
    pub machines_ws_port: u16,
    /// Its address.
    pub machines_ws_bind_addr: IpAddr,
    /// How machines reach this server.
    pub default_saltpeter_server_host: String,
    /// The wrapper on machines.
    pub default_wrapper_path: String,
    /// How much it logs: `normal`, `debug` or `off`.
    pub default_wrapper_loglevel: String,
    /// And where.
    pub default_wrapper_logdir: String,
    /// URL of an Elasticsearch.
    pub elasticsearch: Option<String>,
    /// URL of an `OpenSearch`.
    pub opensearch: Option<String>,
    /// Prefix of the indices in the first.
    pub elasticsearch_index: String,
    /// And in the second.
    pub opensearch_index: String,
}

/// Reads what is written, by key, each value as Python writes it. Gives what is wrong as well.
pub(crate) fn read(written: &BTreeMap<String, String>) -> (Settings, Vec<String>) {
    let mut read = Read { written, wrong: Vec::new() };
    let settings = Settings {
        logdir: PathBuf::from(read.text("logdir", || "/var/log/saltpeter".to_owned())),
        debug: read.switch("debug"),
        api_ws: read.switch("api_ws"),
        api_ws_port: read.port("api_ws_port", 8888),
        api_ws_bind_addr: read.address("api_ws_bind_addr"),
        machines_ws_port: read.port("machines_ws_port", 8889),
        machines_ws_bind_addr: read
            .address("machines_ws_bind_addr")
            .unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED)),
        default_saltpeter_server_host: read.text("default_saltpeter_server_host", own_name),
        default_wrapper_path: read
            .text("default_wrapper_path", || "/usr/local/bin/sp_wrapper.py".to_owned()),
        default_wrapper_loglevel: read.text("default_wrapper_loglevel", || "normal".to_owned()),
        default_wrapper_logdir: read
            .text("default_wrapper_logdir", || "/var/log/sp_wrapper".to_owned()),
        elasticsearch: read.given("elasticsearch"),
        opensearch: read.given("opensearch"),
        elasticsearch_index: read.text("elasticsearch_index", || "saltpeter".to_owned()),
        opensearch_index: read.text("opensearch_index", || "saltpeter".to_owned()),
    };
    (settings, read.wrong)
}

/// What this machine calls itself.
fn own_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

struct Read<'a> {
    written: &'a BTreeMap<String, String>,
    wrong: Vec<String>,
}

impl Read<'_> {
    /// `None` when it is absent or empty.
    fn given(&self, key: &str) -> Option<String> {
        self.written.get(key).filter(|text| !text.is_empty() && *text != "None").cloned()
    }

    fn text(&self, key: &str, default: impl FnOnce() -> String) -> String {
        self.given(key).unwrap_or_else(default)
    }

    fn switch(&mut self, key: &'static str) -> bool {
        match self.given(key).as_deref() {
            Some("True" | "1") => true,
            None | Some("False" | "0") => false,
            Some(_) => self.wrong(key, false, "write true or false"),
        }
    }

    fn port(&mut self, key: &'static str, default: u16) -> u16 {
        match self.given(key).map(|text| text.parse()) {
            None => default,
            Some(Ok(port)) => port,
            Some(Err(_)) => self.wrong(key, default, "write a number from 0 to 65535"),
        }
    }

    fn address(&mut self, key: &'static str) -> Option<IpAddr> {
        match self.given(key).as_deref() {
            None => None,
            Some("localhost") => Some(IpAddr::V4(Ipv4Addr::LOCALHOST)),
            Some(text) => match text.parse() {
                Ok(address) => Some(address),
                Err(_) => {
                    let only_here = Some(IpAddr::V4(Ipv4Addr::LOCALHOST));
                    self.wrong(key, only_here, "write an address such as 127.0.0.1 or 0.0.0.0")
                }
            },
        }
    }

    fn wrong<T: std::fmt::Debug>(&mut self, key: &'static str, instead: T, advice: &str) -> T {
        let text = self.written.get(key).map(String::as_str).unwrap_or_default();
        self.wrong.push(format!("saltpeter_config: {key} is {text:?}, which is ignored; {advice}"));
        instead
    }
}
