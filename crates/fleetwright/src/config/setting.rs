//! The types that a key can have: how each is read from text and written back.

use std::fmt;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::str::FromStr;

use fw_proto::Span;
use ipnet::IpNet;
use reqwest::Url;

/// What a key takes in a TOML file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    /// A string.
    Text,
    /// An integer, or a string.
    Number,
    /// `true` or `false`.
    Switch,
    /// An array of strings.
    List,
}

impl Shape {
    /// As a person would say it.
    pub(crate) const fn wanted(self) -> &'static str {
        match self {
            Self::Text => "a string",
            Self::Number => "a number or a string",
            Self::Switch => "true or false",
            Self::List => "an array of strings",
        }
    }
}

/// A type that a key can have. Lists are read from text with commas between.
pub(crate) trait Setting: Sized {
    /// What it is in a TOML file.
    const SHAPE: Shape = Shape::Text;
    /// Whether it is never shown.
    const SECRET: bool = false;
    /// Whether it is a path.
    const PATH: bool = false;
    /// Reads it; the error says what would be right.
    fn parse(text: &str) -> Result<Self, String>;
    /// Writes it; `None` when there is no value.
    fn show(&self) -> Option<String>;
}

/// A number of bytes. Written `64 MiB`, `20 GB` or as a bare number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Bytes(pub(crate) u64);

/// The bound of a spool: at least the output that is read at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SpoolBytes(pub(crate) Bytes);

impl SpoolBytes {
    /// Below this, a command would wait for the link after every few lines.
    const LEAST: Bytes = Bytes(64 * 1024);
}

/// Between two pings of an agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PingEvery(pub(crate) Span);

impl PingEvery {
    /// More often, a fleet's pings would be a load of their own.
    const LEAST: Span = Span::from_secs(1);
    /// Less often, nobody would call it noticing.
    const MOST: Span = Span::from_secs(600);
}

/// How long something lets people in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Lifetime(pub(crate) Span);

impl Lifetime {
    /// Shorter, and nobody could finish what they signed in for.
    const LEAST: Span = Span::from_secs(60);
    /// Longer, and it is no end.
    const MOST: Span = Span::from_secs(366 * 24 * 60 * 60);
}

/// A value that is never shown.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Secret(pub(crate) String);

/// The form of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// How an agent reaches its server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Proxy {
    /// As the environment says.
    Unset,
    /// Without a proxy, whatever the environment says.
    Direct,
    /// Through this one: `http://HOST:PORT`.
    Through(String),
}

/// How commands of Saltpeter reach hosts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Dispatch(pub(crate) fw_server::dialects::saltpeter::Dispatch);

/// Which log lines are written: directives of `tracing_subscriber::EnvFilter`, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LogFilter(String);

impl LogFilter {
    /// The directives.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for LogFilter {
    fn default() -> Self {
        Self("info".to_owned())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(***)")
    }
}

/// Units of [`Bytes`], the larger first; the empty one reads a bare number.
const UNITS: [(&str, u64); 10] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("kB", 1_000),
    ("B", 1),
    ("", 1),
];

impl FromStr for Bytes {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let invalid = || format!("{text:?} is not a size such as 64 MiB or 20 GB");
        let text = text.trim();
        let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let (number, unit) = text.split_at(digits);
        let known = UNITS.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit.trim()));
        let (_, scale) = known.ok_or_else(invalid)?;
        let number: u64 = number.parse().map_err(|_| invalid())?;
        number.checked_mul(*scale).map(Self).ok_or_else(invalid)
    }
}

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fits = |(_, scale): &&(&str, u64)| self.0 >= *scale && self.0.is_multiple_of(*scale);
        // Of the units that divide it, the one that leaves the shortest number.
        let best = UNITS.iter().filter(fits).max_by_key(|(_, scale)| *scale);
        let (unit, scale) = best.copied().unwrap_or(("B", 1));
        write!(f, "{} {unit}", self.0 / scale)
    }
}

impl Setting for Bytes {
    const SHAPE: Shape = Shape::Number;
    fn parse(text: &str) -> Result<Self, String> {
        text.parse()
    }
    fn show(&self) -> Option<String> {
        Some(self.to_string())
    }
}

impl Setting for PathBuf {
    const PATH: bool = true;
    fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            Err("an empty path; leave the key out instead".to_owned())
        } else {
            Ok(Self::from(text))
        }
    }
    fn show(&self) -> Option<String> {
        Some(self.display().to_string())
    }
}

impl Setting for SocketAddr {
    fn parse(text: &str) -> Result<Self, String> {
        let invalid =
            |_| format!("{text:?} is not an address and port such as 127.0.0.1:7400 or [::]:7400");
        text.parse().map_err(invalid)
    }
    fn show(&self) -> Option<String> {
        Some(self.to_string())
    }
}

impl Setting for Url {
    fn parse(text: &str) -> Result<Self, String> {
        let url: Option<Self> = text.parse().ok();
        let web = |url: &Self| matches!(url.scheme(), "http" | "https") && url.has_host();
        url.filter(web)
            .ok_or_else(|| format!("{text:?} is not a URL such as https://fleet.example.com"))
    }
    fn show(&self) -> Option<String> {
        Some(self.to_string())
    }
}

impl Setting for Vec<IpNet> {
    const SHAPE: Shape = Shape::List;
    fn parse(text: &str) -> Result<Self, String> {
        text.split(',').map(str::trim).filter(|net| !net.is_empty()).map(net).collect()
    }
    fn show(&self) -> Option<String> {
        let nets: Vec<_> = self.iter().map(IpNet::to_string).collect();
        (!nets.is_empty()).then(|| nets.join(", "))
    }
}

/// A network; a bare address is a network of one.
fn net(text: &str) -> Result<IpNet, String> {
    let one = || text.parse::<std::net::IpAddr>().ok().map(IpNet::from);
    let net = text.parse().ok().or_else(one);
    net.ok_or_else(|| format!("{text:?} is not a network such as 10.0.0.0/8"))
}

impl Setting for bool {
    const SHAPE: Shape = Shape::Switch;
    fn parse(text: &str) -> Result<Self, String> {
        match text {
            "true" | "1" | "yes" => Ok(true),
            "false" | "0" | "no" => Ok(false),
            _ => Err(format!("{text:?} is neither true nor false")),
        }
    }
    fn show(&self) -> Option<String> {
        Some(self.to_string())
    }
}

impl Setting for Span {
    const SHAPE: Shape = Shape::Number;
    fn parse(text: &str) -> Result<Self, String> {
        text.parse().map_err(|error: fw_proto::InvalidTime| error.to_string())
    }
    /// `90d` stays `90d`: the largest unit that divides it, not a calendar's months.
    fn show(&self) -> Option<String> {
        let ms = self.as_millis();
        if ms == 0 {
            return Some("0".to_owned());
        }
        let units = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];
        let (unit, scale) = units.into_iter().find(|(_, scale)| ms.is_multiple_of(*scale))?;
        Some(format!("{}{unit}", ms / scale))
    }
}

impl Setting for u32 {
    const SHAPE: Shape = Shape::Number;
    fn parse(text: &str) -> Result<Self, String> {
        text.parse().map_err(|_| format!("{text:?} is not a whole number from 0 to {}", Self::MAX))
    }
    fn show(&self) -> Option<String> {
        Some(self.to_string())
    }
}

impl Setting for NonZeroU32 {
    const SHAPE: Shape = Shape::Number;
    fn parse(text: &str) -> Result<Self, String> {
        text.parse().map_err(|_| format!("{text:?} is not a whole number from 1 to {}", u32::MAX))
    }
    fn show(&self) -> Option<String> {
        Some(self.to_string())
    }
}

impl Setting for SpoolBytes {
    const SHAPE: Shape = Shape::Number;
    fn parse(text: &str) -> Result<Self, String> {
        let bytes: Bytes = text.parse()?;
        match bytes < Self::LEAST {
            true => {
                Err(format!("{bytes} is too little for any output; give {} or more", Self::LEAST))
            }
            false => Ok(Self(bytes)),
        }
    }
    fn show(&self) -> Option<String> {
        self.0.show()
    }
}

impl Setting for PingEvery {
    const SHAPE: Shape = Shape::Number;
    fn parse(text: &str) -> Result<Self, String> {
        let span = <Span as Setting>::parse(text)?;
        match (Self::LEAST..=Self::MOST).contains(&span) {
            true => Ok(Self(span)),
            false => Err(format!("{span} is not between {} and {}", Self::LEAST, Self::MOST)),
        }
    }
    fn show(&self) -> Option<String> {
        self.0.show()
    }
}

impl Setting for Lifetime {
    const SHAPE: Shape = Shape::Number;
    fn parse(text: &str) -> Result<Self, String> {
        let span = <Span as Setting>::parse(text)?;
        match (Self::LEAST..=Self::MOST).contains(&span) {
            true => Ok(Self(span)),
            false => Err(format!("{span} is not between {} and {}", Self::LEAST, Self::MOST)),
        }
    }
    fn show(&self) -> Option<String> {
        self.0.show()
    }
}

impl Setting for LogFormat {
    fn parse(text: &str) -> Result<Self, String> {
        match text {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            _ => Err(format!("{text:?} is neither \"text\" nor \"json\"")),
        }
    }
    fn show(&self) -> Option<String> {
        let word = match self {
            Self::Text => "text",
            Self::Json => "json",
        };
        Some(word.to_owned())
    }
}

impl Setting for Dispatch {
    fn parse(text: &str) -> Result<Self, String> {
        text.parse().map(Self)
    }
    fn show(&self) -> Option<String> {
        Some(self.0.to_string())
    }
}

/// An HTTP proxy without a password, as it is dialled.
pub(crate) fn http_proxy(text: &str) -> Result<String, String> {
    let url = Url::parse(text).ok().filter(Url::has_host);
    let wrong = |why: &str| Err(format!("{why}; write it as http://HOST:PORT"));
    match url {
        None => wrong("this is no address of a proxy"),
        Some(url) if url.scheme() != "http" => {
            wrong(&format!("a proxy of the kind {} is not supported", url.scheme()))
        }
        Some(url) if !url.username().is_empty() || url.password().is_some() => {
            wrong("a password for the proxy is not supported")
        }
        Some(_) => Ok(text.to_owned()),
    }
}

impl Setting for Proxy {
    fn parse(text: &str) -> Result<Self, String> {
        match text {
            "" | "none" => Ok(Self::Direct),
            _ => http_proxy(text).map(Self::Through),
        }
    }
    fn show(&self) -> Option<String> {
        match self {
            Self::Unset => None,
            Self::Direct => Some("none".to_owned()),
            Self::Through(proxy) => Some(proxy.clone()),
        }
    }
}

impl Setting for LogFilter {
    fn parse(text: &str) -> Result<Self, String> {
        let invalid = |_| format!("{text:?} is not a filter such as info or info,fw_server=debug");
        tracing_subscriber::EnvFilter::try_new(text).map_err(invalid)?;
        Ok(Self(text.to_owned()))
    }
    fn show(&self) -> Option<String> {
        Some(self.0.clone())
    }
}

impl Setting for Secret {
    const SECRET: bool = true;
    fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim();
        if text.is_empty() { Err("an empty secret".to_owned()) } else { Ok(Self(text.to_owned())) }
    }
    fn show(&self) -> Option<String> {
        Some("***".to_owned())
    }
}

impl<T: Setting> Setting for Option<T> {
    const SHAPE: Shape = T::SHAPE;
    const SECRET: bool = T::SECRET;
    const PATH: bool = T::PATH;
    fn parse(text: &str) -> Result<Self, String> {
        T::parse(text).map(Some)
    }
    fn show(&self) -> Option<String> {
        self.as_ref().and_then(T::show)
    }
}
