//! What CI and people both call: `cargo xtask setup | test | ci | count | sim | fuzz | soak | licences | dist`.

mod count;
mod dist;
mod fuzz;
mod licences;
mod run;
mod setup;
mod sim;
mod soak;
mod steps;

use anyhow::bail;

const USAGE: &str = "\
cargo xtask <what>

  setup         says what is missing to build and test here, and installs what it can
  test [ARGS]   builds the binary and runs all tests; ARGS go to the test runner
  ci            formatting, lints, licences, advisories, documentation, counts, tests
  count         counts the instructions of hot paths and compares them with those that are kept;
                --accept keeps the new counts, NAME counts only scenarios whose name contains it
  sim [ARGS]    runs simulated worlds; ARGS: --seeds A..B | --forever | --seed N to see one
  licences      checks licences and banned crates against deny.toml, without network
  fuzz [TARGET] [--minutes N]
                looks for inputs that break a parser's rules, 10 minutes a target
  soak [--minutes N] [--binary PATH]
                a server and agents under load for 15 minutes; fails when something creeps or leaks
  dist          builds the release binary into dist/, with its SHA-256
";

fn main() -> anyhow::Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let (what, rest) =
        args.split_first().map_or(("help", &[][..]), |(what, rest)| (what.as_str(), rest));
    std::env::set_current_dir(run::root())?;
    match what {
        "setup" => setup::setup(),
        "test" => steps::test(rest),
        "ci" => steps::ci(),
        "count" => count::count(rest),
        "sim" => sim::sim(rest),
        "licences" => licences::check(),
        "soak" => soak::soak(rest),
        "fuzz" => fuzz::fuzz(rest),
        "dist" => dist::dist(),
        "help" | "--help" | "-h" => {
            print!("{USAGE}");
            Ok(())
        }
        _ => bail!("there is no task {what:?}\n\n{USAGE}"),
    }
}
