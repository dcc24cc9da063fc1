//! Signing a command line in with a browser, as the device authorization grant does it (RFC 8628).

use serde::{Deserialize, Serialize};

use super::Me;
use crate::{Span, Timestamp};

/// A command line that wants to be signed in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct NewDevice {
    /// The name of the computer that it runs on; shown to the person who is asked.
    pub host: String,
}

/// A sign-in that waits for a person.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct DeviceBegun {
    /// With which the command line asks what came of it. For nobody else.
    pub secret: String,
    /// What the person compares: shown here and in the browser.
    pub code: String,
    /// The page where it is confirmed; `null` when the server knows no public address: then it is `/device` there where
    /// this was asked.
    pub url: Option<String>,
    /// How long it waits.
    pub expires_in: Span,
    /// How long to wait before asking.
    pub interval: Span,
}

impl std::fmt::Debug for DeviceBegun {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DeviceBegun").field("code", &self.code).finish_non_exhaustive()
    }
}

/// Asks what came of it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct DeviceSecret {
    /// As it was given.
    pub secret: String,
}

impl std::fmt::Debug for DeviceSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DeviceSecret").finish_non_exhaustive()
    }
}

/// What a person said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum DeviceState {
    /// Nothing yet.
    Waiting,
    /// No. It is over.
    Refused,
    /// Yes. The answer sets the cookie of the session, this once.
    SignedIn,
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct DeviceAnswer {
    /// What the person said.
    pub state: DeviceState,
    /// How long to wait before asking again; longer for who asked too soon.
    pub interval: Span,
    /// Who is signed in.
    pub me: Option<Me>,
}

/// The code that a command line shows, however it is typed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct DeviceCode {
    /// Eight letters.
    pub code: String,
}

/// The command line that shows a code.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Device {
    /// The code, as it is shown.
    pub code: String,
    /// The computer, as it calls itself.
    pub host: String,
    /// From where it asks.
    pub address: String,
    /// What the program calls itself.
    pub agent: String,
    /// When it asked.
    pub begun_at: Timestamp,
    /// Until when it waits.
    pub expires_at: Timestamp,
}
