//! `fleetwright explain`: what the code of a problem means, and what to do.

use fw_proto::api::Code as Problem;

use super::Refusal;
use crate::exit::Code;
use crate::output;

/// Explain the code of an error, such as `no_hosts`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The code, such as `no_hosts`; all of them when absent.
    code: Option<String>,
}

/// All codes, in the order of the API.
const ALL: [Problem; 17] = [
    Problem::InvalidRequest,
    Problem::InvalidSelector,
    Problem::InvalidJob,
    Problem::Unauthenticated,
    Problem::Forbidden,
    Problem::TotpRequired,
    Problem::StepUpRequired,
    Problem::NotFound,
    Problem::NoHosts,
    Problem::NameTaken,
    Problem::Conflict,
    Problem::OwnedByFile,
    Problem::NoSecret,
    Problem::TooLarge,
    Problem::RateLimited,
    Problem::Unavailable,
    Problem::Internal,
];

/// Prints it.
pub(crate) fn run(args: &Args) -> anyhow::Result<Code> {
    let Some(name) = &args.code else {
        let lines = ALL.map(|code| format!("{:17} {}\n", name_of(code), about(code).0));
        output::print(&lines.concat())?;
        return Ok(Code::Success);
    };
    let wanted = name.to_ascii_lowercase();
    // Some write codes as constants: E_NO_HOSTS.
    let wanted = wanted.strip_prefix("e_").unwrap_or(&wanted);
    let found = ALL.into_iter().find(|code| name_of(*code) == wanted);
    let unknown = || {
        Refusal::not_found(format!("there is no code {name:?}; `fleetwright explain` lists them"))
    };
    let code = found.ok_or_else(unknown)?;
    let (meaning, advice) = about(code);
    output::print(&format!("{} (HTTP {})\n\n{meaning}\n{advice}\n", name_of(code), code.status()))?;
    Ok(Code::Success)
}

/// The code as the API writes it.
fn name_of(code: Problem) -> String {
    let name = serde_json::to_value(code).ok();
    name.as_ref().and_then(serde_json::Value::as_str).unwrap_or_default().to_owned()
}

/// What it means, and what to do.
const fn about(code: Problem) -> (&'static str, &'static str) {
    match code {
        Problem::InvalidRequest => (
            "The request breaks a rule of the API.",
            "The detail names the field. Compare `fleetwright version` with the server's.",
        ),
        Problem::InvalidSelector => (
            "The selector does not parse.",
            "The caret stands under the place. Quote selectors, so that the shell does not expand them.",
        ),
        Problem::InvalidJob => {
            ("The job text does not parse.", "Check it here first: fleetwright jobs check FILE.")
        }
        Problem::Unauthenticated => (
            "The request has no token, or one that the server does not know.",
            "Give one with --token-file, FLEETWRIGHT_TOKEN or `fleetwright context add`.",
        ),
        Problem::Forbidden => ("The user or token may not do this.", "Use one that may."),
        Problem::TotpRequired => (
            "The password is right, and a one-time code has to come with it.",
            "Give the code of your app, or one of your recovery codes.",
        ),
        Problem::StepUpRequired => (
            "This is dangerous, and asks for a fresh proof of who wants it.",
            "Give password or code in the browser; a token needs the scope dangerous (`fleetwright tokens create`).",
        ),
        Problem::NotFound => ("There is no such thing.", "Look at the list of its kind."),
        Problem::NoHosts => (
            "The selector matches no host.",
            "See what it picks with `fleetwright hosts select`, and all hosts with `fleetwright hosts list`.",
        ),
        Problem::NameTaken => (
            "Another thing has this name.",
            "Choose another, or rename or remove the other one first.",
        ),
        Problem::Conflict => (
            "The thing is not in a state that allows this.",
            "Look at it again: it may have changed, or the run may have ended.",
        ),
        Problem::OwnedByFile => (
            "The job belongs to a file of the server.",
            "Change the file in the server's job directory; the change is read at once.",
        ),
        Problem::NoSecret => (
            "A secret that the command names does not exist.",
            "Set it: fleetwright secrets set NAME.",
        ),
        Problem::TooLarge => ("The request is too large.", "Send less at once."),
        Problem::RateLimited => ("There were too many requests.", "Wait a moment."),
        Problem::Unavailable => (
            "The server is starting, stopping or cannot write.",
            "Wait a moment; /readyz on the server says what is the matter.",
        ),
        Problem::Internal => ("A fault of the server.", "Its log says more."),
    }
}
