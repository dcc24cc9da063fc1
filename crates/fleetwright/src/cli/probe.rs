//! `fleetwright probe`: whether something on this host answers as it should.

use std::path::PathBuf;

use anyhow::Context as _;
use fw_proto::Span;
use regex::Regex;
use reqwest::header::{HeaderName, HeaderValue};
use reqwest::{StatusCode, Url};

use super::Connection;
use crate::exit::Code;
use crate::on_host::probe::{Body, Http, Probe};
use crate::output;

/// Try whether something answers as it should; exit code 1 when it does not.
///
/// For steps that verify a change, on the host itself. Says in one line what it saw last.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Verb {
    /// Ask a URL and look at the answer.
    Http(HttpArgs),
    /// Connect to a port.
    Tcp(TcpArgs),
    /// Look at the bytes of a file.
    File(FileArgs),
}

#[derive(Debug, clap::Args)]
pub(crate) struct Patience {
    /// Try again until it holds, for so long; without it there is one try.
    #[arg(long, value_name = "DURATION")]
    within: Option<Span>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct HttpArgs {
    /// What to ask; proxies of the environment are not used.
    #[arg(value_parser = url)]
    url: Url,
    /// The status that the answer must have.
    #[arg(long, value_name = "STATUS", default_value = "200", value_parser = status)]
    expect: StatusCode,
    /// What its body must hold, in its first MiB: a text, or ~ and a regular expression.
    #[arg(long, value_name = "TEXT|~REGEX", value_parser = body)]
    body: Option<Body>,
    /// A header to ask with; repeat for more. Others can see it in the process list.
    #[arg(long, value_name = "NAME: VALUE", value_parser = header)]
    header: Vec<(HeaderName, HeaderValue)>,
    /// Go where the answer leads, at most ten times; without it a redirection is an answer like others.
    #[arg(long)]
    follow_redirects: bool,
    #[command(flatten)]
    patience: Patience,
}

#[derive(Debug, clap::Args)]
pub(crate) struct TcpArgs {
    /// Where to connect: `web1:80`, `192.0.2.1:80` or `[2001:db8::1]:80`.
    #[arg(value_name = "HOST:PORT", value_parser = address)]
    address: String,
    #[command(flatten)]
    patience: Patience,
}

#[derive(Debug, clap::Args)]
pub(crate) struct FileArgs {
    /// The file.
    path: PathBuf,
    /// The SHA-256 that it must have, in hexadecimal.
    #[arg(long, value_name = "HEX", value_parser = sha256)]
    sha256: String,
    #[command(flatten)]
    patience: Patience,
}

/// Does it.
pub(super) fn run(verb: Verb, connection: &Connection) -> anyhow::Result<Code> {
    let (probe, patience) = match verb {
        Verb::Http(args) => {
            let certificates =
                connection.ca_file.as_deref().map(super::certificates).transpose()?;
            let http = Http {
                url: args.url,
                headers: args.header,
                expect: args.expect,
                body: args.body,
                follow: args.follow_redirects,
                certificates: certificates.unwrap_or_default(),
            };
            (Probe::Http(http), args.patience)
        }
        Verb::Tcp(args) => (Probe::Tcp(args.address), args.patience),
        Verb::File(FileArgs { path, sha256, patience }) => (Probe::File { path, sha256 }, patience),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let outcome = runtime.context("start the runtime")?.block_on(probe.run(patience.within))?;
    if outcome.holds {
        output::print(&format!("{}\n", output::line(&outcome.line)))?;
        return Ok(Code::Success);
    }
    output::say(&outcome.line);
    Ok(Code::Error)
}

fn url(text: &str) -> Result<Url, String> {
    let url: Url = text.parse().map_err(|error| format!("{error}"))?;
    if matches!(url.scheme(), "http" | "https") {
        return Ok(url);
    }
    Err("it must begin with http:// or https://".to_owned())
}

fn status(text: &str) -> Result<StatusCode, String> {
    let status = text.parse().ok().filter(|status| (100..=599).contains(status));
    let status = status.and_then(|status| StatusCode::from_u16(status).ok());
    status.ok_or_else(|| "give a status from 100 to 599".to_owned())
}

fn body(text: &str) -> Result<Body, String> {
    match text.strip_prefix('~') {
        Some(pattern) => Regex::new(pattern).map(Body::Pattern).map_err(|error| error.to_string()),
        None => Ok(Body::Text(text.to_owned())),
    }
}

fn header(text: &str) -> Result<(HeaderName, HeaderValue), String> {
    let (name, value) = text.split_once(':').ok_or("write it as NAME: VALUE")?;
    let name = name.trim().parse().map_err(|_| format!("{name:?} is no name of a header"))?;
    let value = value.trim().parse().map_err(|_| "the value has characters that no header has")?;
    Ok((name, value))
}

fn address(text: &str) -> Result<String, String> {
    let wrong = || "write it as HOST:PORT, an IPv6 address in brackets: [::1]:80".to_owned();
    let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
    let bare = host.contains(':') && !(host.starts_with('[') && host.ends_with(']'));
    if host.is_empty() || bare || port.parse::<u16>().is_err() {
        return Err(wrong());
    }
    Ok(text.to_owned())
}

fn sha256(text: &str) -> Result<String, String> {
    if text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Ok(text.to_ascii_lowercase());
    }
    Err("a SHA-256 is 64 hexadecimal digits".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_checked_where_they_come_in() {
        assert!(url("ftp://x").is_err() && url("http://[::1]:80/x").is_ok());
        assert!(status("600").is_err() && status("204").is_ok());
        assert!(body("~(").is_err() && body("(").is_ok());
        assert!(header("no colon").is_err() && header("a b: c").is_err());
        assert_eq!(header("X-A: b: c"), Ok(("x-a".parse().unwrap(), "b: c".parse().unwrap())));
        for good in ["web1:80", "[::1]:80", "192.0.2.1:443"] {
            assert_eq!(address(good), Ok(good.to_owned()));
        }
        for bad in ["web1", "::1:80", ":80", "web1:99999", "[::1]"] {
            assert!(address(bad).is_err(), "{bad}");
        }
        assert!(sha256("ab").is_err() && sha256(&"G".repeat(64)).is_err());
        assert_eq!(sha256(&"AB".repeat(32)), Ok("ab".repeat(32)));
    }
}
