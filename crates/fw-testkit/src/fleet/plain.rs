//! Command lines of somebody who knows nothing of the fleet: no server is named, and no token.

use std::ffi::OsString;
use std::process::Stdio;

use tokio::process::Child;

use super::{Fleet, Output, Process};

impl Fleet {
    /// Runs a command line that knows nothing of the fleet.
    ///
    /// # Panics
    /// It does not end.
    pub async fn plain(&self, args: &[&str]) -> Output {
        self.plain_with_input(args, b"").await
    }

    /// Likewise, with something on standard input.
    ///
    /// # Panics
    /// It does not end.
    pub async fn plain_with_input(&self, args: &[&str], input: &[u8]) -> Output {
        self.finish(self.plain_spawn(args, &[]), args, input).await
    }

    /// Begins a command line that knows nothing of the fleet, with more in its environment; [`Fleet::finish`] waits for it.
    ///
    /// # Panics
    /// The binary does not start.
    #[must_use]
    pub fn plain_spawn(&self, args: &[&str], env: &[(&str, &str)]) -> Child {
        let mut command: Vec<OsString> = vec![self.binary.clone().into()];
        command.extend(args.iter().map(OsString::from));
        let mut command = Process::prepare(&command, &self.dir.path().join("home"));
        command.envs(env.iter().copied());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().expect("the binary starts")
    }
}
