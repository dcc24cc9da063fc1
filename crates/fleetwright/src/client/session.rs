//! Signing in and out.

use fw_proto::api::{DeviceAnswer, DeviceBegun, DeviceSecret, Me, NewDevice, SignIn};
use reqwest::header::{HeaderMap, SET_COOKIE};
use reqwest::{Method, RequestBuilder};
use serde::de::DeserializeOwned;

use super::{ANSWER, Client, Error, Result};

impl Client {
    /// Signs in; gives who that is, and the cookie of the session.
    pub(crate) async fn sign_in(&self, who: &SignIn) -> Result<(Me, String)> {
        let request = self.request(Method::POST, &["session"]).json(who);
        let (me, cookie) = self.with_cookie(request).await?;
        Ok((me, cookie.ok_or_else(|| self.not_ours())?))
    }

    /// Ends the session that this client has.
    pub(crate) async fn sign_out(&self) -> Result<()> {
        self.nothing(self.request(Method::DELETE, &["session"])).await
    }

    /// Begins to sign in with a browser.
    pub(crate) async fn begin_device(&self, new: &NewDevice) -> Result<DeviceBegun> {
        self.post(&["session", "device"], new).await
    }

    /// Asks what the person said; with the cookie of the session when that was yes.
    pub(crate) async fn ask_device(
        &self,
        secret: &DeviceSecret,
    ) -> Result<(DeviceAnswer, Option<String>)> {
        let path = ["session", "device", "answer"];
        self.with_cookie(self.request(Method::POST, &path).json(secret)).await
    }

    async fn with_cookie<T: DeserializeOwned>(
        &self,
        request: RequestBuilder,
    ) -> Result<(T, Option<String>)> {
        let response = self.send(request.timeout(ANSWER)).await?;
        let cookie = cookie(response.headers());
        let body = response.bytes().await.map_err(|source| self.unreachable(source))?;
        let read = serde_json::from_slice(&body)
            .map_err(|source| Error::Malformed { url: self.server.to_string(), source })?;
        Ok((read, cookie))
    }

    /// It answered what no server of ours does.
    pub(crate) fn not_ours(&self) -> Error {
        Error::NotOurs { url: self.server.to_string(), status: 200 }
    }
}

fn cookie(headers: &HeaderMap) -> Option<String> {
    let cookie = headers.get(SET_COOKIE)?.to_str().ok()?;
    cookie.split(';').next().map(str::to_owned)
}
