//! Names and numbers of things. Each is a type of its own, so that none stands in for another.

use std::fmt;
use std::str::FromStr;

use minicbor::{Decode, Encode};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::time::serde_as_text;

macro_rules! uuid_newtype {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        #[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(value_type = String))]
        pub struct $name(pub Uuid);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
        impl FromStr for $name {
            type Err = uuid::Error;
            fn from_str(text: &str) -> Result<Self, uuid::Error> {
                text.parse().map(Self)
            }
        }
        impl<C> Encode<C> for $name {
            fn encode<W: minicbor::encode::Write>(
                &self,
                e: &mut minicbor::Encoder<W>,
                _: &mut C,
            ) -> Result<(), minicbor::encode::Error<W::Error>> {
                e.bytes(self.0.as_bytes())?.ok()
            }
        }
        impl<'b, C> Decode<'b, C> for $name {
            fn decode(d: &mut minicbor::Decoder<'b>, _: &mut C) -> Result<Self, minicbor::decode::Error> {
                let bytes = d.bytes()?;
                let uuid = Uuid::from_slice(bytes);
                uuid.map(Self).map_err(|_| minicbor::decode::Error::message("an id has 16 bytes"))
            }
        }
    };
}

uuid_newtype! {
    /// One execution of a plan. Version 7 (sortable by time), or version 5 for the run of a fire:
    /// derived from job and instant, so that a restored server names it alike.
    RunId
}
uuid_newtype! {
    /// A rollout or runbook that was begun. Version 7, sortable by time.
    ChangeId
}
uuid_newtype! {
    /// A host, for as long as its key is enrolled. Names change; this does not.
    HostId
}
uuid_newtype! {
    /// One life of a store: new at creation and after each restore.
    Incarnation
}

/// Fencing number of a server's life. Hosts refuse one lower than the highest they have seen.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Encode, Decode,
)]
#[serde(transparent)]
#[cbor(transparent)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Epoch(#[n(0)] pub u64);

/// A maintenance: counted from 1, and never used again for another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct MaintenanceId(pub u32);

impl fmt::Display for MaintenanceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for MaintenanceId {
    type Err = std::num::ParseIntError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self)
    }
}

/// A node of a plan.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Encode, Decode,
)]
#[serde(transparent)]
#[cbor(transparent)]
pub struct NodeId(#[n(0)] pub u16);

/// What a host is asked to do at most once: (run, node, attempt). The host itself completes the key.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Encode, Decode,
)]
pub struct TaskKey {
    /// The run.
    #[n(0)]
    pub run: RunId,
    /// The node of its plan.
    #[n(1)]
    pub node: NodeId,
    /// Counted from 1.
    #[n(2)]
    pub attempt: u16,
}

impl fmt::Display for TaskKey {
    /// Safe as a file name.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.run, self.node.0, self.attempt)
    }
}

impl FromStr for TaskKey {
    type Err = InvalidName;
    fn from_str(text: &str) -> Result<Self, InvalidName> {
        let parse = || {
            let mut parts = text.split('.');
            let key = Self {
                run: parts.next()?.parse().ok()?,
                node: NodeId(parts.next()?.parse().ok()?),
                attempt: parts.next()?.parse().ok()?,
            };
            parts.next().is_none().then_some(key)
        };
        parse().ok_or_else(|| InvalidName::new(text, "a task key is RUN.NODE.ATTEMPT"))
    }
}

/// A text that cannot be the name of anything here.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{name:?} cannot be a name: {why}")]
pub struct InvalidName {
    /// The text, cut to 80 characters.
    pub name: String,
    /// What is wrong with it.
    pub why: &'static str,
}

impl InvalidName {
    fn new(name: &str, why: &'static str) -> Self {
        Self { name: name.chars().take(80).collect(), why }
    }
}

macro_rules! name_newtype {
    ($(#[$doc:meta])* $name:ident, $reserved:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(value_type = String))]
        pub struct $name(String);

        impl $name {
            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }
        impl FromStr for $name {
            type Err = InvalidName;
            fn from_str(text: &str) -> Result<Self, InvalidName> {
                check_name(text, &$reserved).map(|()| Self(text.to_owned()))
            }
        }
        serde_as_text!($name);
        impl<C> Encode<C> for $name {
            fn encode<W: minicbor::encode::Write>(
                &self,
                e: &mut minicbor::Encoder<W>,
                _: &mut C,
            ) -> Result<(), minicbor::encode::Error<W::Error>> {
                e.str(&self.0)?.ok()
            }
        }
        impl<'b, C> Decode<'b, C> for $name {
            fn decode(d: &mut minicbor::Decoder<'b>, _: &mut C) -> Result<Self, minicbor::decode::Error> {
                d.str()?.parse().map_err(|_| minicbor::decode::Error::message("not a name"))
            }
        }
    };
}

name_newtype! {
    /// The name of a host: set when it joins, unique in the fleet. Where a host is named, its id
    /// stands too, so a name is no id.
    HostName, ["events", "select", "invite"]
}
name_newtype! {
    /// The name of a job.
    JobName, ["errors", "check", "apply"]
}

/// Longest name. A host name of DNS has at most 253 characters (RFC 1035 §2.3.4).
const LONGEST_NAME: usize = 253;

/// Names are shown, typed in selectors and used in file names: letters, digits and `._-` in
/// any script of ASCII, beginning with a letter or digit.
///
/// `reserved` are the words that stand beside names in paths of the API.
fn check_name(text: &str, reserved: &[&str]) -> Result<(), InvalidName> {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    let refuse = |why| Err(InvalidName::new(text, why));
    if text.is_empty() {
        return refuse("it is empty");
    }
    if text.len() > LONGEST_NAME {
        return refuse("it is longer than 253 characters");
    }
    if !text.chars().all(fits) {
        return refuse("use only letters, digits, '.', '_' and '-'");
    }
    if !text.starts_with(|c: char| c.is_ascii_alphanumeric()) {
        return refuse("begin it with a letter or a digit");
    }
    if text.contains("..") {
        return refuse("it contains '..'");
    }
    if reserved.contains(&text) {
        return refuse("it is a word of the API");
    }
    if Uuid::try_parse(text).is_ok() {
        return refuse("it looks like an id");
    }
    if matches!(text, "and" | "or" | "not") {
        return refuse("it is a word of the selector language");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_never_a_path_nor_markup() {
        for bad in [
            "",
            "a/b",
            "..",
            "a..b",
            "<b>",
            "a b",
            "-rf",
            "a\u{7}",
            "é",
            ".hidden",
            "not",
            &"x".repeat(254),
        ] {
            assert!(bad.parse::<HostName>().is_err(), "{bad:?}");
        }
        for taken in ["events", "01a1f9fa-319b-7773-afe6-b0cf6ef02269"] {
            assert!(taken.parse::<HostName>().is_err(), "{taken:?}");
        }
        assert!("apply".parse::<JobName>().is_err() && "apply".parse::<HostName>().is_ok());
        for good in ["web1", "db-3.example.com", "10.0.0.1", "A_b"] {
            assert_eq!(good.parse::<HostName>().unwrap().as_str(), good);
        }
    }

    #[test]
    fn task_keys_survive_their_text() {
        let key = TaskKey { run: RunId(Uuid::from_u128(7)), node: NodeId(2), attempt: 3 };
        assert_eq!(key.to_string().parse::<TaskKey>().unwrap(), key);
        assert!("x.1.1".parse::<TaskKey>().is_err());
    }
}
