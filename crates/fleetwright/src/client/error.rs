//! What can go wrong between the command line and a server, and what to do about it.

use fw_proto::api::{Code, Problem};

use crate::exit;

/// A request that was not answered as hoped.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The HTTP client could not be made.
    #[error("prepare the HTTP client")]
    Setup(#[source] reqwest::Error),
    /// Nobody answered, or the connection broke.
    #[error("no answer from {server}")]
    Unreachable {
        /// The address.
        server: String,
        /// What named it.
        named_by: String,
        /// Whether the request may have arrived.
        sent: bool,
        /// What the HTTP client says.
        source: reqwest::Error,
    },
    /// The server took the connection and says nothing.
    #[error("{server} does not answer")]
    Silent {
        /// The address.
        server: String,
    },
    /// The server answered, and not like one of ours.
    #[error("{url} answered with status {status}, and not as a fleetwright server does")]
    NotOurs {
        /// The address.
        url: String,
        /// The HTTP status.
        status: u16,
    },
    /// An answer that does not read as what it should be.
    #[error("read the answer of {url}")]
    Malformed {
        /// The address.
        url: String,
        /// What the JSON reader says.
        source: serde_json::Error,
    },
    /// An event stream that is none.
    #[error("read the event stream: {0}")]
    Stream(String),
    /// The server says what is wrong.
    #[error("{}", problem.title)]
    Problem {
        /// What it says.
        problem: Problem,
        /// What the request carried.
        with: With,
    },
}

/// What a request carried to be let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum With {
    /// Nothing.
    Nothing,
    /// A token.
    Token,
    /// A session of `fleetwright login`.
    Session,
}

impl Error {
    /// The exit code of a command that ends with this.
    pub(crate) const fn exit_code(&self) -> exit::Code {
        match self {
            Self::Problem { problem, .. } => exit_code(problem.code),
            Self::Setup(_)
            | Self::Unreachable { .. }
            | Self::Silent { .. }
            | Self::NotOurs { .. }
            | Self::Malformed { .. }
            | Self::Stream(_) => exit::Code::Error,
        }
    }

    /// Where, why and more, from the server.
    pub(crate) fn detail(&self) -> Option<&str> {
        match self {
            Self::Problem { problem, .. } => problem.detail.as_deref(),
            Self::Setup(_)
            | Self::Unreachable { .. }
            | Self::Silent { .. }
            | Self::NotOurs { .. }
            | Self::Malformed { .. }
            | Self::Stream(_) => None,
        }
    }

    /// What to do next.
    pub(crate) fn hint(&self) -> Option<String> {
        match self {
            Self::Unreachable { sent: true, .. } | Self::Silent { .. } => Some(
                "the request may have arrived; look (`fleetwright runs list`) before you repeat it".to_owned(),
            ),
            Self::Unreachable { sent: false, named_by, .. } => Some(format!(
                "the address comes from {named_by}; is the server running there? \
                 Name another one with --server URL or FLEETWRIGHT_SERVER"
            )),
            Self::Malformed { source, .. } if source.is_data() => Some(
                "the server says what this program does not know, so it is probably newer; \
                 compare `fleetwright version` on both sides and update this one"
                    .to_owned(),
            ),
            Self::NotOurs { .. } | Self::Malformed { .. } | Self::Stream(_) => Some(
                "check the address (--server) and compare `fleetwright version` on both sides".to_owned(),
            ),
            Self::Problem { problem, with: With::Nothing } if problem.code == Code::Unauthenticated => Some(
                "sign in with `fleetwright login`, or give a token with --token-file FILE, FLEETWRIGHT_TOKEN or \
                 `fleetwright context add`; the first one is in admin.token in the server's data directory"
                    .to_owned(),
            ),
            Self::Problem { problem, with: With::Session } => hint_signed_in(problem.code).map(str::to_owned),
            Self::Problem { problem, with: With::Nothing | With::Token } => hint(problem.code).map(str::to_owned),
            Self::Setup(_) => None,
        }
    }

    /// The error and what caused it, in one line. Of a broken connection only the last cause says
    /// something: those between name the layers of the HTTP client.
    pub(crate) fn told(&self) -> String {
        let causes = std::iter::successors(std::error::Error::source(self), |cause| cause.source());
        let causes: Vec<String> = causes.map(ToString::to_string).collect();
        let skipped = match self {
            Self::Unreachable { .. } => causes.len().saturating_sub(1),
            Self::Setup(_)
            | Self::Silent { .. }
            | Self::NotOurs { .. }
            | Self::Malformed { .. }
            | Self::Stream(_)
            | Self::Problem { .. } => 0,
        };
        let told = std::iter::once(self.to_string()).chain(causes.into_iter().skip(skipped));
        told.collect::<Vec<_>>().join(": ")
    }

    /// Whether the same request may be answered if it is made again: the server is away or busy.
    pub(crate) const fn may_pass(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::Silent { .. } => true,
            // A proxy in front of a server that restarts.
            Self::NotOurs { status, .. } => matches!(status, 502..=504),
            Self::Problem { problem, .. } => {
                matches!(problem.code, Code::Unavailable | Code::RateLimited | Code::Internal)
            }
            Self::Setup(_) | Self::Malformed { .. } | Self::Stream(_) => false,
        }
    }
}

/// The exit code that goes with a problem.
const fn exit_code(code: Code) -> exit::Code {
    match code {
        Code::InvalidRequest | Code::InvalidSelector => exit::Code::Usage,
        Code::InvalidJob
        | Code::TooLarge
        | Code::RateLimited
        | Code::Unavailable
        | Code::Internal => exit::Code::Error,
        Code::Unauthenticated | Code::Forbidden | Code::TotpRequired | Code::StepUpRequired => {
            exit::Code::Authentication
        }
        Code::NotFound => exit::Code::NotFound,
        Code::NoHosts => exit::Code::NothingMatched,
        Code::NameTaken | Code::Conflict | Code::OwnedByFile | Code::NoSecret => {
            exit::Code::Conflict
        }
    }
}

/// What to do about a problem, in one line; `None` when its detail says all.
const fn hint(code: Code) -> Option<&'static str> {
    match code {
        Code::Unauthenticated => Some(
            "the server does not know this token, or it has expired; make one with `fleetwright tokens create`",
        ),
        Code::Forbidden => Some("sign in as somebody who may do this, or use a token that may"),
        Code::TotpRequired => Some("give your one-time code as well"),
        Code::NoHosts => Some("see what there is with `fleetwright hosts list`"),
        Code::OwnedByFile => Some("change the job's file in the server's job directory"),
        Code::NoSecret => Some("set it with `fleetwright secrets set NAME`"),
        Code::RateLimited => Some("wait a moment and try again"),
        Code::Unavailable => {
            Some("wait a moment and try again; /readyz on the server says what it waits for")
        }
        Code::Internal => Some("the server's log says more"),
        Code::StepUpRequired
        | Code::InvalidRequest
        | Code::InvalidSelector
        | Code::InvalidJob
        | Code::NotFound
        | Code::NameTaken
        | Code::Conflict
        | Code::TooLarge => None,
    }
}

/// Likewise, for someone who has signed in.
const fn hint_signed_in(code: Code) -> Option<&'static str> {
    match code {
        Code::Unauthenticated => {
            Some("the session is over; sign in again with `fleetwright login`")
        }
        Code::StepUpRequired => Some(
            "`fleetwright login --no-browser` proves it as well; then do it again within five minutes",
        ),
        // Its detail names who can change that.
        Code::Forbidden => None,
        Code::TotpRequired
        | Code::NoHosts
        | Code::OwnedByFile
        | Code::NoSecret
        | Code::RateLimited
        | Code::Unavailable
        | Code::Internal
        | Code::InvalidRequest
        | Code::InvalidSelector
        | Code::InvalidJob
        | Code::NotFound
        | Code::NameTaken
        | Code::Conflict
        | Code::TooLarge => hint(code),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn problems_have_their_exit_codes() {
        let check = |code: Code, expected: u8| {
            let error = Error::Problem { problem: Problem::new(code, "t"), with: With::Token };
            assert_eq!(error.exit_code().number(), expected, "{code:?}");
        };
        check(Code::InvalidRequest, 2);
        check(Code::InvalidSelector, 2);
        check(Code::InvalidJob, 1);
        check(Code::Unauthenticated, 4);
        check(Code::Forbidden, 4);
        check(Code::NotFound, 5);
        check(Code::NoHosts, 9);
        check(Code::NameTaken, 6);
        check(Code::Conflict, 6);
        check(Code::OwnedByFile, 6);
        check(Code::NoSecret, 6);
        check(Code::TooLarge, 1);
        check(Code::RateLimited, 1);
        check(Code::Unavailable, 1);
        check(Code::Internal, 1);
    }

    #[test]
    fn what_only_a_newer_server_says_is_told_as_such() {
        let hint = |json: &str| {
            let source = serde_json::from_str::<fw_proto::api::Verdict>(json).unwrap_err();
            let error = Error::Malformed { url: "http://s/api".to_owned(), source };
            (error.told(), error.hint().unwrap())
        };
        let (told, newer) = hint("\"hypothetical\"");
        assert!(told.contains("unknown variant `hypothetical`"), "{told}");
        assert!(newer.contains("update this one"), "{newer}");
        let (_, other) = hint("<html>");
        assert!(other.contains("check the address"), "{other}");
    }

    #[test]
    fn a_missing_token_is_named_as_such() {
        let refused = |with| Error::Problem {
            problem: Problem::new(Code::Unauthenticated, "no such token"),
            with,
        };
        assert!(refused(With::Nothing).hint().unwrap().contains("admin.token"));
        assert!(refused(With::Token).hint().unwrap().contains("tokens create"));
        assert!(refused(With::Session).hint().unwrap().contains("login"));
    }
}
