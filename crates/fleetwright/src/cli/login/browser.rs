//! Signing in with a browser: a code is shown here and there, and a person confirms it there (RFC 8628). The browser
//! may be on another computer, so nothing but the code and an address has to be carried over.

use std::process::{Command, Stdio};

use fw_proto::Span;
use fw_proto::api::{
    Code as Problem, DeviceAnswer, DeviceBegun, DeviceSecret, DeviceState, Me, NewDevice,
};
use reqwest::Url;
use tokio::time::Instant;

use super::super::Refusal;
use crate::client::{Client, Error};
use crate::config::Environment;
use crate::exit::Code;
use crate::output;

/// The longest name of a host that a server takes.
const LONGEST_HOST: usize = 64;

/// What opens an address here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Opener {
    program: String,
    arguments: Vec<String>,
}

impl Opener {
    /// The one that `BROWSER` names, or the desktop's; `None` when there is neither.
    pub(super) fn find(env: &Environment) -> Option<Self> {
        let exists = |program: &str| {
            let path = env.get("PATH").map_or("", String::as_str);
            let direct = program.contains('/').then(|| program.into());
            let mut places = std::env::split_paths(path).map(|dir| dir.join(program)).chain(direct);
            places.any(|place| place.is_file())
        };
        // By its convention: alternatives are between colons, and `%s` is the address.
        let named = env.get("BROWSER").into_iter().flat_map(|text| text.split(':'));
        let named = named.filter_map(Self::read).find(|one| exists(&one.program));
        named.or_else(|| {
            let desktop = env.contains_key("DISPLAY") || env.contains_key("WAYLAND_DISPLAY");
            let usual = if cfg!(target_os = "macos") { "open" } else { "xdg-open" };
            let there = (desktop || cfg!(target_os = "macos")) && exists(usual);
            there.then(|| Self { program: usual.to_owned(), arguments: Vec::new() })
        })
    }

    fn read(text: &str) -> Option<Self> {
        let mut words = text.split_whitespace().map(str::to_owned);
        Some(Self { program: words.next()?, arguments: words.collect() })
    }

    /// The command line that opens this address.
    fn line(&self, url: &str) -> Vec<String> {
        let mut line: Vec<_> = self.arguments.iter().map(|one| one.replace("%s", url)).collect();
        if line == self.arguments {
            line.push(url.to_owned());
        }
        line
    }

    /// Opens it. Whether that works nobody can tell, so the address is printed as well.
    fn open(&self, url: &str) {
        let mut command = Command::new(&self.program);
        command.args(self.line(url));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        if let Err(error) = command.spawn() {
            output::say(&format!("{} does not start: {error}", self.program));
        }
    }
}

/// Signs in with a browser, here or elsewhere.
pub(super) async fn sign_in(
    client: &Client,
    opener: Option<Opener>,
) -> anyhow::Result<(Me, String)> {
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let host: String = host.chars().filter(|c| !c.is_control()).take(LONGEST_HOST).collect();
    let host = if host.is_empty() { "unknown".to_owned() } else { host };
    let begun = client.begin_device(&NewDevice { host }).await?;
    let url = page(client.server(), &begun)?;
    let what = if opener.is_some() { "a browser opens" } else { "open in a browser" };
    output::say(&format!("{what} {url}\nconfirm there that its code is {}", begun.code));
    output::say(&format!("waiting for {} at most; Ctrl+C ends it", begun.expires_in));
    if let Some(opener) = opener {
        opener.open(&url);
    }
    wait(client, begun).await
}

/// The page with the code in its address. What the server names goes to a browser, so it is nothing but a web page.
fn page(server: &Url, begun: &DeviceBegun) -> anyhow::Result<String> {
    let mut url = match &begun.url {
        Some(url) => Url::parse(url)?,
        None => {
            let mut url = server.clone();
            if let Ok(mut segments) = url.path_segments_mut() {
                segments.pop_if_empty().push("device");
            }
            url
        }
    };
    anyhow::ensure!(
        matches!(url.scheme(), "http" | "https"),
        "the server names {url}, which is no web page"
    );
    url.query_pairs_mut().append_pair("code", &begun.code);
    Ok(url.to_string())
}

/// Asks until the person has answered or it is over.
async fn wait(client: &Client, begun: DeviceBegun) -> anyhow::Result<(Me, String)> {
    let DeviceBegun { secret, expires_in, mut interval, .. } = begun;
    let secret = DeviceSecret { secret };
    let end = Instant::now() + expires_in.duration();
    loop {
        // A server that says "at once" must not be asked in a loop.
        tokio::time::sleep(interval.max(Span::from_secs(1)).duration()).await;
        let asked = client.ask_device(&secret).await;
        match asked {
            Ok((DeviceAnswer { state: DeviceState::SignedIn, me: Some(me), .. }, Some(cookie))) => {
                return Ok((me, cookie));
            }
            Ok((DeviceAnswer { state: DeviceState::Waiting, interval: next, .. }, _)) => {
                interval = next;
            }
            Ok((DeviceAnswer { state: DeviceState::Refused, .. }, _)) => {
                return Err(over("refused in the browser; nobody is signed in"));
            }
            Ok((DeviceAnswer { state: DeviceState::SignedIn, .. }, _)) => {
                return Err(client.not_ours().into());
            }
            // The server may be back before it is over, but has forgotten it then, and says so.
            Err(error) if error.may_pass() && Instant::now() < end => {}
            Err(Error::Problem { problem, .. }) if problem.code == Problem::NotFound => {
                return Err(over(
                    "the sign-in is over: it was not confirmed in time, or the server was started again; begin anew with `fleetwright login`",
                ));
            }
            Err(error) => return Err(error.into()),
        }
    }
}

fn over(message: &str) -> anyhow::Error {
    Refusal { code: Code::Authentication, message: message.to_owned() }.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(pairs: &[(&str, &str)]) -> Option<String> {
        let pairs = pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        let found = Opener::find(&pairs.collect())?;
        Some(format!("{} {}", found.program, found.line("http://x/").join(" ")))
    }

    #[test]
    fn a_browser_is_looked_for_where_it_is_named() {
        let path = ("PATH", "/bin:/usr/bin");
        assert_eq!(find(&[path]), None);
        assert_eq!(find(&[path, ("BROWSER", "no-such-browser:")]), None);
        let named = find(&[path, ("BROWSER", "no-such-browser:sh -c %s")]);
        assert_eq!(named.as_deref(), Some("sh -c http://x/"));
        let direct = find(&[("BROWSER", "/bin/sh")]);
        assert_eq!(direct.as_deref(), Some("/bin/sh http://x/"));
    }

    #[test]
    fn only_web_pages_are_opened() {
        let server = Url::parse("http://127.0.0.1:1/prefix/").unwrap();
        let begun = |url: Option<&str>| DeviceBegun {
            secret: String::new(),
            code: "BCDF-GHJK".to_owned(),
            url: url.map(str::to_owned),
            expires_in: Span::from_secs(600),
            interval: Span::from_secs(2),
        };
        let own = page(&server, &begun(None)).unwrap();
        assert_eq!(own, "http://127.0.0.1:1/prefix/device?code=BCDF-GHJK");
        let public = page(&server, &begun(Some("https://fleet.example/device"))).unwrap();
        assert_eq!(public, "https://fleet.example/device?code=BCDF-GHJK");
        assert!(page(&server, &begun(Some("file:///etc/passwd"))).is_err());
        assert!(page(&server, &begun(Some("device"))).is_err());
    }
}
