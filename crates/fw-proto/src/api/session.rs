//! Signing in and out, and what a session is.

use serde::{Deserialize, Serialize};

use super::{Role, Scope};
use crate::Timestamp;

/// Who signs in.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct SignIn {
    /// The name.
    pub name: String,
    /// The password.
    pub password: String,
    /// The one-time code, or a recovery code; for those who have set that up.
    #[serde(default)]
    pub totp: Option<String>,
}

impl std::fmt::Debug for SignIn {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SignIn").field("name", &self.name).finish_non_exhaustive()
    }
}

/// Who makes a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Me {
    /// Name of the user or token; the actor (`by`) of what they do.
    pub name: String,
    /// The user's role; `null` for a token without a user.
    pub role: Option<Role>,
    /// What this request may do.
    pub scopes: Vec<Scope>,
    /// The hosts that a token is limited to.
    pub selector: Option<String>,
    /// Whether signing in takes a one-time code.
    pub totp: bool,
    /// The number of the session; `null` for a token.
    pub session: Option<i64>,
    /// Until when dangerous actions ask for nothing more; `null` when they ask now.
    pub stepped_up_until: Option<Timestamp>,
    /// When the session or token ends.
    pub expires_at: Option<Timestamp>,
}

/// A session: someone who is signed in in one browser.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Session {
    /// Its number.
    pub id: i64,
    /// Whose it is.
    pub user: String,
    /// From where it was begun.
    pub address: String,
    /// What the browser calls itself.
    pub agent: String,
    /// When it was begun.
    pub created_at: Timestamp,
    /// When it was last used, to the minute.
    pub used_at: Timestamp,
    /// When it ends at the latest.
    pub expires_at: Timestamp,
    /// Whether this request came with it.
    pub current: bool,
}

/// Proof that it is still the same person: a password or a one-time code.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct StepUp {
    /// The password.
    #[serde(default)]
    pub password: Option<String>,
    /// The one-time code.
    #[serde(default)]
    pub totp: Option<String>,
}

impl std::fmt::Debug for StepUp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StepUp").finish_non_exhaustive()
    }
}

/// Whether the server waits for its first user.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SetupState {
    /// There is no user yet; the set-up link makes the first.
    pub needed: bool,
}

/// What a set-up link is used for: a first user, or a password.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct SetUp {
    /// What follows `#` in the link.
    pub secret: String,
    /// The name of the first user; the links of others know theirs.
    #[serde(default)]
    pub name: Option<String>,
    /// The password.
    pub password: String,
}

impl std::fmt::Debug for SetUp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SetUp").field("name", &self.name).finish_non_exhaustive()
    }
}

/// Another password.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct NewPassword {
    /// The password.
    pub password: String,
}

impl std::fmt::Debug for NewPassword {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NewPassword").finish_non_exhaustive()
    }
}

/// What an app makes one-time codes from. Shown this once; stored encrypted.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TotpSecret {
    /// In base 32, to be typed.
    pub secret: String,
    /// As `otpauth` address.
    pub address: String,
    /// The address as a picture (QR, SVG) that the camera of a phone reads.
    #[serde(default)]
    pub picture: String,
}

impl std::fmt::Debug for TotpSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TotpSecret").finish_non_exhaustive()
    }
}

/// A one-time code.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct TotpCode {
    /// Six digits.
    pub code: String,
}

impl std::fmt::Debug for TotpCode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TotpCode").finish_non_exhaustive()
    }
}

/// Codes for when the phone is lost, each good once. Shown this once; stored hashed.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RecoveryCodes {
    /// The codes.
    pub codes: Vec<String>,
}

impl std::fmt::Debug for RecoveryCodes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RecoveryCodes").finish_non_exhaustive()
    }
}
