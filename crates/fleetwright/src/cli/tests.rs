//! The command line as people meet it.

use super::*;

/// Every command below `command`, as it is typed.
fn all(command: &clap::Command, typed: &str) -> Vec<(String, clap::Command)> {
    let below =
        command.get_subcommands().flat_map(|sub| all(sub, &format!("{typed} {}", sub.get_name())));
    let own = (typed.to_owned(), command.clone());
    std::iter::once(own).chain(below).collect()
}

#[test]
fn every_command_has_its_help() {
    for (typed, command) in all(&command(), "fleetwright") {
        let help = command.term_width(100).render_long_help().to_string();
        insta::assert_snapshot!(typed.replace(' ', "_"), help);
    }
}

#[test]
fn the_command_line_is_sound() {
    command().debug_assert();
}

#[test]
fn mistakes_are_refused() {
    let check = |line: &str| {
        let words = shell_words(line);
        let error = Cli::try_parse_from(words).err().map(|error| error.exit_code());
        assert_eq!(error, Some(2), "{line}");
    };
    check("fleetwright");
    check("fleetwright run web*");
    check("fleetwright run web* --shell x -- y");
    check("fleetwright run web* --offline later -- x");
    check("fleetwright run web* --offline wait=soon -- x");
    check("fleetwright run web* --env K -- x");
    check("fleetwright run web* --umask 999 -- x");
    check("fleetwright run web* --nice 20 -- x");
    check("fleetwright run web* --max-failures 0 -- x");
    check("fleetwright run web* --wait 5s --detach -- x");
    check("fleetwright run web* --detach --follow -- x");
    check("fleetwright runs show not-an-id");
    check("fleetwright runs logs latest --raw");
    check("fleetwright runs logs latest --raw --host web1");
    check("fleetwright hosts label web1");
    check("fleetwright jobs show ../x");
}

#[test]
fn good_lines_are_taken() {
    let check = |line: &str| {
        let parsed = Cli::try_parse_from(shell_words(line));
        assert!(parsed.is_ok(), "{line}: {}", parsed.unwrap_err());
    };
    check("fleetwright run web* -- ls -l --color");
    check("fleetwright run web* --wait -- true");
    check("fleetwright run web* --wait=5m -o json -- true");
    check(
        "fleetwright run web* --shell uptime --offline wait=5m --env A=b=c --nice -5 --umask 022",
    );
    check("fleetwright runs logs latest --raw --host web1 --stream stderr");
    check("fleetwright logs latest -f");
    check("fleetwright hosts label web1 role=web stage-");
    check("fleetwright --server http://x hosts list -o json");
    check("fleetwright hosts list -o json --server http://x");
}

fn shell_words(line: &str) -> Vec<&str> {
    line.split(' ').collect()
}
