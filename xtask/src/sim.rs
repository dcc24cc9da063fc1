//! Runs simulated worlds.

use crate::run::{cargo, run};

/// Builds the world with the optimisation of the tests and runs it.
pub(crate) fn sim(args: &[String]) -> anyhow::Result<()> {
    let mut sim = cargo(&["run", "--quiet", "--package", "fw-testkit", "--example", "sim", "--"]);
    run(sim.args(args))
}
