//! `fleetwright login` and `logout`: the session of a person, kept in a context.
//!
//! What is kept is a session and no token: who signs in is the person in the audit, may what their role says now, and
//! is in the list of sessions, where an admin or they themselves can end it.

mod browser;

use anyhow::Context as _;
use fw_proto::api::{Code as Problem, Me, SignIn};

use super::{Connection, Refusal, ask};
use crate::client::{Client, Credential, Error};
use crate::config::context::{Context, Contexts, deciding, path};
use crate::config::environment;
use crate::exit::Code;
use crate::output;

/// Sign in with your browser, or with name and password; `logout` ends it.
///
/// A page of the server is opened, where you compare a code and confirm. Where there is no browser, or your name is given,
/// name and password are asked for here. The session is kept with the context in use. When the server is named otherwise, a
/// context is made for it.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Your name, to sign in with your password here.
    name: Option<String>,
    /// Sign in with a browser that may be elsewhere: address and code are printed.
    #[arg(long, conflicts_with_all = ["name", "password_stdin", "code", "no_browser"])]
    browser: bool,
    /// Ask for name and password here.
    #[arg(long)]
    no_browser: bool,
    /// Read the password from stdin; for programs.
    #[arg(long)]
    password_stdin: bool,
    /// One-time or recovery code; asked for when it is needed and absent.
    #[arg(long, value_name = "CODE")]
    code: Option<String>,
}

/// Where sessions are kept.
struct Kept {
    path: std::path::PathBuf,
    contexts: Contexts,
}

impl Kept {
    fn load() -> anyhow::Result<Self> {
        let no_home = || Refusal::usage("sessions are kept in your home directory; set HOME");
        let path = path(&environment()).ok_or_else(no_home)?;
        let contexts = Contexts::load(&path)?;
        Ok(Self { path, contexts })
    }

    /// The context of the server that a command line names.
    fn name(&self, connection: &Connection) -> Option<String> {
        let decides = deciding(&connection.flags(), &environment(), &self.contexts);
        decides.or_else(|| {
            let server = connection.target().ok()?.server;
            let same = |text: &str| reqwest::Url::parse(text).is_ok_and(|url| url == server);
            let mut known = self.contexts.contexts.iter();
            known.find(|(_, one)| same(&one.server)).map(|(name, _)| name.clone())
        })
    }

    /// Keeps a session; says in which context.
    fn keep(mut self, connection: &Connection, session: String) -> anyhow::Result<String> {
        let server = connection.target()?.server;
        let name = self.name(connection).unwrap_or_else(|| called(&server));
        let ca_file = connection.ca_file.as_ref().map(std::path::absolute).transpose()?;
        let made = || Context {
            server: server.to_string(),
            token: None,
            token_file: None,
            session: None,
            ca_file,
        };
        self.contexts.contexts.entry(name.clone()).or_insert_with(made).session = Some(session);
        self.contexts.choose(&name)?;
        self.contexts.save(&self.path)?;
        Ok(name)
    }
}

/// What a context is called that nobody named: the server's host and port.
fn called(server: &reqwest::Url) -> String {
    let host = server.host_str().unwrap_or("server");
    server.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

/// Signs in.
pub(crate) fn login(args: Args, connection: &Connection) -> anyhow::Result<Code> {
    let kept = Kept::load()?;
    let client = connection.client_of(connection.target()?, None)?;
    let (me, session) = match way(&args) {
        Way::Browser(opener) => wait(browser::sign_in(&client, opener))?,
        Way::Password => with_password(args, &client)?,
    };
    let context = kept.keep(connection, session)?;
    output::say(&greeting(&me, &context));
    Ok(Code::Success)
}

/// How somebody signs in.
enum Way {
    /// With a browser, which this opens.
    Browser(Option<browser::Opener>),
    /// With name and password, here.
    Password,
}

/// Who gives a part of what is typed here types the rest, too.
fn way(args: &Args) -> Way {
    let here = args.no_browser || args.password_stdin || args.name.is_some() || args.code.is_some();
    let opener = || browser::Opener::find(&environment());
    match (args.browser, here) {
        (true, _) => Way::Browser(opener()),
        (false, true) => Way::Password,
        (false, false) if !output::interactive() => Way::Password,
        (false, false) => opener().map_or(Way::Password, |opener| Way::Browser(Some(opener))),
    }
}

/// Asks for name and password.
fn with_password(args: Args, client: &Client) -> anyhow::Result<(Me, String)> {
    let nobody = "there is nobody to ask here";
    if !args.password_stdin && !output::interactive() {
        return Err(Refusal::usage(format!(
            "{nobody}; give the password with --password-stdin, or sign in with a browser elsewhere by --browser"
        )));
    }
    let name = match args.name {
        Some(name) => name,
        None if args.password_stdin => return Err(Refusal::usage("give your name, too")),
        None => {
            if !args.no_browser {
                output::say("no browser here; --browser prints an address to open elsewhere");
            }
            ask::line("Name")?
        }
    };
    let password = ask::secret("Password")?;
    let who = SignIn { name, password, totp: args.code };
    wait(sign_in(client, who, args.password_stdin))
}

fn greeting(me: &Me, context: &str) -> String {
    let role = me.role.map(|role| format!(", {role}")).unwrap_or_default();
    let until = me.expires_at.map(|at| format!(" until {at} at the latest")).unwrap_or_default();
    format!("signed in as {}{role}{until}; context {context} is in use", me.name)
}

/// Signs in, and asks for a code when one is needed.
async fn sign_in(client: &Client, who: SignIn, silent: bool) -> anyhow::Result<(Me, String)> {
    let without = match client.sign_in(&who).await {
        Err(Error::Problem { problem, .. }) if problem.code == Problem::TotpRequired => problem,
        answered => return Ok(answered?),
    };
    if silent || !output::interactive() {
        let message = format!("{}; give it with --code", without.title);
        return Err(Refusal { code: Code::Authentication, message }.into());
    }
    let totp = Some(ask::line("One-time code")?);
    Ok(client.sign_in(&SignIn { totp, ..who }).await?)
}

/// Signs out.
pub(crate) fn logout(connection: &Connection) -> anyhow::Result<Code> {
    let mut kept = Kept::load()?;
    let name = kept.name(connection);
    let context = name.as_ref().and_then(|name| kept.contexts.contexts.get_mut(name));
    let Some(session) = context.and_then(|context| context.session.take()) else {
        output::say("nobody is signed in there");
        return Ok(Code::Success);
    };
    let target = connection.target()?;
    // Forgotten first: what cannot be told to the server must not stay here either.
    kept.contexts.save(&kept.path)?;
    let client = connection.client_of(target, Some(Credential::Session(session)))?;
    let told = wait(async { client.sign_out().await.map_err(anyhow::Error::from) });
    told.context(
        "the session is forgotten here, but goes on at the server until it ends by itself",
    )?;
    output::say("signed out");
    Ok(Code::Success)
}

/// Waits for what a server answers.
fn wait<T>(asked: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.context("start the runtime")?.block_on(asked)
}
