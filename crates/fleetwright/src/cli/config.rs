//! `fleetwright config`: what configuration amounts to, and where it comes from.

use super::settings;
use crate::config::{Config, Loaded, environment, find, rows, show};
use crate::exit::Code;
use crate::output::{self, Format};

/// What to do with configuration.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Verb {
    /// Say whether `up`, `serve` and `agent run` would start with it; exit code 1 when not.
    Check(Box<CheckArgs>),
    /// Show every key, its value and where it came from. Secrets are hidden.
    Show(Box<ShowArgs>),
}

#[derive(Debug, clap::Args)]
pub(crate) struct CheckArgs {
    #[command(flatten)]
    layers: Layers,
}

#[derive(Debug, clap::Args)]
pub(crate) struct ShowArgs {
    /// Form of the answer.
    #[arg(long, short = 'o', value_enum, default_value_t, value_name = "FORMAT")]
    output: Format,
    #[command(flatten)]
    layers: Layers,
}

/// All flags that are configuration, to see what they would do.
#[derive(Debug, clap::Args)]
struct Layers {
    #[command(flatten)]
    general: settings::General,
    #[command(flatten)]
    server: settings::Server,
    #[command(flatten)]
    saltpeter: settings::Saltpeter,
    #[command(flatten)]
    agent: settings::Agent,
}

impl Layers {
    fn load(&self) -> anyhow::Result<Loaded> {
        let env = environment();
        let flags =
            [self.general.flags(), self.server.flags(), self.saltpeter.flags(), self.agent.flags()];
        let flags = flags.into_iter().flatten().collect();
        let file = find(self.general.config.as_deref(), &env);
        let loaded = Config::load(file.as_deref(), &env, &flags)?;
        loaded.warnings.iter().for_each(|warning| output::say(&format!("warning: {warning}")));
        Ok(loaded)
    }
}

/// Does it.
pub(crate) fn run(verb: &Verb) -> anyhow::Result<Code> {
    match verb {
        Verb::Check(args) => {
            args.layers.load()?.config.server.check()?;
            output::say("the configuration is in order");
        }
        Verb::Show(args) => {
            let loaded = args.layers.load()?;
            let text = output::item(&rows(&loaded), "", args.output, || show(&loaded))?;
            output::print(&text)?;
        }
    }
    Ok(Code::Success)
}
